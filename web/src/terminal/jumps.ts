// Where in the scrollback commands were typed.

/** A line that is followed as it scrolls and as the terminal is made wider; -1 when it is gone. */
export interface LineMarker {
  readonly line: number;
  dispose(): void;
}

/** What of a terminal counts here. */
export interface Lines {
  /** Whether the screen that scrolls is shown, and not that of a full-screen program, which has no markers of its own. */
  scrolling(): boolean;
  /** How many lines there are, scrolled away and on the screen. */
  count(): number;
  /** The line of the cursor. */
  cursor(): number;
  /** Follows a line from now on. */
  mark(line: number): LineMarker | undefined;
}

/** As many as a scrollback of short commands has. */
const MAX = 5_000;

export class Jumps {
  readonly #lines: Lines;
  readonly #markers = new Map<string, LineMarker>();
  /** Lines that are told before they are there. */
  #waiting: { readonly id: string; readonly line: number }[] = [];

  constructor(lines: Lines) {
    this.#lines = lines;
  }

  /** Forgets all: the terminal begins anew. */
  clear(): void {
    for (const marker of this.#markers.values()) marker.dispose();
    this.#markers.clear();
    this.#waiting = [];
  }

  /** Notes that a command was typed so many lines above the cursor. */
  above(id: string, by: number): void {
    if (!this.#markers.has(id) && this.#lines.scrolling()) this.#put(id, this.#lines.mark(Math.max(0, this.#lines.cursor() - by)));
  }

  /** Notes the lines of a screen, which comes in pieces and may lie behind another one; settle looks whether they are there. */
  expect(commands: readonly { readonly id: string; readonly line: number }[]): void {
    this.#waiting.push(...commands);
  }

  settle(): void {
    if (this.#waiting.length === 0 || !this.#lines.scrolling()) return;
    const count = this.#lines.count();
    this.#waiting = this.#waiting.filter(({ id, line }) => {
      if (line >= count) return true;
      this.#put(id, this.#lines.mark(line));
      return false;
    });
  }

  /** The line of a command; undefined where it is not there, or no longer. */
  line(id: string): number | undefined {
    const line = this.#markers.get(id)?.line ?? -1;
    return line < 0 ? undefined : line;
  }

  #put(id: string, marker: LineMarker | undefined): void {
    if (marker === undefined) return;
    this.#markers.get(id)?.dispose();
    this.#markers.delete(id);
    this.#markers.set(id, marker);
    if (this.#markers.size <= MAX) return;
    for (const [old, m] of this.#markers) {
      m.dispose();
      this.#markers.delete(old);
      break;
    }
  }
}

/** The last bytes of an output by their offsets, in which lines can be counted. */
export class Tail {
  readonly #most: number;
  readonly #parts: { readonly offset: number; readonly data: Uint8Array }[] = [];
  #size = 0;

  constructor(most: number) {
    this.#most = most;
  }

  add(offset: number, data: Uint8Array): void {
    this.#parts.push({ offset, data });
    this.#size += data.length;
    while (this.#parts.length > 1 && this.#size - (this.#parts[0]?.data.length ?? 0) >= this.#most) this.#size -= this.#parts.shift()?.data.length ?? 0;
  }

  clear(): void {
    this.#parts.length = 0;
    this.#size = 0;
  }

  /** How many lines have ended since an offset; undefined where it is not known any more. */
  linesSince(offset: number): number | undefined {
    const first = this.#parts[0];
    const last = this.#parts.at(-1);
    if (last === undefined || offset >= last.offset + last.data.length) return 0;
    if (first === undefined || offset < first.offset) return undefined;
    let lines = 0;
    for (const part of this.#parts) {
      for (let i = Math.max(0, offset - part.offset); i < part.data.length; i++) if (part.data[i] === 10) lines++;
    }
    return lines;
  }
}
