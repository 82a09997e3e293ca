// A question and its answer on the page: as it comes, as it ended, or as it was saved.

import { ApiError, get, part, remove } from "../api.js";
import { errorNote, fill, h, refused, toast } from "../dom.js";
import { counted, seconds, written } from "../format.js";
import { follow } from "../live.js";
import { picture, showAnswer } from "./answer.js";
import { GrowingText } from "./growing.js";
import { LiveText } from "./live-text.js";
import { planShown, stepShown } from "./steps.js";

const PICTURE = /\n*\[image [0-9a-f]+: (.*), \d+ x \d+\]/g;

export class Exchange {
  /** `asker`: `system`, when ended jobs have woken the session. `onChange` is called at its start and its end. */
  constructor({ question, workspace, session, asker = "user", agent = "", onChange = () => {} }) {
    Object.assign(this, { question, workspace, session, asker, agent, onChange });
    Object.assign(this, { runId: null, isRunning: false, sentAt: null, firstText: null });
    this.asked = h("div", { class: asker === "user" ? "asked plain" : "asked plain woken" });
    this.steps = h("ol", { class: "steps" });
    this.plan = h("div");
    this.thought = new GrowingText();
    this.thought.element.classList.add("soft", "small");
    this.workTitle = h("summary", {}, "Working");
    this.work = h("details", { class: "work", hidden: true }, this.workTitle, this.plan, this.steps, this.thought.element);
    this.text = new GrowingText();
    this.answer = h("div", { class: "answer", aria: { live: "polite" } });
    this.status = h("span", { role: "status" });
    this.numbers = h("span", { class: "numbers" });
    this.foot = h("div", { class: "foot small soft" }, this.status, this.numbers);
    this.element = h("article", { class: "exchange" }, this.asked, this.work, this.answer, this.foot);
    this.showQuestion(question);
  }

  showQuestion(question) {
    this.question = question.replace(PICTURE, "").trim();
    const names = [...new Set([...question.matchAll(PICTURE)].map(([, name]) => name))];
    fill(this.asked, this.asker === "system" && h("div", { class: "small soft" }, "A job has ended"), this.question,
      this.session && names.length > 0 && h("div", { class: "row" }, names.map((name) => picture(this.session, this.workspace, name))));
    this.element.setAttribute("aria-label", this.question.slice(0, 80));
  }

  /** Follow a run from its first event. `sentAt`: when this page sent the question, in milliseconds; null: it did not. */
  follow(runId, sentAt = null) {
    Object.assign(this, { runId, sentAt, firstText: null, isRunning: true, tokens: null });
    this.live = new LiveText({
      isPlain: this.agent === "chat",
      onThought: (text) => (this.thought.add(text), (this.work.hidden = false)),
      onAnswer: (text) => this.text.add(text),
      onReset: () => this.text.clear(),
    });
    fill(this.answer, this.text.element);
    this.answer.setAttribute("aria-busy", "true");
    this.text.element.classList.add("cursor");
    this.work.open = true;
    this.status.textContent = "Waiting";
    const stops = [follow(`run/${runId}`, (event) => this.on(event)), follow("load", (event) => this.onLoad(event))];
    this.leave = () => stops.forEach((stop) => stop());
    this.onChange(this);
  }

  on({ kind, data }) {
    if (!this.isRunning) return;
    if (kind === "queued") this.status.textContent = data.position > 1 ? `In the queue: number ${data.position}` : "Next in the queue";
    else if (kind === "started") this.status.textContent = "Working";
    else if (kind === "token") this.onToken(data);
    else if (kind === "step") this.onStep(data);
    else if (kind === "plan") (this.work.hidden = false), fill(this.plan, planShown(data.steps));
    else if (kind === "answer") this.end({ ...data, state: "done" });
    else if (kind === "error") this.end({ ...data, state: data.type === "run_cancelled" ? "cancelled" : "failed", error: data });
    else if (kind === "missing") this.readRecord();
  }

  onToken({ text, tool }) {
    if (this.firstText === null) {
      this.firstText = performance.now();
      this.showNumbers();
    }
    if (tool) (this.thought.length || this.thought.add(`${tool} asks the model: `)), this.thought.add(text);
    else this.live.add(text);
  }

