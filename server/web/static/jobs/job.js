// One job: its state, progress and log, live.

import { get, part, post, remove, send } from "../api.js";
import { GrowingText } from "../ask/growing.js";
import { longText } from "../ask/steps.js";
import { act, errorNote, fill, h, stateTag } from "../dom.js";
import { seconds, short, time } from "../format.js";
import { follow } from "../live.js";
import { ENDED, jobUrl, progressShown, took } from "./shown.js";

export async function showJob(page, id) {
  const path = `/jobs/${part(id)}`;
  const about = h("div", { class: "card stack" });
  const outcome = h("div");
  const log = new GrowingText();
  const block = h("div", { class: "block mono small", tabindex: 0, role: "log", aria: { label: "Log", live: "off" } }, log.element);
  const silent = h("p", { class: "soft small" }, "It has printed nothing.");
  fill(page, about, outcome, h("h2", {}, "Log"), block, silent);

  function print(text) {
    const atEnd = block.scrollHeight - block.scrollTop - block.clientHeight < 30;
    log.add(text);
    log.flush();
    silent.hidden = log.length > 0;
    block.hidden = !silent.hidden;
    if (atEnd) block.scrollTop = block.scrollHeight;
  }

  function show(job) {
    const ended = ENDED.includes(job.state);
    const facts = [["Tool", h("span", { class: "mono" }, job.tool)], ["Code", short(job.generation)], ["Workspace", job.workspace], ["Started", job.started_at && time(job.started_at)], ["Took", took(job)],
      ["Limit", seconds(job.timeout_seconds)], ["Session", job.session_id && h("a", { href: `/ui/ask?${new URLSearchParams({ session: job.session_id, workspace: job.workspace })}` }, job.session_id)],
      ["Run", job.run_id && h("a", { href: `/ui/runs/${part(job.run_id)}` }, short(job.run_id))], ["Repeats", job.retry_of && h("a", { href: jobUrl(job.retry_of) }, job.retry_of)]];
    fill(about, h("div", { class: "spread" }, h("div", { role: "status" }, stateTag(job.state)),
        ended ? act("Start it again", async () => location.assign(jobUrl((await post(`${path}/retry`)).job_id))) : act("Cancel", () => remove(path), "danger")),
      progressShown(job), h("div", { class: "row facts" }, facts.filter(([, value]) => value).map(([label, value]) => h("div", {}, h("div", { class: "soft small" }, label), value))),
      h("details", {}, h("summary", {}, "Input"), longText(JSON.stringify(job.input, null, 2))));
    fill(outcome, job.result !== undefined && [h("h2", {}, "Result"), longText(job.result)],
      job.error && [h("h2", {}, "Error"), errorNote(job.error), job.error.traceback && longText(job.error.traceback)]);
  }

  let job = await get(path);
  show(job);
  print("");
  if (ENDED.includes(job.state)) return print(await (await send("GET", `${path}/log`)).text());
  const stop = follow(`job/${id}`, ({ kind, data }) => {
    if (kind === "log") return print(data.text);
    job = kind === "progress" ? { ...job, progress: data } : { ...job, ...data };
    if (kind === "end") stop();
    if (kind !== "missing") show(job);
  });
}
