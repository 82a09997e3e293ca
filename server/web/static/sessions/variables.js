// The variables of a session's code.

import { get, part, withQuery } from "../api.js";
import { longText } from "../ask/steps.js";
import { openDialog } from "../dialog.js";
import { errorNote, fill, h, table as tableOf } from "../dom.js";
import { bytes } from "../format.js";

export function showVariables(section, { workspace, session }) {
  const base = `/sessions/${part(session)}/variables`;
  const list = h("div", {}, h("p", { class: "soft" }, "The code of this session has its own interpreter, which starts to look."), h("button", { on: { click: load } }, "Show the variables"));
  fill(section, h("h2", {}, "Variables"), h("div", { class: "card" }, list));

  async function load() {
    fill(list, h("p", { role: "status" }, "Looking …"));
    try {
      const { variables } = await get(base, { workspace });
      fill(list, variables.length ? tableOf(["Name", "Type", "Saved", "Actions"], variables.map(row))
        : h("p", { class: "soft" }, "There are none. Code that an agent or a notebook runs in this session makes them."));
    } catch (error) {
      fill(list, errorNote(error));
    }
  }

  const row = ({ name, type, saved, why, bytes: size, shape }) => [h("span", { class: "mono" }, name), shape ? `${type} ${shape.join(" × ")}` : type, saved ? bytes(size) || "yes" : `no: ${why ?? ""}`,
    h("div", { class: "row" }, h("button", { class: "quiet", aria: { label: `Show ${name}` }, on: { click: () => preview(name) } }, "Show"),
      h("a", { class: "button quiet", href: withQuery(`${base}/${part(name)}/download`, { workspace }), download: true, aria: { label: `Download ${name}` } }, "Download"))];

  async function preview(name) {
    const content = h("div", { class: "stack" }, h("p", { role: "status" }, "Looking …"));
    const dialog = openDialog(name, content, h("p"), h("button", { class: "primary", on: { click: () => dialog.close() } }, "Close"));
    try {
      const { type, text, table, png } = await get(`${base}/${part(name)}`, { workspace });
      const image = png && h("img", { alt: name });
      if (image) image.src = `data:image/png;base64,${png}`;
      fill(content, h("span", { class: "tag" }, type), image, table ? tableShown(table) : longText(text));
    } catch (error) {
      fill(content, errorNote(error));
    }
  }
}

/** The first and the last rows of a frame. */
const tableShown = ({ columns, index, rows, row_count: rowCount, column_count: columnCount }) => [
  h("div", { class: "scroll block", tabindex: 0 }, h("table", {}, h("thead", {}, h("tr", {}, h("th", {}, ""), columns.map((one) => h("th", { scope: "col" }, one)))),
    h("tbody", {}, rows.map((cells, number) => h("tr", {}, h("th", { scope: "row" }, index[number]), cells.map((cell) => h("td", {}, cell))))))),
  h("p", { class: "soft small" }, `${rowCount} rows, ${columnCount} columns`)];
