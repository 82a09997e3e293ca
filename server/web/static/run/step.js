// One step: what the model wrote, what the tool answered, and the exact prompts.

import { errorNote, fill, h } from "../dom.js";
import { count, seconds } from "../format.js";
import { tokenView } from "./tokens.js";

const block = (title, text, kind = "") => text !== null && text !== undefined && text !== "" &&
  [h("h3", {}, title), h("pre", { class: `block ${kind}`, tabindex: 0 }, text)];

/** The lines of a unified diff as elements. */
export function diffView(lines) {
  return h("pre", { class: "block prompt", tabindex: 0 }, lines.map((line) => {
    const text = line.endsWith("\n") ? line : `${line}\n`;
    return line.startsWith("+") ? h("ins", {}, text) : line.startsWith("-") ? h("del", {}, text) : line.startsWith("@@") ? h("span", { class: "soft" }, text) : text;
  }));
}

function promptView(call) {
  if (call.prompt === null) return h("p", { class: "soft" }, "The texts of this run were too long to record this prompt.");
  const shared = call.shared_prefix;
  const rest = [...call.prompt].length > 0 ? call.prompt.slice(shared) : "";
  const whole = h("pre", { class: "block prompt", tabindex: 0 }, shared ? h("span", { class: "soft" }, call.prompt.slice(0, shared)) : null, shared ? h("ins", {}, rest) : rest);
  if (!call.previous_call) return whole;
  return h("div", {},
    h("p", { class: "soft small" }, `The first ${count(shared)} characters are those of model call ${call.previous_call}. New since then:`),
    call.diff ? diffView(call.diff) : h("pre", { class: "block prompt", tabindex: 0 }, h("ins", {}, rest)),
    h("details", {}, h("summary", {}, "The whole prompt"), whole));
}

function callView(run, call, continueFrom) {
  const { usage } = call;
  const probabilities = h("div");
  const show = h("button", { type: "button", on: { click: () => { show.hidden = true; probabilities.append(tokenView(run, call, continueFrom)); } } }, "Show each token's probability");
  const sampling = Object.entries(call.sampling ?? {}).map(([name, value]) => `${name} ${value}`).join(", ");
  return h("article", { class: "card" },
    h("h3", {}, `Model call ${call.call}`, call.tool && ` of the tool ${call.tool}`),
    h("p", { class: "soft small" }, [seconds(call.seconds), `${count(usage.prompt_tokens)} prompt tokens, ${count(usage.cached_tokens)} of them cached`,
      `${count(usage.completion_tokens)} chosen`, `${count(usage.forced_tokens)} forced`, `${count(usage.forward_passes)} forward passes`, sampling].filter(Boolean).join(" · ")),
    h("h4", {}, "Prompt"), promptView(call),
    h("h4", {}, "Written"), h("pre", { class: "block", tabindex: 0 }, call.written ?? ""),
    call.tokens > 0 && call.kind === "text" && h("div", { class: "row acts" }, show), probabilities);
}

/** Show a step, as `GET /runs/<id>/steps/<k>` gives it. `forkButton`: continues the run from here. */
export function showStep(element, step, forkButton, continueFrom) {
  const isAnswer = step.step > step.count;
  const failure = isAnswer ? step.error : null;
  fill(element,
    h("div", { class: "spread" }, h("h2", {}, isAnswer ? (failure ? "How the run ended" : "Answer") : `Step ${step.step}: ${step.tool}`), forkButton),
    isAnswer ? [failure && errorNote(failure), step.answer && h("pre", { class: "block", tabindex: 0 }, step.answer)]
      : [block("Thought", step.thought), block("Input", JSON.stringify(step.input, null, 2)), block("Result that the model read", step.observation),
        block("Error", step.error, "bad"), block("Traceback", step.traceback)],
    h("h2", {}, "What the model saw"),
    step.model_calls.length ? step.model_calls.map((call) => callView(step.run_id, call, continueFrom)) : h("p", { class: "soft" }, "No model call is recorded for this step."),
    step.model_calls_left_out > 0 && h("p", { class: "soft" }, `${step.model_calls_left_out} more model calls of this step are not shown.`));
}
