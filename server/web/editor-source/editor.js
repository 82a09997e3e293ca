// What the page Code uses of CodeMirror. `npm run build` makes ../static/editor/editor.js of it.

export { basicSetup } from "codemirror";
export { indentWithTab } from "@codemirror/commands";
export { python } from "@codemirror/lang-python";
export { HighlightStyle, indentUnit, syntaxHighlighting } from "@codemirror/language";
export { lintGutter, nextDiagnostic, setDiagnostics } from "@codemirror/lint";
export { goToNextChunk, unifiedMergeView } from "@codemirror/merge";
export { Compartment, EditorSelection, EditorState, Prec } from "@codemirror/state";
export { EditorView, keymap } from "@codemirror/view";
export { tags } from "@lezer/highlight";
