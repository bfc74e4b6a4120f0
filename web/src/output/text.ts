// The bytes of one row as text with looks: what a terminal would leave on the line.

import { CONTINUED, STDERR, type Rows } from "./rows.ts";
import { applySGR, type Look } from "./sgr.ts";

export interface Run {
  text: string;
  look: Look;
}

/** The line is as wide as this at most: a cursor that is sent further stays there. */
const MAX_COLUMNS = 16 << 10;

const decoder = new TextDecoder("utf-8", { fatal: false, ignoreBOM: true });

// The parts of a line: sequences as terminals know them (ECMA-48 §5.4, §8.3.89), then characters.
const SEQUENCE = /\x1b(?:\[([\x20-\x3f]*)([\x40-\x7e])|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\|$)|[\x20-\x2f]+[\x30-\x7e]|[\x30-\x5a\x5c\x60-\x7e]|$|\[[\x20-\x3f]*$)|\x1b/g;

// What is left of a sequence that the row before has begun is not known here, and is shown: it is rare.
const SPECIAL = /[\x00-\x08\x0b-\x1f\x7f]/; // but not the line feed
const DROPPED = /[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f]/g;

// Characters that show nothing, or show the others in another order than they have: a reader must see what is there.
// Joiners stay where they join, in emoji and in scripts that have need of them.
const HIDDEN =
  /[\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff]|(?<!(?!\p{Script=Latin})[\p{L}\p{M}\p{Emoji_Presentation}\p{Extended_Pictographic}])[\u200c\u200d]|[\u200c\u200d](?!(?!\p{Script=Latin})[\p{L}\p{Extended_Pictographic}])/u;
const ALL_HIDDEN = new RegExp(HIDDEN, "gu");

/** Gives the runs of a row that begins with a look. */
export function runsOf(bytes: Uint8Array, look: Look): Run[] {
  const line = lineOf(bytes);
  if (!SPECIAL.test(line)) return line === "" ? [] : [{ text: line, look }];
  if (!line.includes("\r") && !line.includes("\b") && !line.includes("\x1b[")) {
    const text = line.replace(SEQUENCE, "").replace(DROPPED, "");
    return text === "" ? [] : [{ text, look }];
  }
  return draw(line, look);
}

/** Gives the text of a row, as it is shown. */
export function textOf(bytes: Uint8Array): string {
  const line = lineOf(bytes);
  if (!SPECIAL.test(line)) return line;
  return runsOf(bytes, NOBODY)
    .map((run) => run.text)
    .join("");
}

/** Gives the text of all rows, line by line: a line that was cut into rows is whole again. */
export function textOfRows(rows: Rows): string {
  let text = "";
  for (let row = 0; row < rows.count; row++) {
    const goesOn = row > 0 && (rows.flags(row) & CONTINUED) !== 0 && ((rows.flags(row) ^ rows.flags(row - 1)) & STDERR) === 0;
    if (row > 0 && !goesOn) text += "\n";
    text += textOf(rows.rowBytes(row));
  }
  return text;
}

/** Gives the text of many rows where all of it is shown as it is; undefined where it has to be looked at row by row. */
export function plainText(bytes: Uint8Array): string | undefined {
  const text = decoder.decode(bytes);
  return SPECIAL.test(text) || HIDDEN.test(text) ? undefined : text;
}

const NOBODY: Look = { fg: -1, bg: -1, flags: 0 };

function lineOf(bytes: Uint8Array): string {
  let end = bytes.length;
  if (end > 0 && bytes[end - 1] === 0x0a) end--;
  while (end > 0 && bytes[end - 1] === 0x0d) end--;
  const line = decoder.decode(bytes.subarray(0, end));
  return HIDDEN.test(line) ? line.replace(ALL_HIDDEN, (c) => `\\u{${c.charCodeAt(0).toString(16)}}`) : line;
}

// draw plays the row on a line of cells.
function draw(line: string, begin: Look): Run[] {
  const cells: string[] = [];
  const looks: Look[] = [];
  let look = begin;
  let cursor = 0;

  const put = (text: string): void => {
    for (const ch of text) {
      if (ch === "\r") cursor = 0;
      else if (ch === "\b") cursor = Math.max(0, cursor - 1);
      else if (ch === "\t" || (ch >= " " && ch !== "\x7f")) {
        if (cursor >= MAX_COLUMNS) return;
        while (cells.length < cursor) {
          cells.push(" ");
          looks.push(look);
        }
        cells[cursor] = ch;
        looks[cursor] = look;
        cursor++;
      }
    }
  };

  let at = 0;
  for (const found of line.matchAll(SEQUENCE)) {
    put(line.slice(at, found.index));
    at = found.index + found[0].length;
    const params = found[1] ?? "";
    switch (found[2]) {
      case "m":
        if (!/[^0-9;:]/.test(params)) look = applySGR(look, params);
        break;
      case "K":
        if (params === "" || params === "0") {
          cells.length = Math.min(cells.length, cursor);
          looks.length = cells.length;
        } else if (params === "2") {
          cells.length = 0;
          looks.length = 0;
        } else if (params === "1") {
          cells.fill(" ", 0, cursor + 1);
        }
        break;
      case "C":
        cursor = Math.min(MAX_COLUMNS - 1, cursor + (Number(params) || 1));
        break;
      case "D":
        cursor = Math.max(0, cursor - (Number(params) || 1));
        break;
      case "G":
        cursor = Math.min(MAX_COLUMNS, Number(params) || 1) - 1;
        break;
    }
  }
  put(line.slice(at));

  const runs: Run[] = [];
  let from = 0;
  for (let i = 1; i <= cells.length; i++) {
    if (i < cells.length && looks[i] === looks[from]) continue;
    runs.push({ text: cells.slice(from, i).join(""), look: looks[from] as Look });
    from = i;
  }
  return runs;
}
