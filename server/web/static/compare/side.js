// The choice of one side: workspace, generation, model, agent, instructions.

import { get } from "../api.js";
import { fill, h } from "../dom.js";
import { short, time } from "../format.js";
import { currentWorkspace } from "../workspace.js";

const options = (pairs, chosen) => pairs.map(([value, text]) => h("option", { value, selected: value === chosen }, text));

/** Fill a fieldset; returns a function that gives the side as the request has it. `models`, `agents`, `workspaces`: names. */
export function side(fieldset, { models, agents, workspaces }, generation = "") {
  const workspace = h("select", {}, options(workspaces.map((one) => [one, one]), currentWorkspace()));
  const code = h("select");
  const model = h("select", {}, options([["", "the default model"], ...models.map((one) => [one, one])]));
  const agent = h("select", {}, options(agents.map((one) => [one, one]), "react"));
  const instructions = h("textarea", { rows: 3, placeholder: "Answer in one word.\n\n{question}" });
  async function showGenerations() {
    const found = await get("/generations", { workspace: workspace.value }).catch(() => ({ generations: [] }));
    const known = found.generations.filter((one) => one.generation !== found.live);
    fill(code, options([["", `live now${found.live ? `: ${short(found.live)}` : ""}`],
      ...known.map((one) => [one.generation, `${short(one.generation)}, ${time(one.time)}`])], generation));
  }
  workspace.addEventListener("change", showGenerations);
  showGenerations();
  fieldset.append(
    h("label", {}, "Workspace", workspace), h("label", {}, "Code", code), h("label", {}, "Model", model), h("label", {}, "Agent", agent),
    h("details", {}, h("summary", {}, "Another prompt"),
      h("label", {}, "Text before the question, or around {question}", instructions)));
  return () => ({
    workspace: workspace.value, agent: agent.value,
    ...(code.value ? { generation: code.value } : {}), ...(model.value ? { model: model.value } : {}),
    ...(instructions.value.trim() ? { instructions: instructions.value } : {}),
  });
}
