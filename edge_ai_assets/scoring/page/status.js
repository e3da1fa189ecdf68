// The strip at the top: which site and release this is, for how long it is trusted, whether the service answers,
// the link, the backlog.

import { age, byId, count, el, say, short, timeText } from "./dom.js";

const LINK = {
  up: ["good", "up"],
  down: ["warn", "down"],
  unknown: ["", "not known"],
};
const TRUST = {
  current: ["good", "current"],
  due: ["warn", "to be renewed"],
  stale: ["bad", "stale"],
  none: ["", "not known"],
};
const STATES = [
  ["scored", "scored here"],
  ["uploaded", "uploaded"],
  ["pending", "waiting"],
  ["withheld", "kept here by policy"],
  ["quarantined", "set aside"],
  ["expired", "expired"],
];

let since = null;

/** Shows an answer of GET /v1/status. */
export function show(status) {
  say(byId("site"), status.site);
  const old = age(status.release_since);
  byId("release").replaceChildren(
    el("span", { class: "strong" }, String(status.version)),
    el("span", { class: "code", title: status.release }, short(status.release)),
    old === null ? "" : el("span", { class: "quiet", title: `in use since ${timeText(status.release_since)}` }, `${old} old`),
    status.withdrawn ? el("span", { class: "strong", title: status.withdrawn }, light("bad"), "withdrawn") : "",
  );
  trust(status.trust);
  const [kind, word] = LINK[status.link?.state] ?? LINK.unknown;
  const begun = status.link?.since ? ` since ${timeText(status.link.since, { seconds: false })}` : "";
  byId("link").replaceChildren(light(kind), `${word}${begun}`);
  backlog(status.outbox);
}

/** For how long the site may rely on what it has without hearing anything newer. */
function trust(lease) {
  const [kind, word] = TRUST[lease?.state] ?? TRUST.none;
  const means = lease?.scoring === "stops" ? "scoring stops then, until a newer bundle is brought" : "scoring goes on then";
  const end = lease?.until
    ? el("span", { class: "quiet", title: `${timeText(lease.until)}; ${means}` }, `${kind === "bad" ? "since" : "until"} ${timeText(lease.until, { seconds: false })}`)
    : null;
  byId("trust").replaceChildren(light(kind), word, end ?? "");
}

function backlog(counts) {
  const place = byId("backlog");
  if (!counts) {
    say(place, "not known");
    return;
  }
  if (!place.querySelector("details")) {
    place.replaceChildren(el("details", {}, el("summary", {}), el("ul", { class: "counts" })));
  }
  say(place.querySelector("summary"), `${count(counts.pending ?? 0)} waiting`);
  place
    .querySelector("ul")
    .replaceChildren(
      ...STATES.filter(([name]) => counts[name] !== undefined).map(([name, words]) =>
        el("li", {}, el("span", { class: "strong" }, count(counts[name])), ` ${words}`),
      ),
    );
}

/** The service answers. */
export function reachable() {
  if (since !== null) say(byId("notice"), "");
  since = null;
  if (!byId("service").querySelector(".good")) byId("service").replaceChildren(light("good"), "answering");
}

/** It does not; it goes on being asked. */
export function unreachable() {
  if (since !== null) return;
  since = new Date();
  byId("service").replaceChildren(light("bad"), "no answer");
  say(
    byId("notice"),
    `The scoring service cannot be reached since ${timeText(since, { seconds: false })}. What you see may be old. ` +
      "It is asked again every few seconds; nothing needs to be done here.",
  );
}

/** The service answers, but refuses to say how it is. */
export function refused(error) {
  reachable();
  byId("service").replaceChildren(light("warn"), error.status === 401 ? "needs a token" : error.message);
}

const light = (kind) => el("span", { class: `light ${kind}`, "aria-hidden": "true" });
