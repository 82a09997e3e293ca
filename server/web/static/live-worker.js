// One connection for all tabs of this browser.

import { Stream } from "./stream.js";

const ports = new Map(); // a number -> the port of a tab
let counter = 0;
const stream = new Stream(({ key, ...event }) => {
  const [tab, id] = key.split(".");
  ports.get(tab)?.postMessage({ key: id, ...event });
});

globalThis.onconnect = ({ ports: [port] }) => {
  const tab = String((counter += 1));
  ports.set(tab, port);
  port.onmessage = ({ data }) =>
    stream.tell(data.leave ? { leave: `${tab}.${data.leave}` } : { ...data, follow: `${tab}.${data.follow}` });
};
