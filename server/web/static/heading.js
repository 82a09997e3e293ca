// The heading of a page that shows one thing of a list.

import { find, h } from "./dom.js";

/** Name it in the heading and the title, under a link back to the list. */
export function showName(name, list) {
  find("#about").hidden = true;
  find("h1").textContent = name;
  find("h1").before(h("a", { class: "back", href: location.pathname }, `‹ ${list}`));
  document.title = `${name} · ${list} · Hearth`;
}
