// Adding documents to a collection: files, a page of the web, or a text.

import { part, post } from "../api.js";
import { errorNote, fill, h } from "../dom.js";
import { formOf, takeFiles } from "../dropped.js";

/**
 * The form. `names`: of the collections that there are; `name`: the only one that is meant. `onAdded(name, failed)` is called after each
 * addition; `failed`: the files that were refused. */
export function addForm({ workspace, session, name, names = [], onAdded }) {
  const into = h("input", { required: true, value: name ?? names[0] ?? "papers", pattern: "[A-Za-z0-9][A-Za-z0-9._\\-]{0,99}", title: "Letters, digits, dots, dashes and underscores", list: "collections", autocomplete: "off", disabled: Boolean(name) });
  const picker = h("input", { type: "file", multiple: true, required: true });
  const url = h("input", { type: "url", placeholder: "https://…", maxlength: 1000 });
  const title = h("input", { maxlength: 200, placeholder: "notes.md" });
  const text = h("textarea", { rows: 5 });
  const state = h("div", { role: "status", class: "small" });
  const kinds = {
    file: ["Files", [h("label", { class: "grow" }, "PDF, Word, PowerPoint, HTML, Markdown or text; or drop them here", picker)]],
    url: ["A page of the web", [h("label", { class: "grow" }, "Address", url)]],
    text: ["A text", [h("label", { class: "grow" }, "Its name", title), h("label", { class: "wide" }, "Text", text)]],
  };
  const fields = h("div", { class: "row" });
  let kind = "file";
  const choose = (chosen) => {
    kind = chosen;
    fill(fields, kinds[kind][1]);
    url.required = kind === "url";
    title.required = text.required = kind === "text";
  };
  const radios = Object.entries(kinds).map(([value, [label]]) =>
    h("label", { class: "inline" }, h("input", { type: "radio", name: "kind", value, checked: value === kind, on: { change: () => choose(value) } }), label));
  choose(kind);

  async function add(body) {
    fill(state, "Reading …");
    try {
      const { collection, documents, failed } = await post(`/collections/${part(into.value)}/documents`, body, { query: { workspace, session } });
      fill(state, `Added ${documents.map((one) => one.name).join(", ")}.`, failed.map((one) => h("div", { class: "bad text" }, `${one.name}: ${one.error.message}`)));
      picker.value = url.value = title.value = text.value = "";
      onAdded(collection, failed);
    } catch (error) {
      fill(state, errorNote(error));
    }
  }
  const body = () => ({ file: () => formOf([...picker.files]), url: () => ({ url: url.value }), text: () => ({ name: title.value, text: text.value }) })[kind]();
  const form = h("form", { class: "card stack", on: { submit: (event) => (event.preventDefault(), add(body())) } },
    h("div", { class: "row" }, !name && h("label", { class: "grow" }, "Into the collection", into, h("datalist", { id: "collections" }, names.map((one) => h("option", { value: one })))),
      h("div", { class: "row kinds", role: "group", aria: { label: "What to add" } }, radios)),
    fields, h("div", {}, h("button", { class: "primary" }, "Add")), state);
  takeFiles(form, (files) => into.reportValidity() && add(formOf(files)));
  return form;
}
