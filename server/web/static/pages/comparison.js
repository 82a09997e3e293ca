// One comparison: its progress, what it says, and its rows.

import { get, part, post, remove } from "../api.js";
import { confirmed } from "../dialog.js";
import { act, errorNote, figure, fill, find, h, stateTag } from "../dom.js";
import { count, seconds, short } from "../format.js";
import { follow } from "../live.js";

const id = location.pathname.split("/").at(-1);
const path = `/comparisons/${id}`;
const HEADS = ["#", "Question", "A", "B"];
let next = null;

const difference = (of, show) => (of.median_difference === null ? "" : `B − A: ${of.median_difference < 0 ? "−" : "+"}${show(Math.abs(of.median_difference))}`);

function showSummary({ summary, check }) {
  const { tokens, seconds: times, correct } = summary;
  fill(find("#figures"),
    figure("Changed answers", count(summary.changed), `of ${summary.answered} answered`),
    check && figure("Right", `${correct.a} → ${correct.b}`, `of ${summary.judged} judged`),
    check && figure("McNemar's p", summary.p === null ? "–" : summary.p.toPrecision(2), `only A right: ${summary.only_a_correct}, only B: ${summary.only_b_correct}`),
    figure("Tokens, median", `${tokens.median_a ?? "–"} → ${tokens.median_b ?? "–"}`, difference(tokens, count)),
    figure("Seconds, median", `${seconds(times.median_a) || "–"} → ${seconds(times.median_b) || "–"}`, difference(times, seconds)),
    figure("Failed", `${summary.failed.a} → ${summary.failed.b}`));
}

function showHead(comparison) {
  const { state, answered, questions, check, error } = comparison;
  document.title = `${comparison.name || "Comparison"} · Hearth`;
  fill(find("#name"), comparison.name || `Comparison ${id}`);
  const isRunning = state === "running";
  fill(find("#progress"), h("p", { class: "soft small", role: "status" }, stateTag(state), ` ${answered} of ${questions} questions answered`),
    isRunning && h("progress", { value: answered, max: questions, aria: { label: "Answered" } }));
  fill(find("#problem"), error && errorNote(error));
  fill(find("#acts"),
    isRunning && act("Stop", () => post(`${path}/cancel`).then(show), "danger"),
    ["cancelled", "interrupted", "failed"].includes(state) && act("Continue", () => post(`${path}/resume`).then(show)),
    h("a", { class: "button", href: `${path}/export`, download: "" }, "CSV"),
    act("Delete", async () => {
      if (!(await confirmed("Delete this comparison?", "Its runs stay.", "Delete the comparison"))) return;
      await remove(path);
      location.assign("/ui/compare");
    }, "danger"));
  fill(find("#sides"), ["a", "b"].map((name) => {
    const side = comparison[name];
    return h("div", { class: "card" }, h("h2", {}, name.toUpperCase()), h("div", {}, side.workspace, " · ", h("code", {}, short(side.generation)), " · ", side.model, " · ", side.agent),
      side.instructions && h("pre", { class: "small soft" }, side.instructions));
  }));
  fill(find("#judged"), check && h("p", { class: "soft small" }, `An answer is right if ${{ equal: "it equals the expected one", contains: "it contains the expected one", tool: `the tool ${check.tool} says so`, model: `the model ${check.judge ?? ""} says so` }[check.kind]}.`));
}

function cell(one) {
  if (!one) return h("span", { class: "soft" }, "…");
  const judged = one.correct === null || one.correct === undefined ? null
    : h("span", { class: `tag ${one.correct ? "good" : "bad"}` }, one.correct ? "right" : "wrong", one.score !== null && ` ${one.score}`);
  return h("div", {}, one.error ? h("div", { class: "bad plain" }, one.error.message) : h("div", { class: "plain" }, one.answer),
    h("div", { class: "soft small" }, judged, " ", one.run_id && h("a", { href: `/ui/runs/${part(one.run_id)}` }, "run"), ` · ${count(one.tokens)} tokens · ${seconds(one.seconds)}`),
    one.check_error && h("div", { class: "bad small plain" }, `The check failed: ${one.check_error.message}`));
}

function row(one) {
  const values = [one.number, h("div", { class: "plain" }, one.question, one.expected !== null && h("div", { class: "soft small" }, `expected: ${one.expected}`)), cell(one.a), cell(one.b)];
  return h("tr", { class: one.changed ? "changed" : "same" }, values.map((value, at) => h("td", { data: { label: HEADS[at] } }, value)));
}

async function showRows(after = null) {
  const found = await get(`${path}/rows`, { order: find("#order").value, limit: 100, after });
  next = found.next;
  const rows = found.rows.map(row);
  after ? find("#rows tbody").append(...rows) : find("#rows tbody").replaceChildren(...rows);
  find("#more").hidden = !next;
}

async function show() {
  const comparison = await get(path);
  showHead(comparison);
  showSummary(comparison);
  await showRows();
  return comparison;
}

// Changes come in bursts: the page is read again at most once a second.
let waiting = null;
const showSoon = () => (waiting ??= setTimeout(() => {
  waiting = null;
  show().catch(failed);
}, 1000));
const failed = (error) => fill(find("#problem"), errorNote(error));

fill(find("#rows thead"), h("tr", {}, HEADS.map((one) => h("th", {}, one))));
find("#order").addEventListener("change", () => showRows().catch(failed));
find("#more").addEventListener("click", () => showRows(next).catch(failed));
show().then(({ state }) => state === "running" && follow(`comparison/${decodeURIComponent(id)}`, showSoon)).catch(failed);
