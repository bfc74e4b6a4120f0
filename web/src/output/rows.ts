// A window of a command's output, cut into rows.
//
// The output is a run of bytes of two streams in the order in which they came; a byte is named by its position in
// that run. A row begins behind a line feed, where the other stream has its say, or, in lines that no screen could
// show, after SEGMENT bytes. So rows tile the window, and a row is known by the position of its first byte alone:
// what is kept of one is a few numbers, and its text is made when it is on screen.
//
//	chunks   │ stdout ······ │ stderr ··· │ stdout ········ │
//	rows     │ a\n │ b\n │ c │ e\n        │ d\n │ f\n │ g…
//	         base                                          end

import { applySGR, lookNumber, lookOf, PLAIN, type Look } from "./sgr.ts";

export type StreamNumber = 0 | 1;

export interface Chunk {
  stream: StreamNumber;
  position: number;
  data: Uint8Array;
}

/** What a row is. */
export const STDERR = 1;
/** It goes on with the line of the row before, or of one before that. */
export const CONTINUED = 2;
/** It moves back to write over itself: with carriage returns or backspaces. */
export const REWRITES = 4;
/** No bytes of it are stored any more. */
export const GAP = 8;

/** Longest row in bytes, but for rows that rewrite themselves. */
export const SEGMENT = 4096;
/** Longest row that rewrites itself; of it only the end is shown. */
const MAX_REWRITTEN = 1 << 20;
/** How many bytes of a row are made text. */
const MAX_SHOWN = 16 << 10;
/** An escape sequence without an end is none. */
const MAX_ESCAPE = 256;

const enum Escape {
  None,
  Began, // behind ESC
  Control, // in CSI: parameters, then a final byte
  Text, // in OSC, DCS, …: up to BEL or ESC \
  TextEnd, // behind an ESC in it
  Charset, // one byte more
}

interface StreamState {
  look: Look;
  escape: Escape;
  params: string;
  length: number;
}

function newState(): StreamState {
  return { look: PLAIN, escape: Escape.None, params: "", length: 0 };
}

export class Rows {
  private chunks: Chunk[] = [];
  private from = 0; // of the arrays: index of the first row
  private to = 0; // behind the last
  private starts = new Float64Array(64);
  private flagsOf = new Uint8Array(64);
  private looksOf = new Uint16Array(64);
  private widths = new Uint16Array(64);
  private states: [StreamState, StreamState] = [newState(), newState()];
  private open = false; // the last row may still grow
  private brokeOff: [boolean, boolean] = [false, false]; // the stream's last row did not end its line
  private column = 0;
  private carriage = false; // the last byte was a carriage return: with a line feed it ends the line

  /** Position of the first byte. */
  base: number;
  /** Position behind the last byte. */
  end: number;
  /** How many lines lie before the first row; undefined where nobody has counted. */
  linesBefore: number | undefined;

  constructor(base = 0) {
    this.base = base;
    this.end = base;
    this.linesBefore = base === 0 ? 0 : undefined;
  }

  get count(): number {
    return this.to - this.from;
  }

  get bytes(): number {
    return this.end - this.base;
  }

  start(row: number): number {
    return row >= this.count ? this.end : (this.starts[this.from + row] ?? this.end);
  }

  flags(row: number): number {
    return this.flagsOf[this.from + row] ?? 0;
  }

  /** How many columns a row has on a screen, about. */
  width(row: number): number {
    return this.widths[this.from + row] ?? 0;
  }

  look(row: number): Look {
    return lookOf(this.looksOf[this.from + row] ?? 0);
  }

  /** The number of the line that a row belongs to, 1 for the first; undefined where that is not known. */
  lineOf(row: number): number | undefined {
    if (this.linesBefore === undefined) return undefined;
    let line = this.linesBefore + 1;
    const end = this.from + row;
    for (let i = this.from + 1; i <= end; i++) if (((this.flagsOf[i] as number) & CONTINUED) === 0) line++;
    return line;
  }