  onStep(step) {
    this.thought.clear();
    this.text.clear();
    this.live.begin();
    this.work.hidden = false;
    this.steps.append(stepShown(step));
    this.status.textContent = `Working: ${step.tool} has answered`;
  }

  onLoad({ kind, data }) {
    const run = kind === "sample" && data.runs.find((one) => one.run_id === this.runId);
    if (!run) return;
    const before = this.tokens;
    this.tokens = { time: data.time, count: run.tokens };
    if (before && data.time > before.time) this.rate = (run.tokens - before.count) / (data.time - before.time);
    this.elapsed = run.seconds;
    this.showNumbers();
  }

  /** The live numbers. Screen readers don't read them at each change. */
  showNumbers() {
    const first = this.sentAt !== null && this.firstText !== null ? `first token ${seconds((this.firstText - this.sentAt) / 1000)}` : "";
    fill(this.numbers, [first, this.rate && `${this.rate.toFixed(0)} tokens/s`, this.elapsed && seconds(this.elapsed)].filter(Boolean).map((one) => h("span", {}, one)));
  }

  async stop() {
    this.status.textContent = "Stopping";
    try {
      await remove(`/runs/${part(this.runId)}`);
    } catch (error) {
      if (error.status !== 404) refused(error); // else it has just ended
    }
  }

  /** The run as it was saved, for events that the server no longer has. */
  async readRecord() {
    try {
      const record = await get(`/runs/${part(this.runId)}`);
      if (["queued", "running"].includes(record.state)) this.follow(this.runId);
      else await this.end(record);
    } catch (error) {
      await this.end({ state: "failed", error });
    }
  }

  /** Show how it ended. `record`: as `GET /runs/<id>` has it, or the last event of the run. */
  async end(record) {
    this.leave?.();
    const wasRunning = this.isRunning;
    Object.assign(this, { isRunning: false, record, runId: record.run_id ?? this.runId });
    this.text.flush();
    this.text.element.classList.remove("cursor");
    this.showWork(record, wasRunning);
    if (record.state === "done") await showAnswer(this.answer, { session_id: this.session, ...record }, this.workspace);
    else this.showError(record);
    this.answer.setAttribute("aria-busy", "false");
    this.status.textContent = record.state === "done" ? (wasRunning ? "Answered" : "") : record.state === "cancelled" ? "Stopped" : "Failed";
    this.showFoot(record);
    this.onChange(this);
  }

  showWork(record, wasRunning) {
    const steps = record.steps ?? record.error?.steps ?? [];
    this.thought.clear();
    fill(this.steps, steps.map(stepShown));
    if (record.details?.plan) fill(this.plan, planShown(record.details.plan));
    const tools = [...new Set(steps.map((one) => one.tool))];
    this.workTitle.textContent = `${counted(steps.length, "step")}: ${tools.join(", ")}`;
    this.work.hidden = !steps.length;
    if (wasRunning) this.work.open = record.state !== "done" && steps.length > 0;
  }

  showError({ error, state }) {
    const note = state === "cancelled" ? h("div", { class: "note" }, "Stopped before it had an answer.") : errorNote(error instanceof ApiError ? error : { message: error?.message ?? "It failed.", details: error });
    const written = this.text.length ? [h("div", { class: "small soft" }, "Written until then"), this.text.element] : [];
    fill(this.answer, note, written);
  }

  showFoot({ usage, seconds: took, queued_seconds: queued = 0, model, provenance, agent }) {
    const working = (took ?? 0) - queued;
    this.rate = working > 0 ? written(usage) / working : 0;
    this.elapsed = took;
    this.showNumbers();
    this.numbers.prepend(...[provenance?.agent ?? agent, model].filter(Boolean).map((one) => h("span", {}, one)));
    if (!this.runId) return;
    const open = `/ui/runs/${part(this.runId)}`;
    this.numbers.append(h("span", { class: "acts" }, this.record.answer && h("button", { class: "quiet", on: { click: () => copy(this.record.answer) } }, "Copy"),
      h("a", { class: "button quiet", href: open }, "Open the run")));
  }
}

/** The clipboard's API is absent where the server has no HTTPS. */
function copy(text) {
  const area = h("textarea", { class: "visually-hidden", value: text });
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  toast(done ? "Copied." : "The browser did not copy it. Select the text instead.", done ? "" : "bad");
}
