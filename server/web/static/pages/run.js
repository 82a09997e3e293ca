// One run: its steps, live or from the record.

import { get, part, post, remove } from "../api.js";
import { askUrl } from "../ask/welcome.js";
import { act, errorNote, fill, find, h, stateTag } from "../dom.js";
import { count, seconds, short, time, written } from "../format.js";
import { follow } from "../live.js";
import { showBeside } from "../run/beside.js";
import { openFork } from "../run/fork.js";
import { showStep } from "../run/step.js";
import { StepList } from "../run/step-list.js";

const id = decodeURIComponent(location.pathname.split("/").at(-1));
const path = `/runs/${part(id)}`;
const query = new URLSearchParams(location.search);
let record = null;
let asked = 0;
const ENDED = ["done", "failed", "cancelled"];

const failed = (error) => fill(find("#problem"), errorNote(error));
const list = new StepList(find("#steps"), id, (number) => showNumber(number).catch(failed));

async function showNumber(number) {
  const mine = (asked += 1);
  const step = await get(`${path}/steps/${number}`);
  if (mine !== asked) return; // another one was chosen meanwhile
  fill(find("#problem"));
  const isAnswer = step.step > step.count;
  const fork = ENDED.includes(record.state) && h("button", { class: "primary", on: { click: () => openFork(record, step).catch(failed) } }, isAnswer ? "Answer again" : "Continue from here");
  showStep(find("#step"), step, fork, (call, token, text) => openFork(record, step, { call, token, text }).catch(failed));
  const url = new URL(location.href);
  url.searchParams.set("step", number);
  history.replaceState(null, "", url);
}

function showHead() {
  const { question, state, agent, model, workspace, generation, usage, forked_from: parent } = record;
  document.title = `${question.slice(0, 60)} · Hearth`;
  fill(find("#question"), question);
  const tokens = written(usage);
  fill(find("#facts"), stateTag(state), " ",
    [agent, model, `workspace ${workspace}`, tokens !== null && `${count(tokens)} tokens written`, seconds(record.seconds), `asked ${time(record.asked)}`].filter(Boolean).join(" · "),
    record.session_id && [" · session ", h("a", { href: askUrl(record.session_id, workspace) }, record.session_id)],
    generation && [" · code ", h("a", { href: `/ui/code?workspace=${part(workspace)}&generation=${part(generation)}` }, h("code", {}, short(generation)))],
    parent && [" · forked from ", h("a", { href: `/ui/runs/${part(parent.run_id)}` }, parent.run_id), ` at step ${parent.step} `, h("a", { href: `/ui/runs/${part(id)}?beside=${part(parent.run_id)}` }, "side by side")]);
  fill(find("#acts"),
    !ENDED.includes(state) && act("Stop", () => remove(path), "danger"),
    ENDED.includes(state) && generation && act("Ask again", again),
    ENDED.includes(state) && h("a", { class: "button", href: `${path}`, download: `run-${id}.json` }, "JSON"));
}

async function again() {
  const { run_id: made } = await post(`${path}/replay`);
  location.assign(`/ui/runs/${part(made)}?beside=${part(id)}`);
}

async function refresh() {
  record = await get(path, { steps: query.has("beside") });
  showHead();
  const { count: steps } = await get(`${path}/steps`, { limit: 1 });
  list.grow(steps, ENDED.includes(record.state) && (record.state === "done" ? "Answer" : record.state === "failed" ? "Error" : "Stopped"));
  if (query.has("beside")) await showBeside(find("#beside"), record, query.get("beside"));
}

function followLive() {
  const live = find("#live");
  live.hidden = false;
  live.setAttribute("aria-busy", "true");
  const text = document.createTextNode("");
  fill(live, h("span", { class: "soft small" }, "The model writes: "), h("span", { class: "cursor" }, text));
  const leave = follow(`run/${id}`, ({ kind, data }) => {
    if (kind === "token") text.data = (text.data + data.text).slice(-4000);
    else if (kind === "step") {
      text.data = "";
      list.grow(list.count + 1, false);
      if (list.chosen >= list.count - 1) list.select(list.count);
    } else if (["answer", "error", "missing"].includes(kind)) {
      leave();
      live.hidden = true;
      refresh().then(() => list.select(list.total)).catch(failed);
    } else if (kind === "started") refresh().catch(failed);
  });
}

async function open() {
  await refresh();
  if (ENDED.includes(record.state)) list.select(Math.min(Number(query.get("step")) || (record.state === "done" ? 1 : list.total), list.total));
  else {
    list.grow(0, false); // the events bring them from the first on
    followLive();
  }
}
open().catch(failed);