  /** The row that a position lies in: the first one for what lies before, the last for what lies behind. */
  rowAt(position: number): number {
    let low = 0;
    let high = this.count - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.start(middle) <= position) low = middle;
      else high = middle - 1;
    }
    return Math.max(0, low);
  }

  /** Takes bytes that lie at or behind the end. What the window has already is left out, what is missing is a gap. */
  append(chunk: Chunk): void {
    let { data, position } = chunk;
    if (position + data.length <= this.end) return;
    if (position < this.end) {
      data = data.subarray(this.end - position);
      position = this.end;
    }
    if (position > this.end) this.gap(position);
    if (this.open && ((this.flagsOf[this.to - 1] ?? 0) & STDERR) !== (chunk.stream === 1 ? STDERR : 0)) {
      this.close();
    }
    this.chunks.push({ stream: chunk.stream, position, data });
    this.split(chunk.stream, position, data);
    this.end = position + data.length;
  }

  /** Tells that nothing is stored from the end up to a position. */
  gap(to: number): void {
    if (to <= this.end) return;
    this.close();
    this.add(this.end, GAP, PLAIN);
    this.open = false;
    this.end = to;
    // Lines that nobody has can not be counted.
    if (this.count === 1) this.linesBefore = undefined;
  }

  private close(): void {
    if (!this.open) return;
    this.open = false;
    this.brokeOff[(this.flagsOf[this.to - 1] ?? 0) & STDERR ? 1 : 0] = true;
  }

  private split(stream: StreamNumber, position: number, data: Uint8Array): void {
    const state = this.states[stream];
    const kind = stream === 1 ? STDERR : 0;
    for (let i = 0; i < data.length; i++) {
      const b = data[i] as number;
      if (!this.open) {
        this.add(position + i, kind | (this.brokeOff[stream] ? CONTINUED : 0), state.look);
        this.brokeOff[stream] = false;
        this.open = true;
        this.column = 0;
        this.carriage = false;
      } else if (position + i - (this.starts[this.to - 1] as number) >= SEGMENT && this.mayCut(position + i, b)) {
        this.add(position + i, kind | CONTINUED, state.look);
        this.column = 0;
        this.carriage = false;
      }
      if (b === 0x0a) {
        // A line feed ends the line also in a sequence that has none: nothing hides behind a lost end.
        state.escape = Escape.None;
        this.open = false;
        continue;
      }
      if (this.carriage) {
        this.carriage = false;
        this.flagsOf[this.to - 1] = (this.flagsOf[this.to - 1] as number) | REWRITES;
        this.column = 0;
      }
      if (state.escape !== Escape.None) {
        this.inEscape(state, b);
      } else if (b >= 0x20) {
        if ((b & 0xc0) !== 0x80 && b !== 0x7f) this.widen(b < 0xe3 ? 1 : 2);
      } else if (b === 0x1b) {
        state.escape = Escape.Began;
        state.length = 0;
      } else if (b === 0x0d) {
        this.carriage = true;
      } else if (b === 0x09) {
        this.widen(8 - (this.column % 8));
      } else if (b === 0x08) {
        this.column = Math.max(0, this.column - 1);
        this.flagsOf[this.to - 1] = (this.flagsOf[this.to - 1] as number) | REWRITES;
      }
    }
  }

  private mayCut(position: number, next: number): boolean {
    if ((next & 0xc0) === 0x80 || next === 0x0a || next === 0x0d) return false; // in a character, or at the line's end
    if (((this.flagsOf[this.to - 1] as number) & REWRITES) === 0) return true;
    return position - (this.starts[this.to - 1] as number) >= MAX_REWRITTEN;
  }

  private widen(columns: number): void {
    this.column += columns;
    const at = this.to - 1;
    if (this.column > (this.widths[at] as number)) this.widths[at] = Math.min(this.column, 0xffff);
  }

  private inEscape(state: StreamState, b: number): void {
    if (++state.length > MAX_ESCAPE && state.escape !== Escape.Text && state.escape !== Escape.TextEnd) {
      state.escape = Escape.None;
      return;
    }
    switch (state.escape) {
      case Escape.Began:
        state.params = "";
        if (b === 0x5b) state.escape = Escape.Control;
        else if (b === 0x5d || b === 0x50 || b === 0x58 || b === 0x5e || b === 0x5f) state.escape = Escape.Text;
        else if (b >= 0x20 && b <= 0x2f) state.escape = Escape.Charset;
        else state.escape = b === 0x1b ? Escape.Began : Escape.None;
        return;
      case Escape.Control:
        if (b >= 0x20 && b <= 0x3f) state.params += String.fromCharCode(b);
        else {
          state.escape = b === 0x1b ? Escape.Began : Escape.None;
          if (b === 0x6d && !/[^0-9;:]/.test(state.params)) state.look = applySGR(state.look, state.params);
        }
        return;
      case Escape.Text:
        if (b === 0x07) state.escape = Escape.None;
        else if (b === 0x1b) state.escape = Escape.TextEnd;
        return;
      case Escape.TextEnd:
        state.escape = b === 0x5c ? Escape.None : Escape.Text;
        return;
      default:
        state.escape = Escape.None;
    }
  }

  private add(start: number, flags: number, look: Look): void {
    if (this.to === this.starts.length) this.makeRoom();
    this.starts[this.to] = start;
    this.flagsOf[this.to] = flags;
    this.looksOf[this.to] = look === PLAIN ? 0 : lookNumber(look);
    this.widths[this.to] = 0;
    this.to++;
  }

  private makeRoom(): void {
    const capacity = Math.max(64, this.count * 2);
    const move = <T extends Float64Array | Uint8Array | Uint16Array>(old: T, fresh: T): T => {
      fresh.set(old.subarray(this.from, this.to));
      return fresh;
    };
    this.starts = move(this.starts, new Float64Array(capacity));
    this.flagsOf = move(this.flagsOf, new Uint8Array(capacity));
    this.looksOf = move(this.looksOf, new Uint16Array(capacity));
    this.widths = move(this.widths, new Uint16Array(capacity));
    this.to -= this.from;
    this.from = 0;
  }

  /** Puts the rows of another window before these; its end must be this base. */
  prepend(before: Rows): void {
    const count = before.count + this.count;
    const join = <T extends Float64Array | Uint8Array | Uint16Array>(a: T, b: T, fresh: T): T => {
      fresh.set(a.subarray(before.from, before.to));
      fresh.set(b.subarray(this.from, this.to), before.count);
      return fresh;
    };
    this.starts = join(before.starts, this.starts, new Float64Array(count + 64));
    this.flagsOf = join(before.flagsOf, this.flagsOf, new Uint8Array(count + 64));
    this.looksOf = join(before.looksOf, this.looksOf, new Uint16Array(count + 64));
    this.widths = join(before.widths, this.widths, new Uint16Array(count + 64));
    this.from = 0;
    this.to = count;
    this.chunks = before.chunks.concat(this.chunks);
    this.base = before.base;
    this.linesBefore = before.linesBefore;
  }

  /** Drops rows at the front until at most so many bytes and rows are left; reports whether it dropped any. */
  trimFront(bytes: number, rows: number): boolean {
    const first = this.from;
    while (this.count > 1 && (this.end - (this.starts[this.from + 1] as number) >= bytes || this.count > rows)) {
      if (this.linesBefore !== undefined && ((this.flagsOf[this.from + 1] as number) & CONTINUED) === 0) this.linesBefore++;
      if (((this.flagsOf[this.from] as number) & GAP) !== 0) this.linesBefore = undefined;
      this.from++;
    }
    if (this.from === first) return false;
    this.base = this.starts[this.from] as number;
    let stale = 0;
    while (stale < this.chunks.length && this.chunkEnd(stale) <= this.base) stale++;
    this.chunks.splice(0, stale);
    return true;
  }

  /** Drops rows at the back until at most so many bytes and rows are left; reports whether it dropped any. */
  trimBack(bytes: number, rows: number): boolean {
    const last = this.to;
    while (this.count > 1 && ((this.starts[this.to - 1] as number) - this.base >= bytes || this.count > rows)) this.to--;
    if (this.to === last) return false;
    this.end = this.starts[this.to] as number;
    const cut = this.flagsOf[this.to] as number;
    const stream: StreamNumber = cut & STDERR ? 1 : 0;
    // What is appended next begins the row that was dropped first, and looks as it did.
    this.states = [newState(), newState()];
    this.states[stream].look = lookOf(this.looksOf[this.to] as number);
    this.brokeOff = [false, false];
    this.brokeOff[stream] = (cut & CONTINUED) !== 0;
    this.open = false;
    while (this.chunks.length > 0 && (this.chunks.at(-1) as Chunk).position >= this.end) this.chunks.pop();
    const tail = this.chunks.at(-1);
    if (tail !== undefined && tail.position + tail.data.length > this.end) {
      tail.data = tail.data.subarray(0, this.end - tail.position);
    }
    return true;
  }

  private chunkEnd(i: number): number {
    const c = this.chunks[i] as Chunk;
    return c.position + c.data.length;
  }

  /** The stored bytes between two positions. */
  read(from: number, to: number): Uint8Array {
    let low = 0;
    let high = this.chunks.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.chunkEnd(middle) <= from) low = middle + 1;
      else high = middle;
    }
    const parts: Uint8Array[] = [];
    let size = 0;
    for (let i = low; i < this.chunks.length; i++) {
      const c = this.chunks[i] as Chunk;
      if (c.position >= to) break;
      const part = c.data.subarray(Math.max(0, from - c.position), Math.min(c.data.length, to - c.position));
      parts.push(part);
      size += part.length;
    }
    if (parts.length === 1) return parts[0] as Uint8Array;
    const all = new Uint8Array(size);
    let at = 0;
    for (const part of parts) {
      all.set(part, at);
      at += part.length;
    }
    return all;
  }

  /** The bytes of a row, as many as are shown: of one that rewrites itself the last ones. */
  rowBytes(row: number): Uint8Array {
    const from = this.start(row);
    const to = this.start(row + 1);
    if (to - from <= MAX_SHOWN) return this.read(from, to);
    const tail = this.read(to - MAX_SHOWN, to);
    const anew = tail.indexOf(0x0d);
    return anew < 0 ? tail : tail.subarray(anew + 1);
  }

  /** The stored chunks between two positions. */
  *between(from: number, to: number): Generator<Chunk> {
    for (const c of this.chunks) {
      if (c.position + c.data.length <= from) continue;
      if (c.position >= to) return;
      const head = Math.max(0, from - c.position);
      yield { stream: c.stream, position: c.position + head, data: c.data.subarray(head, to - c.position) };
    }
  }
}

/**
 * Where the first row of a page begins: a page that is read from the middle begins in the middle of a line, whose rest
 * is left out, unless there is nothing else.
 */
export function firstRowStart(chunks: readonly Chunk[]): number {
  const first = chunks[0];
  if (first === undefined) return 0;
  for (const [i, c] of chunks.entries()) {
    if (i > 0 && c.stream !== first.stream) return c.position;
    const feed = c.data.indexOf(0x0a);
    if (feed >= 0) return c.position + feed + 1;
  }
  return first.position;
}
