// Read and write CSV. Independent of the page.

/** The file is not CSV; the message is a sentence. */
export class CsvError extends Error {}

export const DELIMITERS = [",", ";", "\t"];

const TEXT_COLUMNS = ["text", "comment_text"];
const TARGET_COLUMNS = ["labels", "label"];
const LOOKED_AT = 50; // rows that are examined to detect the delimiter

/** The characters of a file and what they were written in: UTF-8, UTF-16 if it says so, else Windows-1252. */
export function decode(bytes) {
  if (bytes[0] === 0xff && bytes[1] === 0xfe) {
    return { text: new TextDecoder("utf-16le").decode(bytes), encoding: "UTF-16" };
  }
  if (bytes[0] === 0xfe && bytes[1] === 0xff) {
    return { text: new TextDecoder("utf-16be").decode(bytes), encoding: "UTF-16" };
  }
  try {
    return { text: new TextDecoder("utf-8", { fatal: true }).decode(bytes), encoding: "UTF-8" };
  } catch {
    return { text: new TextDecoder("windows-1252").decode(bytes), encoding: "Windows-1252" };
  }
}

/** Yield the rows of a CSV text, each an array of strings; empty lines are skipped. */
export function* records(text, delimiter = ",") {
  const plain = new RegExp(`[^${delimiter}\r\n]*`, "y");
  let at = text.startsWith("\ufeff") ? 1 : 0;
  while (at < text.length) {
    const begin = at;
    const row = [];
    for (;;) {
      let cell = "";
      if (text[at] === '"') {
        [cell, at] = quoted(text, at);
      }
      plain.lastIndex = at;
      const [rest] = plain.exec(text); // after a closing quote it is there by mistake, and kept
      row.push(cell + rest);
      at += rest.length;
      if (text[at] !== delimiter) {
        break;
      }
      at += 1;
    }
    if (at > begin) {
      yield row;
    }
    at += text.startsWith("\r\n", at) ? 2 : 1;
  }
}

/** The cell whose quote opens here, and where it goes on behind the closing one. */
function quoted(text, opened) {
  let cell = "";
  let at = opened + 1;
  for (;;) {
    const quote = text.indexOf('"', at);
    if (quote < 0) {
      const line = text.slice(0, opened).split(/\r\n|\r|\n/).length;
      throw new CsvError(`The double quote that opens in line ${line} is never closed; close it, or write it twice.`);
    }
    cell += text.slice(at, quote);
    at = quote + 1;
    if (text[at] !== '"') {
      return [cell, at];
    }
    cell += '"';
    at += 1;
  }
}

/** Which of the delimiters makes rows most like the header and, among equals, most columns of it. */
export function findDelimiter(text) {
  let best = { delimiter: ",", width: 1, alike: 0 };
  for (const delimiter of DELIMITERS) {
    const widths = [];
    try {
      for (const row of records(text, delimiter)) {
        if (widths.push(row.length) === LOOKED_AT) {
          break;
        }
      }
    } catch {
      // a quote that is never closed: the rows before it tell enough
    }
    const width = widths[0] ?? 1;
    const alike = widths.filter((other) => other === width).length / (widths.length || 1);
    if (width > 1 && (alike > best.alike || (alike === best.alike && width > best.width))) {
      best = { delimiter, width, alike };
    }
  }
  return best.delimiter;
}

/** A whole file: the names of its columns and its rows, all equally wide. */
export function readTable(text, delimiter) {
  const rows = [...records(text, delimiter)];
  if (rows.length === 0) {
    throw new CsvError("The file is empty; its first line should name the columns.");
  }
  const width = rows.reduce((most, row) => Math.max(most, row.length), 0);
  const [header, ...body] = rows.map((row) => (row.length < width ? row.concat(Array(width - row.length).fill("")) : row));
  return { names: header.map((name, index) => name || `column ${index + 1}`), rows: body };
}

/** The index of the column of texts, told as `flash predict` tells it; -1 where nothing tells. */
export function findTexts(names, labels = []) {
  if (names.length === 1) {
    return 0;
  }
  const targets = new Set([...labels, ...TARGET_COLUMNS]);
  const others = names.filter((name) => !targets.has(name));
  const found = TEXT_COLUMNS.find((name) => others.includes(name)) ?? (others.length === 1 ? others[0] : null);
  return found === null ? -1 : names.indexOf(found);
}

/** Names of labels as one cell, in the form that `flash` reads back: `"a, b",c`. */
export const joinLabels = (labels) =>
  labels.map((label) => (/[,"]|^\s|\s$/.test(label) ? `"${label.replaceAll('"', '""')}"` : label)).join(",");

/** One row as RFC 4180 has it. */
export const formatRow = (cells, spreadsheet = false) =>
  `${cells.map((cell) => quote(spreadsheet ? guard(cell) : cell)).join(",")}\r\n`;

const quote = (cell) => (/[",\r\n]|^\s|\s$/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell);

/** A cell that a spreadsheet would take for a formula, behind an apostrophe; numbers stay numbers. */
export const guard = (cell) =>
  /^[=+\-@\t\r\n＝＋－＠]/.test(cell) && !/^[+-]?(\d+([.,]\d*)?|[.,]\d+)(e[+-]?\d+)?$/i.test(cell) ? `'${cell}` : cell;
