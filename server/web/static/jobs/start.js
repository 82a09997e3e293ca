// Starting a tool as a job.

import { post } from "../api.js";
import { errorNote, fill, h } from "../dom.js";

/** The form, for the tools of a workspace. `onStarted(job_id)`. */
export async function startForm({ workspace, session, onStarted }) {
  const { tools } = await post("/load_tools", { workspace });
  const tool = h("select", { on: { change: choose } }, tools.map((one) => h("option", { value: one.name }, one.name)));
  const about = h("p", { class: "soft small text" });
  const input = h("textarea", { rows: 4, class: "mono", spellcheck: "false" });
  const note = h("div");

  function choose() {
    const chosen = tools.find((one) => one.name === tool.value);
    const properties = chosen?.args_schema.properties ?? {};
    about.textContent = chosen?.description ?? "";
    input.value = JSON.stringify(Object.fromEntries(Object.entries(properties).map(([name, schema]) => [name, first(schema)])), null, 2);
  }
  async function start(event) {
    event.preventDefault();
    fill(note);
    let given;
    try {
      given = JSON.parse(input.value || "{}");
    } catch (error) {
      return fill(note, errorNote({ message: `The input is not JSON: ${error.message}` }));
    }
    try {
      onStarted((await post("/jobs", { tool: tool.value, input: given, workspace, session_id: session })).job_id);
    } catch (error) {
      fill(note, errorNote(error));
    }
  }
  choose();
  return h("form", { class: "card stack narrow", on: { submit: start } }, h("label", {}, "Tool", tool), about, h("label", {}, "Its input, as JSON", input), note,
    h("div", {}, h("button", { class: "primary", disabled: !tools.length }, "Start the job")));
}

/** A first value for an argument, for people to change. */
const first = (schema) => schema.default ?? schema.examples?.[0] ?? schema.enum?.[0] ?? { string: "", integer: 0, number: 0, boolean: false, array: [], object: {} }[schema.type] ?? null;
