// The notepad of a session: what it remembers of its exchanges. People may correct it.

import { get, part, put } from "../api.js";
import { errorNote, fill, h, toast } from "../dom.js";

export async function showNotepad(section, { workspace, session }) {
  const path = `/sessions/${part(session)}/notepad`;
  let entries = [];

  async function load() {
    try {
      ({ entries } = await get(path, { workspace }));
      view();
    } catch (error) {
      fill(section, h("h2", {}, "Notepad"), errorNote(error));
    }
  }

  function view() {
    fill(section, h("h2", {}, "Notepad"),
      h("div", { class: "card stack" }, h("p", { class: "soft small" }, "What later questions see of the earlier ones."),
        entries.map((one) => h("div", {}, h("strong", { class: "text" }, one.title ?? `Question ${one.turn}`), h("div", { class: "plain" }, h("span", { class: "soft" }, "Asked: "), one.asked),
          one.done.map((call) => h("div", { class: "mono text" }, call)), h("div", { class: "plain" }, h("span", { class: "soft" }, "Found: "), one.found),
          [...one.files, ...one.variables].map((name) => [h("span", { class: "tag" }, name), " "]))),
        entries.length ? h("div", {}, h("button", { on: { click: edit } }, "Edit the notepad")) : h("p", {}, "It is empty.")));
  }

  function edit() {
    const before = JSON.stringify(entries);
    const note = h("div");
    const forms = entries.map((one) => {
      const title = h("input", { value: one.title ?? "", maxlength: 2000 });
      const asked = h("textarea", { rows: 2, value: one.asked, maxlength: 2000 });
      const done = h("textarea", { rows: Math.max(one.done.length, 1), class: "mono", value: one.done.join("\n") });
      const found = h("textarea", { rows: 3, value: one.found, maxlength: 2000 });
      const form = h("fieldset", {}, h("legend", {}, `Question ${one.turn}`), h("div", { class: "stack" }, h("label", {}, "Title", title), h("label", {}, "Asked", asked),
        h("label", {}, "Tool calls, one a line", done), h("label", {}, "Found", found),
        h("div", {}, h("button", { type: "button", class: "danger quiet", aria: { label: `Forget question ${one.turn}` }, on: { click: () => form.remove() } }, "Forget it"))));
      form.read = () => ({ ...one, title: title.value.trim() || null, asked: asked.value, done: done.value.split("\n").filter((line) => line.trim()), found: found.value });
      return form;
    });
    async function save(event) {
      event.preventDefault();
      try {
        // Nobody's change is overwritten unseen.
        const now = await get(path, { workspace });
        if (JSON.stringify(now.entries) !== before) return fill(note, h("div", { class: "note bad", role: "alert" }, "The notepad has changed meanwhile. Copy your text, cancel, and edit it again."));
        ({ entries } = await put(path, { entries: forms.filter((one) => one.isConnected).map((one) => one.read()) }, { query: { workspace } }));
        toast("The notepad is saved.");
        view();
      } catch (error) {
        fill(note, errorNote(error));
      }
    }
    fill(section, h("h2", {}, "Notepad"), h("form", { class: "card", on: { submit: save } }, forms, note,
      h("div", { class: "row" }, h("button", { class: "primary" }, "Save"), h("button", { type: "button", on: { click: view } }, "Cancel"))));
    forms[0]?.querySelector("input").focus();
  }
  await load();
}
