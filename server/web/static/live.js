// Following runs, jobs, sessions and the server's load. All tabs share one connection, in `live-worker.js`, where the browser has
// shared workers; elsewhere a tab opens its own. A hidden tab follows nothing, and catches up when it is shown again.

import { Stream } from "./stream.js";
import { trusted } from "./trusted.js";

let port = null;
let stream = null;
let counter = 0;
const following = new Map(); // id -> {topic, after, handle}

/**
 * Call `handle({kind, data, id})` for the events of a topic (`run/ID`, `load` and the others of `GET /events`) after the one
 * with the id `after`. The kind `missing` says that there is no such thing (any more); `lost`, of `load` alone, that the server can't be reached. Returns a function that stops it.
 */
export function follow(topic, handle, after = 0) {
  const id = String((counter += 1));
  following.set(id, { topic, after, handle });
  if (!document.hidden) tell({ follow: id, topic, after });
  return () => {
    if (following.delete(id)) tell({ leave: id });
  };
}

/**
 * Call `load` whenever `signature(sample)` of the server's load has another value than before: for lists that others change.
 * Returns a function that calls it at once. Of two loads the later one began later, so that an old list never hides a new one.
 */
export function reloadWith(signature, load) {
  let seen;
  let loading = null;
  let again = false;

  async function all() {
    try {
      do {
        again = false;
        await load();
      } while (again);
    } finally {
      loading = null;
    }
  }
  function reload() {
    again = true;
    loading ??= all();
    return loading;
  }
  // After the first sample too: it may be newer than the list.
  follow("load", ({ kind, data }) => {
    if (kind !== "sample" || signature(data) === seen) return;
    seen = signature(data);
    reload();
  });
  return reload;
}

document.addEventListener("visibilitychange", () => {
  for (const [id, { topic, after }] of following) tell(document.hidden ? { leave: id } : { follow: id, topic, after });
});
addEventListener("pagehide", () => {
  for (const id of following.keys()) tell({ leave: id });
});
addEventListener("pageshow", (event) => {
  if (event.persisted) for (const [id, { topic, after }] of following) tell({ follow: id, topic, after });
});

function receive({ key, id, kind, data }) {
  const one = following.get(key);
  if (!one) return;
  if (id) one.after = id;
  one.handle({ kind, data, id });
}

function tell(message) {
  if (!port && !stream) connect();
  if (port) port.postMessage(message);
  else stream.tell(message);
}

function connect() {
  try {
    const worker = new SharedWorker(trusted.createScriptURL(new URL("./live-worker.js", import.meta.url)), { type: "module", name: "hearth" });
    worker.port.onmessage = (event) => receive(event.data);
    worker.onerror = alone;
    port = worker.port;
  } catch {
    alone(); // browsers of phones have no shared workers; there few tabs are open
  }
}

/** Follow over a connection of this tab's own. */
function alone() {
  port = null;
  stream = new Stream(receive);
  for (const [id, { topic, after }] of following) if (!document.hidden) stream.tell({ follow: id, topic, after });
}
