// What a model writes before its step or its answer is complete: the thought, and the text of the answer.

const THOUGHT = /^\s*\w{0,40}?Thought:\s*/;
const MARKER = /\n(Answer:|Action:)\s*/;
/** In characters: where a thought begins at the latest, and how long a marker is at most. */
const HEAD = 60;
const LONGEST_MARKER = 12;

/**
 * Sorts streamed text. `onThought` gets text of thoughts and of tool calls, `onAnswer` text of the answer; `onReset`: what was taken
 * for an answer was none. `isPlain`: the agent writes nothing but its answer.
 */
export class LiveText {
  constructor({ isPlain, onThought, onAnswer, onReset }) {
    Object.assign(this, { isPlain, onThought, onAnswer, onReset });
    this.begin();
  }

  /** A step has ended: what comes now is new. */
  begin() {
    this.mode = this.isPlain ? "answer" : "unknown";
    this.head = this.held = "";
  }

  add(text) {
    if (this.mode === "thought") return this.addThought(text);
    if (this.isPlain || this.head.length > HEAD) return this.onAnswer(text);
    this.head += text;
    if (THOUGHT.test(this.head)) {
      if (this.mode === "answer") this.onReset();
      this.mode = "thought";
      this.addThought(this.head.replace(THOUGHT, ""));
    } else if (this.mode === "answer") this.onAnswer(text);
    else if (/^\s*[{[]/.test(this.head)) {
      this.mode = "thought";
      this.addThought(this.head);
    } else if (!"Thought:".startsWith(this.head.trim())) {
      this.mode = "answer";
      this.onAnswer(this.head);
    }
  }

  addThought(text) {
    this.held += text;
    const found = MARKER.exec(this.held);
    if (found?.[1] === "Answer:") {
      this.onThought(this.held.slice(0, found.index));
      this.mode = "answer";
      this.head = " ".repeat(HEAD + 1);
      const answer = this.held.slice(found.index + found[0].length);
      if (answer) this.onAnswer(answer);
      return;
    }
    // The last line may be the beginning of a marker.
    const line = this.held.lastIndexOf("\n");
    const shown = !found && line >= 0 && this.held.length - line < LONGEST_MARKER ? this.held.slice(0, line) : this.held;
    this.held = this.held.slice(shown.length);
    this.onThought(shown);
  }
}
