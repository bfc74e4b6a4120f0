import assert from "node:assert/strict";
import { test } from "node:test";
import { dateOf, parseDuration, parsePairs, spelled, spoken } from "../src/words.ts";

test("spans as people read them", () => {
  for (const [seconds, words] of [
    [-1, "0 ms"], [0.004, "4 ms"], [0.5, "0.5 s"], [9.99, "9 s"], [59.9, "59 s"], [60, "1:00"], [187, "3:07"], [9669, "2:41:09"], [273_600, "3 d 4 h"],
  ] as const) assert.equal(spoken(seconds), words);
});

test("times in words", () => {
  for (const [seconds, words] of [[1.23, "1.2 s"], [59.9, "59 s"], [60, "1 min 0 s"], [78, "1 min 18 s"], [9672, "2 h 41 min"], [90_000, "1 d 1 h"]] as const) assert.equal(spelled(seconds), words);
});

test("spans as people write them", () => {
  for (const [text, seconds] of [
    ["90", 90], ["90s", 90], ["1.5h", 5400], ["1h 30m", 5400], ["10 min", 600], ["2d", 172_800],
    ["", undefined], ["soon", undefined], ["5x", undefined], ["0", undefined], ["-5s", undefined],
  ] as const) assert.equal(parseDuration(text), seconds, text);
});

test("pairs", () => {
  assert.deepEqual(parsePairs("a=1, b=x=y", /,/), { a: "1", b: "x=y" });
  assert.deepEqual(parsePairs("A=1\n\nB=", /\n/), { A: "1", B: "" });
  assert.equal(parsePairs("a", /,/), undefined);
  assert.equal(parsePairs("=a", /,/), undefined);
});

test("dates of addresses", () => {
  assert.equal(dateOf("2026-03-29T02:30:00Z")?.toISOString(), "2026-03-29T02:30:00.000Z");
  for (const text of ["", "soon", "0002-01-01T00:00", "+275760-09-13T00:00:00Z", "-000001-01-01T00:00:00Z"]) assert.equal(dateOf(text), undefined, text);
});
