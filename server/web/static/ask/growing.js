// Text that grows while a model writes it: plain, in one batch a frame, in blocks of a few thousand characters, so that the
// browser lays out only the last one again.

import { h } from "../dom.js";

const BLOCK = 3000;

export class GrowingText {
  constructor() {
    this.element = h("div", { class: "growing plain" });
    this.clear();
  }

  clear() {
    cancelAnimationFrame(this.frame);
    Object.assign(this, { waiting: [], frame: 0, length: 0, last: null });
    this.element.replaceChildren();
  }

  add(text) {
    this.waiting.push(text);
    this.length += text.length;
    this.frame ||= requestAnimationFrame(() => this.flush());
  }

  /** Show what waits. */
  flush() {
    cancelAnimationFrame(this.frame);
    let text = this.waiting.join("");
    Object.assign(this, { waiting: [], frame: 0 });
    while (text) {
      if (!this.last) this.element.append(h("div", { class: "part" }, (this.last = new Text())));
      const cut = cutAt(text, this.last.length);
      this.last.appendData(text.slice(0, cut));
      text = text.slice(cut);
      if (this.last.length >= BLOCK && (text || this.last.data.endsWith("\n"))) this.last = null;
    }
  }
}

/** How much of the text a block gets that has `length` characters: up to a line end, or, of a long line, up to a space. */
function cutAt(text, length) {
  const line = text.indexOf("\n", Math.max(BLOCK - length - 1, 0)) + 1;
  const most = Math.max(2 * BLOCK - length, 1);
  if (line && line <= most) return line;
  return text.length <= most ? text.length : text.lastIndexOf(" ", most) + 1 || most;
}
