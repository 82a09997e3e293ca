// Requests to the server's JSON routes. Paths are this origin's; the browser's cookie is the credential.

/** What the server refused, and why: `status`, `type` (a code), `message`, `details` (the error's other fields). */
export class ApiError extends Error {
  constructor(status, error) {
    super(error.message ?? `The server answered ${status}.`);
    this.status = status;
    this.type = error.type ?? "unknown";
    this.details = error;
  }
}

export const get = (path, query) => request("GET", path, { query });
export const post = (path, body = {}, options = {}) => request("POST", path, { body, ...options });
export const put = (path, body, options = {}) => request("PUT", path, { body, ...options });
export const remove = (path, query, options = {}) => request("DELETE", path, { query, ...options });

/** A part of a path. */
export const part = encodeURIComponent;

/** The path with a query; null and undefined values are left out. */
export function withQuery(path, query = {}) {
  const pairs = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== "");
  return pairs.length ? `${path}?${new URLSearchParams(pairs)}` : path;
}

/** The JSON of a response. Throws `ApiError`; also when the server can't be reached. */
export async function request(method, path, { query, body, headers = {}, signal } = {}) {
  const response = await send(method, path, { query, body, headers, signal });
  const text = await response.text();
  return text ? JSON.parse(text) : null;
}

/** The response itself, for bytes, texts and headers. `body`: an object (JSON), a FormData, a string or bytes. */
export async function send(method, path, { query, body, headers = {}, signal } = {}) {
  const isJson = body !== undefined && !(body instanceof FormData || body instanceof Blob || typeof body === "string");
  let response;
  try {
    response = await fetch(withQuery(path, query), {
      method, signal, credentials: "same-origin", cache: "no-store",
      headers: { Accept: "application/json", ...(isJson ? { "Content-Type": "application/json" } : {}), ...headers },
      body: isJson ? JSON.stringify(body) : body,
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, { type: "unreachable", message: "The server can't be reached. Is it running?" });
  }
  if (response.ok) return response;
  let error = {};
  try {
    error = (await response.json()).error ?? {};
  } catch {
    // No JSON: a proxy's page. The status says enough.
  }
  if (response.status === 401 && !location.pathname.startsWith("/ui/login"))
    location.assign(`/ui/login?next=${encodeURIComponent(location.pathname + location.search)}`);
  throw new ApiError(response.status, error);
}

/** Texts in Markdown as HTML, in one request; null for those that are too long. */
export async function markdown(texts) {
  return (await post("/ui/markdown", { texts })).html;
}
