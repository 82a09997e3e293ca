// The page Code: files, the editor, errors at their lines, and beside them questions, tools and generations.

import { post } from "../api.js";
import { askBox } from "../code/ask.js";
import { createEditor } from "../code/editor.js";
import { fileList, Files, KINDS, MAIN, templateOf } from "../code/files.js";
import { generationsPanel } from "../code/generations.js";
import { pathOf, placeButton } from "../code/places.js";
import { toolsPanel } from "../code/tools.js";
import { confirmed } from "../dialog.js";
import { fill, find, h, refused } from "../dom.js";
import { seconds, short, time } from "../format.js";
import { follow } from "../live.js";
import { currentWorkspace, setWorkspace } from "../workspace.js";

const workspace = currentWorkspace();
const isMain = workspace === MAIN;
const files = new Files(workspace);
const opened = new Map(); // path -> {path, etag, saved, state}; `saved`: the text that the server has, null for none
let file = null;
let wanted = null; // the path that was chosen last
let problems = [];
let conflict = false;
let isSaving = false;

const editor = createEditor(find("#editor"), { nonce: find("meta[name=csp-nonce]").content, onSave: save, onChange: showKind });
const tools = toolsPanel({ workspace, open, onFailure: showFailure });
const generations = generationsPanel({ workspace, onChange: (report) => showReload(report, `Rolled back to ${short(report.generation)}.`) });
askBox({ workspace, open, onAnswer: () => Promise.all([tools.load(), showGenerations()]).catch(report) });

const report = refused;
const status = (...children) => fill(find("#status"), ...children);
const isChanged = (one) => (one === file ? editor.text() : one.state.sliceDoc()) !== one.saved;

// Files

/** Open a file in the editor, at a line if there is one. */
async function open(path, line) {
  wanted = path;
  if (file?.path !== path) {
    try {
      if (!opened.has(path)) opened.set(path, await read(path));
    } catch (error) {
      return report(error);
    }
    if (wanted !== path || file?.path === path) return; // another one was chosen meanwhile
    leave();
    file = opened.get(path);
    editor.show(file.state);
    endConflict();
    find("#compare").disabled = false;
    showCompareChoices();
    tools.showFirst(editor.text());
    mark();
    const url = new URL(location.href);
    url.searchParams.set("file", path);
    history.replaceState(null, "", url);
  }
  showKind();
  if (line) editor.goTo(line);
}

async function read(path) {
  const { text, etag } = files.kindOf(path) === "new" ? { text: null, etag: null } : await files.read(path);
  return { path, etag, saved: text, state: editor.stateOf(path, text ?? templateOf(path), isMain) };
}

function leave() {
  if (!file) return;
  editor.compareWith(null);
  file.state = editor.state;
  if (!isChanged(file)) opened.delete(file.path); // what is not changed is read again
}

let shownKind = "";
/** The file's name, its kind and the list. At each change of the text, so only what differs is drawn. */
function showKind() {
  const unsaved = new Set([...opened.values()].filter(isChanged).map((one) => one.path));
  const kind = file && files.kindOf(file.path);
  const key = JSON.stringify([file?.path, kind, [...unsaved], files.paths]);
  if (key === shownKind) return;
  shownKind = key;
  fill(find("#file-name"), file?.path ?? "No file is open");
  fill(find("#file-kind"), file && h("span", { class: `tag ${unsaved.has(file.path) ? "live" : ""}` }, unsaved.has(file.path) && kind !== "new" ? `${KINDS[kind]}, unsaved` : KINDS[kind]));
  fill(find("#file-list"), fileList(files, file?.path, unsaved, open));
  find("#save").disabled = isMain ? false : !file;
  fill(find("#save"), isMain ? "Reload" : "Save and reload");
  find("#delete").hidden = isMain || !file || kind === "main";
  fill(find("#delete"), kind === "changed" ? "Back to main's" : "Delete");
}

// Saving

async function save() {
  if (isSaving || (!file && !isMain)) return;
  if (conflict) return status(h("span", { class: "bad" }, "Not saved: choose a text first."));
  isSaving = true;
  const one = file; // another one may be opened meanwhile
  const text = one && editor.text();
  status("Saving …");
  try {
    if (!isMain && text !== one.saved) {
      one.etag = await files.write(one.path, text, one.etag);
      one.saved = text;
    }
    showReload(await post("/reload_modules", { workspace }));
  } catch (error) {
    if (error.type === "file_changed") await showConflict(one, error).catch(report);
    else showFailure(error);
  } finally {
    isSaving = false;
    showKind();
  }
}

function showReload(done, first = `Live: generation ${short(done.generation)}, after ${seconds(done.seconds)}.`) {
  const { added, changed, removed } = done.tools;
  const told = Object.entries({ added, changed, removed }).filter(([, names]) => names.length && names.length < 9).map(([what, names]) => ` Tools ${what}: ${names.join(", ")}.`);
  status(h("span", { class: "good" }, first), told);
  showProblems(done.warnings.map((one) => ({ ...one, severity: "warning" })));
  Promise.all([tools.load(), showGenerations()]).catch(report);
}

function showFailure(error) {
  const errors = error.details?.errors ?? [];
  const serving = error.details?.generation;
  status(h("span", { class: "bad" }, error.type === "reload_failed" ? `Not loaded. ${serving ? `The code of generation ${short(serving)} continues to answer.` : "No code is live yet."}` : error.message));
  showProblems(errors.map((one) => ({ ...one, severity: "error" })));
}

