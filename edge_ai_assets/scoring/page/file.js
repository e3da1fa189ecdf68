// A file: choosing it, what will be sent of it, how far it is, and what came of it.

import { Cancelled } from "./api.js";
import { histogram } from "./chart.js";
import { isDerived, shortName } from "./contract.js";
import { line } from "./csv.js";
import { announce, byId, count, el, plural, save, say, scoreText, short } from "./dom.js";
import { result } from "./recent.js";
import { inspect } from "./source.js";
import { Run, SHOWN } from "./upload.js";

const DELIMITERS = { ",": "comma", ";": "semicolon", "\t": "tab" };

let contract = null;
let chosen = null;
let running = null;
let scored = () => {};

/** Prepares the section, once; `whenScored` is called after each file. */
export function prepare(whenScored) {
  scored = whenScored;
  const drop = byId("drop");
  byId("chosen").addEventListener("change", () => {
    const [file] = byId("chosen").files;
    byId("chosen").value = ""; // so that the same file can be chosen again
    if (file) choose(file);
  });
  const over = (event) => {
    event.preventDefault();
    drop.classList.add("over");
  };
  drop.addEventListener("dragenter", over);
  drop.addEventListener("dragover", over);
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    const [file] = event.dataTransfer.files;
    if (file) choose(file);
  });
  // A file that misses the place would otherwise be opened instead of this page.
  for (const kind of ["dragover", "drop"]) window.addEventListener(kind, (event) => event.preventDefault());
  window.addEventListener("beforeunload", (event) => running && event.preventDefault());
  byId("template").addEventListener("click", () => {
    const names = contract.inputs.filter((input) => !isDerived(input)).map((input) => input.name);
    save(new Blob(["\ufeff", line(names)], { type: "text/csv;charset=utf-8" }), `${contract.usecase}.csv`);
  });
}

/** The contract that files are read by from now on; a running one goes on with its own. */
export function use(next) {
  contract = next;
  byId("template").disabled = false;
  if (chosen && !running) choose(chosen);
}

async function choose(file) {
  if (running) {
    say(byId("file-problem"), "One file at a time: cancel the running one first.");
    return;
  }
  chosen = file;
  if (contract === null) {
    say(byId("file-problem"), "The service did not say yet what its model takes; the file is read when it has.");
    return;
  }
  say(byId("file-problem"), "");
  for (const id of ["plan", "run", "outcome"]) byId(id).replaceChildren();
  try {
    const plan = await inspect(file, contract);
    if (chosen === file) offer(file, plan);
  } catch (error) {
    chosen = null;
    complain(file, error);
  }
}

function complain(file, error) {
  say(byId("file-problem"), `${file.name}: ${error.message}`);
}

function offer(file, plan) {
  const names = (list) => list.map((name) => `“${name}”`).join(", ");
  const form = [`${DELIMITERS[plan.delimiter]}-separated`, plan.encoding, plan.comma ? "decimal comma" : "decimal point"];
  const given = new Set(plan.columns.map(({ name }) => name));
  const derived = contract.inputs.filter((input) => isDerived(input) && !given.has(input.name));
  const start = el("button", { type: "button", class: "primary", on: { click: () => run(file, plan) } }, "Score this file");
  start.disabled = plan.missing.length > 0;
  byId("plan").replaceChildren(
    el("h3", {}, file.name),
    el("p", { class: "hint" }, `${size(file.size)} · ${form.join(", ")}`),
    el(
      "dl",
      { class: "pairs" },
      pair("Sent", plan.columns.length ? names(plan.columns.map(({ name, input }) => (input ? shortName(input) : name))) : "none"),
      plan.ignored.length ? pair("Kept, not sent", names(plan.ignored)) : null,
      derived.length ? pair("Not measured", plural(derived.length, "derived input")) : null,
    ),
    plan.missing.length
      ? el("p", { class: "message bad", role: "alert" }, `Columns that the model needs are missing: ${names(plan.missing)}. Cells may be empty, the columns must be there.`)
      : "",
    el("div", { class: "row actions" }, start),
  );
  if (start.disabled) return;
  start.focus();
  announce(`${file.name} can be scored.`);
}

const pair = (term, words) => el("div", {}, el("dt", {}, term), el("dd", {}, words));

async function run(file, plan) {
  const stop = new AbortController();
  const bar = el("progress", { max: 1, value: 0, "aria-label": `Progress of ${file.name}` });
  const state = el("p", { class: "hint" });
  const hold = el("p", { class: "message warn", role: "status" });
  const cancel = el("button", { type: "button", on: { click: () => stop.abort() } }, "Cancel");
  const began = performance.now();
  let quarter = 0;
  const changed = () => {
    const part = file.size ? work.bytes / file.size : 1;
    const seconds = (performance.now() - began) / 1000;
    bar.value = part;
    say(hold, "");
    const left = part > 0.02 && part < 1 ? ` · about ${duration((seconds / part) * (1 - part))} left` : "";
    say(state, `${plural(work.rows, "row")} · ${Math.floor(part * 100)} %${left}`);
    if (Math.floor(part * 4) > quarter) {
      quarter = Math.floor(part * 4);
      announce(`${quarter * 25} percent of ${file.name}`);
    }
  };
  const waiting = (error, seconds) =>
    say(hold, seconds === null ? "Waiting for a token; it goes on from here." : `${sentence(error.message)} Trying again in ${Math.ceil(seconds)} s; nothing is lost.`);
  const work = new Run(file, plan, contract, { signal: stop.signal, changed, waiting });
  running = work;
  byId("plan").replaceChildren(el("h3", {}, file.name));
  byId("outcome").replaceChildren();
  byId("run").replaceChildren(bar, state, hold, el("div", { class: "row actions" }, cancel));
  cancel.focus();
  let ended = null;
  try {
    await work.all();
  } catch (error) {
    ended = error;
  }
  running = null;
  chosen = null;
  byId("run").replaceChildren();
  outcome(file, work, ended, (performance.now() - began) / 1000);
  scored();
}

