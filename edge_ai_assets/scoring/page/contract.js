// What the release's contract says of a value. Pure. The service judges; this only says the same sooner.

import { quantity } from "./dom.js";

export const CONTEXT = ["_time", "_run", "_row"];
const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$/;
const DECIMAL_COMMA = /^[+-]?\d*,\d+([eE][+-]?\d+)?$/;
const MISSING = new Set(["", "na", "n/a", "nan", "null", "none"]);

export const isDerived = (input) => input.base !== input.name;

/** An input's name without the unit in it: the unit stands beside the field. */
export function shortName(input) {
  return input.unit ? input.name.replace(` [${input.unit}]`, "") || input.name : input.name;
}

/**
 * A text as the value of an input: {value, problem?, outside?}. The value is a number, a category, or null
 * (not measured); `problem` says why the service will refuse it, `outside` that it was not trained on.
 */
export function read(input, text, { comma = false } = {}) {
  const trimmed = text.trim();
  if (input.kind === "category") return category(input, trimmed);
  if (MISSING.has(trimmed.toLowerCase())) return { value: null };
  const plain = comma && DECIMAL_COMMA.test(trimmed) ? trimmed.replace(",", ".") : trimmed;
  if (!NUMBER.test(plain)) return { value: null, problem: "must be a number, such as 12.5" };
  const value = Number(plain);
  if (!Number.isFinite(Math.fround(value))) return { value, problem: "is too large a number" };
  if (below(value, input.low) || above(value, input.high)) {
    return { value, problem: `must be in the range ${range(input.low, input.high, input.unit)}` };
  }
  const outside = below(value, input.trained_low) || above(value, input.trained_high);
  return outside ? { value, outside: true } : { value };
}

function category(input, text) {
  if (input.categories.includes(text)) return { value: text };
  return MISSING.has(text.toLowerCase()) ? { value: null } : { value: text };
}

const below = (value, bound) => (bound ?? null) !== null && value < bound;
const above = (value, bound) => (bound ?? null) !== null && value > bound;

/** A range in words; empty if there is no bound. */
export function range(low, high, unit = "", digits = 6) {
  const tail = unit ? ` ${unit}` : "";
  const [least, most] = [quantity(low, digits), quantity(high, digits)];
  if ((low ?? null) !== null && (high ?? null) !== null) return `${least} to ${most}${tail}`;
  if ((low ?? null) !== null) return `at least ${least}${tail}`;
  return (high ?? null) !== null ? `at most ${most}${tail}` : "";
}

/** The input that a refusal names, and what it says of it; null if it names none. */
export function named(inputs, message) {
  const longestFirst = [...inputs].sort((a, b) => b.name.length - a.name.length);
  for (const input of longestFirst) {
    for (const quoted of [`'${input.name}'`, `"${input.name}"`]) {
      if (message.includes(quoted)) {
        return { input, text: message.replace(/^row \d+: /, "").replace(`field ${quoted}`, quoted) };
      }
    }
  }
  return null;
}

/** Inputs as one line of text. */
export function inputsText(inputs, values) {
  const known = new Map(inputs.map((input) => [input.name, input]));
  return Object.entries(values ?? {})
    .filter(([, value]) => value !== null)
    .map(([name, value]) => {
      const input = known.get(name);
      const unit = input?.unit ? ` ${input.unit}` : "";
      return `${input ? shortName(input) : name} ${typeof value === "number" ? quantity(value) : value}${unit}`;
    })
    .join(" · ");
}
