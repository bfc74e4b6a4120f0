import assert from "node:assert/strict";
import { test } from "node:test";
import { Jumps, Tail, type LineMarker } from "../src/terminal/jumps.ts";

/** A terminal that has only lines. */
class Paper {
  markers: { line: number; disposed: boolean }[] = [];
  lines = 24;
  at = 0;
  scrolls = true;

  scrolling = (): boolean => this.scrolls;
  count = (): number => this.lines;
  cursor = (): number => this.at;
  mark = (line: number): LineMarker => {
    const made = { line, disposed: false, dispose: () => void ((made.disposed = true), (made.line = -1)) };
    this.markers.push(made);
    return made;
  };
  /** Throws away the first lines. */
  trim(n: number): void {
    for (const m of this.markers) m.line = m.line < n ? -1 : m.line - n;
  }
}

test("a command is found where it was begun, until it is gone", () => {
  const paper = new Paper();
  const jumps = new Jumps(paper);
  paper.at = 6;
  jumps.above("A", 1);
  paper.at = 12;
  jumps.above("B", 3); // in three lines
  jumps.above("A", 1); // told again, after a loss
  jumps.above("top", 50);
  assert.equal(jumps.line("top"), 0);
  assert.deepEqual([jumps.line("A"), jumps.line("B"), jumps.line("C")], [5, 9, undefined]);
  paper.trim(6);
  assert.deepEqual([jumps.line("A"), jumps.line("B")], [undefined, 3]);
  jumps.clear();
  assert.equal(jumps.line("B"), undefined);
  assert.ok(paper.markers.every((m) => m.disposed));
});

test("lines of a screen are waited for", () => {
  const paper = new Paper();
  const jumps = new Jumps(paper);
  jumps.expect([{ id: "A", line: 3 }, { id: "B", line: 100 }]);
  jumps.settle();
  assert.deepEqual([jumps.line("A"), jumps.line("B")], [3, undefined]);
  paper.lines = 200; // the next piece
  jumps.settle();
  assert.equal(jumps.line("B"), 100);
});

test("a program that has the whole screen has no lines", () => {
  const paper = new Paper();
  const jumps = new Jumps(paper);
  paper.scrolls = false;
  jumps.expect([{ id: "A", line: 3 }]);
  jumps.settle();
  jumps.above("B", 1);
  assert.deepEqual([jumps.line("A"), jumps.line("B"), paper.markers.length], [undefined, undefined, 0]);
  paper.scrolls = true;
  jumps.settle();
  assert.equal(jumps.line("A"), 3);
});

test("what is remembered has an end", () => {
  const paper = new Paper();
  const jumps = new Jumps(paper);
  for (let i = 0; i < 6000; i++) jumps.above(`C${i}`, 0);
  assert.equal(jumps.line("C0"), undefined);
  assert.equal(jumps.line("C5999"), 0);
  assert.equal(paper.markers.filter((m) => !m.disposed).length, 5000);
});

test("lines are counted from an offset on, as long as it is known", () => {
  const tail = new Tail(20);
  const add = (offset: number, text: string): void => tail.add(offset, new TextEncoder().encode(text));
  assert.equal(tail.linesSince(0), 0);
  add(100, "a\nb\nc"); // 100 to 105
  add(105, "\n\nd"); // to 108
  const cases: [number, number | undefined][] = [[99, undefined], [100, 4], [101, 4], [102, 3], [105, 2], [106, 1], [107, 0], [108, 0], [500, 0]];
  for (const [offset, lines] of cases) assert.equal(tail.linesSince(offset), lines, `from ${offset}`);
  add(108, "x".repeat(30));
  assert.deepEqual([tail.linesSince(107), tail.linesSince(108)], [undefined, 0]);
  tail.clear();
  assert.equal(tail.linesSince(100), 0);
});
