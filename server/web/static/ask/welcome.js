// What a new conversation shows: what can be asked, and the latest conversations.

import { get } from "../api.js";
import { fill, h } from "../dom.js";
import { shortened, time } from "../format.js";

/** Answered by the embedded model too. */
const EXAMPLES = ["What is 37 * 52?", "What day of the week was 1969-07-20?", "Convert 5 miles to km"];

export const askUrl = (session, workspace) => `/ui/ask?${new URLSearchParams({ session, workspace })}`;

/** `ask(question)` is called for an example. */
export function welcome(workspace, ask) {
  const recent = h("div", { class: "recent" });
  showRecent(recent, workspace).catch(() => null); // The page is of use without them.
  return h("div", { class: "welcome" },
    h("p", { class: "soft" }, "The model answers with the tools of your workspace. You see each step as it comes, and you may leave: the answer is saved."),
    h("div", { class: "examples" }, EXAMPLES.map((one) => h("button", { class: "card", on: { click: () => ask(one) } }, one))),
    recent);
}

async function showRecent(element, workspace) {
  const [{ sessions }, { runs }] = await Promise.all([get("/sessions", { workspace, limit: 6 }), get("/runs", { workspace, limit: 20 })]);
  const inFlight = runs.filter((run) => run.session_id && ["queued", "running"].includes(run.state));
  const rows = new Map(inFlight.map((run) => [run.session_id, { title: run.question, tag: h("span", { class: "tag live" }, run.state) }]));
  for (const one of sessions) rows.set(one.session_id, { tag: h("span", { class: "soft small" }, time(one.used)), ...rows.get(one.session_id), title: one.title });
  if (!rows.size) return;
  fill(element, h("h2", {}, "Continue"), h("ul", { class: "plain-list" }, [...rows].slice(0, 6).map(([session, { title, tag }]) =>
    h("li", {}, h("a", { href: askUrl(session, workspace) }, h("span", { class: "text" }, shortened(title || session, 80)), tag)))));
}

const FIRST = "amber bright calm clear copper early fair gentle golden green keen lively mild noble quick quiet silver still warm wise".split(" ");
const SECOND = "alder ash beech birch cedar coral delta ember fern flint harbor hazel heron lake maple meadow otter quartz river willow".split(" ");
const one = (list) => list[Math.floor(Math.random() * list.length)];

/** A name for a new conversation, that people can say. */
export const sessionName = () => `${one(FIRST)}-${one(SECOND)}-${Math.floor(Math.random() * 46656).toString(36).padStart(3, "0")}`;
