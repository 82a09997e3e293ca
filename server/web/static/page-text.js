// The text of a document's page in a dialog, with the quoted words marked.

import { get, part } from "./api.js";
import { openDialog } from "./dialog.js";
import { errorNote, fill, find, h } from "./dom.js";

/**
 * Open the page with the index `page` of a document that `session` (or null) of `workspace` may read. `start` and `end`: what is
 * marked, in characters of the document's text.
 */
export async function openPage({ documentId, page, workspace, session, start = 0, end = 0 }) {
  const text = h("div", { class: "block plain page-text", tabindex: 0 }, "…");
  const label = h("span", { class: "soft small grow", role: "status" });
  const turn = (step) => h("button", { on: { click: () => show(page + step) } }, step < 0 ? "‹ Page before" : "Next page ›");
  const [before, after] = [turn(-1), turn(1)];
  const close = h("button", { class: "primary", on: { click: () => dialog.close() } }, "Close");
  const dialog = openDialog("…", text, h("div", { class: "row dialog-end" }, label, before, after, close));

  async function show(index) {
    try {
      const found = await get(`/documents/${part(documentId)}/pages/${index}`, { workspace, session });
      page = index;
      find("h2", dialog).textContent = found.name;
      label.textContent = found.page_label ? `Page ${found.page_label}` : `Part ${index + 1} of ${found.pages}`;
      before.hidden = index === 0;
      after.hidden = index + 1 >= found.pages;
      fill(text, marked(found.text, start - found.start, end - found.start));
      (find("mark", text) ?? text).scrollIntoView({ block: "center" });
    } catch (error) {
      fill(text, errorNote(error));
    }
  }
  await show(page);
}

/** The text with a mark from `start` to `end`. The server counts code points, JavaScript does not. */
function marked(text, start, end) {
  const characters = Array.from(text);
  const [from, to] = [Math.max(start, 0), Math.min(end, characters.length)];
  const cut = (first, last) => characters.slice(first, last).join("");
  return to > from ? [cut(0, from), h("mark", {}, cut(from, to)), cut(to)] : [text];
}
