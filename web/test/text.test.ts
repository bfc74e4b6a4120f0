import assert from "node:assert/strict";
import { test } from "node:test";
import { BOLD, INVERSE, NONE, PLAIN, RGB, applySGR, cssColour, isBright } from "../src/output/sgr.ts";
import { runsOf, textOf } from "../src/output/text.ts";

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
const shown = (text: string): string => textOf(bytes(text));

test("a row is what a terminal would leave on the line", () => {
  for (const [printed, left] of [
    ["plain\n", "plain"],
    ["windows\r\n", "windows"],
    ["10%\r20%\r30%\n", "30%"],
    ["long text\rnew\n", "new" + "g text"],
    ["long text\r\x1b[Knew\n", "new"],
    ["long text\x1b[2K\rnew\n", "new"],
    ["spinner |\b/\b-\n", "spinner -"],
    ["a\x1b[3Cb\n", "a   b"],
    ["abc\x1b[1Gx\n", "xbc"],
    ["\x1b[1mbold\x1b[0m\n", "bold"],
    ["\x1b]0;title\x07text\n", "text"],
    ["\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\\n", "link"],
    ["\x1bPq data\x1b\\text\n", "text"],
    ["\x1b(Btext\n", "text"],
    ["bell\x07 nul\x00 del\x7f\n", "bell nul del"],
    ["a\tb\n", "a\tb"],
    ["\x1b[999999999Cx\n", `${" ".repeat(16_383)}x`],
    ["<img src=x onerror=alert(1)>\n", "<img src=x onerror=alert(1)>"],
    ["é😀漢\n", "é😀漢"],
    ["cut \x1b[3", "cut "],
  ] as const) {
    assert.equal(shown(printed), left, JSON.stringify(printed));
  }
  assert.equal(textOf(new Uint8Array([0xff, 0x41])), "\ufffdA");
});

test("colours as asked for", () => {
  const look = (params: string) => applySGR(PLAIN, params);
  assert.deepEqual(look("1;31"), { fg: 1, bg: NONE, flags: BOLD });
  assert.deepEqual(look("97;104"), { fg: 15, bg: 12, flags: 0 });
  assert.deepEqual(look("38;5;208"), { fg: 208, bg: NONE, flags: 0 });
  assert.deepEqual(look("48;2;1;2;3;7"), { fg: NONE, bg: RGB | 0x010203, flags: INVERSE });
  assert.deepEqual(look("38:2::255:0:16"), { fg: RGB | 0xff0010, bg: NONE, flags: 0 });
  assert.deepEqual(look("38;5;300"), { fg: NONE, bg: NONE, flags: 0 });
  assert.deepEqual(look("38;5"), { fg: NONE, bg: NONE, flags: 0 });
  assert.deepEqual(applySGR(look("1;4;31"), ""), PLAIN);
  assert.deepEqual(applySGR(look("1;2"), "22"), PLAIN);
  assert.equal(cssColour(196), "rgb(255 0 0)");
  assert.equal(cssColour(232), "rgb(8 8 8)");
  assert.equal(cssColour(RGB | 0x00ff7f), "rgb(0 255 127)");
});

test("runs keep their looks through what writes over them", () => {
  const runs = runsOf(bytes("\x1b[31mred\x1b[0m plain\rRED\n"), PLAIN);
  assert.deepEqual(
    runs.map((r) => [r.text, r.look.fg]),
    [["RED plain", NONE]],
  );
  assert.deepEqual(
    runsOf(bytes("a\x1b[32mb\n"), { ...PLAIN, fg: 4 }).map((r) => [r.text, r.look.fg]),
    [["a", 4], ["b", 2]],
  );
});

test("nothing hides in what is shown", () => {
  assert.equal(textOf(new TextEncoder().encode("if (a \u202e } \u2066if (b)\u2069\n")), "if (a \\u{202e} } \\u{2066}if (b)\\u{2069}");
  assert.equal(textOf(new TextEncoder().encode("\u{1f468}\u{1f3fd}\u200d\u{1f469} \u2764\ufe0f \u0645\u06cc\u200c\u062e")), "\u{1f468}\u{1f3fd}\u200d\u{1f469} \u2764\ufe0f \u0645\u06cc\u200c\u062e");
  assert.equal(textOf(new TextEncoder().encode("ad\u200dmin\u200b\u200d\ufeff")), "ad\\u{200d}min\\u{200b}\\u{200d}\\u{feff}");
});

test("text on a ground of 256 or true colours can be read", () => {
  for (const [colour, bright] of [[226, true], [21, false], [16, false], [231, true], [RGB | 0x777777, true], [RGB | 0xb3121f, false]] as const) assert.equal(isBright(colour), bright, String(colour));
  assert.equal(cssColour(208), "rgb(255 135 0)");
  assert.equal(cssColour(RGB | 0x0102ff), "rgb(1 2 255)");
});
