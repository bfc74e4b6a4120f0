import assert from "node:assert/strict";
import { test } from "node:test";
import { OutputLog, PAGE, WINDOW, type Piece, type Source } from "../src/output/log.ts";
import type { Chunk } from "../src/output/rows.ts";

// A tab that nobody looks at: it has no frames, and takes what has come with a timer.
Object.assign(globalThis, { document: { visibilityState: "hidden" } });

/** An output of so many lines of 16 bytes, of a command that runs on until it is told to end. */
class Printed implements Source {
  private total: number;
  private wake: (() => void) | undefined;
  private over = false;
  pages = 0;
  streams = 0;
  /** Pages wait for it. */
  gate: Promise<void> = Promise.resolve();

  constructor(size: number) {
    this.total = size;
  }

  print(bytes: number): void {
    this.total += bytes;
    this.wake?.();
  }

  end(): void {
    this.over = true;
    this.wake?.();
  }

  private chunk(position: number, end: number): Chunk {
    const data = new Uint8Array(end - position);
    for (let i = 0; i < data.length; i++) data[i] = (position + i) % 16 === 15 ? 0x0a : 0x61;
    return { stream: 0, position, data };
  }

  async page(position: number, limit: number, signal: AbortSignal): Promise<{ chunks: Chunk[]; next: number }> {
    this.pages++;
    await this.gate;
    signal.throwIfAborted();
    const end = Math.min(this.total, position + limit);
    return { chunks: end > position ? [this.chunk(position, end)] : [], next: Math.max(position, end) };
  }

  async *stream(position: number, signal: AbortSignal): AsyncGenerator<Piece> {
    this.streams++;
    try {
      for (;;) {
        if (position < this.total) {
          const end = Math.min(this.total, position + PAGE);
          yield { type: "chunk", ...this.chunk(position, end) };
          position = end;
          continue;
        }
        if (this.over) {
          yield { type: "complete" };
          return;
        }
        await new Promise<void>((resolve) => {
          this.wake = resolve;
          signal.addEventListener("abort", () => resolve(), { once: true });
        });
        if (signal.aborted) return;
      }
    } finally {
      this.streams--;
    }
  }

  async size(): Promise<number> {
    return this.total;
  }
}

/** An output whose last bytes have got another order, for the service was killed before it had stored them. */
class Reordered implements Source {
  streams = 0;
  readonly pages = [
    // What was told first has stderr before the rest of stdout, which then has a place that is taken.
    [piece(0, 0, "one\n"), piece(1, 4, "err\n"), piece(0, 4, "two\n")],
    [piece(0, 0, "one\ntwo\n"), piece(1, 8, "err\n")],
  ];

  async page(): Promise<{ chunks: Chunk[]; next: number }> {
    throw new Error("the stream brings it all");
  }

  async *stream(position: number): AsyncGenerator<Piece> {
    assert.equal(position, 0);
    yield* this.pages[this.streams++] ?? [];
    yield { type: "complete" };
  }

  async size(): Promise<number> {
    return 12;
  }
}

function piece(stream: 0 | 1, position: number, text: string): { type: "chunk" } & Chunk {
  return { type: "chunk", stream, position, data: new TextEncoder().encode(text) };
}

/** Waits until something of the log is so. */
function until(log: OutputLog, so: () => boolean): Promise<void> {
  return new Promise((resolve) => {
    if (so()) return resolve();
    const stop = log.subscribe(() => {
      if (!so()) return;
      stop();
      resolve();
    });
  });
}

const large = 4 * WINDOW;

test("a place behind the end is the end", { timeout: 10_000 }, async () => {
  const source = new Printed(large);
  const log = new OutputLog(source);
  log.open(large, 10 * large);
  await until(log, () => log.loading === undefined && log.rows.count > 0);
  assert.equal(log.rows.end, large);
  log.close();
});

test("of two jumps the second one counts, also where it goes to what is there", { timeout: 10_000 }, async () => {
  const source = new Printed(large);
  const log = new OutputLog(source);
  log.open(large, undefined);
  await until(log, () => log.loading === undefined && log.rows.end === large);
  let open = (): void => undefined;
  source.gate = new Promise((resolve) => (open = resolve));
  const away = log.jump(large / 2, false);
  const back = log.jump(large - 100, false);
  assert.equal(log.loading, undefined);
  open();
  await Promise.all([away, back]);
  assert.equal(log.rows.end, large);
  assert.equal(log.wanted, large - 100);
  log.close();
});

test("a reader at the end of a full window follows what comes", { timeout: 10_000 }, async () => {
  const source = new Printed(WINDOW - PAGE);
  const log = new OutputLog(source);
  log.open(WINDOW - PAGE, undefined);
  await until(log, () => log.loading === undefined && log.rows.end === WINDOW - PAGE);
  log.pause();
  source.print(2 * PAGE);
  await until(log, () => log.total === WINDOW + PAGE);
  assert.equal(log.attached, false);
  await log.behind();
  assert.equal(log.attached, true);
  assert.equal(log.rows.end, WINDOW + PAGE);
  log.close();
});

test("a log that is closed while much waits lets go of its stream", { timeout: 10_000 }, async () => {
  const source = new Printed(large);
  const log = new OutputLog(source);
  log.open(large, undefined);
  log.rows.trimFront(0, 0);
  await until(log, () => source.streams === 1 && log.rows.count > 0);
  source.print(32 * WINDOW);
  await new Promise((resolve) => setImmediate(resolve));
  log.close();
  while (source.streams > 0) await new Promise((resolve) => setImmediate(resolve));
});

test("a log whose last bytes have changed places is read again", { timeout: 10_000 }, async () => {
  const source = new Reordered();
  const log = new OutputLog(source);
  log.open(0, undefined);
  await until(log, () => log.complete);
  assert.equal(source.streams, 2);
  assert.equal(new TextDecoder().decode(log.rows.read(0, log.rows.end)), "one\ntwo\nerr\n");
  log.close();
});
