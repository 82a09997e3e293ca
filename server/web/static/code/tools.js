// The tools of the live generation: a form for each, their recorded calls, and how they have fared.

import { get, part, post } from "../api.js";
import { errorNote, fill, find, h } from "../dom.js";
import { seconds, short, shortened, time } from "../format.js";
import { traceback, placeButton } from "./places.js";
import { schemaForm } from "./schema-form.js";

const RUNS = 200;
const MOST_RECORDED = 20;
const HINTS = {
  workspace_not_found: "Save a file: that makes the workspace, with the lab's tools in it.",
  model_not_loaded: "The tools will be here when a model is ready.",
};

export function toolsPanel({ workspace, open, onFailure }) {
  const panel = find("#tools");
  const shown = new Map(); // name -> its element, so that what was typed stays over a reload
  let text = "";

  /** Read the tools and their statistics again. Returns false if they can only be read when a model is ready. */
  async function load() {
    let loaded;
    try {
      loaded = await post("/load_tools", { workspace });
    } catch (error) {
      if (error.type === "reload_failed") onFailure(error);
      const hint = HINTS[error.type];
      fill(panel, hint ? h("p", { class: "soft" }, hint) : errorNote(error));
      return error.type !== "model_not_loaded";
    }
    const { statistics } = await get("/tools/statistics", { workspace });
    const uses = Map.groupBy ? Map.groupBy(statistics, (one) => one.tool) : grouped(statistics);
    const before = new Map(shown);
    shown.clear();
    for (const tool of loaded.tools) {
      const schema = JSON.stringify(tool);
      const old = before.get(tool.name);
      const one = old?.schema === schema ? old : { schema, ...toolElement(tool, workspace, open) };
      if (old && old !== one) one.element.open = old.element.open;
      one.showUses(uses.get(tool.name) ?? [], loaded.generation);
      shown.set(tool.name, one);
    }
    const absent = loaded.absent.map((one) => h("li", {}, h("span", { class: "mono" }, one.name), ": ", one.reason));
    fill(panel, [...shown.values()].map((one) => one.element), absent.length ? h("details", {}, h("summary", {}, "Not on this server"), h("ul", { class: "small soft" }, absent)) : null);
    sort();
    return true;
  }

  /** The tools of the open file come first, and the first of them is unfolded. */
  function sort() {
    const own = [...shown].filter(([name]) => new RegExp(`\\b(def|class) ${name}\\b|["']${name}["']`).test(text)).map(([, one]) => one.element);
    panel.prepend(...own);
    if (own.length && !own.some((one) => one.open)) own[0].open = true;
  }

  return {
    load,
    showFirst(ofText) {
      text = ofText;
      sort();
    },
  };
}

const grouped = (uses) => uses.reduce((found, one) => found.set(one.tool, [...(found.get(one.tool) ?? []), one]), new Map());

function toolElement(tool, workspace, open) {
  const form = schemaForm(tool.args_schema);
  const outcome = h("div", { "aria-live": "polite" });
  const count = h("span", { class: "soft small" });
  const table = h("div");
  const recorded = h("select", { on: { change: () => useRecorded(recorded, form, outcome) } }, h("option", { value: "" }, "…"));
  const button = h("button", {}, "Try");
  const submit = async (event) => {
    event.preventDefault();
    try {
      const input = form.read();
      button.disabled = true;
      fill(outcome, h("p", { class: "soft" }, "Running …"));
      fill(outcome, outcomeOf(await post(`/tools/${part(tool.name)}/call`, { workspace, input }), open));
    } catch (error) {
      fill(outcome, errorNote(error));
    } finally {
      button.disabled = false;
    }
  };
  recorded.addEventListener("focus", () => fillRecorded(recorded, tool.name, workspace), { once: true });
  const element = h("details", { class: "tool" },
    h("summary", {}, h("span", { class: "mono" }, tool.name), count),
    h("p", { class: "soft small plain" }, shortened(tool.description, 400)),
    h("form", { class: "stack", on: { submit } },
      h("label", {}, "Input of a recorded call", recorded), form.element, h("div", { class: "row" }, button)),
    outcome, table);
  return {
    element,
    showUses(uses, live) {
      const calls = uses.reduce((sum, one) => sum + one.calls, 0);
      const failures = uses.reduce((sum, one) => sum + one.failures, 0);
      fill(count, calls ? `${calls} ${calls === 1 ? "call" : "calls"}${failures ? `, ${failures} failed` : ""}` : "");
      const timed = uses.some((one) => one.p50_seconds !== null);
      fill(table, calls ? usesTable(uses, live, timed) : null);
    },
  };
}

function usesTable(uses, live, timed) {
  const head = ["Generation", "Calls", "Failed", ...(timed ? ["p50", "p95"] : [])];
  return h("div", { class: "scroll", tabindex: 0 }, h("table", {},
    h("thead", {}, h("tr", {}, head.map((one) => h("th", {}, one)))),
    h("tbody", {}, uses.map((one) => h("tr", {},
      h("td", {}, h("span", { class: "mono" }, short(one.generation)), one.generation === live ? " (live)" : ""),
      h("td", { class: "number" }, one.calls), h("td", { class: `number ${one.failures ? "bad" : ""}` }, one.failures),
      timed ? [h("td", { class: "number" }, seconds(one.p50_seconds)), h("td", { class: "number" }, seconds(one.p95_seconds))] : null)))));
}

function outcomeOf(called, open) {
  const { error } = called;
  return [
    h("p", { class: "small" }, h("span", { class: `tag ${error ? "bad" : "good"}` }, error ? "failed" : "done"), ` ${seconds(called.seconds)} · generation ${short(called.generation)}`),
    error ? h("p", { class: "plain bad" }, error.message) : h("pre", { class: "block" }, called.result),
    error?.file && placeButton(error.file, error.line, open),
    error?.traceback && traceback(error.traceback, open),
    called.output && !error?.traceback ? [h("p", { class: "small soft" }, "Printed"), h("pre", { class: "block" }, called.output)] : null,
  ];
}

/** Offer the last recorded calls of a tool. Their values are `RUN:STEP`. */
async function fillRecorded(select, tool, workspace) {
  const { runs } = await get("/runs", { workspace, limit: RUNS });
  const calls = runs.flatMap((run) => (run.steps ?? []).map((step, index) => ({ run, step, index })).filter(({ step }) => step.tool === tool));
  fill(select, h("option", { value: "" }, calls.length ? "…" : "none yet"),
    calls.slice(0, MOST_RECORDED).map(({ run, step, index }) =>
      h("option", { value: `${run.run_id}:${index}` }, `${time(run.asked)}${step.error ? " failed" : ""}: ${shortened(JSON.stringify(step.input), 60)}`)));
}

/** The list has shortened texts; the run itself has the whole input. */
async function useRecorded(select, form, outcome) {
  if (!select.value) return;
  const [run, index] = select.value.split(":");
  try {
    form.fill((await get(`/runs/${run}`)).steps[index].input);
  } catch (error) {
    fill(outcome, errorNote(error));
  }
}
