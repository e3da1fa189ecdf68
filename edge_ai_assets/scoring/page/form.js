// One reading: a form made from the contract, and what came of it.

import { Cancelled, persistently, post, randomId } from "./api.js";
import { gauge } from "./chart.js";
import { inputsText, isDerived, named, range, read, shortName } from "./contract.js";
import { byId, el, plural, quantity, say, scoreText, short, timeText } from "./dom.js";
import * as feedback from "./feedback.js";

const ATTEMPTS = 4;
const LONGEST_WAIT = 5;

let contract = null;
let fields = [];
let unanswered = null;
let scored = () => {};
let shownJudge = null;
let pressing = false;
const waiting = new Set();

/** Prepares the section, once; `whenScored` is called after each score. */
export function prepare(whenScored) {
  scored = whenScored;
  byId("form").addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
  byId("form").addEventListener("reset", () => {
    // After the fields are empty, which they are not yet.
    setTimeout(() => {
      for (const field of fields) field.check();
      say(byId("form-problem"), "");
      byId("result").replaceChildren();
      fields[0]?.control.focus();
    });
  });
  feedback.events.addEventListener("changed", () => shownJudge?.refresh());
  window.addEventListener("pointerdown", () => (pressing = true), true);
  for (const kind of ["pointerup", "pointercancel"]) window.addEventListener(kind, () => setTimeout(released), true);
}

/** Makes the fields of a contract; what was typed stays where the new one has the same input. */
export function use(next) {
  const typed = new Map(fields.map((field) => [field.input.name, field.control.value]));
  contract = next;
  fields = contract.inputs.map((input, number) => fieldOf(input, `input-${number}`));
  byId("fields").replaceChildren(...fields.filter(({ input }) => !isDerived(input)).map(({ element }) => element));
  const derived = fields.filter(({ input }) => isDerived(input));
  byId("derived").hidden = derived.length === 0;
  say(byId("derived").querySelector("summary"), plural(derived.length, "derived input"));
  byId("derived-fields").replaceChildren(...derived.map(({ element }) => element));
  for (const field of fields) {
    field.control.value = typed.get(field.input.name) ?? "";
    field.check();
  }
  byId("score").disabled = false;
}

function fieldOf(input, id) {
  const category = input.kind === "category";
  const described = `${id}-hint ${id}-problem`;
  const control = category
    ? el(
        "select",
        { id, "aria-describedby": described },
        el("option", { value: "" }, "not measured"),
        ...input.categories.map((name) => el("option", { value: name }, name)),
      )
    : el("input", { id, type: "text", inputmode: "decimal", autocomplete: "off", "aria-describedby": described });
  const hint = category ? "" : hintOf(input);
  const problem = el("p", { id: `${id}-problem`, class: "problem" });
  const element = el(
    "div",
    { class: "field" },
    el("label", { for: id }, shortName(input)),
    el("div", { class: "control" }, control, input.unit ? el("span", { class: "unit", "aria-hidden": "true" }, input.unit) : null),
    el("p", { id: `${id}-hint`, class: "hint" }, hint),
    problem,
  );
  const tell = (text, kind) => {
    say(problem, text);
    problem.className = `problem ${kind}`;
    if (kind === "bad") control.setAttribute("aria-invalid", "true");
    else control.removeAttribute("aria-invalid");
  };
  const check = () => {
    const found = read(input, control.value, { comma: true });
    if (found.problem) tell(sentence(found.problem), "bad");
    else if (found.outside) tell("Outside the trained range.", "warn");
    else tell("", "");
    return found;
  };
  control.addEventListener("input", () => control.getAttribute("aria-invalid") && check());
  control.addEventListener("change", () => whenReleased(check));
  return { input, element, control, check, tell };
}

/**
 * Does it now, or when no button is held down: leaving a field by pressing "Score" would else show a message
 * that moves the button away from under the pointer, and the press would be lost.
 */
function whenReleased(check) {
  if (pressing) waiting.add(check);
  else check();
}

function released() {
  pressing = false;
  for (const check of waiting) check();
  waiting.clear();
}

