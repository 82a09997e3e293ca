// A table that becomes a list of cards on a phone.

import { h } from "./dom.js";

/** `heads`: the names of the columns; empty: a column of buttons. `rows`: of cells. `kinds`: a class for each column. */
export function table(heads, rows, kinds = []) {
  return h("table", { class: "stacks" },
    h("thead", {}, h("tr", {}, heads.map((one) => h("th", {}, one || h("span", { class: "visually-hidden" }, "Acts"))))),
    h("tbody", {}, rows.map((cells) => h("tr", {}, cells.map((cell, at) => h("td", { class: kinds[at], data: { label: heads[at] } }, cell))))));
}
