// Search through a whole output, also where it is far larger than the window: page by page, in the background.

import { Rows, type Chunk } from "./rows.ts";
import { plainText, textOf } from "./text.ts";

/** A place where something was found: the row, by its first byte, and which of the finds in it. */
export interface Match {
  position: number;
  nth: number;
}

export interface Finder {
  /** Where in the text of a row it is found. */
  (text: string): number[];
  /** Whether it can be in no row of a text of many rows; without it every row is looked at. */
  nowhere?(rows: string): boolean;
}

export const MAX_MATCHES = 10_000;

/** Finds a text, with any case of letters. */
export function findText(query: string): Finder {
  const wanted = query.toLowerCase();
  const find = (text: string): number[] => {
    const found: number[] = [];
    if (wanted === "") return found;
    const line = foldCase(text);
    for (let at = line.indexOf(wanted); at >= 0; at = line.indexOf(wanted, at + wanted.length)) found.push(at);
    return found;
  };
  return Object.assign(find, { nowhere: (rows: string) => !rows.toLowerCase().includes(wanted) });
}

/** Small letters without changing the length, so that indexes stay true. */
export function foldCase(text: string): string {
  const small = text.toLowerCase();
  return small.length === text.length ? small : text.replace(/[A-Z]/g, (c) => c.toLowerCase());
}

// Words with which programs begin to say that something went wrong. Whole words, since "0 errors" and
// "stderr" are common; not "0 errors" or "no error".
const TROUBLE =
  /(?<!\b(?:0|no|without|zero)\s)\b(?:error|errors|err!|fatal|fail|failed|failure|panic|exception|traceback|segmentation fault|denied|cannot|abort|aborted|not found|no such file)\b(?!\s*[:=]\s*(?:0\b|none|null|nil|false))/i;

/** Finds what looks like an error. */
export const findTrouble: Finder = (text) => {
  const at = text.search(TROUBLE);
  return at < 0 ? [] : [at];
};

/** Finds things in pages that are fed one behind the other. */
export class Scanner {
  private rows: Rows;
  private readonly find: Finder;
  private readonly max: number;
  /** Everything before it was looked at. */
  scanned: number;
  readonly matches: Match[] = [];

  constructor(find: Finder, from = 0, max = MAX_MATCHES) {
    this.find = find;
    this.max = max;
    this.scanned = from;
    this.rows = new Rows(from);
  }

  get full(): boolean {
    return this.matches.length >= this.max;
  }

  /** The last row has not been looked at, for it may still grow. */
  get unfinished(): boolean {
    return this.rows.count > 0;
  }

  feed(chunks: readonly Chunk[], next: number): void {
    for (const chunk of chunks) this.rows.append(chunk);
    // The last row may still grow.
    const done = this.rows.count - 1;
    if (done > 0 && !this.passesOver(done)) {
      for (let row = 0; row < done && !this.full; row++) this.look(row);
    }
    if (done > 0) this.rows.trimFront(this.rows.end - this.rows.start(done), 1);
    this.scanned = next;
  }

  /** Looks at the last row too. */
  finish(): void {
    if (this.rows.count > 0 && !this.full) this.look(this.rows.count - 1);
    this.rows = new Rows(this.scanned);
  }

  // Most pages of a large output have nothing of what is looked for: where they show as they are stored, that is seen
  // without making a text of each row.
  private passesOver(rows: number): boolean {
    if (this.find.nowhere === undefined) return false;
    const text = plainText(this.rows.read(this.rows.base, this.rows.start(rows)));
    return text !== undefined && this.find.nowhere(text);
  }

  private look(row: number): void {
    const found = this.find(textOf(this.rows.rowBytes(row)));
    for (let nth = 0; nth < found.length && !this.full; nth++) {
      this.matches.push({ position: this.rows.start(row), nth });
    }
  }
}
