// The tokens of a model call: how likely each was, what the grammar forced, and what else there was.

import { get, part } from "../api.js";
import { errorNote, fill, h } from "../dom.js";

const PART = 1000;
const percent = (logprob) => {
  const value = 100 * Math.exp(logprob);
  return value >= 99.95 ? "100 %" : value >= 1 ? `${value.toFixed(1)} %` : value >= 0.01 ? `${value.toFixed(2)} %` : "< 0.01 %";
};
/** A token's text, with white space that can be seen. */
const visible = (token) => (token.bytes ? `⟨${token.bytes}⟩` : token.text.replaceAll("\n", "↵").replaceAll("\t", "⇥"));
/** The line breaks after a token's button, so that the text keeps its shape. */
const breaks = (token) => "\n".repeat(token.bytes ? 0 : token.text.split("\n").length - 1);

/** An element with the tokens of a call. `continueFrom(call, token, text)`: another text in the place of a token, from 0. */
export function tokenView(run, call, continueFrom) {
  const shown = h("div", { class: "tokens" });
  const details = h("div", { class: "card small", hidden: true, aria: { live: "polite" } });
  const more = h("button", { hidden: true }, "Show more");
  const box = h("div", { class: "stack" },
    h("p", { class: "soft small" }, "Underlined: ", h("span", { class: "token sure" }, "likely"), ", ", h("span", { class: "token open" }, "open"), ", ", h("span", { class: "token unlikely" }, "unlikely"),
      ". Dotted and grey: forced by the grammar. Choose a token to see what else the model considered."), shown, more, details);
  let loaded = 0;
  async function load() {
    try {
      const found = await get(`/runs/${part(run)}/tokens`, { call: call.call, after: loaded, limit: PART });
      shown.append(...found.tokens.flatMap((token, at) => [tokenButton(token, loaded + at), breaks(token)]));
      loaded += found.tokens.length;
      more.hidden = loaded >= found.count;
    } catch (error) {
      fill(details, errorNote(error)).hidden = false;
    }
  }
  function tokenButton(token, place) {
    const kind = token.forced ? "forced" : token.logprob === null ? "" : token.logprob > -0.1 ? "sure" : token.logprob > -2 ? "open" : "unlikely";
    const label = `${token.text}, ${token.forced ? "forced" : percent(token.logprob ?? 0)}`;
    return h("button", { class: `token ${kind}`, type: "button", aria: { label }, on: { click: () => explain(token, place) } }, visible(token));
  }
  function explain(token, place) {
    const rest = (one) => h("button", { class: "quiet", type: "button", title: "Continue the run with this token", on: { click: () => continueFrom(call.call, place, one.text) } }, "continue with it");
    const rows = token.top.map((one) => h("tr", {}, h("td", {}, h("code", {}, JSON.stringify(one.text))), h("td", { class: "number" }, percent(one.logprob)),
      h("td", {}, one.id === token.id ? "chosen" : one.bytes ? "" : rest(one))));
    fill(details, h("p", {}, h("code", {}, JSON.stringify(token.text)), " ", token.forced ? "was forced: the grammar allowed nothing else, or it is fixed text. " : "was chosen by the model. ",
      token.logprob === null ? "" : `Probability without the grammar: ${percent(token.logprob)}.`),
      h("table", {}, h("thead", {}, h("tr", {}, ["Token", "Probability", ""].map((one) => h("th", { class: one === "Probability" ? "number" : "" }, one || h("span", { class: "visually-hidden" }, "Act"))))), h("tbody", {}, rows))).hidden = false;
  }
  more.addEventListener("click", load);
  load();
  return box;
}
