// The server's load, live.

import { get, part, remove } from "../api.js";
import { act, empty, errorNote, figure, fill, find, h, table } from "../dom.js";
import { bytes, count, counted, seconds, short, shortened, time } from "../format.js";
import { follow } from "../live.js";
import { chart } from "../now/chart.js";
import { open, showModels } from "../now/models.js";

const POINT_SECONDS = 10;
let points = [];

function show(sample) {
  // Of the questions of others there are no ids.
  sample.runs.forEach((run, at) => (run.run_id ??= `of another, ${at}`));
  const running = sample.runs.filter((run) => run.state === "running");
  const queued = sample.runs.filter((run) => run.state === "queued");
  fill(find("#figures"),
    figure("Tokens a second", count(sample.tokens_per_second)),
    figure("Questions running", running.length, `${queued.length} waiting`),
    figure("KV cache", bytes(sample.kv_bytes), "of the resident models"),
    figure("Jobs running", sample.jobs.running, `${sample.jobs.queued} waiting`),
    figure("Cells of code running", sample.sandbox.running, `${counted(sample.sandbox.interpreters, "interpreter")} of sessions`));
  showModels(sample.models);
  showRuns([...running, ...queued.sort((one, other) => (one.position ?? 0) - (other.position ?? 0))]);
  showWorkers(sample.workers);
  if (!points.length || sample.time - points.at(-1).time >= POINT_SECONDS) {
    points = [...points, sample].filter((one) => one.time > sample.time - 3600);
    showHour(sample.time);
  }
}

const showHour = (now) => fill(find("#hour"), chart(points, now, Math.max(find("#hour").clientWidth, 200)));
addEventListener("resize", () => points.length && showHour(points.at(-1).time));

const rows = new Map(); // run id -> its row; a row that stays keeps its button, and so the focus

function showRuns(runs) {
  if (!runs.length) {
    rows.clear();
    fill(find("#runs"), empty("Nobody asks", h("p", {}, "Questions appear here while they wait and run. "), h("a", { class: "button", href: "/ui/ask" }, "Ask one")));
    return;
  }
  for (const id of rows.keys()) if (!runs.some((run) => run.run_id === id)) rows.delete(id);
  for (const run of runs) {
    if (!rows.has(run.run_id)) rows.set(run.run_id, row(run.run_id));
    rows.get(run.run_id).update(run);
  }
  let body = find("#runs tbody");
  if (!body) {
    const made = table(["Who", "Question", "State", "For", "Steps", "Tokens", "Actions"], []);
    body = find("tbody", made);
    fill(find("#runs"), made);
  }
  const wanted = runs.map((run) => rows.get(run.run_id).element);
  if (wanted.length !== body.children.length || wanted.some((one, at) => body.children[at] !== one)) body.replaceChildren(...wanted);
}

function row(id) {
  const cells = ["Who", "Question", "State", "For", "Steps", "Tokens"].map((label) => h("td", { data: { label } }));
  const stop = act("Stop", () => remove(`/runs/${part(id)}`), "danger");
  return {
    element: h("tr", {}, cells, h("td", {}, stop)),
    update(run) {
      const state = run.state === "queued" ? `waiting, ${run.position ?? "…"}` : "running";
      const question = run.question === undefined ? h("span", { class: "soft" }, "of somebody else") : h("a", { href: `/ui/runs/${part(id)}` }, shortened(run.question));
      const values = [run.owner, question, h("span", { class: `tag ${run.state === "running" ? "live" : ""}` }, state), seconds(run.seconds), run.steps, run.tokens];
      stop.hidden = run.question === undefined;
      values.forEach((value, at) => {
        if (at === 1 && cells[1].textContent) return;
        fill(cells[at], value);
      });
    },
  };
}

function showWorkers(workers) {
  find("#workers").parentElement.hidden = !workers;
  if (!workers) return;
  if (!workers.length) return void fill(find("#workers"), h("p", { class: "soft" }, "None yet. The first question starts one."));
  fill(find("#workers"), table(["Workspace", "Generation", "State", "Questions", "Memory", "CPU", "Since"], workers.map((one) => [
    one.workspace, h("code", {}, short(one.generation)), one.retired ?? one.state, one.runs, bytes(one.memory_bytes), seconds(one.cpu_seconds), time(one.started_at),
  ]), Array(7).fill("tight")));
}

open();
get("/load").then(({ sample, history }) => {
  points = history;
  show(sample);
  showHour(sample.time);
}).catch((error) => fill(find("#figures"), errorNote(error)));
follow("load", ({ kind, data }) => kind === "sample" && show(data));
