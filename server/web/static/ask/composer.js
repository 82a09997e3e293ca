// Where a question is written: its text, its files, the agent and the model that answer.

import { get, post, part, remove } from "../api.js";
import { fill, find, h, refused, toast } from "../dom.js";
import { formOf, takeFiles } from "../dropped.js";
import { bytes } from "../format.js";
import { fileUrl } from "./answer.js";

const AGENTS = {
  react: "uses tools", chat: "the model alone", documents: "from documents, with citations", coder: "writes and runs Python",
  plan_execute: "makes a plan first", auto: "chooses one of them",
};
const PICTURES = /^image\/(png|jpeg|webp|gif|bmp|tiff)$/;

export class Composer {
  /** `ask({question, agent, model, images})` sends a question; if it throws, the text stays. `begin` is called before a first file. */
  constructor({ form, workspace, session, ask, begin, stop }) {
    Object.assign(this, { form, workspace, session, ask, begin });
    this.files = new Map(); // name -> {type, chip}
    this.uploads = new Set();
    this.text = find("textarea", form);
    this.chips = find(".chips", form);
    this.agent = find("#agent", form);
    this.model = find("#model", form);
    this.send = find("#send", form);
    this.stopButton = find("#stop", form);
    const picker = find("#files", form);
    find("#add-files", form).addEventListener("click", () => picker.click());
    picker.addEventListener("change", () => (this.upload([...picker.files]), (picker.value = "")));
    takeFiles(find("#main"), (files) => this.upload(files));
    this.stopButton.addEventListener("click", stop);
    form.addEventListener("submit", (event) => (event.preventDefault(), this.submit()));
    this.text.addEventListener("input", () => this.fit());
    this.text.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.submit();
    });
    this.agent.addEventListener("change", () => remember("agent", this.agent.value));
  }

  /** List agents and models; until a model is there, the usual agents. */
  async showChoices() {
    const { data } = await get("/v1/models", { x_workspace: this.workspace }).catch(() => ({ data: [] }));
    const names = data.map((one) => one.id);
    const agents = names.filter((name) => name.startsWith("hearth/")).map((name) => name.slice(7));
    const models = names.filter((name) => name !== "hearth" && !name.startsWith("hearth/"));
    const chosen = remembered("agent");
    fill(this.agent, (agents.length ? agents : Object.keys(AGENTS)).map((name) =>
      h("option", { value: name, selected: name === (agents.includes(chosen) ? chosen : "react") }, AGENTS[name] ? `${name}: ${AGENTS[name]}` : name)));
    fill(this.model, models.map((name) => h("option", { value: name }, name)));
    this.model.closest("label").hidden = models.length < 2;
  }

  fit() {
    this.text.style.height = "auto";
    this.text.style.height = `${Math.min(this.text.scrollHeight + 2, innerHeight * 0.4)}px`;
  }

  /** Write a question into the field. */
  write(question) {
    this.text.value = question;
    this.fit();
    this.text.focus();
  }

  async submit() {
    const question = this.text.value.trim();
    if (!question || this.isSending) return;
    this.isSending = this.send.disabled = true;
    try {
      await Promise.all(this.uploads);
      const images = [...this.files].filter(([, { type }]) => PICTURES.test(type)).map(([name]) => name);
      const model = this.model.selectedIndex > 0 ? { model: this.model.value } : {};
      this.write("");
      await this.ask({ question, agent: this.agent.value || "react", ...model, ...(images.length ? { images } : {}) });
      this.files.clear();
      fill(this.chips);
    } catch (error) {
      if (!this.text.value) this.write(question);
      refused(error);
    } finally {
      this.isSending = this.send.disabled = false;
    }
  }

  /** Upload files into the session, in the order in which they came. */
  upload(files) {
    if (!files.length) return;
    this.begin();
    for (const file of files) {
      const chip = h("span", { class: "tag chip" }, h("span", { class: "text" }, file.name || "pasted picture"), " ", h("span", { class: "state" }, "uploading"));
      this.chips.append(chip);
      const done = this.uploadOne(file, chip).finally(() => this.uploads.delete(done));
      this.uploads.add(done);
    }
  }

  async uploadOne(file, chip) {
    try {
      const { files: [saved] } = await post(`/sessions/${part(this.session)}/files`, formOf([file]), { query: { workspace: this.workspace } });
      this.files.set(saved.name, { type: saved.type });
      const drop = async () => {
        chip.remove();
        this.files.delete(saved.name);
        await remove(fileUrl(this.session, this.workspace, saved.name)).catch(refused);
      };
      fill(chip, h("span", { class: "text" }, saved.name), ` ${bytes(saved.bytes)}`,
        h("button", { type: "button", class: "quiet", aria: { label: `Remove ${saved.name}` }, on: { click: drop } }, "×"));
    } catch (error) {
      chip.remove();
      toast(`${file.name}: ${error.message}`, "bad");
    }
  }
}

function remembered(name) {
  try {
    return localStorage.getItem(name);
  } catch {
    return null; // Storage may be forbidden.
  }
}

function remember(name, value) {
  try {
    localStorage.setItem(name, value);
  } catch {
    // Then the choice holds for this page.
  }
}
