// What every page has around it: the workspace, the model's state, the theme, the menu.

import { get } from "./api.js";
import { fill, find, h } from "./dom.js";
import { follow } from "./live.js";
import { currentWorkspace, setWorkspace } from "./workspace.js";

const select = find("#workspace");
const menu = find("#menu-button");
const navigation = find("#navigation");

menu.addEventListener("click", () => menu.setAttribute("aria-expanded", navigation.classList.toggle("open")));

find("#theme").addEventListener("click", () => {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const now = document.documentElement.dataset.theme ?? (dark ? "dark" : "light");
  const next = now === "dark" ? "light" : "dark";
  document.documentElement.dataset.theme = next;
  try {
    localStorage.setItem("theme", next);
  } catch {
    // The choice holds for this page.
  }
});

async function showWorkspaces() {
  const { workspaces } = await get("/workspaces");
  const names = [...new Set([...workspaces.map((one) => one.workspace), currentWorkspace()])];
  fill(select, names.map((name) => h("option", { value: name, selected: name === currentWorkspace() }, name)));
}
select.addEventListener("change", () => {
  setWorkspace(select.value);
  location.reload();
});

/** Show the default model's name and state. */
function showModel(sample) {
  const model = sample.model;
  fill(find("#model-state .text"), model ? (model.state === "ready" ? model.name : `${model.name}: ${model.state}`) : "no model");
  find("#model-state .dot").className = `dot ${model?.state ?? ""}`;
}

showWorkspaces().catch(() => fill(select, h("option", {}, currentWorkspace())));
function showLost() {
  fill(find("#model-state .text"), "not connected");
  find("#model-state .dot").className = "dot failed";
}
get("/load").then(({ sample }) => showModel(sample)).catch(showLost);
follow("load", ({ kind, data }) => (kind === "sample" ? showModel(data) : kind === "lost" && showLost()));
