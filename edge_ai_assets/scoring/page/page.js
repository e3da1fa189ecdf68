// The page: what it is made from, and how it stays up to date.

import * as api from "./api.js";
import { announce, byId, say, short } from "./dom.js";
import * as feedback from "./feedback.js";
import * as file from "./file.js";
import * as form from "./form.js";
import * as recent from "./recent.js";
import * as status from "./status.js";

const SECONDS = 4;
const ANSWER_SECONDS = 8;

let contract = null;
let asking = false;
let again = false;
let timer = 0;

/** Asks for all that can change, shows it, and asks again in a while: only what is seen is kept up to date. */
async function update() {
  if (asking) {
    again = true;
    return;
  }
  asking = true;
  clearTimeout(timer);
  try {
    do {
      again = false;
      await ask();
    } while (again);
  } finally {
    asking = false;
    if (!document.hidden) timer = setTimeout(update, SECONDS * 1000);
  }
}

async function ask() {
  if (!byId("access").hidden) return; // every request would only be refused again
  try {
    const now = await state();
    if (contract === null || (now && now.release !== contract.release)) await understand();
    await recent.refresh();
  } catch (error) {
    if (error instanceof api.Unreachable) status.unreachable();
    else if (!(error instanceof api.Refused)) throw error; // a refusal is shown where it belongs, by who asked
  }
}

/** The service's state; null if this user may not see it. */
async function state() {
  try {
    const now = await api.request("/v1/status", { seconds: ANSWER_SECONDS });
    status.reachable();
    status.show(now);
    return now;
  } catch (error) {
    // A service that is busy or stopping answers, and is not out of reach; what stands before it may say 502.
    if (error.status && error.status < 500) status.refused(error);
    else throw error.status ? new api.Unreachable(error.message) : error;
    return null;
  }
}

async function understand() {
  try {
    const next = await api.request("/v1/contract", { seconds: ANSWER_SECONDS });
    if (contract?.release === next.release) return;
    const changed = contract !== null;
    contract = next;
    document.title = `${contract.usecase}: scoring`;
    say(byId("title"), contract.usecase);
    say(byId("usecase"), `Model ${contract.usecase}, release ${contract.release}`);
    form.use(contract);
    file.use(contract);
    recent.use(contract);
    say(byId("form-problem"), "");
    if (changed) announce(`Another release is in use: ${short(contract.release)}.`);
  } catch (error) {
    if (error.status && error.status !== 401) say(byId("form-problem"), `What the model takes is not known: ${error.message}`);
    throw error;
  }
}

function access() {
  const section = byId("access");
  api.events.addEventListener("token-needed", () => {
    if (!section.hidden) return;
    say(byId("access-why"), api.hasToken() ? "The token was not accepted. It may have been revoked." : "This service asks for a token.");
    section.hidden = false;
    byId("token").focus();
  });
  byId("access-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const token = byId("token").value.trim();
    byId("token").value = "";
    if (!/^[\x21-\x7e]+$/.test(token)) {
      say(byId("access-why"), "This is no token: it has only letters, digits and signs, and no spaces.");
      return;
    }
    section.hidden = true;
    api.setToken(token);
  });
  byId("forget").addEventListener("click", () => api.setToken(null));
  api.events.addEventListener("token-given", () => {
    byId("forget").hidden = !api.hasToken();
    update();
  });
  byId("forget").hidden = !api.hasToken();
}

access();
feedback.prepare();
form.prepare(update);
file.prepare(update);
recent.prepare();
document.addEventListener("visibilitychange", () => document.hidden || update());
window.addEventListener("online", update);
update();
