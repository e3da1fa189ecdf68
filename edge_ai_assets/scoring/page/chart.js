// Drawings: a score on its scale, scores in their order, and how many of them lie where.

import { count, plural, quantity, scoreText, svg, timeText } from "./dom.js";

const LEFT = 34;
const RIGHT = 12;
const TOP = 18;
const BOTTOM = 24;

/** One score on its scale from 0 to 1, with the threshold. */
export function gauge(score, threshold, reached) {
  const [width, height] = [320, 34];
  const x = (value) => 4 + value * (width - 8);
  const label = `Score ${scoreText(score, threshold)} on a scale from 0 to 1`;
  const drawing = svg("svg", { class: "gauge", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  drawing.append(
    svg("rect", { class: "track", x: x(0), y: 8, width: width - 8, height: 10, rx: 5 }),
    svg("rect", { class: reached ? "bar bad" : "bar", x: x(0), y: 8, width: Math.max(score * (width - 8), 3), height: 10, rx: 5 }),
    svg("line", { class: "threshold", x1: x(threshold), x2: x(threshold), y1: 4, y2: 22 }),
    text(x(0), 33, "start", "0"),
    text(x(1), 33, "end", "1"),
    text(Math.min(Math.max(x(threshold), 62), width - 62), 33, "middle", `threshold ${quantity(threshold, 3)}`),
  );
  return drawing;
}

/**
 * Scores in the order they were made, the newest on the right.
 * `scores` is newest first, `judged` says for a score whether it was called wrong. `pointed` gets the score
 * under the pointer, or null; `chosen` the one that was clicked.
 */
export function timeline(width, height, { scores, threshold, label, judged, pointed, chosen }) {
  const ordered = [...scores].reverse();
  const inner = width - LEFT - RIGHT;
  const step = inner / Math.max(ordered.length - 1, 1);
  const x = (place) => (ordered.length === 1 ? LEFT + inner / 2 : LEFT + place * step);
  const y = (value) => TOP + (1 - value) * (height - TOP - BOTTOM);
  const reached = scores.filter((score) => score.predicted).length;
  const summary = scores.length
    ? `The last ${plural(scores.length, "score")}: ${count(reached)} reached the threshold of ${quantity(threshold, 3)} for ${label}, ` +
      `the newest is ${scoreText(scores[0].score, threshold)}. The table below has them all.`
    : "No scores yet.";
  const drawing = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": summary });
  drawing.append(svg("rect", { class: "beyond", x: LEFT, y: y(1), width: inner, height: y(threshold) - y(1) }));
  for (const value of [0, 0.25, 0.5, 0.75, 1]) {
    drawing.append(
      svg("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value) }),
      text(LEFT - 6, y(value) + 4, "end", String(value)),
    );
  }
  drawing.append(...times(ordered, x, height, inner), ...releases(ordered, x, y));
  drawing.append(svg("polyline", { class: "course", points: ordered.map((score, place) => `${x(place)},${y(score.score ?? 0)}`).join(" ") }));
  const line = y(threshold);
  drawing.append(
    svg("line", { class: "threshold", x1: LEFT, x2: width - RIGHT, y1: line, y2: line }),
    text(width - RIGHT, line - 5 < TOP + 8 ? line + 13 : line - 5, "end", `threshold ${quantity(threshold, 3)}`, "name"),
  );
  const size = Math.min(Math.max(step * 0.45, 2.2), 4.5);
  ordered.forEach((score, place) => drawing.append(...mark(score, x(place), y(score.score ?? 0), size, judged(score))));
  const under = svg("line", { class: "under", y1: TOP, y2: height - BOTTOM, visibility: "hidden" });
  drawing.append(under);
  const nearest = (event) => {
    const from = drawing.getBoundingClientRect().left;
    const place = Math.round((event.clientX - from - x(0)) / step);
    return Math.min(Math.max(ordered.length === 1 ? 0 : place, 0), ordered.length - 1);
  };
  if (ordered.length) {
    drawing.addEventListener("pointermove", (event) => {
      const place = nearest(event);
      under.setAttribute("x1", x(place));
      under.setAttribute("x2", x(place));
      under.setAttribute("visibility", "visible");
      pointed(ordered[place]);
    });
    drawing.addEventListener("pointerleave", () => {
      under.setAttribute("visibility", "hidden");
      pointed(null);
    });
    drawing.addEventListener("click", (event) => chosen(ordered[nearest(event)]));
  }
  return drawing;
}

/** A score's mark: a dot, a diamond if it reached the threshold; a ring if outside, a cross if judged wrong. */
function mark(score, x, y, size, wrong) {
  const big = size + 1.6;
  const parts = [];
  if (score.outside) parts.push(svg("circle", { class: "ring", cx: x, cy: y, r: big + 2.5 }));
  if (score.predicted) {
    parts.push(svg("path", { class: "anomaly", d: `M${x},${y - big}l${big},${big}l${-big},${big}l${-big},${-big}z` }));
  } else {
    parts.push(svg("circle", { class: "dot", cx: x, cy: y, r: size }));
  }
  if (wrong) {
    const arm = big + 1;
    parts.push(svg("path", { class: "cross", d: `M${x - arm},${y - arm}l${2 * arm},${2 * arm}m0,${-2 * arm}l${-2 * arm},${2 * arm}` }));
  }
  return parts;
}

/** Times of the first, the last, and as many between as there is room for. */
function times(ordered, x, height, inner) {
  if (!ordered.length) return [];
  const many = Math.max(Math.min(Math.floor(inner / 150), ordered.length - 1), 1);
  const places = [...new Set(Array.from({ length: many + 1 }, (_, part) => Math.round((part * (ordered.length - 1)) / many)))];
  return places.map((place, at) => {
    const anchor = places.length === 1 ? "middle" : at === 0 ? "start" : at === places.length - 1 ? "end" : "middle";
    return text(x(place), height - 6, anchor, timeText(ordered[place].scored_at));
  });
}

/** Where one release follows another. */
function releases(ordered, x, y) {
  const lines = [];
  for (let place = 1; place < ordered.length; place++) {
    if (ordered[place].release === ordered[place - 1].release) continue;
    const middle = (x(place) + x(place - 1)) / 2;
    lines.push(
      svg("line", { class: "switch", x1: middle, x2: middle, y1: y(1), y2: y(0) }),
      text(middle, TOP - 6, "middle", "other release", "name"),
    );
  }
  return lines;
}

/** How many scores lie in each of `bins.length` equal parts from 0 to 1. */
export function histogram(bins, threshold) {
  const [width, height] = [480, 110];
  const most = Math.max(...bins, 1);
  const wide = (width - LEFT - RIGHT) / bins.length;
  const x = (value) => LEFT + value * (width - LEFT - RIGHT);
  const base = height - BOTTOM;
  const label = `How the scores are spread: ${Array.from(bins, (rows, at) => `${(at / bins.length).toFixed(2)} and up ${rows}`).join(", ")}`;
  const drawing = svg("svg", { class: "histogram", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  // The square root, so that a few anomalies are seen beside very many normal rows.
  const tall = (rows) => Math.sqrt(rows / most) * (base - TOP);
  bins.forEach((rows, at) => {
    const reached = (at + 1) / bins.length > threshold;
    drawing.append(
      svg("rect", { class: reached ? "bar bad" : "bar", x: x(at / bins.length) + 1, y: base - tall(rows), width: wide - 2, height: tall(rows) }),
    );
  });
  drawing.append(
    svg("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: base, y2: base }),
    svg("line", { class: "threshold", x1: x(threshold), x2: x(threshold), y1: TOP - 6, y2: base }),
    text(Math.min(Math.max(x(threshold), 90), width - 60), TOP - 8, "middle", `threshold ${quantity(threshold, 3)}`, "name"),
    text(x(0), height - 8, "start", "0"),
    text(x(0.5), height - 8, "middle", "score (heights: square root of rows)"),
    text(x(1), height - 8, "end", "1"),
  );
  return drawing;
}

function text(x, y, anchor, content, kind = "axis") {
  return svg("text", { class: kind, x, y, "text-anchor": anchor }, content);
}