function showProblems(found) {
  problems = found;
  fill(find("#problems"), problems.map((one) => h("li", { class: one.severity },
    one.file && [placeButton(one.file, one.line, open), " "], one.type && `${one.type}: `, h("span", { class: "plain" }, one.message))));
  mark();
}

const mark = () => file && editor.mark(problems.filter((one) => pathOf(one.file) === file.path));

/** Somebody else has saved the file: show the difference, and let the author choose. */
async function showConflict(one, { details }) {
  status(h("span", { class: "bad" }, `Not saved: ${one.path}.`));
  const theirs = details.etag ? await files.readOwn(one.path) : { text: null, etag: null };
  if (file !== one) return; // saving it again shows the difference
  conflict = true;
  if (theirs.text !== null) editor.compareWith(theirs.text, true);
  const mine = () => {
    file.etag = theirs.etag;
    endConflict();
    save();
  };
  const take = () => {
    Object.assign(file, { etag: theirs.etag, saved: theirs.text });
    endConflict();
    editor.replace(theirs.text);
    status("Their text is here now.");
    showKind();
  };
  fill(find("#conflict"), h("div", { class: "note", role: "alert" },
    h("p", {}, theirs.text === null ? `${file.path} was deleted since you opened it.`
      : `${file.path} was saved by somebody else since you opened it. Below, their lines are red where yours differ. Choose for each change, or for all of them:`),
    h("div", { class: "row" }, h("button", { class: "primary", on: { click: mine } }, "Save my text"),
      theirs.text !== null && h("button", { on: { click: take } }, "Take their text"))));
}

function endConflict() {
  conflict = false;
  editor.compareWith(null);
  fill(find("#conflict"));
  find("#compare").value = "";
}

// Controls

function showCompareChoices() {
  const chosen = find("#compare").value;
  const past = generations.generations().map((one) => h("option", { value: one.generation }, `${short(one.generation)}, ${time(one.time)}`));
  fill(find("#compare"), h("option", { value: "" }, "nothing"), files.mainGeneration && !isMain && h("option", { value: files.mainGeneration }, "main"), past);
  find("#compare").value = chosen;
}

async function showGenerations() {
  const live = await generations.load();
  fill(find("#live"), live ? ["live: ", h("span", { class: "mono" }, short(live))] : "no code is live yet");
  if (!conflict) showCompareChoices();
}

find("#compare").addEventListener("change", async ({ target }) => {
  if (conflict) return (target.value = "");
  try {
    editor.compareWith(target.value ? await files.readAt(target.value, file.path) : null);
  } catch (error) {
    report(error);
  }
});

find("#save").addEventListener("click", save);
addEventListener("keydown", (event) => {
  if (event.key !== "s" || !(event.ctrlKey || event.metaKey) || event.defaultPrevented) return;
  event.preventDefault();
  save();
});

find("#delete").addEventListener("click", async () => {
  const { path, etag } = file;
  const isNew = files.kindOf(path) === "new";
  const isChange = files.kindOf(path) === "changed";
  if (!isNew && !(await confirmed(isChange ? `Drop your ${path}?` : `Delete ${path}?`, isChange ? "The one of main is used again." : "Earlier generations have it still.", isChange ? "Drop it" : "Delete it"))) return;
  try {
    if (!isNew) await files.remove(path, etag);
    opened.delete(path);
    file = null;
    editor.show(editor.stateOf("", "", true));
    if (files.kindOf(path) !== "new") await open(path);
    if (!isNew) showReload(await post("/reload_modules", { workspace }));
  } catch (error) {
    if (error.type === "file_changed") report(new Error("Not deleted: somebody else has saved the file meanwhile. Open it again."));
    else showFailure(error);
  }
  showKind();
});

find("#new-file").addEventListener("submit", (event) => {
  event.preventDefault();
  const input = event.target.elements.path;
  const given = input.value.trim();
  input.value = "";
  open(given.includes("/") || given === "model.py" ? given : `tools/${given}${given.includes(".") ? "" : ".py"}`).then(editor.focus);
});

find("#start-workspace").addEventListener("submit", (event) => {
  event.preventDefault();
  setWorkspace(event.target.elements.name.value);
  location.reload();
});

addEventListener("beforeunload", (event) => {
  if ([...opened.values()].some(isChanged) && !isMain) event.preventDefault();
});

async function begin() {
  find("#main-note").hidden = !isMain;
  find("#new-file").hidden = isMain;
  if (matchMedia("(max-width: 760px)").matches) find("#files").open = false;
  await files.load();
  await showGenerations();
  const asked = new URLSearchParams(location.search).get("file");
  const first = asked ?? [...files.own].find((path) => path.endsWith(".py")) ?? files.paths.find((path) => /^tools\/(?!__).*\.py$/.test(path));
  if (first) await open(first);
  showKind();
  await loadTools();
}

/** The first call loads the workspace. Tools may need a model: while there is none, its state is followed. */
async function loadTools() {
  if (await tools.load()) {
    if (!files.mainGeneration) await files.load();
    await showGenerations();
    return showKind();
  }
  const stop = follow("load", ({ kind, data }) => {
    if (kind !== "sample" || data.model?.state !== "ready") return;
    stop();
    loadTools().catch(report);
  });
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) Promise.all([files.load(), showGenerations()]).then(showKind, report);
});

begin().catch(report);
