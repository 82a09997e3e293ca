// The list of runs, with filters that are in the address.

import { get, part, withQuery } from "../api.js";
import { empty, errorNote, fill, find, h, stateTag, table } from "../dom.js";
import { count, seconds, short, shortened, time, written } from "../format.js";
import { reloadWith } from "../live.js";
import { currentWorkspace } from "../workspace.js";

const LIMIT = 50;
const HEADS = ["Question", "State", "Answer", "Agent", "Code", "Tokens", "Took", "Asked"];
const KINDS = ["", "tight", "", "tight extra", "tight extra", "tight extra", "tight", "tight"];
const form = find("#filters");
const asked = new URLSearchParams(location.search);
let last = null;

const filters = () => Object.fromEntries([...new FormData(form)].filter(([, value]) => value));

function cells(run) {
  const tokens = written(run.usage);
  return [
    h("a", { href: `/ui/runs/${part(run.run_id)}` }, shortened(run.question, 120)),
    stateTag(run.state),
    run.error ? h("span", { class: "bad" }, shortened(run.error.message ?? "", 120)) : shortened(run.answer ?? "", 120),
    run.agent, h("code", {}, short(run.generation)), tokens && count(tokens), seconds(run.seconds), time(run.asked)];
}

async function show(before = null) {
  const { runs } = await get("/runs", { ...filters(), limit: LIMIT, before });
  fill(find("#problem"));
  if (!before && !runs.length) {
    fill(find("#runs"), Object.keys(filters()).some((name) => name !== "workspace")
      ? empty("No run fits", h("p", {}, "Take a filter away."))
      : empty("No runs yet", h("p", {}, "Ask a question, here or in a notebook."), h("a", { class: "button primary", href: "/ui/ask" }, "Ask")));
  } else if (before) find("#runs tbody").append(...table(HEADS, runs.map(cells), KINDS).querySelectorAll("tbody tr"));
  else fill(find("#runs"), table(HEADS, runs.map(cells), KINDS));
  last = runs.at(-1)?.run_id;
  find("#more").hidden = runs.length < LIMIT;
}

const failed = (error) => fill(find("#problem"), errorNote(error));

async function open() {
  const { workspaces } = await get("/workspaces");
  const names = [...new Set([currentWorkspace(), ...workspaces.map((one) => one.workspace)])];
  fill(form.elements.workspace, h("option", { value: "" }, "all"), names.map((name) => h("option", { value: name }, name)));
  for (const element of form.elements) if (element.name) element.value = asked.get(element.name) ?? (element.name === "workspace" ? currentWorkspace() : "");
  await show();
}

// Not while somebody reads further down: the rows would move.
const load = async () => scrollY < 200 && show().catch(failed);

open().then(() => {
  const reload = reloadWith(({ changes, runs }) => changes.runs + runs.map((run) => run.state).join(), load);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    history.replaceState(null, "", withQuery("/ui/runs", filters()));
    scrollTo(0, 0);
    reload();
  });
}, failed);
find("#more").addEventListener("click", () => show(last).catch(failed));
