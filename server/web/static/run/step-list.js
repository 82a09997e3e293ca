// The list of a run's steps. Of 30,000 steps only those near the window are elements; they are fetched in parts.

import { get, part } from "../api.js";
import { fill, h } from "../dom.js";
import { count, seconds } from "../format.js";

const HEIGHT = 48;
const PART = 200;
const MARGIN = 10;

export class StepList {
  /** `element`: the listbox. `choose(number)` is called when a step is chosen; the answer's number is `count + 1`. */
  constructor(element, run, choose) {
    Object.assign(this, { element, run, choose, count: 0, chosen: 0, ending: null });
    this.parts = new Map(); // number of a part -> its lines, or a promise
    this.space = h("div", { class: "space", role: "presentation" });
    fill(element, this.space);
    element.addEventListener("scroll", () => this.show());
    element.addEventListener("keydown", (event) => this.move(event));
    new ResizeObserver(() => this.show()).observe(element);
  }

  get total() {
    return this.count + (this.ending ? 1 : 0);
  }

  /** The run has so many steps now. `ending`: what comes after them, such as "Answer"; false: nothing yet. */
  grow(count, ending) {
    // The last part had fewer lines than it will have.
    this.parts.delete(Math.floor(Math.max(this.count - 1, 0) / PART));
    this.count = count;
    this.ending = ending;
    this.space.style.height = `${this.total * HEIGHT}px`;
    this.show();
  }

  /** Choose a step, and scroll to it. */
  select(number, focus = false) {
    if (number < 1 || number > this.total) return;
    this.chosen = number;
    const top = (number - 1) * HEIGHT;
    const { scrollTop, clientHeight } = this.element;
    if (top < scrollTop) this.element.scrollTop = top;
    else if (top + HEIGHT > scrollTop + clientHeight) this.element.scrollTop = top + HEIGHT - clientHeight;
    this.show();
    if (focus) this.element.focus();
    this.choose(number);
  }

  move(event) {
    const page = Math.max(1, Math.floor(this.element.clientHeight / HEIGHT) - 1);
    const to = { ArrowDown: this.chosen + 1, ArrowUp: this.chosen - 1, PageDown: Math.min(this.chosen + page, this.total), PageUp: Math.max(this.chosen - page, 1), Home: 1, End: this.total }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.select(to);
  }

  show() {
    const { scrollTop, clientHeight } = this.element;
    const first = Math.max(1, Math.floor(scrollTop / HEIGHT) + 1 - MARGIN);
    const last = Math.min(this.total, Math.ceil((scrollTop + (clientHeight || 600)) / HEIGHT) + MARGIN);
    const lines = [];
    for (let number = first; number <= last; number += 1) lines.push(this.line(number));
    this.space.replaceChildren(...lines);
    if (this.chosen) this.element.setAttribute("aria-activedescendant", `step-${this.chosen}`);
  }

  line(number) {
    const known = number > this.count ? { answer: true } : this.known(number);
    const texts = known === null ? [h("span", { class: "soft" }, `${number} …`)]
      : known.answer ? [h("strong", { class: this.ending === "Error" ? "bad" : "" }, this.ending), h("span", {}), h("span", { class: "soft small" }, "how the run ended")]
        : [h("span", {}, `${number} `, h("strong", {}, known.tool), known.has_error && h("span", { class: "bad" }, " failed")), h("span", { class: "soft small number" }, seconds(known.seconds)),
          h("span", { class: "soft small" }, known.thought || "no thought"), h("span", { class: "soft small number" }, `${count(known.tokens)} tok`)];
    const line = h("div", { class: "line", id: `step-${number}`, role: "option", aria: { selected: number === this.chosen, setsize: this.total, posinset: number }, on: { click: () => this.select(number) } }, texts);
    line.style.top = `${(number - 1) * HEIGHT}px`;
    return line;
  }

  known(number) {
    const at = Math.floor((number - 1) / PART);
    const found = this.parts.get(at);
    if (Array.isArray(found)) return found[number - 1 - at * PART] ?? null;
    if (!found) {
      const asked = get(`/runs/${part(this.run)}/steps`, { after: at * PART, limit: PART })
        .then(({ steps }) => this.parts.get(at) === asked && (this.parts.set(at, steps), this.show()))
        .catch(() => this.parts.delete(at));
      this.parts.set(at, asked);
    }
    return null;
  }
}