const sentence = (text) => (/[.!?]$/.test(text) ? text : `${text}.`);

function outcome(file, work, ended, seconds) {
  const { label, threshold } = work.contract;
  const share = (rows) => (work.scored ? ` (${((100 * rows) / work.scored).toFixed(1)} %)` : "");
  const head = ended === null ? "Done" : ended instanceof Cancelled ? "Cancelled" : "Stopped";
  if (ended !== null && !(ended instanceof Cancelled)) complain(file, ended);
  const title = el("h3", { tabindex: "-1" }, `${head}: ${file.name}`);
  const facts = [
    ["Rows", count(work.rows)],
    ["Scored", count(work.scored)],
    [`With ${label}`, `${count(work.reached)}${share(work.reached)}`],
    ["Outside trained range", `${count(work.outside)}${share(work.outside)}`],
    ["Refused", count(work.refused)],
    ["Took", duration(seconds)],
    ["Release", [...work.releases].map(short).join(", ") || "–"],
  ];
  if (work.repeated) facts.push(["Scored before", count(work.repeated)]);
  const download = el(
    "button",
    { type: "button", class: "primary", on: { click: () => save(work.blob(), `${file.name.replace(/\.[^.]*$/, "")}-scores.csv`) } },
    "Download the result (CSV)",
  );
  download.disabled = work.rows === 0;
  byId("plan").replaceChildren();
  byId("outcome").replaceChildren(
    title,
    ended === null ? "" : el("p", {}, work.rows ? "What was scored until then is below; the same file again goes on from there." : "No row was scored."),
    el("dl", { class: "facts" }, ...facts.map(([term, words]) => pair(term, words))),
    work.scored ? histogram(work.bins, threshold) : "",
    el("div", { class: "row actions" }, download),
    ...(work.rows ? table(work) : []),
  );
  title.focus();
  announce(`${head}. ${plural(work.scored, "row")} scored, ${count(work.reached)} ${label}, ${count(work.refused)} refused.`);
}

/** The first rows, or those with the highest scores. */
function table(work) {
  const body = el("tbody");
  const columns = work.plan.columns.filter(({ input }) => input);
  const fill = (rows) => body.replaceChildren(...rows.map((row) => rowOf(work, row, columns)));
  const which = el(
    "select",
    { id: "which", on: { change: () => fill(which.value === "first" ? work.first : work.highest) } },
    el("option", { value: "first" }, `first ${count(work.first.length)} rows`),
    el("option", { value: "highest" }, `${count(work.highest.length)} highest scores`),
  );
  fill(work.first);
  const heads = ["Line", "Id", "Score", "Result", ...columns.map(({ input }) => shortName(input))];
  const more = work.rows > SHOWN ? "The download has all rows." : "";
  return [
    el("div", { class: "row spread" }, el("div", { class: "row" }, el("label", { for: "which" }, "Show the"), which), el("p", { class: "hint" }, more)),
    el(
      "div",
      { class: "scroll tall", role: "region", "aria-label": "Rows of the result", tabindex: "0" },
      el("table", {}, el("thead", {}, el("tr", {}, ...heads.map((name) => el("th", { scope: "col" }, name)))), body),
    ),
  ];
}

function rowOf(work, row, columns) {
  const { contract: { threshold, label }, plan } = work;
  const values = columns.map((column) => el("td", { class: column.input.kind === "number" ? "number" : null }, row.sent[plan.columns.indexOf(column)] ?? ""));
  const verdict = row.refused === null ? result(row, label) : [el("span", { class: "tag warn" }, "refused"), ` ${row.refused}`];
  return el(
    "tr",
    { class: row.predicted ? "reached" : null },
    el("th", { scope: "row" }, count(row.line)),
    el("td", {}, row.id),
    el("td", { class: "number" }, scoreText(row.score, threshold)),
    el("td", {}, ...verdict),
    ...values,
  );
}

function size(bytes) {
  if (bytes < 1024) return `${bytes} bytes`;
  return bytes < 1024 ** 2 ? `${(bytes / 1024).toFixed(1)} KB` : `${(bytes / 1024 ** 2).toFixed(1)} MB`;
}

function duration(seconds) {
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  return seconds < 120 ? `${Math.round(seconds)} s` : `${Math.round(seconds / 60)} min`;
}
