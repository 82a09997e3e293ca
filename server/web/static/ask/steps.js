// What an agent did on the way to its answer: thoughts, calls of tools, the plan.

import { fill, h } from "../dom.js";
import { shortened } from "../format.js";

const LONG = 20_000;

/** A step as an element: its thought, and the call of its tool, which opens. `showTraceback(text)` makes an element. */
export function stepShown({ thought, tool, input, observation, error, traceback }, showTraceback = null) {
  const call = Object.values(input ?? {}).map((one) => (typeof one === "string" ? one : JSON.stringify(one))).join(", ");
  return h("li", { class: "step" }, thought && h("div", { class: "soft text" }, thought),
    h("details", { open: Boolean(error && showTraceback) },
      h("summary", {}, h("span", { class: "mono called" }, tool), " ", h("span", { class: "mono text" }, shortened(call, 90)),
        h("span", { class: error ? "bad text" : "text" }, " → ", shortened((observation || "nothing").trim(), 120))),
      block("Input", JSON.stringify(input, null, 2)), block(error ? "Error" : "Result", observation),
      traceback && (showTraceback ? showTraceback(traceback) : block("Traceback, for people", traceback))));
}

const block = (label, text) => [h("div", { class: "soft small" }, label), longText(text ?? "")];

/** A text as a block; of a very long one the beginning, and the rest on request. */
export function longText(text) {
  const shown = h("pre", { class: "block", tabindex: 0 }, text.slice(0, LONG));
  if (text.length <= LONG) return shown;
  const more = h("button", { class: "quiet", on: { click: () => (fill(shown, text), more.remove()) } }, `Show all ${text.length.toLocaleString()} characters`);
  return [shown, more];
}

/** A plan and the state of its steps. */
export const planShown = (steps) =>
  h("ol", { class: "plan" }, steps.map((one) => h("li", {}, one.step, " ", h("span", { class: `tag ${{ done: "good", failed: "bad", running: "live" }[one.state] ?? ""}` }, one.state))));
