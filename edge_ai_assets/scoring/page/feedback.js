// "This was right", "this was wrong": the dialog, sending it, and what was already said in this browser.

import { hasToken, persistently, post } from "./api.js";
import { announce, byId, el, quantity, say, scoreText, timeText } from "./dom.js";
import { shortName } from "./contract.js";

const SAID = "edge-ai-said";
const ROLE = "edge-ai-role";
const KEPT = 2000;
const ATTEMPTS = 4;
const LONGEST_WAIT = 5;

/** "changed" when something was said of a score. */
export const events = new EventTarget();

/** What the dialog asks about: {score, correct}. It stays when the dialog closes, until the next one is asked. */
let asked = null;

/** What was said of a score: {correct, note} or undefined. Ids can come again after an outbox was replaced. */
export const said = (score) => remembered()[nameOf(score)];

/** The two buttons of a score, and what was said of it. `contract` is asked when one is pressed. */
export function buttons(score, contract) {
  const place = el("div", { class: "judge" });
  const draw = () => {
    const now = said(score);
    const button = (correct, word) =>
      el(
        "button",
        {
          type: "button",
          class: correct ? "right" : "wrong",
          "aria-pressed": now ? String(now.correct === correct) : "false",
          "aria-label": `${score.id} was ${word}`,
          on: { click: () => ask(score, correct, contract()) },
        },
        el("span", { class: "word" }, correct ? "Right" : "Wrong"),
      );
    const hadFocus = place.contains(document.activeElement) ? document.activeElement.className : null;
    place.replaceChildren(button(true, "right"), button(false, "wrong"));
    if (now?.note) place.append(el("span", { class: "note", title: now.note }, now.note));
    if (hadFocus) place.querySelector(`.${hadFocus}`)?.focus();
  };
  draw();
  place.refresh = draw;
  return place;
}

/** Prepares the dialog, once. */
export function prepare() {
  const [dialog, note] = [byId("judge"), byId("note")];
  const left = () => say(byId("note-hint"), `${500 - note.value.length} characters left. Kept with the score.`);
  note.addEventListener("input", left);
  byId("judge-cancel").addEventListener("click", () => dialog.close());
  byId("judge-form").addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });
  dialog.addEventListener("show", left);
}

function ask(score, correct, contract) {
  const dialog = byId("judge");
  asked = { score, correct };
  const before = said(score);
  say(byId("judge-title"), correct ? "This was right" : "This was wrong");
  const result = score.predicted ? contract.label : `no ${contract.label}`;
  say(byId("judge-score"), `${score.id}: ${result}, score ${scoreText(score.score, contract.threshold)}, ${timeText(score.scored_at)}`);
  const truth = score.predicted === correct ? `There was a ${contract.label}.` : `There was no ${contract.label}.`;
  say(byId("judge-means"), `You say: ${truth}${before ? " This replaces what you said before." : ""}`);
  const pairs = contract.inputs
    .filter((input) => score.inputs?.[input.name] !== undefined && score.inputs[input.name] !== null)
    .map((input) => {
      const value = score.inputs[input.name];
      const shown = typeof value === "number" ? `${quantity(value)}${input.unit ? ` ${input.unit}` : ""}` : String(value);
      return el("div", {}, el("dt", {}, shortName(input)), el("dd", {}, shown));
    });
  byId("judge-inputs").replaceChildren(...pairs);
  byId("note").value = before?.correct === correct ? (before.note ?? "") : "";
  byId("role").value = stored(ROLE) ?? "";
  byId("role-field").hidden = hasToken(); // the service then takes the token's name
  say(byId("judge-problem"), "");
  dialog.dispatchEvent(new Event("show"));
  dialog.showModal();
  byId("note").focus();
}

async function send() {
  const sent = asked;
  const { score, correct } = sent;
  const note = byId("note").value.trim();
  const role = hasToken() ? "" : byId("role").value.trim();
  const item = { id: score.id, correct, ...(note && { note }), ...(role && { role }) };
  byId("judge-send").disabled = true;
  try {
    await persistently(() => post("/v1/feedback", { items: [item] }, { seconds: 15 }), { attempts: ATTEMPTS, longest: LONGEST_WAIT });
  } catch (error) {
    const problem = `It was not kept: ${error.message}`;
    if (sent === asked) say(byId("judge-problem"), problem);
    else announce(`${score.id}: ${problem}`);
    return;
  } finally {
    byId("judge-send").disabled = false;
  }
  remember(score, { correct, note });
  if (!hasToken()) store(ROLE, role);
  if (sent === asked) byId("judge").close(); // and not the next score's, asked after this one was dismissed
  announce(`${score.id}: your judgement was kept.`);
  events.dispatchEvent(new Event("changed"));
}

const nameOf = (score) => `${score.id} ${score.scored_at}`;

function remembered() {
  try {
    return JSON.parse(stored(SAID)) ?? {};
  } catch {
    return {}; // not ours, or damaged: what was said is in the outbox, this is only its echo
  }
}

function remember(score, what) {
  const all = Object.entries(remembered()).filter(([name]) => name !== nameOf(score));
  store(SAID, JSON.stringify(Object.fromEntries([...all, [nameOf(score), what]].slice(-KEPT))));
}

const stored = (name) => localStorage.getItem(name);
const store = (name, value) => localStorage.setItem(name, value);
