// A line over the last hour, as SVG.

const HEIGHT = 140;
const LEFT = 44;
const BOTTOM = 20;
const HOUR = 3600;

function svg(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** The least of 1, 2, 5 times a power of ten that is at least `value`. */
function rounded(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((one) => one * power).find((one) => one >= value);
}

/** `points`: `{time, tokens_per_second}`, the oldest first; times in seconds since 1970. `width` in pixels. */
export function chart(points, now, width) {
  const most = rounded(Math.max(1, ...points.map((one) => one.tokens_per_second)));
  const x = (time) => LEFT + ((time - now + HOUR) / HOUR) * (width - LEFT);
  const y = (value) => 6 + (1 - value / most) * (HEIGHT - BOTTOM - 6);
  const line = points.map((one) => `${x(one.time).toFixed(1)},${y(one.tokens_per_second).toFixed(1)}`).join(" ");
  const peak = Math.max(0, ...points.map((one) => one.tokens_per_second));
  const label = (text, at, height, anchor) =>
    svg("text", { x: at, y: height, "text-anchor": anchor, fill: "var(--soft)", "font-size": 11 }, text);
  return svg(
    "svg",
    { viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", class: "chart", "aria-label": `Tokens a second in the last hour, at most ${peak}` },
    ...[0, most / 2, most].map((value) =>
      svg("line", { x1: LEFT, x2: width, y1: y(value), y2: y(value), stroke: "var(--line)" })),
    label(String(most), LEFT - 6, y(most) + 4, "end"),
    label("0", LEFT - 6, y(0) + 4, "end"),
    label("an hour ago", LEFT, HEIGHT - 4, "start"),
    label("now", width, HEIGHT - 4, "end"),
    svg("polyline", { points: line, fill: "none", stroke: "var(--accent)", "stroke-width": 2, "stroke-linejoin": "round" }),
  );
}
