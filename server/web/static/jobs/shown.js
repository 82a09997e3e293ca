// Parts of a job, as the list and its own page show them.

import { h } from "../dom.js";
import { seconds } from "../format.js";

export const ENDED = ["succeeded", "failed", "lost", "cancelled"];
export const STATES = ["queued", "running", ...ENDED];

export const jobUrl = (id) => `/ui/jobs?${new URLSearchParams({ job: id })}`;

/** How long a job took, or takes so far. */
export function took({ started_at: started, ended_at: ended }) {
  return started ? seconds(((ended ? new Date(ended) : new Date()) - new Date(started)) / 1000) : "";
}

/** How far a job is; null, if it does not say. */
export function progressShown({ progress, state }) {
  if (!progress || ENDED.includes(state)) return null;
  const { done, total, message } = progress;
  const text = [total ? `${done} of ${total}` : done, message].filter((one) => one !== undefined && one !== null).join(", ");
  return h("div", {}, total && h("progress", { value: done, max: total, aria: { label: "Progress" } }), h("div", { class: "small text" }, text));
}
