// What was live when: what changed, what ran on it, and the way back.

import { get, post } from "../api.js";
import { openDialog } from "../dialog.js";
import { act, errorNote, fill, find, h, refused } from "../dom.js";
import { count, short, shortened, time } from "../format.js";

const SHOWN = 30;
const RUNS = 200;

/** `onChange(report)`: another generation is live. */
export function generationsPanel({ workspace, onChange }) {
  const panel = find("#generations");
  let dialog;
  let known = [];

  async function load() {
    let found;
    try {
      found = await get("/generations", { workspace, limit: SHOWN });
    } catch (error) {
      if (error.type !== "workspace_not_found") throw error;
      found = { live: null, generations: [] };
    }
    known = found.generations;
    fill(panel, known.length ? known.map((one) => entry(one, found.live)) : h("p", { class: "soft" }, "Each version of the code that was ever live will be here."));
    return found.live;
  }

  function entry(one, live) {
    const name = short(one.generation);
    const isLive = one.generation === live;
    const ran = h("details", { class: "small", on: { toggle: () => ran.open && showRuns(ran, one.generation) } }, h("summary", {}, `${count(one.runs)} ${one.runs === 1 ? "run" : "runs"}`), h("div"));
    return h("div", { class: "generation" },
      h("div", {}, h("span", { class: "mono" }, name), " ", isLive ? h("span", { class: "tag live" }, "live") : null, h("span", { class: "soft small" }, ` ${time(one.time)}`)),
      h("div", { class: "soft small text" }, one.changed === null ? "the first one" : shortened(one.changed.join(", ") || "nothing changed", 160)),
      one.runs ? ran : null,
      isLive ? null : h("div", { class: "row" },
        h("button", { class: "quiet", "aria-label": `Difference from ${name} to the live generation`, on: { click: () => showDiff(one.generation, live) } }, "Difference to live"),
        h("button", { class: "quiet", "aria-label": `Roll back to ${name}`, on: { click: () => confirmBack(one) } }, "Roll back")));
  }

  async function showRuns(ran, generation) {
    const { runs } = await get("/runs", { workspace, limit: RUNS });
    const own = runs.filter((run) => run.generation === generation);
    fill(ran.lastChild, own.length
      ? h("ul", {}, own.slice(0, 10).map((run) => h("li", { class: "text" }, h("a", { href: `/ui/runs/${run.run_id}` }, shortened(run.question, 60)), run.state === "done" ? "" : ` (${run.state})`)))
      : "Older than the last runs of this workspace, or of another one.");
  }

  function show(title, ...children) {
    dialog = openDialog(title, ...children);
  }
  const close = (label = "Close") => h("button", { on: { click: () => dialog.close() } }, label);

  async function showDiff(from, to) {
    try {
      const { files } = await get(`/generations/${from}/diff`, { to });
      show(`From ${short(from)} to ${short(to)}, which is live`, files.length ? files.map((one) => diffOf(one)) : h("p", {}, "The same code."), h("p"), close());
    } catch (error) {
      refused(error);
    }
  }

  function confirmBack(one) {
    const outcome = h("div");
    const go = async () => {
      try {
        const report = await post("/reload_modules", { workspace, generation: one.generation });
        dialog.close();
        onChange(report);
      } catch (error) {
        fill(outcome, errorNote(error));
      }
    };
    show(`Roll back to ${short(one.generation)}?`,
      h("p", {}, "From now on that code answers. Your files stay as they are: the next save makes them live again."), outcome,
      h("div", { class: "row" }, act("Roll back", go, "primary"), close("Keep the live one")));
  }

  return { load, generations: () => known };
}

/** A unified diff with its lines in colours; the signs stay. */
function diffOf({ path, diff }) {
  const kinds = { "+": "added", "-": "removed", "@": "soft" };
  const lines = diff.split("\n").filter((line) => !/^(---|\+\+\+) /.test(line));
  return [h("h3", { class: "mono" }, path), h("pre", { class: "block" }, lines.map((line) => h("span", { class: `line ${kinds[line[0]] ?? ""}` }, line || " ")))];
}
