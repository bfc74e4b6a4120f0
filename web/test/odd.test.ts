import assert from "node:assert/strict";
import { test } from "node:test";
import { spellOut } from "../src/odd.ts";

test("what cannot be seen is spelled out", () => {
  const shown = (text: string): string => spellOut(text).map((part) => (part.odd ? `<${part.text}>` : part.text)).join("");
  assert.equal(shown("ls -l\n\techo é漢😀"), "ls -l\n\techo é漢😀");
  assert.equal(shown("rm \u202etxt.exe"), "rm <\\u{202e}>txt.exe");
  assert.equal(shown("\x1b[2Ka\r\u200b\ufeff"), "<\\u{1b}>[2Ka<\\u{d}><\\u{200b}><\\u{feff}>");
  assert.equal(shown("a\u{e0041}"), "a<\\u{e0041}>");
  assert.deepEqual(spellOut(""), []);
});
