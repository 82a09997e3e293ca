// Continue a run from a step, with one thing changed.

import { get, part, post } from "../api.js";
import { errorNote, fill, find, h } from "../dom.js";
import { short, time } from "../format.js";

const dialog = find("#fork");

/** Open the dialog. `step`: as `GET /runs/<id>/steps/<k>` gives it; the run continues after it, or with its answer anew.
 * `from`: `{call, token, text}`, to continue within a model call. */
export async function openFork(record, step, from = null) {
  const isAnswer = step.step > step.count;
  const live = await get("/generations", { workspace: record.workspace }).catch(() => ({ generations: [], live: null }));
  const fields = {
    observation: !isAnswer && !from && h("textarea", { rows: 5 }, step.observation ?? ""),
    thought: !isAnswer && !from && h("textarea", { rows: 2 }, step.thought ?? ""),
    input: !isAnswer && !from && h("textarea", { rows: 3, class: "mono" }, JSON.stringify(step.input, null, 2)),
    question: h("textarea", { rows: 3 }, record.question),
    text: from && h("textarea", { rows: 2, class: "mono" }, from.text),
    generation: h("select", {}, h("option", { value: "" }, `the run's own: ${short(record.generation)}`), h("option", { value: "live" }, `live now: ${short(live.live)}`),
      live.generations.filter((one) => ![record.generation, live.live].includes(one.generation)).map((one) => h("option", { value: one.generation }, `${short(one.generation)}, ${time(one.time)}`))),
    temperature: h("input", { type: "number", min: 0, max: 5, step: 0.1, placeholder: "as the agent has it" }),
    seed: h("input", { type: "number", min: 0, step: 1, placeholder: "none" }),
    rerun: !isAnswer && !from && h("input", { type: "checkbox" }),
  };
  const before = { observation: step.observation ?? "", thought: step.thought ?? "", input: JSON.stringify(step.input, null, 2) };
  const problem = h("div");
  const label = (text, field, kind = "") => field && h("label", { class: kind }, text, field);
  const form = h("form", { class: "stack" },
    h("h2", { id: "fork-title" }, from ? `Continue model call ${from.call} with another token` : isAnswer ? "Answer again" : `Continue after step ${step.step}`),
    h("p", { class: "soft small" }, "The steps before are taken from the record: the model reads the same prompt, and no token is written for them."),
    label("Text in the place of the token", fields.text),
    label("Result of the tool, as the model reads it", fields.observation),
    fields.rerun && h("label", { class: "inline" }, fields.rerun, "Call the tool again, and use what it returns now"),
    label("Code", fields.generation),
    h("details", {}, h("summary", {}, "More to change"), h("div", { class: "stack" },
      label("Thought", fields.thought), label("Input of the tool, as JSON", fields.input), label("Question", fields.question),
      h("div", { class: "row" }, label("Temperature", fields.temperature), label("Seed", fields.seed)))),
    problem,
    h("div", { class: "row" }, h("button", { class: "primary" }, "Continue"), h("button", { type: "button", on: { click: () => dialog.close() } }, "Close")));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      const body = { step: from ? step.step : isAnswer ? step.step : step.step + 1 };
      if (from) body.continue_from = { ...from, text: fields.text.value };
      if (fields.rerun?.checked) body.rerun_tool = true;
      else if (fields.observation && fields.observation.value !== before.observation) body.observation = fields.observation.value;
      if (fields.thought && fields.thought.value !== before.thought) body.thought = fields.thought.value;
      if (fields.input && fields.input.value !== before.input) body.input = JSON.parse(fields.input.value);
      if (fields.question.value !== record.question) body.question = fields.question.value;
      if (fields.generation.value) body.generation = fields.generation.value;
      const sampling = Object.fromEntries(["temperature", "seed"].filter((name) => fields[name].value !== "").map((name) => [name, Number(fields[name].value)]));
      if (Object.keys(sampling).length) body.sampling = sampling;
      const { run_id: id } = await post(`/runs/${part(record.run_id)}/fork`, body, { headers: { Prefer: "respond-async" } });
      location.assign(`/ui/runs/${part(id)}?beside=${part(record.run_id)}`);
    } catch (error) {
      fill(problem, errorNote(error));
    }
  });
  fill(dialog, form);
  dialog.showModal();
}
