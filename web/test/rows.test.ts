import assert from "node:assert/strict";
import { test } from "node:test";
import { Heights } from "../src/output/heights.ts";
import { CONTINUED, GAP, REWRITES, Rows, SEGMENT, STDERR, firstRowStart, type StreamNumber } from "../src/output/rows.ts";
import { textOf, textOfRows } from "../src/output/text.ts";

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

function rowsOf(...parts: [StreamNumber, string][]): Rows {
  const rows = new Rows();
  for (const [stream, text] of parts) rows.append({ stream, position: rows.end, data: bytes(text) });
  return rows;
}

function all(rows: Rows): [string, number][] {
  return Array.from({ length: rows.count }, (_, row) => [textOf(rows.rowBytes(row)), rows.flags(row)]);
}

test("rows end with lines and where the other stream has its say", () => {
  const rows = rowsOf([0, "a\nb\nc"], [1, "err\n"], [0, "d\nlast"]);
  assert.deepEqual(all(rows), [["a", 0], ["b", 0], ["c", 0], ["err", STDERR], ["d", CONTINUED], ["last", 0]]);
  assert.equal(rows.lineOf(3), 4);
  assert.equal(rows.lineOf(4), 4);
  assert.equal(rows.lineOf(5), 5);
});

test("how the output is cut into chunks makes no difference", () => {
  const text = "one\n\x1b[31mré\x1b[0md\r\n10%\r20%\nünï\x1b]0;t\x07cödé\n" + "x".repeat(10_000) + "\nend";
  const whole = rowsOf([0, text]);
  const data = bytes(text);
  const cut = new Rows();
  for (let at = 0; at < data.length; at++) cut.append({ stream: 0, position: at, data: data.subarray(at, at + 1) });
  assert.equal(cut.count, whole.count);
  for (let row = 0; row < whole.count; row++) {
    assert.equal(cut.start(row), whole.start(row));
    assert.equal(cut.flags(row), whole.flags(row));
    assert.equal(cut.width(row), whole.width(row));
    assert.deepEqual(cut.look(row), whole.look(row));
    assert.deepEqual(cut.rowBytes(row), whole.rowBytes(row));
  }
});

test("colours go on into the next rows of their stream", () => {
  const rows = rowsOf([0, "\x1b[32mgreen\n"], [1, "err\n"], [0, "still\x1b[0m\nplain\n"]);
  assert.deepEqual([0, 1, 2, 3].map((row) => rows.look(row).fg), [-1, -1, 2, -1]);
});

test("a line that no screen can show is cut between characters", () => {
  const rows = rowsOf([0, "é".repeat(5000) + "\nnext\n"]);
  for (let row = 0; row < rows.count; row++) {
    assert.ok(!textOf(rows.rowBytes(row)).includes("\ufffd"));
    assert.ok(rows.start(row + 1) - rows.start(row) <= SEGMENT + 4);
  }
  assert.equal(rows.flags(1), CONTINUED);
  assert.equal(rows.lineOf(rows.count - 1), 2);
});

test("a copy has the lines as they were, however they are cut into rows", () => {
  const long = "0123456789".repeat(1000);
  assert.equal(textOfRows(rowsOf([0, `a\n${long}\nb\n`], [1, `${long}\n`], [0, "c"], [1, "error\n"], [0, "d\n"])), `a\n${long}\nb\n${long}\nc\nerror\nd`);
});

test("a line that rewrites itself stays one row", () => {
  let progress = "";
  for (let i = 0; i <= 2000; i++) progress += `\r${i} of 2000 done`;
  const rows = rowsOf([0, `${progress}\nnext\n`]);
  assert.equal(rows.count, 2);
  assert.equal(rows.flags(0), REWRITES);
  assert.equal(textOf(rows.rowBytes(0)), "2000 of 2000 done");
});

test("pages go before and behind", () => {
  const rows = rowsOf([0, "a\nb\nc\nd\n"]);
  const middle = new Rows(4);
  middle.append({ stream: 0, position: 4, data: bytes("c\nd\n") });
  const front = new Rows(0);
  front.append({ stream: 0, position: 0, data: bytes("a\nb\n") });
  middle.prepend(front);
  assert.deepEqual(all(middle), all(rows));
  assert.equal(middle.base, 0);
  assert.equal(middle.lineOf(3), 4);
  middle.append({ stream: 0, position: 6, data: bytes("d\ne\n") });
  assert.deepEqual(all(middle).map(([text]) => text), ["a", "b", "c", "d", "e"]);
});

test("a window is trimmed at both ends, and goes on as it was", () => {
  const rows = rowsOf([0, "a\nb\nc\n\x1b[31md\ne\nf"]);
  assert.ok(rows.trimFront(1 << 20, 4));
  assert.equal(rows.base, 4);
  assert.deepEqual(all(rows).map(([text]) => text), ["c", "d", "e", "f"]);
  assert.equal(rows.lineOf(0), 3);
  assert.ok(rows.trimBack(1 << 20, 2));
  assert.equal(rows.end, 13);
  assert.equal(rows.read(rows.base, rows.end).length, 9);
  rows.append({ stream: 0, position: 13, data: bytes("e\nf") });
  assert.deepEqual(all(rows).map(([text]) => text), ["c", "d", "e", "f"]);
  assert.equal(rows.look(2).fg, 1);
});

test("what is missing is a gap", () => {
  const rows = rowsOf([0, "a\n"]);
  rows.append({ stream: 0, position: 10, data: bytes("b\n") });
  assert.deepEqual(Array.from({ length: 3 }, (_, row) => rows.flags(row)), [0, GAP, 0]);
  assert.equal(rows.start(2), 10);
});

test("a page from the middle begins with a whole line", () => {
  const chunk = (stream: StreamNumber, position: number, text: string) => ({ stream, position, data: bytes(text) });
  assert.equal(firstRowStart([chunk(0, 100, "est of a line\nnext\n")]), 114);
  assert.equal(firstRowStart([chunk(0, 100, "rest"), chunk(1, 104, "err\n")]), 104);
  assert.equal(firstRowStart([chunk(0, 100, "xxxx")]), 100);
});

test("a position finds its row", () => {
  const rows = rowsOf([0, "aa\nbb\ncc\n"]);
  assert.deepEqual([0, 2, 3, 5, 6, 8, 99].map((at) => rows.rowAt(at)), [0, 0, 1, 1, 2, 2, 2]);
});

test("where rows wrap, they are as high as their lines", () => {
  const rows = rowsOf([0, `short\n${"x".repeat(25)}\n\x1b[31m${"y".repeat(10)}\x1b[0m\n漢字漢字漢字\n\n`]);
  const heights = new Heights(rows, 10);
  assert.deepEqual([0, 1, 2, 3, 4, 5].map((row) => heights.above(row)), [0, 1, 4, 5, 7, 8]);
  assert.deepEqual([0, 1, 3, 4, 5, 6, 7, 99].map((line) => heights.at(line)), [0, 1, 1, 2, 3, 3, 4, 4]);
  assert.equal(new Heights(rows, 0).total, rows.count);
});
