// A new comparison, and the earlier ones.

import { get, part, post } from "../api.js";
import { side } from "../compare/side.js";
import { empty, errorNote, fill, find, h, stateTag, table } from "../dom.js";
import { shortened, time } from "../format.js";
import { currentWorkspace } from "../workspace.js";

const check = find("#check");
const dialog = find("#runs-dialog");
const asked = new URLSearchParams(location.search);
const sides = {};

async function open() {
  const [{ data }, { sample }, { workspaces }] = await Promise.all([get("/v1/models").catch(noModel), get("/load"), get("/workspaces")]);
  const choices = {
    models: sample.models.map((one) => one.name),
    agents: data.filter((one) => one.id.startsWith("hearth/")).map((one) => one.id.slice("hearth/".length)),
    workspaces: [...new Set([currentWorkspace(), ...workspaces.map((one) => one.workspace)])],
  };
  sides.a = side(find("#side-a"), choices, asked.get("a") ?? "");
  sides.b = side(find("#side-b"), choices, asked.get("b") ?? "");
}

/** Without a model no agents are listed. */
function noModel(error) {
  refuse(error);
  return { data: [{ id: "hearth/react" }] };
}

const refuse = (error) => fill(find("#refused"), errorNote(error));

/** The questions as they are typed: `question`, or `question => expected`. */
function typed() {
  return find("#questions").value.split("\n").map((line) => line.trim()).filter(Boolean).map((line) => {
    const [question, ...expected] = line.split(/\t+|\s=>\s/);
    return { question, ...(expected.length ? { expected: expected.join(" ").trim() } : {}) };
  });
}

async function start(event) {
  event.preventDefault();
  const button = find("#new button.primary");
  button.disabled = true;
  fill(find("#refused"));
  const kind = check.value;
  const request = {
    workspace: currentWorkspace(), a: sides.a(), b: sides.b(),
    ...(find("#name").value ? { name: find("#name").value } : {}),
    ...(kind ? { check: { kind, ...(kind === "tool" ? { tool: find("#tool").value } : {}) } } : {}),
  };
  try {
    const file = find("#file").files[0];
    if (!file && !typed().length) throw new Error("There is no question. Write one, take some from runs, or choose a file.");
    let body = { ...request, questions: typed() };
    if (file) {
      body = new FormData();
      body.append("request", JSON.stringify(request));
      body.append("files", file);
    }
    const { comparison_id: id } = await post("/comparisons", body);
    location.assign(`/ui/compare/${part(id)}`);
  } catch (error) {
    refuse(error);
    button.disabled = false;
  }
}

const all = "All of them";
const boxes = () => [...find("#runs").querySelectorAll("input")];

async function chooseRuns() {
  const { runs } = await get("/runs", { workspace: currentWorkspace(), limit: 100 });
  const questions = [...new Set(runs.map((run) => run.question))];
  fill(find("#runs"), questions.length
    ? [all, ...questions].map((question) => h("label", { class: "inline" }, h("input", { type: "checkbox", value: question, on: question === all && { change: ({ target }) => boxes().forEach((one) => (one.checked = target.checked)) } }), shortened(question)))
    : h("p", { class: "soft" }, "Nobody has asked anything in this workspace yet."));
  dialog.showModal();
}

function takeRuns() {
  if (dialog.returnValue !== "take") return;
  const chosen = boxes().filter((one) => one.checked && one.value !== all).map((one) => one.value.replaceAll("\n", " "));
  const area = find("#questions");
  area.value = [area.value.trim(), ...chosen].filter(Boolean).join("\n");
  area.focus();
}

async function showTools() {
  find("#check-tool").hidden = check.value !== "tool";
  if (check.value !== "tool") return;
  const { tools } = await get("/tools", { workspace: currentWorkspace() });
  const judges = tools.filter((tool) => "answer" in (tool.args_schema.properties ?? {}));
  fill(find("#tool"), judges.length ? judges.map((tool) => h("option", {}, tool.name)) : h("option", { value: "" }, "no tool has an argument `answer`"));
}

async function showEarlier() {
  const { comparisons } = await get("/comparisons", { limit: 50 });
  fill(find("#earlier"), comparisons.length
    ? table(["Name", "State", "Questions", "Began"], comparisons.map((one) => [
      h("a", { href: `/ui/compare/${part(one.comparison_id)}` }, one.name || one.comparison_id),
      stateTag(one.state), `${one.answered} of ${one.questions}`, time(one.created_at)]))
    : empty("Nothing compared yet", h("p", {}, "Edit a tool, reload it, and choose the generation from before as A and the live one as B.")));
}

find("#new").addEventListener("submit", start);
find("#from-runs").addEventListener("click", () => chooseRuns().catch(refuse));
dialog.addEventListener("close", takeRuns);
find("#file").addEventListener("change", ({ target }) => (find("#questions").disabled = target.files.length > 0));
check.addEventListener("change", () => showTools().catch(refuse));
open().catch(refuse);
showEarlier().catch((error) => fill(find("#earlier"), errorNote(error)));
