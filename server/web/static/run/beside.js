// Two runs side by side: the first difference, and both answers.

import { get, part } from "../api.js";
import { fill, h } from "../dom.js";
import { count, seconds, written } from "../format.js";

const MOST_STEPS = 100;
const text = (step) => (step ? `${step.tool}(${JSON.stringify(step.input)})\n${step.error ?? step.observation}` : "");

function column(title, record, others) {
  const steps = (record.steps ?? []).slice(0, MOST_STEPS);
  return h("div", {},
    h("h2", {}, title, " ", h("a", { class: "mono", href: `/ui/runs/${part(record.run_id)}` }, record.run_id)),
    h("p", { class: "soft small" }, [record.state, record.model, `${count(written(record.usage))} tokens written`, seconds(record.seconds)].filter(Boolean).join(" · ")),
    steps.map((step, at) => {
      const same = text(step) === text(others[at]);
      return h("details", { class: "card", open: !same }, h("summary", {}, `${at + 1} ${step.tool} `, h("span", { class: `tag ${same ? "" : "live"}` }, same ? "same" : "differs")),
        step.thought && h("p", { class: "soft" }, step.thought), h("pre", { class: "block" }, text(step)));
    }),
    h("div", { class: "card" }, h("strong", {}, record.error ? "Error" : "Answer"), h("div", { class: "plain" }, record.error?.message ?? record.answer ?? "…")));
}

/** Show the run `record` beside the run with that id. */
export async function showBeside(element, record, otherId) {
  const other = await get(`/runs/${part(otherId)}`);
  element.hidden = false;
  fill(element, h("div", { class: "two" }, column("The other run", other, record.steps ?? []), column("This run", record, other.steps ?? [])));
}
