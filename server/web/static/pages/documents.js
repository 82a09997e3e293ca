// The collections that a workspace reads, or one of them.

import { get } from "../api.js";
import { empty, errorNote, fill, find, h } from "../dom.js";
import { addForm } from "../documents/add.js";
import { showCollection } from "../documents/collection.js";
import { counted, time } from "../format.js";
import { showName } from "../heading.js";
import { currentWorkspace } from "../workspace.js";

const workspace = currentWorkspace();
const query = new URLSearchParams(location.search);
const session = query.get("session") || null;
const name = query.get("collection");
const page = find("#page");

const urlOf = (one) => `/ui/documents?${new URLSearchParams({ collection: one.name, workspace, from: one.workspace, ...(one.session_id ? { session: one.session_id } : {}) })}`;
const placeOf = (one) => (one.session_id ? `session ${one.session_id}` : one.workspace === workspace ? "this workspace" : `workspace ${one.workspace}`);

async function showList() {
  const list = h("div");
  const names = await showCollections(list);
  fill(page, list, h("h2", {}, session ? `Add documents for the session ${session}` : "Add documents"),
    addForm({ workspace, session, names, onAdded: (added, failed) =>
      failed.length ? showCollections(list) : location.assign(urlOf({ name: added, workspace, session_id: session })) }));
}

/** Fill `list` with the collections. Returns the names of those to which documents are added here. */
async function showCollections(list) {
  const { collections } = await get("/collections", { workspace, session, limit: 1000 });
  fill(list, collections.length ? h("ul", { class: "cards" }, collections.map((one) => h("li", { class: "card" },
      h("a", { href: urlOf(one) }, h("strong", { class: "text" }, one.name)), h("div", {}, `${counted(one.documents, "document")}, ${counted(one.chunks, "passage")}`),
      h("div", { class: "soft small" }, `${placeOf(one)} · since ${time(one.created_at)}`))))
    : empty("No documents yet", h("p", {}, "Add papers, manuals or notes. Then search them here, or ask the agent “documents”, which answers with citations.")));
  return collections.filter((one) => one.workspace === workspace && (one.session_id ?? null) === session).map((one) => one.name);
}

if (name) showName(name, "Documents");
(name ? showCollection(page, { workspace: query.get("from") || workspace, session, name }) : showList()).catch((error) => page.prepend(errorNote(error)));
