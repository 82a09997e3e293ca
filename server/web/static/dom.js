// Elements from values. Text becomes text nodes: nothing that a model, a tool or a file says can become markup.

import { trusted } from "./trusted.js";

/**
 * An element. `properties`: `class`, `data` (an object), `on` (handlers by event), `aria` (an object), any other attribute;
 * false, null and undefined leave an attribute out, true sets it. `children`: nodes, strings, numbers, arrays; null is nothing.
 */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") for (const [kind, handler] of Object.entries(value)) element.addEventListener(kind, handler);
    else if (name === "data") Object.assign(element.dataset, value);
    else if (name === "aria") for (const [key, one] of Object.entries(value)) element.setAttribute(`aria-${key}`, one);
    else if (name === "href" || name === "src") element.setAttribute(name, safeUrl(value));
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...nodes(children));
  return element;
}

/** Replace what is in an element. */
export function fill(element, ...children) {
  element.replaceChildren(...nodes(children));
  return element;
}

export const find = (selector, within = document) => within.querySelector(selector);

function nodes(children) {
  return children.flat(Infinity).filter((one) => one !== null && one !== undefined && one !== false).map((one) => (one instanceof Node ? one : String(one)));
}

/** A URL of this origin, or of the web; anything else, such as `javascript:`, becomes `#`. */
export function safeUrl(url) {
  try {
    return ["http:", "https:", "blob:"].includes(new URL(url, location.href).protocol) ? String(url) : "#";
  } catch {
    return "#";
  }
}

/** Show HTML that `POST /ui/markdown` has made, and nothing else. The only place where markup is read. */
export function showRendered(element, html) {
  element.innerHTML = trusted.createHTML(html);
  return element;
}

/** A table that becomes cards on a phone. `rows`: arrays of cells: children, or `td` elements. `kinds`: a class for each column. */
export function table(columns, rows, kinds = []) {
  const cell = (content, index) => {
    const shown = content instanceof HTMLTableCellElement ? content : h("td", { class: kinds[index] }, content);
    shown.dataset.label = columns[index];
    return shown;
  };
  return h("table", { class: "stacks" }, h("thead", {}, h("tr", {}, columns.map((one, index) => h("th", { scope: "col", class: kinds[index] }, one)))),
    h("tbody", {}, rows.map((cells) => h("tr", {}, cells.map(cell)))));
}

const STATES = { done: "good", succeeded: "good", failed: "bad", lost: "bad", running: "live", queued: "live" };
/** The state of a run, a job or a comparison. */
export const stateTag = (state) => h("span", { class: `tag ${STATES[state] ?? ""}` }, state);

/** A number that matters, with its name. */
export const figure = (name, value, more = "") =>
  h("div", { class: "card figure" }, h("div", { class: "soft small" }, name), h("div", { class: "big" }, value), h("div", { class: "soft small" }, more));

/** A button that does something, once at a time; what the server refused is shown in the corner. */
export function act(label, call, kind = "") {
  const button = h("button", { type: "button", class: kind, on: { click: async () => {
    if (button.getAttribute("aria-busy")) return;
    button.setAttribute("aria-busy", "true"); // not disabled: it would lose the focus
    await Promise.resolve(button).then(call).catch(refused);
    button.removeAttribute("aria-busy");
  } } }, label);
  return button;
}

/** A message in the corner, for some seconds; errors stay until they are clicked away. */
export function toast(message, kind = "") {
  const shown = h("div", { class: `toast ${kind}` }, message);
  if (kind === "bad") shown.append(" ", h("button", { class: "quiet", on: { click: () => shown.remove() } }, "Close"));
  else setTimeout(() => shown.remove(), 5000);
  find("#toasts").append(shown);
}

/** Show in the corner what the server refused. */
export const refused = (error) => toast([error.message, " ", hint(error)], "bad");

const HINTS = { workspace_not_found: ["/ui/code", "Make it on the page Code"], model_not_loaded: ["/ui/now", "Load a model"], model_asleep: ["/ui/now", "Wake it"] };
/** Where a person repairs an error. */
function hint({ type, details }) {
  const found = HINTS[type ?? details?.type];
  return found && h("a", { href: found[0] }, found[1]);
}

/** An error as an element: what was wrong, where, and what to do. `error`: as `api.js` throws it. */
export function errorNote(error) {
  const errors = error.details?.errors ?? [];
  return h("div", { class: "note bad", role: "alert" }, h("div", { class: "plain" }, error.message), hint(error),
    errors.map((one) => h("div", { class: "small mono" }, [one.file, one.line].filter(Boolean).join(":"), " ", one.message)));
}

/** What a page shows when there is nothing yet: what it is for, and what to do first. */
export const empty = (title, ...children) => h("div", { class: "empty" }, h("h2", {}, title), children);
