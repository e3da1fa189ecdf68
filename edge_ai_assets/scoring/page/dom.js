// Making elements and texts. Everything that comes from outside becomes a text node or an attribute, never markup.

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

/** An HTML element; `on` holds its listeners, the other attributes are set as they are (null: left out). */
export function el(tag, { on = {}, ...attributes } = {}, ...children) {
  return filled(document.createElement(tag), on, attributes, children);
}

/** The same in SVG. */
export function svg(tag, { on = {}, ...attributes } = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), on, attributes, children);
}

function filled(element, listeners, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) element.setAttribute(name, "");
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  for (const [name, listener] of Object.entries(listeners)) element.addEventListener(name, listener);
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Shows a text in an element that is hidden while it is empty; a live region then says it. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Says something to screen readers only. */
export function announce(text) {
  say(byId("said"), text);
}

const whole = new Intl.NumberFormat("en-GB");
export const count = (number) => whole.format(number);
export const plural = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;

/** A number as people write it: at most six significant digits, no exponent where it can be avoided. */
export function quantity(value, digits = 6) {
  return value === null || value === undefined ? "–" : String(Number(value.toPrecision(digits))).replace(/^-/, "−");
}

/** A score with three digits, or as many as it takes to be on its own side of the threshold. */
export function scoreText(score, threshold) {
  if (score === null || score === undefined) return "–";
  for (let digits = 3; digits < 12; digits++) {
    const text = score.toFixed(digits);
    if (threshold === null || Number(text) >= threshold === score >= threshold) return text;
  }
  return String(score);
}

/** A time as far as it must be said: the hour today, the date as well on other days. */
export function timeText(iso, { seconds = true } = {}) {
  const time = new Date(iso);
  const now = new Date();
  if (Number.isNaN(time.getTime())) return "–";
  const clock = time.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit", ...(seconds && { second: "2-digit" }) });
  if (time.toDateString() === now.toDateString()) return clock;
  const year = time.getFullYear() === now.getFullYear() ? {} : { year: "numeric" };
  return `${time.toLocaleDateString("en-GB", { day: "numeric", month: "short", ...year })}, ${clock}`;
}

/** How long ago that was, or null if nobody knows. */
export function age(iso) {
  const seconds = (Date.now() - new Date(iso ?? NaN).getTime()) / 1000;
  if (Number.isNaN(seconds)) return null;
  if (seconds < 60) return "less than a minute";
  if (seconds < 2 * 3600) return plural(Math.floor(seconds / 60), "minute");
  if (seconds < 2 * 86400) return plural(Math.floor(seconds / 3600), "hour");
  return plural(Math.floor(seconds / 86400), "day");
}

/** The part of a digest that people compare. */
export const short = (digest) => String(digest).replace(/^sha256:/, "").slice(0, 8);

/** Offers a blob to be saved under that name. */
export function save(blob, name) {
  const url = URL.createObjectURL(blob);
  const link = el("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
