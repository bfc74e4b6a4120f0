// Fails where the page has grown too heavy: what is loaded before anything shows, compressed as it is sent.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";

const BUDGET = 250 * 1024;

const dist = process.argv[2] ?? "dist";
const page = readFileSync(join(dist, "index.html"), "utf8");
const scripts = [...page.matchAll(/(?:src|href)="\/(assets\/[^"]+\.js)"/g)].map((match) => match[1]);
let sum = 0;
for (const script of scripts) {
  const size = gzipSync(readFileSync(join(dist, script)), { level: 9 }).length;
  sum += size;
  console.log(`${(size / 1024).toFixed(1).padStart(8)} KiB  ${script}`);
}
console.log(`${(sum / 1024).toFixed(1).padStart(8)} KiB  before anything shows, of ${BUDGET / 1024} KiB`);
if (scripts.length === 0 || sum > BUDGET) {
  console.error(scripts.length === 0 ? `${dist}/index.html names no script` : "the page is too heavy: load what is not needed at once later, with import()");
  process.exit(1);
}
