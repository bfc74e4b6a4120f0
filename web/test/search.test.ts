import assert from "node:assert/strict";
import { test } from "node:test";
import { Scanner, findText, findTrouble } from "../src/output/search.ts";

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

test("a text is found in any case, in colours, and over the edges of pages", () => {
  const scanner = new Scanner(findText("Error"));
  const text = "no\nan \x1b[31mERR\x1b[0mor and error\nnothing\nerror";
  const data = bytes(text);
  for (let at = 0; at < data.length; at += 7) {
    const part = data.subarray(at, at + 7);
    scanner.feed([{ stream: 0, position: at, data: part }], at + part.length);
  }
  assert.deepEqual(scanner.matches, [{ position: 3, nth: 0 }, { position: 3, nth: 1 }]);
  scanner.finish();
  assert.equal(scanner.matches.length, 3);
  assert.equal(scanner.scanned, data.length);
});

test("a search that finds too much stops", () => {
  const scanner = new Scanner(findText("y"), 0, 5);
  const data = bytes("y\n".repeat(100));
  scanner.feed([{ stream: 0, position: 0, data }], data.length);
  assert.equal(scanner.matches.length, 5);
  assert.ok(scanner.full);
});

test("the same letters do not overlap, and no letters are nowhere", () => {
  assert.deepEqual(findText("aa")("aaaa"), [0, 2]);
  assert.deepEqual(findText("")("abc"), []);
  assert.deepEqual(findText("i")("İi"), [1]);
});

test("what looks like an error", () => {
  for (const line of [
    "ERROR: it broke", "make: *** [all] Error 2", "panic: runtime error", "Traceback (most recent call last):", "fatal: not a git repository",
    "E: Failed to fetch", "bash: foo: command not found", "ls: cannot access 'x': No such file or directory", "Permission denied",
  ]) assert.equal(findTrouble(line).length, 1, line);
  for (const line of ["all is well", "0 errors, 0 warnings", "no error", "stderr is quiet", "failover done", "errors: 0", "error=none"]) {
    assert.equal(findTrouble(line).length, 0, line);
  }
});

test("what is passed over has nothing", () => {
  for (const [text, query, found] of [
    ["one\ntwo\nthree\nfour\n", "THREE", 1], ["one\ntw\x1b[1mo\n\x1b[0mlast\n", "two", 1], ["a\r\nb\r\nneedle\r\n\n", "needle", 1],
    ["tw\x08two\nx\n", "ttwo", 1], ["one\ntwo\n", "e\nt", 0], ["nothing\nhere\n", "none", 0],
  ] as const) {
    const data = new TextEncoder().encode(text);
    const scanner = new Scanner(findText(query));
    scanner.feed([{ stream: 0, position: 0, data }], data.length);
    scanner.finish();
    assert.equal(scanner.matches.length, found, JSON.stringify([text, query]));
  }
});
