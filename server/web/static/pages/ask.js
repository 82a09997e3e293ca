// A conversation: its saved messages, the questions in flight, and a new one.

import { get, part, post } from "../api.js";
import { Composer } from "../ask/composer.js";
import { Exchange } from "../ask/exchange.js";
import { SessionJobs } from "../ask/session-jobs.js";
import { askUrl, sessionName, welcome } from "../ask/welcome.js";
import { errorNote, fill, find, h } from "../dom.js";
import { follow } from "../live.js";
import { currentWorkspace } from "../workspace.js";

const workspace = currentWorkspace();
const named = new URLSearchParams(location.search).get("session");
const session = named || sessionName();
const list = find("#conversation");
const latest = find("#latest");
const exchanges = [];
const jobs = new SessionJobs();
let isPinned = true;

const composer = new Composer({ form: find("#composer"), workspace, session, ask, begin: showAddress, stop: stopLast });

/** The conversation's address: to reload it, and to come back to it. */
function showAddress() {
  history.replaceState(null, "", askUrl(session, workspace));
  find("#title").textContent = session;
  document.title = `${session} · Ask · Hearth`;
  find("#session-link").href = `/ui/sessions?${new URLSearchParams({ session, workspace })}`;
  find("#conversation-links").hidden = false;
}

function add(exchange) {
  find(".welcome", list)?.remove();
  exchanges.push(exchange);
  list.append(exchange.element);
  return exchange;
}

const known = (runId) => exchanges.find((one) => one.runId === runId);
const make = (question, more = {}) => new Exchange({ question, workspace, session, onChange: showState, ...more });

async function ask(body) {
  const sentAt = performance.now();
  const { run_id: runId } = await post("/run_script", { ...body, workspace, session_id: session }, { headers: { Prefer: "respond-async" } });
  if (!exchanges.length) showAddress();
  watch();
  isPinned = true;
  const marks = (body.images ?? []).map((name) => `\n[image 0: ${name}, 0 x 0]`).join("");
  add(make(body.question + marks, { agent: body.agent })).follow(runId, sentAt);
}

function askExample(question) {
  composer.write(question);
  composer.submit();
}

function showState() {
  const running = exchanges.some((one) => one.isRunning);
  find("#stop").hidden = !running;
  list.setAttribute("aria-busy", String(running));
}

function stopLast() {
  exchanges.findLast((one) => one.isRunning)?.stop();
}

/** Messages that others send into this conversation, and its jobs, as they come. */
let watching = null;
const asked = new Map(); // run_id -> what was asked, and by whom
function watch(newest = 0) {
  watching ??= follow(`session/${workspace}/${session}`, ({ kind, data }) => {
    if (kind === "job" || kind === "progress") jobs.show(data);
    if (kind !== "message" || data.time < newest || known(data.run_id)) return;
    if (data.role !== "assistant") return void asked.set(data.run_id, data);
    const exchange = add(make(asked.get(data.run_id)?.content ?? "", { asker: asked.get(data.run_id)?.role }));
    exchange.runId = data.run_id;
    showRecord(exchange);
  });
}

/** Fill an exchange from its run's record; without a record, from the session's messages alone. */
async function showRecord(exchange, saved = null) {
  try {
    const record = await get(`/runs/${part(exchange.runId)}`);
    if (!saved) exchange.showQuestion(record.question);
    await exchange.end(record);
  } catch (error) {
    await exchange.end(saved ? { ...saved, state: "done" } : { state: "failed", error });
  }
}

/** Saved exchanges are completed when they come into view. */
const seen = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (!isIntersecting) continue;
    seen.unobserve(target);
    const exchange = exchanges.find((one) => one.element === target);
    showRecord(exchange, exchange.saved);
  }
}, { rootMargin: "600px" });

async function load() {
  const [saved, { runs }] = await Promise.all([
    get(`/sessions/${part(session)}`, { workspace }).catch((error) => (error.status === 404 ? { messages: [] } : Promise.reject(error))),
    get("/runs", { workspace, limit: 100 }),
  ]);
  for (const { role, content, run_id: runId } of saved.messages) {
    if (role !== "assistant") asked.set(runId, { role, content });
    else {
      const exchange = add(make(asked.get(runId)?.content ?? "", { asker: asked.get(runId)?.role }));
      Object.assign(exchange, { runId, saved: { run_id: runId, answer: content } });
      fill(exchange.answer, h("div", { class: "plain" }, content.slice(0, 20_000)));
      seen.observe(exchange.element);
    }
  }
  // Those that failed are no part of the session. They are shown if nothing was answered since.
  const last = saved.messages.at(-1)?.time ?? 0;
  const others = runs.filter((run) => run.session_id === session && !known(run.run_id) && (["queued", "running"].includes(run.state) || run.asked > last));
  for (const run of others.sort((one, other) => one.asked - other.asked)) {
    const exchange = add(make(run.question, { agent: run.agent }));
    exchange.runId = run.run_id;
    if (["queued", "running"].includes(run.state)) {
      exchange.follow(run.run_id);
      get(`/runs/${part(run.run_id)}`).then((record) => exchange.showQuestion(record.question)).catch(() => null);
    } else showRecord(exchange);
  }
  if (!exchanges.length) fill(list, welcome(workspace, askExample));
  if (saved.title && exchanges.length) find("#title").textContent = saved.title;
  watch(last);
  jobs.load(workspace, session).catch(() => null); // Without them the conversation is all there.
}

// The page stays at its end while text comes, unless the reader has scrolled away.
addEventListener("scroll", () => {
  isPinned = document.documentElement.scrollHeight - innerHeight - scrollY < 100;
  latest.hidden = isPinned;
}, { passive: true });
const toEnd = () => scrollTo(0, document.documentElement.scrollHeight);
new ResizeObserver(() => isPinned && toEnd()).observe(list);
latest.addEventListener("click", toEnd);
addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !event.isComposing && !find("dialog[open]")) stopLast();
});

find("#jobs").append(jobs.element);
composer.showChoices();
if (named) {
  showAddress();
  load().catch((error) => fill(list, errorNote(error)));
} else fill(list, welcome(workspace, askExample));
if (matchMedia("(min-width: 761px)").matches) composer.text.focus();
