// A file as it is chosen: how it is written, which of its columns are sent, and its text piece by piece.

import { CONTEXT, isDerived } from "./contract.js";
import { CsvError, Parser, delimiterOf } from "./csv.js";

const PIECE = 512 * 1024;

/**
 * Looks at the beginning of a file: {encoding, delimiter, header, columns, ignored, missing, comma}. `columns`
 * are those that are sent: {name, at, input (null for context)}; `comma` whether numbers have a decimal comma.
 */
export async function inspect(file, contract) {
  const head = new Uint8Array(await file.slice(0, PIECE).arrayBuffer());
  const encoding = encodingOf(head);
  const text = new TextDecoder(encoding).decode(head, { stream: true });
  const delimiter = delimiterOf(text, contract.inputs.map((input) => input.name));
  const parser = new Parser(delimiter);
  const records = parser.feed(text);
  if (head.length === file.size) records.push(...parser.end());
  if (!records.length) throw new CsvError("the file is empty; it needs a header line and at least one row");
  const header = records[0].cells.map((cell) => cell.trim().normalize());
  const inputs = new Map(contract.inputs.map((input) => [input.name.normalize(), input]));
  const columns = header
    .map((name, at) => ({ name: inputs.get(name)?.name ?? name, at, input: inputs.get(name) ?? null }))
    .filter(({ name, input }) => input || CONTEXT.includes(name));
  const twice = columns.find(({ name }, at) => columns.findIndex((other) => other.name === name) !== at);
  if (twice) throw new CsvError(`the column “${twice.name}” is there twice`);
  const used = new Set(columns.map(({ name }) => name));
  const numbers = columns.filter(({ input }) => input?.kind === "number");
  return {
    encoding,
    delimiter,
    header: records[0].cells,
    columns,
    ignored: header.filter((name) => !inputs.has(name) && !CONTEXT.includes(name)),
    missing: contract.inputs.filter((input) => !isDerived(input) && !used.has(input.name)).map((input) => input.name),
    // Where the delimiter is a comma, a decimal comma would have to be quoted, which no program does.
    comma: delimiter !== "," && records.slice(1).some(({ cells }) => numbers.some(({ at }) => /^\s*[+-]?\d*,\d+\s*$/.test(cells[at] ?? ""))),
  };
}

function encodingOf(head) {
  if (head[0] === 0xff && head[1] === 0xfe) return "utf-16le";
  if (head[0] === 0xfe && head[1] === 0xff) return "utf-16be";
  try {
    new TextDecoder("utf-8", { fatal: true }).decode(head, { stream: true });
    return "utf-8";
  } catch {
    return "windows-1252"; // what spreadsheets of western Europe write when they are not asked for UTF-8
  }
}

/** The pieces of a file as {text, bytes read so far}, then one whose text is null. */
export async function* pieces(file, encoding) {
  const decoder = new TextDecoder(encoding, { fatal: true });
  try {
    for (let at = 0; at < file.size; at += PIECE) {
      const bytes = await file.slice(at, at + PIECE).arrayBuffer();
      yield { text: decoder.decode(bytes, { stream: true }), bytes: Math.min(at + PIECE, file.size) };
    }
    const rest = decoder.decode();
    if (rest) yield { text: rest, bytes: file.size };
  } catch (error) {
    if (error instanceof TypeError) throw new CsvError(`the file is not ${encoding} throughout; save it as CSV in UTF-8`, { cause: error });
    if (error instanceof DOMException) throw new CsvError("the file cannot be read; was it changed or moved?", { cause: error });
    throw error;
  }
  yield { text: null, bytes: file.size };
}
