import assert from "node:assert/strict";
import { test } from "node:test";
import { CastReader } from "../src/terminal/cast.ts";

const header = '{"version": 2, "width": 80, "height": 24, "timestamp": 1700000000, "title": "build"}\n';
const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

/** Reads a file in pieces of a size. */
function read(file: string, size = Infinity): CastReader {
  const all = bytes(file);
  const reader = new CastReader();
  for (let at = 0; at < all.length; at += size) reader.push(all.subarray(at, at + size));
  reader.end();
  return reader;
}

const file =
  header +
  [
    [0.1, "o", "$ "],
    [1, "m", "echo æøå 🚀"],
    [1.5, "o", "æøå 🚀\r\n"],
    [2, "r", "120x40"],
    [2, "i", "typed"], // nobody here records that
    [2.5, "x-telexec-bytes", "/wA="],
    [2.5, "o", "\ufffd\u0000"],
    [3, "o", "end"],
  ]
    .map((e) => JSON.stringify(e))
    .join("\n") +
  "\n";

test("a recording is the same however it comes", () => {
  const whole = read(file);
  assert.deepEqual(whole.header, { columns: 80, rows: 24, time: new Date(1_700_000_000_000), title: "build" });
  assert.deepEqual(whole.marks, [{ at: 1, label: "echo æøå 🚀" }]);
  assert.deepEqual(whole.frames, [
    { at: 0.1, kind: "output", data: "$ " },
    { at: 1.5, kind: "output", data: "æøå 🚀\r\n" },
    { at: 2, kind: "size", columns: 120, rows: 40 },
    { at: 2.5, kind: "output", data: Uint8Array.of(0xff, 0) },
    { at: 3, kind: "output", data: "end" },
  ]);
  assert.deepEqual([whole.duration, whole.bad], [3, 0]);
  for (const size of [1, 2, 3, 7, 64]) {
    const parts = read(file, size);
    assert.deepEqual([parts.header, parts.frames, parts.marks, parts.bad], [whole.header, whole.frames, whole.marks, 0], `in pieces of ${size}`);
  }
});

test("what is cut off, or no event, is passed over", () => {
  const cases: [name: string, rest: string, frames: number, bad: number][] = [
    ["in the middle of a line", '[1, "o", "a"]\n[2, "o", "b', 1, 0],
    ["a last line without an end", '[1, "o", "a"]\n[2, "o", "b"]', 2, 0],
    ["no JSON", 'hello\n[2, "o", "b"]\n', 1, 1],
    ["no event", '{"a": 1}\n[]\n["1", "o", "x"]\n[-1, "o", "x"]\n[1, "o", 2]\n[2, "o", "b"]\n', 1, 5],
    ["no size", '[1, "r", "0x24"]\n[1, "r", "80x"]\n[1, "r", "99999x1"]\n[2, "r", "100x30"]\n', 1, 3],
    ["no base64", '[1, "x-telexec-bytes", "%"]\n[1, "o", "kept"]\n', 1, 1],
    ["empty lines", '\n\n[1, "o", "a"]\n\n', 1, 0],
  ];
  for (const [name, rest, frames, bad] of cases) {
    const reader = read(header + rest);
    assert.deepEqual([reader.frames.length, reader.bad], [frames, bad], name);
  }
});

test("time never goes back", () => {
  const { frames, duration } = read(`${header}[5, "o", "a"]\n[3, "o", "b"]\n[7, "o", "c"]\n`);
  assert.deepEqual(frames.map((f) => f.at), [5, 5, 7]);
  assert.equal(duration, 7);
});

test("a line without an end takes no memory without end", () => {
  const reader = new CastReader();
  reader.push(bytes(header));
  const part = bytes("x".repeat(1 << 20));
  for (let i = 0; i < 20; i++) reader.push(part);
  reader.push(bytes('\n[1, "o", "behind"]\n'));
  assert.deepEqual([reader.bad, reader.frames.length], [1, 1]);
});

test("another format is refused", () => {
  for (const first of ['{"version": 1, "width": 80, "height": 24}', '{"version": 2}', "[]", "null", '{"version": 2, "width": 0, "height": 24}']) {
    assert.throws(() => read(`${first}\n`), /asciicast v2/, first);
  }
});
