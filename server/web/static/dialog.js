// Dialogs: the browser's own, so that focus, Esc and screen readers work as people expect.

import { find, h } from "./dom.js";

/** Show a dialog with a heading, and remove it when it is closed. Returns the element; `close()` closes it. */
export function openDialog(title, ...children) {
  const heading = h("h2", { id: "dialog-title" }, title);
  const shown = h("dialog", { aria: { labelledby: "dialog-title" }, on: { close: () => shown.remove() } }, heading, children);
  // A click on the backdrop is one on the dialog itself.
  shown.addEventListener("click", ({ target, clientX: x, clientY: y }) => {
    const { left, right, top, bottom } = shown.getBoundingClientRect();
    if (target === shown && (x < left || x > right || y < top || y > bottom)) shown.close();
  });
  find("#main").append(shown);
  shown.showModal();
  return shown;
}

/** Whether the person agrees. `action`: what the button says, such as "Delete". */
export function confirmed(title, text, action) {
  return new Promise((resolve) => {
    const answer = (value) => () => (resolve(value), shown.close());
    const shown = openDialog(title, h("p", { class: "text" }, text),
      h("div", { class: "row" }, h("button", { class: "danger", on: { click: answer(true) } }, action),
        h("button", { on: { click: answer(false) }, autofocus: true }, "Keep")));
    shown.addEventListener("close", () => resolve(false));
  });
}
