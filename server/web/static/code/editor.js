// The editor: CodeMirror with the colours of hearth.css.

import {
  basicSetup, Compartment, EditorState, EditorView, goToNextChunk, HighlightStyle, indentUnit, indentWithTab, keymap, lintGutter, nextDiagnostic, Prec,
  python, setDiagnostics, syntaxHighlighting, tags, unifiedMergeView,
} from "../editor/editor.js";
import { h } from "../dom.js";

const colours = HighlightStyle.define([
  { tag: [tags.keyword, tags.operatorKeyword, tags.controlKeyword, tags.definitionKeyword, tags.moduleKeyword], color: "var(--accent)" },
  { tag: [tags.string, tags.special(tags.string)], color: "var(--good)" },
  { tag: [tags.comment, tags.meta], color: "var(--soft)" },
  { tag: tags.comment, fontStyle: "italic" },
  { tag: [tags.function(tags.definition(tags.variableName)), tags.definition(tags.className)], fontWeight: "650" },
  { tag: tags.invalid, color: "var(--bad)" },
]);
const theme = EditorView.theme({
  "&": { color: "var(--ink)", backgroundColor: "var(--raised)", fontSize: "13.5px", height: "60vh" },
  "&.cm-focused": { outline: "none" },
  ".cm-scroller": { fontFamily: "var(--mono)", lineHeight: "1.6" },
  ".cm-content": { caretColor: "var(--accent)" },
  ".cm-cursor": { borderLeftColor: "var(--accent)" },
  ".cm-gutters": { backgroundColor: "var(--sunken)", color: "var(--soft)", border: "0" },
  ".cm-activeLine, .cm-activeLineGutter": { backgroundColor: "color-mix(in srgb, var(--glow) 45%, transparent)" },
  "&.cm-focused > .cm-scroller > .cm-selectionLayer .cm-selectionBackground, .cm-selectionBackground, ::selection": {
    backgroundColor: "color-mix(in srgb, var(--accent) 25%, transparent)",
  },
  ".cm-selectionMatch": { backgroundColor: "var(--glow)" },
  ".cm-foldPlaceholder": { backgroundColor: "var(--sunken)", border: "1px solid var(--line)", color: "var(--soft)" },
  ".cm-panels, .cm-tooltip": { backgroundColor: "var(--raised)", color: "var(--ink)", borderColor: "var(--line)" },
  ".cm-search label": { display: "inline-flex", gap: "4px", alignItems: "center", color: "var(--ink)" },
  ".cm-textfield, .cm-button": { backgroundColor: "var(--raised)", backgroundImage: "none", borderColor: "var(--line)", minHeight: "0" },
  ".cm-tooltip-autocomplete ul li[aria-selected]": { backgroundColor: "var(--accent)", color: "var(--on-accent)" },
  ".cm-changedLine, .cm-inlineChangedLine": { backgroundColor: "var(--good-glow) !important" },
  ".cm-line ins": { color: "inherit", background: "none" },
  ".cm-changedText": { background: "color-mix(in srgb, var(--good) 14%, transparent) !important", color: "inherit" },
  ".cm-deletedChunk": { backgroundColor: "var(--bad-glow) !important" },
  ".cm-deletedChunk del, .cm-deletedChunk .cm-deletedText": { color: "var(--ink)", textDecoration: "none" },
  ".cm-deletedChunk .cm-deletedText": { background: "color-mix(in srgb, var(--bad) 14%, transparent) !important" },
  ".cm-deletedChunk .cm-chunkButtons button": {
    minHeight: "0", margin: "0 2px", padding: "0 8px", border: "1px solid var(--line)", background: "var(--raised)", color: "var(--ink)",
  },
});

const chunkButton = (kind, choose) =>
  h("button", { type: "button", on: { mousedown: choose, keydown: (event) => ["Enter", " "].includes(event.key) && choose(event) } }, kind === "accept" ? "Mine" : "Theirs");

/**
 * An editor in `parent`. `onSave()`: Ctrl+S. `onChange()`: the text has changed. It shows one state at a time; a state that was
 * left keeps its text and its history.
 */
export function createEditor(parent, { nonce, onSave, onChange }) {
  const comparison = new Compartment();
  // The policy for styles holds for the editor's own from its first state on.
  const allowed = nonce ? EditorView.cspNonce.of(nonce) : [];
  const empty = [EditorView.editable.of(false), EditorView.contentAttributes.of({ "aria-label": "No file is open" })];
  const view = new EditorView({ parent, state: EditorState.create({ extensions: [theme, allowed, empty] }) });

  return {
    /** A new state. */
    stateOf(path, text, isReadOnly) {
      return EditorState.create({
        doc: text,
        extensions: [
          Prec.highest(keymap.of([{ key: "Mod-s", preventDefault: true, run: () => (onSave(), true) }])),
          basicSetup, theme, syntaxHighlighting(colours), lintGutter(), comparison.of([]), indentUnit.of("    "),
          keymap.of([indentWithTab, { key: "F8", run: nextDiagnostic }]),
          path.endsWith(".py") ? python() : [],
          text.includes("\r\n") ? EditorState.lineSeparator.of("\r\n") : [],
          allowed,
          EditorState.readOnly.of(isReadOnly),
          EditorView.contentAttributes.of({ "aria-label": `Text of ${path}`, tabindex: "0" }),
          EditorView.updateListener.of((update) => update.docChanged && onChange()),
        ],
      });
    },
    show: (state) => view.setState(state),
    get state() {
      return view.state;
    },
    text: () => view.state.sliceDoc(),
    replace: (text) => view.dispatch({ changes: { from: 0, to: view.state.doc.length, insert: text } }),
    /** Show the difference to `original`; null: none. `choose`: of each change, the one or the other text can be chosen. */
    compareWith(original, choose = false) {
      const shown = original === null ? [] : unifiedMergeView({ original, mergeControls: choose && chunkButton, gutter: true });
      view.dispatch({ effects: comparison.reconfigure(shown) });
      if (original === null) return;
      view.dispatch({ selection: { anchor: 0 } });
      goToNextChunk(view); // it may be far below
    },
    /** Mark lines. `problems`: each with `line`, `message` and `severity`. */
    mark(problems) {
      const { doc } = view.state;
      const marks = problems.filter(({ line }) => line).map(({ line, message, severity }) => {
        const { from, to } = doc.line(Math.max(1, Math.min(line, doc.lines)));
        return { from, to, severity, message };
      });
      view.dispatch(setDiagnostics(view.state, marks));
    },
    goTo(line) {
      const { from } = view.state.doc.line(Math.max(1, Math.min(line, view.state.doc.lines)));
      view.dispatch({ selection: { anchor: from }, effects: EditorView.scrollIntoView(from, { y: "center" }) });
      view.focus();
    },
    focus: () => view.focus(),
  };
}
