// Asking the service: the token, time limits, its errors as exceptions, and trying again. No element is touched here.

const TOKEN = "edge-ai-token";
const SECONDS = 60;
const SLOWEST_RETRY = 15;
/** Refused for now, by the service or by a proxy before it. */
const LATER = new Set([429, 502, 503, 504]);

/** "token-needed" when an answer was 401, "token-given" when the next request has a new one. */
export const events = new EventTarget();

/** The service answered, but not with what was asked for; `status` is its answer's. */
export class Refused extends Error {
  constructor(status, message, retryAfter) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

/** There was no answer. */
export class Unreachable extends Error {}

/** The user stopped it. */
export class Cancelled extends Error {}

export const hasToken = () => sessionStorage.getItem(TOKEN) !== null;

export function setToken(token) {
  if (token === null) sessionStorage.removeItem(TOKEN);
  else sessionStorage.setItem(TOKEN, token);
  events.dispatchEvent(new Event("token-given"));
}

/**
 * One request, and its answer from JSON.
 * Throws Refused, Unreachable, or Cancelled when `signal` was aborted.
 */
export async function request(path, { method = "GET", body, type, key, signal, seconds = SECONDS } = {}) {
  if (signal?.aborted) throw new Cancelled("cancelled");
  const headers = { Accept: "application/json" };
  const token = sessionStorage.getItem(TOKEN);
  if (token !== null) headers["Authorization"] = `Bearer ${token}`;
  if (type) headers["Content-Type"] = type;
  if (key) headers["Idempotency-Key"] = key;
  const stop = new AbortController();
  const abort = () => stop.abort();
  const timer = setTimeout(abort, seconds * 1000);
  signal?.addEventListener("abort", abort);
  let response, text;
  try {
    response = await fetch(path, { method, body, headers, signal: stop.signal, cache: "no-store" });
    text = await response.text();
  } catch (error) {
    if (signal?.aborted) throw new Cancelled("cancelled");
    throw new Unreachable("The service cannot be reached.", { cause: error });
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", abort);
  }
  const answer = parsed(text);
  if (response.ok && answer !== undefined) return answer;
  if (response.status === 401) {
    // Refused for a token that has been replaced since: that says nothing of the one there is now.
    if (sessionStorage.getItem(TOKEN) !== token) return request(path, { method, body, type, key, signal, seconds });
    events.dispatchEvent(new Event("token-needed"));
  }
  const said = typeof answer?.error === "string" ? answer.error : `the service answered ${response.status}`;
  throw new Refused(response.status, said, Number(response.headers.get("Retry-After")) || null);
}

export const post = (path, value, options = {}) =>
  request(path, { method: "POST", type: "application/json", body: JSON.stringify(value), ...options });

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined; // an answer that is no JSON did not come from the service but from something before it
  }
}

/**
 * Calls `send` until it succeeds, is refused for good, was tried `attempts` times, or is asked to wait for more
 * than `longest` seconds. What is sent must be safe to repeat. `waiting` is told why, and for how many seconds
 * (null: until there is a token).
 */
export async function persistently(send, { signal, waiting = () => {}, attempts = Infinity, longest = Infinity } = {}) {
  for (let attempt = 1; ; attempt++) {
    try {
      return await send();
    } catch (error) {
      if (attempt >= attempts) throw error;
      if (error.status === 401) {
        waiting(error, null);
        await tokenGiven(signal);
      } else if (error instanceof Unreachable || LATER.has(error.status)) {
        const seconds = error.retryAfter ?? Math.min(2 ** (attempt - 1), SLOWEST_RETRY);
        if (seconds > longest) throw error;
        waiting(error, seconds);
        await sleep(seconds, signal);
      } else {
        throw error;
      }
    }
  }
}

export function sleep(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, seconds * 1000);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new Cancelled("cancelled"));
    });
  });
}

function tokenGiven(signal) {
  return new Promise((resolve, reject) => {
    events.addEventListener("token-given", resolve, { once: true });
    signal?.addEventListener("abort", () => reject(new Cancelled("cancelled")));
  });
}

/** An id that nobody else makes; needs no secure context. */
export function randomId() {
  return hex(crypto.getRandomValues(new Uint8Array(16)));
}

export const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
