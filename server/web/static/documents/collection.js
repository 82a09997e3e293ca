// One collection: search, and its documents with their states, live.

import { get, part, remove } from "../api.js";
import { confirmed } from "../dialog.js";
import { act, empty, errorNote, fill, h, refused, table } from "../dom.js";
import { bytes, counted, time } from "../format.js";
import { follow } from "../live.js";
import { openPage } from "../page-text.js";
import { addForm } from "./add.js";

const PAGE = 200;
const STATES = { ready: ["good", "ready"], embedding: ["live", "found by words, learning meanings"], words_only: ["bad", "found by words only"] };

export function showCollection(page, { workspace, session, name }) {
  const base = `/collections/${part(name)}`;
  const query = { workspace, session };
  const results = h("div", { aria: { live: "polite" } });
  const list = h("div");
  const rows = new Map(); // document_id -> its state's cell
  const words = h("input", { type: "search", required: true, maxlength: 10_000, autocomplete: "off" });
  const open = (documentId, index, start, end) => openPage({ documentId, page: index, workspace, session, start, end });

  async function search(event) {
    event.preventDefault();
    fill(results, h("p", { class: "soft" }, "Searching …"));
    try {
      const { passages } = await get(`${base}/search`, { ...query, query: words.value, limit: 10 });
      fill(results, passages.length ? h("ol", { class: "results" }, passages.map(result)) : h("p", {}, "Nothing was found. Try other words."));
    } catch (error) {
      fill(results, errorNote(error));
    }
  }
  const result = (one) => h("li", {}, h("button", { class: "quiet result", on: { click: () => open(one.document_id, one.page, one.start, one.end) } },
    h("strong", { class: "text" }, one.document, one.page_label && `, page ${one.page_label}`), h("span", { class: "plain" }, one.text.trim().slice(0, 320), one.text.length > 320 && " …")));

  async function load() {
    try {
      const { documents, next } = await get(`${base}/documents`, { ...query, limit: PAGE });
      rows.clear();
      fill(list, documents.length ? table(["Document", "Size", "State", "Changed", "Actions"], documents.map(row))
        : empty("No documents", h("p", {}, "Add some below.")), next && h("p", { class: "soft small" }, `The first ${PAGE} are shown. The search looks into all.`));
    } catch (error) {
      fill(list, errorNote(error));
    }
  }

  function row(one) {
    const cell = h("td");
    rows.set(one.document_id, cell);
    showState(cell, one);
    return [h("td", {}, h("button", { class: "quiet name", title: "Read it", on: { click: () => open(one.document_id, 0) } }, one.name),
        one.place && h("div", { class: "soft small text" }, one.place), one.skipped.length > 0 && h("details", { class: "small" }, h("summary", {}, `${one.skipped.length} not read`), one.skipped.map((why) => h("div", { class: "text" }, why)))),
      `${counted(one.pages, "page")}, ${bytes(one.bytes)}`, cell, time(one.changed_at),
      h("button", { class: "danger quiet", aria: { label: `Delete ${one.name}` }, on: { click: () => drop(one) } }, "Delete")];
  }

  function showState(cell, { state, error, vectors, chunks }) {
    const [kind, text] = STATES[state] ?? ["", state];
    fill(cell, h("span", { class: `tag ${kind}` }, text), state === "embedding" && h("progress", { value: vectors, max: chunks || 1, aria: { label: "Passages that are found by meaning" } }), error && h("div", { class: "small text" }, error));
  }

  async function drop(one) {
    if (!(await confirmed(`Delete ${one.name}?`, "The next search does not find it.", "Delete the document"))) return;
    await remove(`${base}/documents/${part(one.document_id)}`, query).catch(refused);
    await load();
  }

  async function dropAll() {
    if (!(await confirmed(`Delete ${name}?`, "The collection and all its documents are deleted.", "Delete the collection"))) return;
    await remove(base, query);
    location.assign("/ui/documents");
  }

  let timer = null;
  follow(["collection", workspace, name, session].filter(Boolean).join("/"), ({ kind, data }) => {
    const cell = rows.get(data.document_id);
    if (kind === "progress" && cell) showState(cell, { state: "embedding", ...data });
    if (kind !== "state") return;
    clearTimeout(timer);
    timer = setTimeout(load, 200);
  });
  fill(page, h("form", { class: "row", role: "search", on: { submit: search } }, h("label", { class: "grow" }, "Search, by words and by meaning", words), h("button", { class: "primary" }, "Search")), results,
    h("h2", {}, "Documents"), list, h("h2", {}, "Add documents"), addForm({ workspace, session, name, onAdded: load }),
    act("Delete the collection", dropAll, "danger"));
  return load();
}
