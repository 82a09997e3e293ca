// Jobs: a list that changes with them, or one of them.

import { get, part, remove } from "../api.js";
import { empty, errorNote, fill, find, h, refused, stateTag, table } from "../dom.js";
import { shortened, time } from "../format.js";
import { showName } from "../heading.js";
import { showJob } from "../jobs/job.js";
import { ENDED, STATES, jobUrl, progressShown, took } from "../jobs/shown.js";
import { startForm } from "../jobs/start.js";
import { follow, reloadWith } from "../live.js";
import { currentWorkspace } from "../workspace.js";

const workspace = currentWorkspace();
const query = new URLSearchParams(location.search);
const page = find("#page");
const MOST_FOLLOWED = 20;

function showList() {
  const list = h("div");
  const state = h("select", { on: { change: choose } }, h("option", { value: "" }, "all"), STATES.map((one) => h("option", { value: one, selected: one === query.get("state") }, one)));
  const session = query.get("session");
  const followed = new Map(); // job_id -> a function that stops following it
  const states = new Map(); // job_id -> the cell of its state
  const starting = h("div");
  const reload = reloadWith(({ changes }) => changes.jobs, load);

  function choose() {
    const url = new URL(location.href);
    if (state.value) url.searchParams.set("state", state.value);
    else url.searchParams.delete("state");
    history.replaceState(null, "", url);
    reload();
  }

  async function load() {
    try {
      const { jobs } = await get("/jobs", { workspace, session_id: session, state: state.value });
      fill(list, jobs.length ? table(["Job", "Tool and input", "State", "Began", "Took", "Actions"], jobs.map(row))
        : empty(state.value ? `No job is ${state.value}` : "No jobs yet", h("p", {}, "A job runs a tool in the background. Start one below, or ask an agent that has tools for it.")));
      for (const one of jobs.filter((job) => !ENDED.includes(job.state)).slice(0, MOST_FOLLOWED)) watch(one);
    } catch (error) {
      fill(list, errorNote(error));
    }
  }

  function row(job) {
    const cancel = async ({ target }) => {
      target.disabled = true;
      await remove(`/jobs/${part(job.job_id)}`).catch(refused);
      await reload();
    };
    states.set(job.job_id, h("td", {}, h("div", {}, stateTag(job.state), progressShown(job))));
    return [h("a", { href: jobUrl(job.job_id) }, job.job_id), h("span", { class: "mono" }, job.tool, " ", h("span", { class: "soft" }, shortened(JSON.stringify(job.input), 80))),
      states.get(job.job_id), time(job.started_at ?? job.created_at), took(job),
      !ENDED.includes(job.state) && h("button", { class: "danger quiet", aria: { label: `Cancel ${job.job_id}` }, on: { click: cancel } }, "Cancel")];
  }

  function watch(job) {
    if (followed.has(job.job_id)) return;
    followed.set(job.job_id, follow(`job/${job.job_id}`, ({ kind, data }) => {
      if (kind === "progress") {
        const cell = states.get(job.job_id);
        if (cell) fill(cell, h("div", {}, stateTag("running"), progressShown({ progress: data, state: "running" })));
      } else if (kind === "end" || (kind === "state" && data.state !== job.state)) {
        job = data;
        if (kind === "end") followed.get(job.job_id)?.();
        reload();
      }
    }));
  }

  fill(page, h("div", { class: "row" }, h("label", { class: "inline" }, "State", state), session && h("span", { class: "tag" }, `of the session ${session}`)), h("p"), list, h("h2", {}, "Start a job"), starting);
  startForm({ workspace, session, onStarted: (id) => location.assign(jobUrl(id)) }).then((form) => fill(starting, form), (error) => fill(starting, errorNote(error)));
  return reload();
}

const id = query.get("job");
if (id) showName(id, "Jobs");
(id ? showJob(page, id) : showList()).catch((error) => page.prepend(errorNote(error)));
