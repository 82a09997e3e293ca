// Numbers, times and sizes as people read them.

export function seconds(value) {
  if (value === null || value === undefined) return "";
  if (value < 0.001) return "0 ms";
  if (value < 1) return `${Math.round(value * 1000)} ms`;
  if (value < 60) return `${value.toFixed(1)} s`;
  const whole = Math.round(value);
  return whole < 3600 ? `${Math.floor(whole / 60)} min ${whole % 60} s` : `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

export function bytes(value) {
  if (value === null || value === undefined) return "";
  const units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) [value, unit] = [value / 1024, unit + 1];
  return `${unit ? value.toFixed(1) : value} ${units[unit]}`;
}

/** A time of today as a time of day, another one with its date. `time`: ISO 8601, or seconds since 1970. */
export function time(time) {
  if (!time) return "";
  const date = new Date(typeof time === "number" ? time * 1000 : time);
  const today = date.toDateString() === new Date().toDateString();
  return date.toLocaleString([], today ? { timeStyle: "medium" } : { dateStyle: "medium", timeStyle: "short" });
}

export const count = (value) => (value ?? 0).toLocaleString();
/** A number of things: `counted(2, "page")` is "2 pages". */
export const counted = (value, thing) => `${count(value)} ${thing}${value === 1 ? "" : "s"}`;
/** The tokens that a model has written; null: unknown. */
export const written = (usage) => usage && (usage.completion_tokens ?? 0) + (usage.forced_tokens ?? 0);
/** A hash as people say it. */
export const short = (hash) => (hash ?? "").slice(0, 8);
export const shortened = (text, most = 160) => (text.length > most ? `${text.slice(0, most)} …` : text);
