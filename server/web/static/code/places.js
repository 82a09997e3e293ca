// Places in code: errors lead to their lines.

import { h } from "../dom.js";

const PLACE = /(?:File ")?server\/((?:tools|agent)\/[\w./-]+?\.py|model\.py)"?(?:,? line |:)(\d+)/g;

/** `server/tools/shout.py` as the editor calls it. */
export const pathOf = (file) => (file ?? "").replace(/^server\//, "");

/** A button that opens a place. */
export const placeButton = (file, line, open) =>
  h("button", { class: "place", type: "button", on: { click: () => open(pathOf(file), line) } }, line ? `${pathOf(file)}:${line}` : pathOf(file));

/** A traceback as text, in which the lines of people's code lead there. */
export function traceback(text, open) {
  const parts = [];
  let end = 0;
  for (const found of text.matchAll(PLACE)) {
    parts.push(text.slice(end, found.index), placeButton(found[1], Number(found[2]), open));
    end = found.index + found[0].length;
  }
  return h("pre", { class: "block" }, parts, text.slice(end));
}