function hintOf(input) {
  const plausible = range(input.low, input.high, input.unit);
  const trained = range(input.trained_low, input.trained_high, "", 3);
  return [plausible || input.unit, trained && `trained ${trained}`].filter(Boolean).join(" · ");
}

const sentence = (text) => `${text[0].toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? "" : "."}`;

async function submit() {
  say(byId("form-problem"), "");
  const record = {};
  for (const field of fields) {
    const { value } = field.check();
    // Only what cannot be sent at all is stopped here: what is plausible is for the service to say.
    const unreadable = value === null && field.control.getAttribute("aria-invalid");
    if (unreadable) return complain(field);
    if (value !== null || !isDerived(field.input)) record[field.input.name] = value;
  }
  const body = JSON.stringify(record);
  // The same reading sent again after an answer that got lost is the same request, and is not scored twice.
  if (unanswered?.body !== body) unanswered = { body, key: randomId() };
  const { key } = unanswered;
  busy(true);
  try {
    const send = () => post("/v1/score", { records: [record] }, { key, seconds: 20 });
    const held = (error) => say(byId("form-problem"), error.status === 401 ? "Waiting for a token." : `${error.message} Trying again.`);
    const answer = await persistently(send, { attempts: ATTEMPTS, longest: LONGEST_WAIT, waiting: held });
    unanswered = null;
    say(byId("form-problem"), "");
    show({ ...answer.results[0], ...answer, inputs: record });
    scored();
  } catch (error) {
    if (!(error instanceof Cancelled)) refused(error);
  } finally {
    busy(false);
  }
}

function busy(working) {
  byId("score").disabled = working;
  say(byId("score"), working ? "Scoring…" : "Score");
}

function refused(error) {
  byId("result").replaceChildren();
  if (error.status) unanswered = null;
  const place = error.status === 422 ? named(contract.inputs, error.message) : null;
  const field = place && fields.find(({ input }) => input === place.input);
  if (field) {
    field.tell(sentence(place.text), "bad");
    complain(field);
  } else {
    say(byId("form-problem"), sentence(error.message));
  }
}

function complain(field) {
  if (isDerived(field.input)) byId("derived").open = true;
  field.control.focus();
  say(byId("form-problem"), `Not scored: please look at “${shortName(field.input)}”.`);
}

function show(score) {
  const { label } = contract;
  const threshold = score.threshold ?? contract.threshold;
  const compared = score.predicted ? "reaches" : "is below";
  const limit = quantity(threshold, 3);
  const beyond = fields.filter(({ input }) => score.inputs[input.name] !== undefined && read(input, String(score.inputs[input.name] ?? "")).outside);
  const ranges = beyond.map(({ input }) => {
    const given = `${shortName(input)} is ${quantity(score.inputs[input.name])}`;
    return `${given}, trained on ${range(input.trained_low, input.trained_high, input.unit)}`;
  });
  const given = inputsText(contract.inputs, score.inputs);
  shownJudge = feedback.buttons(score, () => contract);
  byId("result").replaceChildren(
    el(
      "div",
      { class: score.predicted ? "verdict reached" : "verdict" },
      el("p", { class: "big" }, scoreText(score.score, threshold)),
      el(
        "div",
        {},
        el("p", { class: "strong" }, score.predicted ? `Label reached: ${label}` : `Label not reached: no ${label}`),
        el("p", {}, `The score ${compared} the threshold of ${limit}.`),
      ),
    ),
    gauge(score.score ?? 0, threshold, score.predicted),
    score.outside
      ? el("p", { class: "message warn" }, `Take this score with care: a value lies outside what the model was trained on. ${ranges.join("; ")}${ranges.length ? "." : ""}`)
      : "",
    el("p", { class: "hint" }, `${score.id} · ${timeText(score.scored_at)} · release ${short(score.release)}`),
    el("p", { class: "hint" }, given ? `Scored with: ${given}` : "Scored with nothing measured."),
    el("div", { class: "row" }, el("span", {}, "Was it right?"), shownJudge),
  );
}
