// The files of a workspace: the lab's common ones, and the workspace's own over them.

import { get, part, remove, send } from "../api.js";
import { h } from "../dom.js";

const TOOL = (name) => `from langchain_core.tools import tool


@tool
def ${name}(text: str) -> str:
    """Say here what the tool does: the model reads it."""
    return text.upper()
`;
const AGENT = (name) => `from dataclasses import asdict

from server.sdk import usage

from . import prompts
from .agent import Agent, AgentResult


class ${name.replace(/(^|_)([a-z])/g, (_, __, letter) => letter.toUpperCase())}(Agent):
    name = "${name}"

    def __call__(self, question, history=()):
        with usage.measured() as used:
            conversation = self.open(prompts.conversation("Answer in one word.", question, history))
            answer = conversation.write("", max_tokens=8)
        return AgentResult(answer, None, [], asdict(used))
`;
export const MAIN = "main";

const pathOf = (path) => path.split("/").map(part).join("/");

/** The first text of a new file. */
export function templateOf(path) {
  const name = /([A-Za-z_]\w*)\.py$/.exec(path)?.[1];
  if (!name) return "";
  return path.startsWith("agent/") ? AGENT(name) : path.startsWith("tools/") ? TOOL(name) : "";
}

export class Files {
  constructor(workspace) {
    this.workspace = workspace;
    this.own = new Set();
    this.common = new Set();
    this.mainGeneration = null;
  }

  /** Read the lists. A workspace without a file does not exist yet, and has none of its own. */
  async load() {
    const { live } = await get("/generations", { workspace: MAIN, limit: 1 });
    this.mainGeneration = live;
    const common = live ? get(`/generations/${live}/files`) : { files: [] };
    const own = this.workspace === MAIN ? { files: [] } : get(`/workspaces/${part(this.workspace)}/files`).catch(none);
    this.common = new Set((await common).files.map((one) => one.path));
    this.own = new Set((await own).files.map((one) => one.path));
  }

  get paths() {
    return [...new Set([...this.common, ...this.own])].sort();
  }

  /** `own`: only in this workspace. `changed`: over a common file. `main`: a common file. `new`: nowhere yet. */
  kindOf(path) {
    if (this.own.has(path)) return this.common.has(path) ? "changed" : "own";
    return this.common.has(path) ? "main" : "new";
  }

  /** The text of a file as it is now, and its ETag, null for a common one. */
  read(path) {
    return this.own.has(path) ? this.readOwn(path) : this.readAt(this.mainGeneration, path).then((text) => ({ text, etag: null }));
  }

  async readOwn(path) {
    const response = await send("GET", this.#at(path));
    return { text: await textOf(response), etag: response.headers.get("ETag") };
  }

  /** The text that a file has in a generation; empty where it has none. */
  async readAt(generation, path) {
    try {
      return await textOf(await send("GET", `/generations/${generation}/files/${pathOf(path)}`));
    } catch (error) {
      if (error.type === "file_not_found") return "";
      throw error;
    }
  }

  /** Save a text, if the file is still the one of `etag`; null: if there is none. Returns the new ETag. Throws 412. */
  async write(path, text, etag) {
    const headers = { "Content-Type": "text/x-python", ...(etag ? { "If-Match": etag } : { "If-None-Match": "*" }) };
    const response = await send("PUT", this.#at(path), { body: text, headers });
    this.own.add(path);
    return response.headers.get("ETag");
  }

  async remove(path, etag) {
    await remove(this.#at(path), {}, { headers: { "If-Match": etag } });
    this.own.delete(path);
  }

  #at(path) {
    return `/workspaces/${part(this.workspace)}/files/${pathOf(path)}`;
  }
}

const none = (error) => {
  if (error.type !== "workspace_not_found") throw error;
  return { files: [] };
};

async function textOf(response) {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(await response.arrayBuffer());
  } catch {
    throw new Error("This file is no UTF-8 text, so it can't be shown here.");
  }
}

export const KINDS = { own: "yours", changed: "changed", main: "from main", new: "not saved yet" };

/** The list, by folder. `current`: the open path; `unsaved`: a set of paths. */
export function fileList(files, current, unsaved, open) {
  const paths = [...new Set([...files.paths, ...unsaved])].sort();
  const folders = new Map();
  for (const path of paths) {
    const folder = path.includes("/") ? path.slice(0, path.lastIndexOf("/")) : "";
    folders.set(folder, [...(folders.get(folder) ?? []), path]);
  }
  return [...folders].sort(([one], [other]) => (one < other ? 1 : -1)).map(([folder, found]) => [
    h("h3", {}, folder ? `${folder}/` : "beside them"),
    found.map((path) => {
      const kind = files.kindOf(path);
      const mark = unsaved.has(path) ? "unsaved" : kind === "main" ? null : KINDS[kind];
      return h("button", { class: "code-file", title: path, "aria-current": path === current ? "true" : null, on: { click: () => open(path) } },
        h("span", {}, path.slice(folder.length ? folder.length + 1 : 0)), mark && h("span", { class: `tag ${unsaved.has(path) ? "live" : ""}` }, mark));
    }),
  ]);
}
