// A connection to `GET /events` that follows a changing set of topics.

const RETRY_MILLISECONDS = 1000;
const MOST_RETRY_MILLISECONDS = 15000;

export class Stream {
  /** `receive({key, id, kind, data})` gets each event; of the topic `load` also the kind `lost`: the server can't be reached. */
  constructor(receive) {
    this.receive = receive;
    this.topics = new Map(); // key -> {topic, after}
    this.source = null;
    this.retry = RETRY_MILLISECONDS;
    this.timer = null;
  }

  /** `{follow: key, topic, after}` or `{leave: key}`. Changes of one moment make one new connection. */
  tell({ follow, leave, topic, after }) {
    if (leave ? !this.topics.delete(leave) : false) return;
    if (follow) this.topics.set(follow, { topic, after });
    this.schedule(0);
  }

  schedule(milliseconds) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.open(), milliseconds);
  }

  open() {
    this.source?.close();
    this.source = null;
    if (!this.topics.size) return;
    const query = new URLSearchParams([...this.topics].map(([key, { topic, after }]) => ["follow", `${key}:${after}:${topic}`]));
    const source = new EventSource(`/events?${query}`);
    source.onopen = () => (this.retry = RETRY_MILLISECONDS);
    source.onmessage = ({ data }) => {
      const event = JSON.parse(data);
      const topic = this.topics.get(event.key);
      if (!topic) return;
      if (event.id) topic.after = event.id;
      if (event.kind === "missing") this.topics.delete(event.key);
      this.receive(event);
    };
    // Not the browser's own retry: it would ask for what was read already.
    source.onerror = () => {
      source.close();
      for (const [key, { topic }] of this.topics) if (topic === "load") this.receive({ key, kind: "lost" });
      this.schedule(this.retry);
      this.retry = Math.min(2 * this.retry, MOST_RETRY_MILLISECONDS);
    };
    this.source = source;
  }
}
