import assert from "node:assert/strict";
import { test } from "node:test";
import { keyBytes, meant, silence, type Parser } from "../src/terminal/input.ts";
import { browserName } from "../src/terminal/label.ts";

test("what nobody meant is not sent unasked", () => {
  const cases: [string, boolean][] = [
    ["a", true],
    ["\x03", true],
    ["\x1b[A", true],
    ["\x1b[200~pasted\x1b[201~", true],
    ["\x1b[I", false], // focus
    ["\x1b[O", false],
    ["\x1b[<0;3;4M", true], // press
    ["\x1b[<0;3;4m", true], // release
    ["\x1b[<32;3;4M", true], // drag with the first button
    ["\x1b[<35;3;4M", false], // motion without a button
    ["\x1b[<39;3;4M", false], // with Shift
    ["\x1b[<64;3;4M", true], // wheel
    ["\x1b[M\x20\x23\x24", true],
    ["\x1b[M\x43\x23\x24", false], // 3 + 32 + 32
    ["\x1b[M\x23\x23\x24", true], // release: 3 + 32
  ];
  for (const [data, want] of cases) assert.equal(meant(data), want, JSON.stringify(data));
});

test("queries are swallowed, settings are not", () => {
  const csi = new Set<string>();
  const dcs = new Set<string>();
  const osc = new Map<number, (data: string) => boolean>();
  const parser: Parser = {
    registerCsiHandler: (id, callback) => (assert.equal(callback(), true), csi.add(`${id.prefix ?? ""}${id.intermediates ?? ""}${id.final}`)),
    registerDcsHandler: (id, callback) => (assert.equal(callback(), true), dcs.add(`${id.intermediates ?? ""}${id.final}`)),
    registerOscHandler: (ident, callback) => osc.set(ident, callback),
  };
  silence(parser);
  for (const query of ["c", ">c", "=c", "n", "?n", "$p", "?$p", "t", ">q"]) assert.ok(csi.has(query), query);
  assert.ok(dcs.has("$q"));
  for (const settings of ["m", "h", "l", "r", "q", "J", "?h", "?l"]) assert.ok(!csi.has(settings), settings);
  assert.deepEqual(
    [osc.get(10)?.("?"), osc.get(10)?.("#ffffff"), osc.get(4)?.("1;?"), osc.get(4)?.("1;rgb:00/00/00"), osc.get(11)?.("?;?"), osc.get(52)?.("c;?")],
    [true, false, true, false, true, true],
  );
});

test("keys of the bar", () => {
  assert.deepEqual(
    [keyBytes("Esc", false), keyBytes("Tab", true), keyBytes("Ctrl+C", false), keyBytes("Up", false), keyBytes("Up", true), keyBytes("Left", false)],
    ["\x1b", "\t", "\x03", "\x1b[A", "\x1bOA", "\x1b[D"],
  );
});

test("what a browser calls itself", () => {
  const cases: [string, string][] = [
    ["Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", "Firefox on Linux"],
    ["Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36 Edg/140.0", "Edge on Windows"],
    ["Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Safari/605.1.15", "Safari on macOS"],
    ["Mozilla/5.0 (Linux; Android 15) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Mobile Safari/537.36", "Chrome on Android"],
    ["curl/8", "a browser"],
  ];
  for (const [agent, name] of cases) assert.equal(browserName(agent), name);
});
