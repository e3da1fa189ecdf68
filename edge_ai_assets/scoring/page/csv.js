// CSV as a stream of records. Pure: text in, records out, and back.

export const LARGEST_RECORD = 1024 * 1024;

/** A file that is no CSV; the message names the line. */
export class CsvError extends Error {}

/**
 * Takes a text piece by piece. A record is {line, cells, size}: the line it begins on, from 1, its texts, and
 * how many characters it took. Quoted cells may hold delimiters and line ends; empty lines are no records.
 */
export class Parser {
  #delimiter;
  #rest = "";
  #line = 1;

  constructor(delimiter) {
    this.#delimiter = delimiter;
  }

  /** The records that are complete after this piece. */
  feed(text) {
    this.#rest += text;
    return this.#take(false);
  }

  /** The record that no line end follows, if there is one. */
  end() {
    return this.#take(true);
  }

  #take(last) {
    const text = this.#rest;
    const records = [];
    let start = 0;
    for (;;) {
      const record = this.#record(text, start, last);
      if (record === null) break;
      if (record.cells.length > 1 || record.cells[0] !== "" || record.quoted) {
        records.push({ line: this.#line, cells: record.cells, size: record.next - start });
      }
      start = record.next;
      this.#line += record.lines;
    }
    this.#rest = text.slice(start);
    if (this.#rest.length > LARGEST_RECORD) {
      throw new CsvError(`line ${this.#line}: a quote is opened here and not closed within a megabyte`);
    }
    if (last && this.#rest !== "") throw new CsvError(`line ${this.#line}: a quote is opened and never closed`);
    return records;
  }

  /** The record at `start`, null if it does not end in this text. */
  #record(text, start, last) {
    if (start >= text.length) return null;
    const cells = [];
    let at = start;
    let lines = 1;
    let quoted = false;
    for (;;) {
      let end;
      if (text[at] === '"') {
        quoted = true;
        end = closing(text, at + 1);
        if (end < 0 || (end + 1 === text.length && !last)) return null;
        const cell = text.slice(at + 1, end).replaceAll('""', '"');
        lines += cell.split(/\r\n|\r|\n/).length - 1;
        cells.push(cell);
        end += 1;
        if (end < text.length && text[end] !== this.#delimiter && text[end] !== "\n" && text[end] !== "\r") {
          throw new CsvError(`line ${this.#line}: there is text after a closing quote`);
        }
      } else {
        end = at;
        while (end < text.length && !this.#ends(text.charCodeAt(end))) end++;
        cells.push(text.slice(at, end));
      }
      if (end === text.length) return last ? { cells, quoted, next: end, lines } : null;
      if (text[end] === this.#delimiter) {
        at = end + 1;
        continue;
      }
      if (text[end] === "\r" && end + 1 === text.length && !last) return null; // a line feed may follow
      return { cells, quoted, lines, next: end + (text[end] === "\r" && text[end + 1] === "\n" ? 2 : 1) };
    }
  }

  #ends(code) {
    return code === 10 || code === 13 || code === this.#delimiter.charCodeAt(0);
  }
}

/** Where the quote is that closes a cell; -1 if it is not in this text. */
function closing(text, from) {
  let at = text.indexOf('"', from);
  while (at >= 0 && text[at + 1] === '"') at = text.indexOf('"', at + 2);
  return at;
}

/** One record as a line, with its end. */
export function line(cells, delimiter = ",") {
  const written = cells.map((cell) => (mustQuote(cell, delimiter) ? `"${cell.replaceAll('"', '""')}"` : cell));
  // An empty line would be no record.
  return `${written.length === 1 && written[0] === "" ? '""' : written.join(delimiter)}\n`;
}

const mustQuote = (cell, delimiter) =>
  cell.includes(delimiter) || cell.includes('"') || cell.includes("\n") || cell.includes("\r");

/** The delimiter that gives a header the most of `names`; of equals the one that gives the most cells. */
export function delimiterOf(text, names) {
  const known = new Set(names);
  const tried = [",", ";", "\t"].map((delimiter) => {
    const parser = new Parser(delimiter);
    let records = [];
    try {
      records = [...parser.feed(text), ...parser.end()];
    } catch (error) {
      if (!(error instanceof CsvError)) throw error; // what is wrong with the file is told when it is read
    }
    const cells = records[0]?.cells ?? text.split(/[\r\n]/, 1)[0].split(delimiter);
    return { delimiter, found: cells.filter((cell) => known.has(cell.trim())).length, cells: cells.length };
  });
  return tried.sort((a, b) => b.found - a.found || b.cells - a.cells)[0].delimiter;
}
