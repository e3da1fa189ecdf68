// Scoring a file: sent slice by slice, its result kept as blobs. No element is touched here.

import { Refused, hex, persistently, randomId, request } from "./api.js";
import { read, shortName } from "./contract.js";
import { Parser, line } from "./csv.js";
import { pieces } from "./source.js";

export const SLICE = 5000;
export const SHOWN = 200;
/** Characters in the records of a slice, from which on it is sent: a request may have 32 MiB. */
const LARGE_SLICE = 4 * 1024 * 1024;
const BINS = 20;
/** Rows of one slice that the service may refuse, each after the other, before the file is given up. */
const REFUSALS = 25;
const ADDED = ["id", "score", "predicted", "outside", "refused"];

/** A run over one file. What it has found so far is in its fields, whatever then happens to it. */
export class Run {
  rows = 0;
  scored = 0;
  reached = 0;
  outside = 0;
  refused = 0;
  repeated = 0;
  bytes = 0;
  bins = new Uint32Array(BINS);
  releases = new Set();
  /** The first rows, and those with the highest scores: {line, sent, id, score, predicted, outside, refused}. */
  first = [];
  highest = [];
  #parts = [];
  #chain = "";

  /** `changed` is called after each slice, `waiting` as in `persistently`. */
  constructor(file, plan, contract, { signal, changed, waiting }) {
    Object.assign(this, { file, plan, contract, signal, changed, waiting });
    this.name = randomId();
    const taken = new Set(plan.header);
    this.added = ADDED.map((name) => {
      let free = name;
      for (let number = 2; taken.has(free); number++) free = `${name}_${number}`;
      return free;
    });
  }

  /** Scores the whole file. Throws what stopped it. */
  async all() {
    let slice = [];
    let size = 0;
    let header = true;
    const parser = new Parser(this.plan.delimiter);
    for await (const { text, bytes } of pieces(this.file, this.plan.encoding)) {
      const records = text === null ? parser.end() : parser.feed(text);
      if (header && records.length) {
        records.shift();
        header = false;
      }
      for (const record of records) {
        slice.push(record);
        size += record.size;
        if (slice.length === SLICE || size > LARGE_SLICE) {
          await this.#score(slice);
          slice = [];
          size = 0;
        }
      }
      this.bytes = bytes;
      this.changed();
    }
    if (slice.length) await this.#score(slice);
    this.changed();
  }

  /** The result as a file: the original columns in the original form, and what was found. */
  blob() {
    const header = line([...this.plan.header, ...this.added], this.plan.delimiter);
    return new Blob(["\ufeff", header, ...this.#parts], { type: "text/csv;charset=utf-8" });
  }

  async #score(records) {
    const rows = records.map((record) => this.#row(record));
    const answer = await this.#answered(rows.filter((row) => row.refused === null));
    const written = [];
    for (const row of rows) {
      if (row.refused === null) this.#found(row, answer);
      else this.refused += 1;
      this.rows += 1;
      if (this.first.length < SHOWN) this.first.push(row);
      const score = row.score === null ? "" : String(row.score);
      const texts = [row.id, this.plan.comma ? score.replace(".", ",") : score, row.predicted, row.outside, row.refused ?? ""];
      written.push(line([...this.#padded(row.cells), ...texts.map((value) => String(value ?? ""))], this.plan.delimiter));
      row.cells = null; // a text cut out of a piece of the file may keep all of the piece in memory
    }
    // A blob lies where the browser keeps files, not in the memory of this page.
    this.#parts.push(new Blob([written.join("")]));
    this.changed();
  }

  #padded(cells) {
    const wanted = this.plan.header.length;
    return cells.length < wanted ? [...cells, ...Array(wanted - cells.length).fill("")] : cells.slice(0, wanted);
  }

  /** A record as it is sent, or why it is not. */
  #row({ line: number, cells }) {
    const row = { line: number, cells, sent: [], id: "", score: null, predicted: null, outside: null, refused: null };
    const { columns, header, comma } = this.plan;
    if (cells.length !== header.length) {
      row.refused = `it has ${cells.length} cells, the header has ${header.length}`;
      return row;
    }
    for (const { at, input } of columns) {
      if (input === null) {
        row.sent.push(cells[at].trim());
        continue;
      }
      const { value, problem } = read(input, cells[at], { comma });
      if (problem) {
        row.refused = `${shortName(input)} is ${cells[at].trim().slice(0, 60)}, it ${problem}`;
        return row;
      }
      row.sent.push(value === null ? "" : String(value));
    }
    return row;
  }

  /** The service's answer to those rows; rows that it refuses are marked and left out. */
  async #answered(rows) {
    const { columns } = this.plan;
    const start = this.rows;
    let left = rows;
    let anew = false;
    for (let refusals = 0; left.length; refusals++) {
      const body = line(columns.map(({ name }) => name)) + left.map((row) => line(row.sent)).join("");
      const key = anew ? this.#ownKey(start, refusals) : await this.#key(body, start, refusals);
      try {
        const send = () => request("/v1/score", { method: "POST", type: "text/csv", body, key, signal: this.signal });
        const answer = await persistently(send, { signal: this.signal, waiting: this.waiting });
        if (answer.scores.length !== left.length) {
          throw new Refused(0, `the service gave ${answer.scores.length} scores for ${left.length} rows`, null);
        }
        left.forEach((row, at) => (row.at = at));
        if (answer.repeated) this.repeated += left.length;
        return answer;
      } catch (error) {
        if (error.status === 410 && !anew) {
          anew = true; // scored once, and no longer kept there: without a new key it could never be again
          continue;
        }
        const place = error.status === 422 ? /^row (\d+): (.*)$/s.exec(error.message) : null;
        const wrong = place && left[Number(place[1])];
        if (!wrong || refusals === REFUSALS) throw error;
        wrong.refused = place[2];
        left = left.filter((row) => row !== wrong);
      }
    }
    return null;
  }

  #found(row, answer) {
    const cut = answer.first.lastIndexOf("/") + 1;
    row.id = answer.first.slice(0, cut) + (Number(answer.first.slice(cut)) + row.at);
    row.score = answer.scores[row.at];
    row.predicted = answer.predicted[row.at];
    row.outside = answer.outside[row.at];
    this.scored += 1;
    this.reached += row.predicted;
    this.outside += row.outside;
    this.releases.add(answer.release);
    if (row.score === null) return;
    this.bins[Math.min(Math.floor(row.score * BINS), BINS - 1)] += 1;
    this.#rank(row);
  }

  #rank(row) {
    const { highest } = this;
    if (highest.length === SHOWN && row.score <= highest[SHOWN - 1].score) return;
    let [low, high] = [0, highest.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (highest[middle].score >= row.score) low = middle + 1;
      else high = middle;
    }
    highest.splice(low, 0, row);
    if (highest.length > SHOWN) highest.pop();
  }

  /**
   * The idempotency key of a slice. It stands for the release, for all that was sent before and for this: the
   * same file sent again, after a cut or by mistake, gets the scores of the first time and fills no outbox
   * twice; another release scores it anew. Without a secure context there are no digests, and it stands for
   * this run only.
   */
  async #key(body, start, refusals) {
    if (!crypto.subtle) return this.#ownKey(start, refusals);
    const text = `${this.contract.release}\n${this.#chain}\n${body}`;
    this.#chain = hex(new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text))));
    return `page-${this.#chain}-${start}`;
  }

  #ownKey(start, refusals) {
    return `page-${this.name}-${start}-${refusals}`;
  }
}
