// A finished answer: its Markdown, its citations, and the pictures and files that code made.

import { markdown, part, withQuery } from "../api.js";
import { fill, h, showRendered } from "../dom.js";
import { openPage } from "../page-text.js";
import { GrowingText } from "./growing.js";
import { longText } from "./steps.js";

/** Characters of a block of a long answer: the browser shows one a frame. */
const BLOCK = 12_000;
const MOST_BLOCKS = 90;
const MARK = /\uE000(\d+)\uE001/;

/** The URL of a session's file. */
export const fileUrl = (session, workspace, name) =>
  withQuery(`/sessions/${part(session)}/files/${name.split("/").map(part).join("/")}`, { workspace });

/** Fill `element` with the answer of a run's record. */
export async function showAnswer(element, record, workspace) {
  const citations = record.citations ?? [];
  const text = withMarks(record.answer ?? "", citations);
  const html = await markdown(blocks(text)).catch(() => null);
  const cite = (index) => () => openPage({ ...placeOf(citations[index]), workspace, session: record.session_id });
  element.replaceChildren();
  for (const one of html?.includes(null) ? [null] : html ?? [null]) {
    const shown = one === null ? plain(text) : showRendered(h("div", { class: "markdown part" }), one);
    showMarks(shown, citations, cite);
    element.append(shown);
    if (html?.length > 1) await new Promise((resolve) => setTimeout(resolve));
  }
  element.append(...[sources(citations, cite), made(record, workspace)].filter(Boolean));
}

const placeOf = ({ document_id: documentId, page, start, end }) => ({ documentId, page, start, end });

function plain(text) {
  const growing = new GrowingText();
  growing.add(text);
  growing.flush();
  return growing.element;
}

/** The text with a mark after each sentence that has a citation. Positions are code points. */
function withMarks(text, citations) {
  const clean = text.replace(/[\uE000\uE001]/g, "\uFFFD");
  if (!citations.length) return clean;
  const characters = Array.from(clean);
  const marks = citations.map((one, index) => [one.at, `\uE000${index}\uE001`]);
  for (const [at, mark] of marks.sort((one, other) => other[0] - one[0] || (one[1] < other[1] ? 1 : -1))) characters.splice(at, 0, mark);
  return characters.join("");
}

/** A long text in blocks, which end before a paragraph that is no part of code or of a list. */
function blocks(text) {
  if (text.length <= BLOCK) return [text];
  const found = [];
  let [block, isCode] = ["", false];
  for (const paragraph of text.split(/(?<=\n[ \t]*\n)/)) {
    if (!isCode && block.length > BLOCK && /^ ?[^\s\-*+>|\d]/.test(paragraph) && found.length < MOST_BLOCKS) {
      found.push(block);
      block = "";
    }
    block += paragraph;
    if ((paragraph.match(/^ {0,3}(```|~~~)/gm) ?? []).length % 2) isCode = !isCode;
  }
  return [...found, block];
}

/** Replace the marks in rendered text by buttons. */
function showMarks(element, citations, cite) {
  if (!citations.length) return;
  const walker = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
  const texts = [];
  while (walker.nextNode()) if (MARK.test(walker.currentNode.data)) texts.push(walker.currentNode);
  for (const node of texts)
    node.replaceWith(...node.data.split(MARK).map((one, index) => (index % 2 ? citeButton(Number(one), citations, cite) : one)));
}

const citeButton = (index, citations, cite) =>
  h("button", { class: "cite", title: citations[index].quote, aria: { label: `Source ${index + 1}: ${citations[index].document}` }, on: { click: cite(index) } }, index + 1);

function sources(citations, cite) {
  if (!citations.length) return null;
  return h("ol", { class: "sources small", aria: { label: "Sources" } }, citations.map((one, index) =>
    h("li", {}, h("button", { class: "quiet source", on: { click: cite(index) } },
      h("span", {}, one.document, one.page_label && `, p. ${one.page_label}`), h("q", { class: "soft text" }, one.quote)))));
}

/** The code of the coder, and the figures and files that code made. */
function made(record, workspace) {
  const { code, output, figures = [], files = [], session_id: own } = record.details ?? {};
  const session = record.session_id ?? own;
  for (const { observation } of record.steps ?? [])
    for (const [, name] of (observation ?? "").matchAll(/^\(figure: (.+)\)$/gm)) if (!figures.includes(name)) figures.push(name);
  const others = files.filter((name) => !figures.some((one) => one.replace(/\.png$/, "") === name.replace(/\.(png|svg)$/, "")));
  if (!code && !(session && (figures.length || others.length))) return null;
  return h("div", { class: "made stack" },
    session && figures.map((name) => picture(session, workspace, name)),
    session && others.length > 0 && h("div", { class: "row" }, others.map((name) => h("a", { class: "tag", href: fileUrl(session, workspace, name), download: true }, "⤓ ", name))),
    code && h("details", {}, h("summary", {}, "The code"), longText(code), output && [h("div", { class: "soft small" }, "It printed"), longText(output)]));
}

/** A picture of a session's files. One that was deleted leaves its name. */
export function picture(session, workspace, name) {
  const url = fileUrl(session, workspace, name);
  const image = h("img", { src: url, alt: name, loading: "lazy", on: { error: () => fill(link, `${name} (no longer there)`) } });
  const link = h("a", { class: "picture", href: url, target: "_blank", rel: "noopener", title: name }, image);
  return link;
}
