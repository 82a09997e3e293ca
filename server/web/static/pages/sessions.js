// The sessions of a workspace, or one of them: its messages, notepad, files and variables.

import { get, part, remove, withQuery } from "../api.js";
import { askUrl } from "../ask/welcome.js";
import { confirmed } from "../dialog.js";
import { act, empty, errorNote, fill, find, h, table } from "../dom.js";
import { count, counted, shortened, time } from "../format.js";
import { showName } from "../heading.js";
import { showFiles } from "../sessions/files.js";
import { showNotepad } from "../sessions/notepad.js";
import { showVariables } from "../sessions/variables.js";
import { currentWorkspace } from "../workspace.js";

const workspace = currentWorkspace();
const session = new URLSearchParams(location.search).get("session");
const page = find("#page");
const SHOWN = 200;
const MESSAGES = 6;

const url = (name) => `/ui/sessions?${new URLSearchParams({ session: name, workspace })}`;

async function showList() {
  const { sessions } = await get("/sessions", { workspace, limit: 1000 });
  if (!sessions.length)
    return fill(page, empty("No sessions yet", h("p", {}, "A session is a conversation with its notepad, its variables and its files. It begins with a question."),
      h("a", { class: "button primary", href: "/ui/ask" }, "Ask a question")));
  const rows = h("div");
  const found = h("p", { class: "soft small", role: "status" });
  const search = h("input", { type: "search", id: "search", autocomplete: "off", on: { input: list } });
  function list() {
    const words = search.value.toLowerCase().split(/\s+/);
    const matching = sessions.filter((one) => words.every((word) => `${one.session_id} ${one.title}`.toLowerCase().includes(word)));
    fill(rows, table(["Session", "About", "Questions", "Last answer"], matching.slice(0, SHOWN).map((one) =>
      [h("a", { href: url(one.session_id) }, one.session_id), shortened(one.title ?? "", 100), count(one.turns), time(one.used)])));
    found.textContent = matching.length > SHOWN ? `The latest ${SHOWN} of ${matching.length}. Search for the others.` : `${matching.length} of ${sessions.length}`;
  }
  fill(page, h("div", { class: "row" }, h("label", { class: "grow" }, "Search by name or subject", search)), found, rows);
  list();
}

async function showOne() {
  showName(session, "Sessions");
  const about = h("p", { class: "soft text" });
  const messages = h("section");
  const notepad = h("section");
  const files = h("section");
  const variables = h("section");
  const exported = (format) => h("a", { class: "button", href: withQuery(`/sessions/${part(session)}/export`, { workspace, format }), download: `${session}.${format === "json" ? "json" : "md"}` }, format === "json" ? "Export JSON" : "Export Markdown");
  fill(page, about,
    h("div", { class: "row" }, h("a", { class: "button primary", href: askUrl(session, workspace) }, "Open in Ask"), exported("markdown"), exported("json"),
      h("a", { class: "button", href: `/ui/documents?${new URLSearchParams({ session, workspace })}` }, "Documents"), act("Delete", forget, "danger")),
    messages, files, notepad, variables);
  const where = { workspace, session };
  showFiles(files, where);
  try {
    const saved = await get(`/sessions/${part(session)}`, { workspace, limit: MESSAGES });
    fill(about, saved.title, " · ", `${counted(saved.turns, "question")} · last used ${time(saved.used)}`);
    fill(messages, h("h2", {}, "Latest messages"), h("div", { class: "card stack" }, saved.messages.map((one) =>
      h("div", { class: "plain" }, h("span", { class: "soft small" }, { user: "Asked", assistant: "Answered", system: "A job ended" }[one.role], " ", time(one.time)), h("div", {}, shortened(one.content, 400))))));
    showNotepad(notepad, where);
  } catch (error) {
    if (error.status !== 404) throw error;
    fill(about, "Nothing was asked in this session yet.");
  }
  showVariables(variables, where);
}

async function forget() {
  if (!(await confirmed(`Delete ${session}?`, "Its messages, notepad, variables, files and documents are deleted. Its runs stay.", "Delete the session"))) return;
  await remove(`/sessions/${part(session)}`, { workspace });
  location.assign("/ui/sessions");
}

(session ? showOne() : showList()).catch((error) => page.prepend(errorNote(error)));
