// Plays a recording: what a terminal is given up to a moment. Going back begins anew, for what a terminal shows is the sum of
// all that it was given.

import type { Frame } from "./cast.ts";

/** The terminal that it is played on. */
export interface Stage {
  reset(columns: number, rows: number): void;
  resize(columns: number, rows: number): void;
  /** Is over when it has been drawn, so that a terminal is never given more than it can take. */
  write(data: string | Uint8Array): Promise<void>;
}

/** With skipIdle nothing is waited for longer than this, in seconds. */
export const IDLE = 1;
/** Characters or bytes that are written at once. */
const PART = 128 << 10;

export class Player {
  /** The moment that is shown, in seconds of the recording. */
  position = 0;
  playing = false;
  speed = 1;
  skipIdle = true;

  readonly #frames: readonly Frame[];
  readonly #stage: Stage;
  readonly #start: { readonly columns: number; readonly rows: number };
  readonly #duration: number;
  readonly #changed: () => void;
  /** The first frame that the stage was not given. */
  #next = 0;
  /** Counts what was asked for: what is drawn for an older wish stops. */
  #wish = 0;
  #drawing: Promise<void> = Promise.resolve();
  #disposed = false;

  /** changed is called when position or playing are others. */
  constructor(cast: { frames: readonly Frame[]; duration: number; columns: number; rows: number }, stage: Stage, changed: () => void) {
    this.#frames = cast.frames;
    this.#duration = cast.duration;
    this.#start = { columns: cast.columns, rows: cast.rows };
    this.#stage = stage;
    this.#changed = changed;
    stage.reset(cast.columns, cast.rows);
  }

  play(): void {
    if (this.#disposed) return;
    if (this.position >= this.#duration) void this.seek(0);
    this.playing = true;
    this.#changed();
  }

  pause(): void {
    this.playing = false;
    this.#changed();
  }

  /** Shows a moment; done when it is drawn, or something else was asked for. */
  seek(to: number): Promise<void> {
    const back = to < this.position;
    this.position = Math.min(Math.max(0, to), this.#duration);
    this.#changed();
    return this.#draw(back);
  }

  /** Lets time pass, of the viewer: so many milliseconds since the last call. */
  advance(ms: number): Promise<void> {
    if (!this.playing || this.#disposed) return Promise.resolve();
    let to = this.position + (ms / 1000) * this.speed;
    const next = this.#frames[this.#behind(to)];
    if (this.skipIdle && next !== undefined && next.at > to + IDLE * this.speed) to = next.at - IDLE * this.speed;
    if (next === undefined && this.skipIdle) to = this.#duration;
    this.position = Math.min(to, this.#duration);
    if (this.position >= this.#duration) this.playing = false;
    this.#changed();
    return this.#draw(false);
  }

  dispose(): void {
    this.#disposed = true;
    this.playing = false;
    this.#wish++;
  }

  /** The first frame behind a moment. What is drawn may lag behind what is wished. */
  #behind(at: number): number {
    let low = 0;
    let high = this.#frames.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.#frames[middle] as Frame).at > at) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  #draw(anew: boolean): Promise<void> {
    const wish = ++this.#wish;
    this.#drawing = this.#drawing.then(async () => {
      if (anew && !this.#disposed) {
        // Also where another wish has come: it counts on what was given.
        this.#next = 0;
        this.#stage.reset(this.#start.columns, this.#start.rows);
      }
      while (wish === this.#wish) {
        const part = this.#part();
        if (part === undefined) return;
        await this.#stage.write(part);
      }
    });
    return this.#drawing;
  }

  /** part takes what is to be written next; sizes are applied on the way. */
  #part(): string | Uint8Array | undefined {
    let text = "";
    for (; this.#next < this.#frames.length; this.#next++) {
      const frame = this.#frames[this.#next] as Frame;
      if (frame.at > this.position) break;
      if (frame.kind === "size") {
        if (text !== "") break;
        this.#stage.resize(frame.columns, frame.rows);
      } else if (typeof frame.data !== "string") {
        if (text !== "") break;
        this.#next++;
        return frame.data;
      } else {
        text += frame.data;
        if (text.length >= PART) {
          this.#next++;
          break;
        }
      }
    }
    return text === "" ? undefined : text;
  }
}
