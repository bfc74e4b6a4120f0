import assert from "node:assert/strict";
import { test } from "node:test";
import { OutputLog, PAGE, WINDOW, type Piece, type Source } from "../src/output/log.ts";
import { GAP, type Chunk } from "../src/output/rows.ts";
import { findText } from "../src/output/search.ts";
import { Searching } from "../src/output/searching.ts";

// A tab that nobody looks at: it has no frames, and takes what has come with a timer.
Object.assign(globalThis, { document: { visibilityState: "hidden" } });

/** An output of so many bytes in lines of one length, of a command that runs on until it is told to end. */
class Printed implements Source {
  private total: number;
  private readonly line: number;
  private readonly earliest: number; // what lies before it is not stored any more
  private wake: (() => void) | undefined;
  private over = false;
  private broken = false;
  pages = 0;
  streams = 0;
  /** Pages wait for it. */
  gate: Promise<void> = Promise.resolve();

  constructor(size: number, line = 16, earliest = 0) {
    this.total = size;
    this.line = line;
    this.earliest = earliest;
  }

  print(bytes: number): void {
    this.total += bytes;
    this.wake?.();
  }

  /** Breaks the stream. */
  fail(): void {
    this.broken = true;
    this.wake?.();
  }

  end(): void {
    this.over = true;
    this.wake?.();
  }

  private chunk(position: number, end: number): Chunk {
    const data = new Uint8Array(end - position);
    for (let i = 0; i < data.length; i++) data[i] = (position + i) % this.line === this.line - 1 ? 0x0a : 0x61;
    return { stream: 0, position, data };
  }

  async page(position: number, limit: number, signal: AbortSignal): Promise<{ chunks: Chunk[]; next: number }> {
    this.pages++;
    await this.gate;
    signal.throwIfAborted();
    const from = Math.max(position, this.earliest);
    const end = Math.min(this.total, from + limit);
    return { chunks: end > from ? [this.chunk(from, end)] : [], next: Math.max(position, end) };
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
        if (this.broken) {
          this.broken = false;
          throw new Error("the stream is broken");
        }
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

test("who reads far from the end goes on reading there when more comes", { timeout: 10_000 }, async () => {
  const source = new Printed(large);
  const log = new OutputLog(source);
  log.open(large, large / 2);
  await until(log, () => log.loading === undefined && log.rows.count > 0);
  const { base, end } = log.rows;
  source.print(1000);
  await until(log, () => log.total === large + 1000);
  assert.deepEqual([log.rows.base, log.rows.end], [base, end]);
  log.close();
});

test("lines are new that nobody knew of when following stopped", { timeout: 10_000 }, async () => {
  const source = new Printed(16 * 100);
  const log = new OutputLog(source);
  log.open(16 * 100, 16 * 50);
  await until(log, () => log.loading === undefined && log.rows.end === 16 * 100);
  assert.equal(log.missed, 0);
  source.print(16 * 3);
  await until(log, () => log.total === 16 * 103);
  assert.equal(log.missed, 3);
  source.fail();
  await until(log, () => log.error !== undefined);
  log.retry();
  await until(log, () => log.loading === undefined && log.rows.end === 16 * 103);
  assert.equal(log.missed, 3);
  log.close();
});

test("a page that is under way when the command ends comes once", { timeout: 10_000 }, async () => {
  const source = new Printed(large);
  const log = new OutputLog(source);
  log.open(large, undefined);
  await until(log, () => log.loading === undefined && log.rows.end === large);
  log.pause();
  let open = (): void => undefined;
  source.gate = new Promise((resolve) => (open = resolve));
  const first = log.before();
  source.end();
  await until(log, () => log.complete);
  await new Promise((resolve) => setImmediate(resolve)); // the stream has ended too
  const second = log.before(); // as the view does with every change
  open();
  await Promise.all([first, second]);
  assert.equal(source.pages, 1);
  assert.equal(log.rows.count * 16, log.rows.bytes);
  log.close();
});

test("a line that is longer than a page is gone through", { timeout: 10_000 }, async () => {
  const line = 384 << 10;
  const end = 43 * line;
  const source = new Printed(end, line);
  const log = new OutputLog(source);
  log.open(end, undefined);
  await until(log, () => log.loading === undefined && log.rows.end === end);
  assert.equal(log.rows.base, end - line);
  await log.before();
  assert.equal(log.rows.base, end - line - PAGE);
  const inside = 20 * line - 1000;
  await log.jump(inside);
  assert.ok(log.rows.base <= inside && inside < log.rows.end);
  log.close();
});

test("before what is stored there is a gap, and nothing comes twice", { timeout: 10_000 }, async () => {
  const earliest = large - 2 * PAGE - 1600;
  const source = new Printed(large, 16, earliest);
  const log = new OutputLog(source);
  log.open(large, undefined);
  await until(log, () => log.loading === undefined && log.rows.end === large);
  await log.before();
  assert.equal(log.rows.count * 16, log.rows.bytes);
  await log.before();
  assert.equal(log.rows.base, earliest);
  await log.before();
  assert.equal(log.rows.base, earliest - PAGE);
  assert.equal(log.rows.flags(0), GAP);
  assert.equal(log.rows.start(1), earliest);
  assert.equal(log.rows.end, large);
  log.close();
});

test("a window that is read again begins where it did, with the lines counted", { timeout: 10_000 }, async () => {
  const source = new Printed(WINDOW);
  const log = new OutputLog(source);
  log.open(WINDOW, undefined);
  await until(log, () => log.loading === undefined && log.rows.end === WINDOW);
  source.print(PAGE);
  await until(log, () => log.rows.base > 0 && log.rows.end === WINDOW + PAGE);
  const { base } = log.rows;
  source.fail();
  await until(log, () => log.error !== undefined);
  log.retry();
  assert.equal(log.error, undefined);
  await until(log, () => log.loading === undefined && log.rows.end === WINDOW + PAGE);
  assert.equal(log.rows.base, base);
  assert.equal(log.rows.lineOf(0), base / 16 + 1);
  log.close();
});

test("what is searched for is found in a last line without an end, as soon as it is known to be the last", { timeout: 10_000 }, async () => {
  const source = new Printed(16 * 10 + 3);
  const log = new OutputLog(source);
  log.open(16 * 10 + 3, undefined);
  await until(log, () => log.rows.end === 16 * 10 + 3);
  const searching = new Searching(log, source, findText("aaa"), () => undefined);
  while (searching.running) await new Promise((resolve) => setImmediate(resolve));
  assert.equal(searching.matches.length, 10 * 5);
  source.end();
  await until(log, () => log.complete);
  while (searching.running) await new Promise((resolve) => setImmediate(resolve));
  assert.equal(searching.matches.length, 10 * 5 + 1);
  searching.close();
  log.close();
});

test("a jump that failed is made again, and the stream goes on", { timeout: 10_000 }, async () => {
  const source = new Printed(large);
  const log = new OutputLog(source);
  source.gate = Promise.reject(new Error("no answer"));
  log.open(large, large / 2);
  await until(log, () => log.error !== undefined);
  source.gate = Promise.resolve();
  log.retry();
  await until(log, () => log.loading === undefined);
  assert.equal(log.error, undefined);
  assert.ok(log.rows.base < large / 2 && log.rows.end > large / 2);
  assert.equal(log.marked, large / 2);
  assert.equal(source.streams, 1);
  log.close();
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
