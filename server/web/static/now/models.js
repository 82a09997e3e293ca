// The resident models: what they are, loading, and giving their memory back.

import { post } from "../api.js";
import { confirmed } from "../dialog.js";
import { act, errorNote, fill, find, h, toast } from "../dom.js";
import { bytes } from "../format.js";

const dialog = find("#load-dialog");
const form = find("#load-form");

async function change(path, body, done) {
  fill(find("#model-error"));
  try {
    await post(path, body);
    toast(done);
  } catch (error) {
    fill(find("#model-error"), errorNote(error)).scrollIntoView({ block: "nearest" });
  }
}

async function unload(model) {
  if (await confirmed(`Unload ${model}?`, "Questions to it are refused until somebody loads it again.", "Unload it")) await change("/unload_model", { model }, `${model} is unloaded.`);
}

function card(model) {
  const { name, state, progress, error } = model;
  return h("article", { class: "card" },
    h("div", { class: "spread" }, h("h3", { class: "text" }, name), h("span", { class: "tag" }, h("span", { class: `dot ${state}` }), state)),
    progress && h("label", {}, `${progress.stage}: ${progress.done} of ${progress.total}`,
      h("progress", { value: progress.done, max: progress.total || 1 })),
    h("p", { class: "soft small" }, [model.device, model.quantization && model.quantization !== "none" && `${model.quantization} weights`, model.memory_bytes && bytes(model.memory_bytes),
      model.takes_images && "sees pictures"].filter(Boolean).join(" · ")),
    error && h("p", { class: "bad plain small" }, error.message),
    act("Unload", () => unload(name)));
}

/** Show the models of a sample. Unchanged ones keep their elements, and so the focus. */
let shown = "";
export function showModels(models) {
  const now = JSON.stringify(models);
  if (now === shown) return;
  shown = now;
  fill(find("#models"), models.length ? models.map(card) : h("p", { class: "soft" }, "No model is loaded. Load one to answer questions."));
}

export function open() {
  const sleep = act("Sleep", () => change("/sleep", {}, "The models sleep."));
  sleep.title = "Free the memory of all models for a while";
  fill(find("#model-acts"), act("Load a model", () => dialog.showModal(), "primary"), sleep, act("Wake", () => change("/wake", {}, "The models are awake.")));
  find("#load-cancel").addEventListener("click", () => dialog.close());
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const given = new FormData(form);
    const eight = given.get("load_in_8bit");
    const body = { model: given.get("model"), replace: given.has("replace"), ...(eight ? { load_in_8bit: eight === "true" } : {}) };
    dialog.close();
    toast(`${body.model} is loading.`);
    change("/load_model", body, `${body.model} is loaded.`);
  });
}
