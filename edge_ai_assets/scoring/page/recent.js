// Recent scores: the chart, and the table that says the same.

import { request } from "./api.js";
import { timeline } from "./chart.js";
import { inputsText } from "./contract.js";
import { byId, count, el, say, scoreText, timeText } from "./dom.js";
import * as feedback from "./feedback.js";

const LIMIT = 200;
const HEIGHT = 240;

let scores = [];
let contract = null;
let drawn = "";
let summary = "";
const rows = new Map();

/** Prepares the section, once. */
export function prepare() {
  byId("only").addEventListener("change", draw);
  feedback.events.addEventListener("changed", () => {
    for (const row of rows.values()) row.judge.refresh();
    chart();
  });
  new ResizeObserver(() => chart()).observe(byId("chart"));
}

/** The contract to read the scores by; they are drawn again. */
export function use(next) {
  contract = next;
  rows.clear();
  drawn = "";
  say(byId("only-label"), `Only “${contract.label}”`);
  byId("legend").replaceChildren(
    el("li", { class: "is-dot" }, `no ${contract.label}`),
    el("li", { class: "is-anomaly" }, contract.label),
    el("li", { class: "is-ring" }, "outside the trained range"),
    el("li", { class: "is-cross" }, "you said it was wrong"),
  );
  draw();
}

/** Asks the service and shows what is new. */
export async function refresh() {
  if (contract === null) return;
  try {
    scores = (await request(`/v1/recent?limit=${LIMIT}`, { seconds: 10 })).scores;
  } catch (error) {
    if (error.status && error.status !== 401) say(byId("recent-problem"), `Recent scores are not shown: ${error.message}`);
    throw error;
  }
  say(byId("recent-problem"), "");
  draw();
}

function draw() {
  if (contract === null) return;
  const reached = scores.filter((score) => score.predicted).length;
  summary = scores.length ? `the last ${count(scores.length)}, ${count(reached)} with ${contract.label}` : "";
  say(byId("readout"), summary);
  const only = byId("only").checked;
  const shown = only ? scores.filter((score) => score.predicted) : scores;
  say(byId("recent-empty"), shown.length ? "" : only && scores.length ? `No ${contract.label} among them.` : "There are no scores yet.");
  // The rows of scores that stay are kept as they are, so that nobody loses the button that has the focus.
  const body = byId("recent-table").tBodies[0];
  const wanted = new Set(shown.map(nameOf));
  for (const [name, row] of rows) {
    if (wanted.has(name)) continue;
    row.element.remove();
    rows.delete(name);
  }
  if (!rows.size) body.replaceChildren();
  let before = body.firstElementChild;
  for (const score of shown) {
    const name = nameOf(score);
    const row = rows.get(name) ?? rowOf(score);
    rows.set(name, row);
    if (row.element === before) before = before.nextElementSibling;
    else body.insertBefore(row.element, before);
  }
  chart();
}

const nameOf = (score) => `${score.id} ${score.scored_at}`;

function rowOf(score) {
  const judge = feedback.buttons(score, () => contract);
  const given = inputsText(contract.inputs, score.inputs);
  const element = el(
    "tr",
    { tabindex: "-1", class: score.predicted ? "reached" : null },
    el("td", { class: "time", title: score.scored_at }, timeText(score.scored_at)),
    el("th", { scope: "row" }, ...idText(score.id), el("span", { class: "narrow" }, timeText(score.scored_at))),
    el("td", { class: "number" }, scoreText(score.score, contract.threshold)),
    el("td", { class: "tags" }, ...result(score, contract.label)),
    el("td", { class: "wide inputs", title: given }, el("span", {}, given)),
    el("td", {}, judge),
  );
  return { element, judge };
}

/** An id that may be broken after the site's name, where the line is short. */
function idText(id) {
  const cut = id.lastIndexOf("/") + 1;
  return [id.slice(0, cut), el("wbr"), id.slice(cut)];
}

/** A score's result as tags. */
export function result(score, label) {
  return [
    el("span", { class: score.predicted ? "tag bad" : "tag" }, score.predicted ? label : `no ${label}`),
    score.outside ? el("span", { class: "tag warn", title: "outside the trained range" }, "outside") : null,
  ];
}

function chart() {
  const place = byId("chart");
  const width = Math.floor(place.clientWidth);
  if (contract === null || width < 50) return;
  const said = scores.map((score) => feedback.said(score)?.correct === false);
  const now = JSON.stringify([width, contract.threshold, scores.map(nameOf), said]);
  if (now === drawn) return;
  drawn = now;
  const wrong = new Set(scores.filter((_, at) => said[at]));
  place.replaceChildren(
    timeline(width, HEIGHT, {
      scores,
      threshold: contract.threshold,
      label: contract.label,
      judged: (score) => wrong.has(score),
      pointed: (score) => say(byId("readout"), score ? describe(score) : summary),
      chosen: find,
    }),
  );
}

function describe(score) {
  const verdict = score.predicted ? contract.label : `no ${contract.label}`;
  const outside = score.outside ? " · outside the trained range" : "";
  return `${score.id} · ${timeText(score.scored_at)} · ${scoreText(score.score, contract.threshold)} · ${verdict}${outside}`;
}

/** Leads from a mark in the chart to its row. */
function find(score) {
  if (byId("only").checked && !score.predicted) {
    byId("only").checked = false;
    draw();
  }
  const row = rows.get(nameOf(score))?.element;
  row?.scrollIntoView({ block: "nearest" });
  row?.focus({ preventScroll: true });
}
