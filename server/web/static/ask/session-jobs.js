// The jobs of a conversation, while they run.

import { get, part } from "../api.js";
import { h, stateTag } from "../dom.js";
import { ENDED } from "../jobs/shown.js";

export class SessionJobs {
  constructor() {
    this.element = h("div", { class: "row session-jobs", role: "group", aria: { label: "Jobs of this conversation" } });
    this.tags = new Map(); // id -> tag
  }

  async load(workspace, session) {
    const { jobs } = await get("/jobs", { workspace, session_id: session, limit: 20 });
    for (const job of jobs.reverse()) this.show(job);
  }

  /** A job, or its progress, as `/sessions/<id>/events` has them. Jobs that had ended before are not shown. */
  show({ job_id: id, state, progress, done, total }) {
    let tag = this.tags.get(id);
    if (!tag && (!state || ENDED.includes(state))) return;
    if (!tag) this.tags.set(id, (tag = h("a", { class: "tag live", href: `/ui/jobs?job=${part(id)}` })));
    this.element.append(tag);
    const [now, whole] = [done ?? progress?.done, total ?? progress?.total];
    if (state) tag.dataset.state = state;
    if (ENDED.includes(state)) tag.className = stateTag(state).className;
    tag.textContent = `${id}: ${tag.dataset.state}${now !== undefined && tag.dataset.state === "running" ? ` ${now}${whole ? ` of ${whole}` : ""}` : ""}`;
  }
}
