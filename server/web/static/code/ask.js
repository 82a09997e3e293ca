// Questions to the workspace, beside its code: each answer with its steps and its generation.

import { get, post, remove } from "../api.js";
import { showAnswer } from "../ask/answer.js";
import { stepShown } from "../ask/steps.js";
import { errorNote, fill, find, h } from "../dom.js";
import { seconds, short, shortened } from "../format.js";
import { follow } from "../live.js";
import { placeButton, traceback } from "./places.js";

const MOST_SHOWN = 5;

/** `open(path, line)`: show a place in the editor. `onAnswer(generation)`: after each answer. */
export function askBox({ workspace, open, onAnswer }) {
  const form = find("#ask");
  const stop = find("#stop");
  const answers = find("#answers");
  let running = null;

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const question = form.elements.question.value;
    const steps = h("ol", { class: "steps" });
    const end = h("div", { class: "soft" }, "Waiting …");
    answers.prepend(h("div", { class: "exchange" }, h("p", { class: "text" }, h("strong", {}, shortened(question))), steps, end));
    while (answers.children.length > MOST_SHOWN) answers.lastChild.remove();
    try {
      const { run_id: run } = await post("/run_script", { question, workspace }, { headers: { Prefer: "respond-async" } });
      [running, stop.hidden] = [run, false];
      const leave = follow(`run/${run}`, ({ kind, data }) => {
        if (kind === "step") steps.append(stepShown(data, (text) => traceback(text, open)));
        if (kind === "started") fill(end, "Answering …");
        if (kind === "answer") done(data);
        if (kind === "error") failed(data);
        if (kind === "missing") get(`/runs/${run}`).then((record) => (record.error ? failed(record.error) : done(record)), failed);
      });
      const finish = () => {
        leave();
        if (running === run) [running, stop.hidden] = [null, true];
      };
      const done = async (answer) => {
        finish();
        const foot = h("p", { class: "soft small" }, `generation ${short(answer.generation)} · ${seconds(answer.seconds)} · `, h("a", { href: `/ui/runs/${run}` }, "the run"));
        await showAnswer(end, answer, workspace);
        end.append(...[answer.not_reloaded && h("p", { class: "note" }, answer.not_reloaded.message), foot].filter(Boolean));
        end.className = "";
        onAnswer(answer.generation);
      };
      const failed = (error) => {
        finish();
        fill(end, errorNote({ message: error.message, details: error }), error.file && placeButton(error.file, error.line, open), error.traceback && traceback(error.traceback, open));
      };
    } catch (error) {
      fill(end, errorNote(error));
    }
  });
  form.elements.question.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
  stop.addEventListener("click", () => running && remove(`/runs/${running}`).catch(() => {})); // it has ended meanwhile
}
