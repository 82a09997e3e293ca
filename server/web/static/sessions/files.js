// The files of a session: upload, download, what is in them, delete.

import { get, part, post, remove } from "../api.js";
import { fileUrl, picture } from "../ask/answer.js";
import { confirmed, openDialog } from "../dialog.js";
import { errorNote, fill, h, refused, table } from "../dom.js";
import { formOf, takeFiles } from "../dropped.js";
import { bytes, time } from "../format.js";

const PAGE = 200;

export async function showFiles(section, { workspace, session }) {
  const base = `/sessions/${part(session)}/files`;
  const list = h("div");
  const picker = h("input", { type: "file", multiple: true, hidden: true, aria: { label: "Files" }, on: { change: () => (upload([...picker.files]), (picker.value = "")) } });
  const state = h("span", { class: "soft small", role: "status" });
  const add = h("button", { on: { click: () => picker.click() } }, "Upload files");
  fill(section, h("h2", {}, "Files"), list, h("p"), h("div", { class: "row" }, add, picker, state));
  takeFiles(section, upload);

  async function upload(files) {
    if (!files.length) return;
    state.textContent = `Uploading ${files.length === 1 ? files[0].name : `${files.length} files`} …`;
    try {
      const { files: saved } = await post(base, formOf(files), { query: { workspace } });
      state.textContent = `Saved ${saved.map((one) => one.name).join(", ")}`;
    } catch (error) {
      state.textContent = "";
      refused(error);
    }
    await load();
  }

  async function load() {
    try {
      const { files, has_more: hasMore, left_out: leftOut } = await get(base, { workspace, limit: PAGE });
      fill(list, files.length ? table(["Name", "Size", "Changed", "Actions"], files.map(row))
        : h("p", { class: "soft" }, "No files yet. Upload some, or drop them here: agents read them."),
        hasMore && h("p", { class: "soft small" }, `The first ${PAGE} are shown.`), leftOut > 0 && h("p", { class: "soft small" }, `${leftOut} links and special files are not shown.`));
    } catch (error) {
      fill(list, errorNote(error));
    }
  }

  const row = (file) => [h("a", { href: fileUrl(session, workspace, file.name), download: true }, file.name), bytes(file.bytes), time(file.modified_at),
    h("div", { class: "row" }, h("button", { class: "quiet", aria: { label: `What is in ${file.name}` }, on: { click: () => analyse(file) } }, "What is in it"),
      h("button", { class: "danger quiet", aria: { label: `Delete ${file.name}` }, on: { click: () => drop(file) } }, "Delete"))];

  async function analyse(file) {
    const content = h("div", { class: "stack" }, h("p", { role: "status" }, "Reading …"));
    const dialog = openDialog(file.name, content, h("p"), h("button", { class: "primary", on: { click: () => dialog.close() } }, "Close"));
    try {
      const found = await get(`${fileUrl(session, workspace, file.name).split("?")[0]}/analysis`, { workspace });
      fill(content, /^image\/(png|jpeg|webp|gif)$/.test(file.type) && picture(session, workspace, file.name), h("p", { class: "plain" }, found.summary),
        h("details", {}, h("summary", {}, "Details"), h("pre", { class: "block", tabindex: 0 }, JSON.stringify(found.details, null, 2))),
        h("details", {}, h("summary", {}, "How code reads it"), h("pre", { class: "block", tabindex: 0 }, found.how_to_read)),
        found.skipped.length > 0 && h("ul", { class: "small" }, found.skipped.map((one) => h("li", {}, one))));
    } catch (error) {
      fill(content, errorNote(error));
    }
  }

  async function drop(file) {
    if (!(await confirmed(`Delete ${file.name}?`, "Code and agents of the session can't read it any more.", "Delete the file"))) return;
    await remove(fileUrl(session, workspace, file.name)).catch(refused);
    await load();
  }
  await load();
}
