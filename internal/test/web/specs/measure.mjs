// Figures that specs measure: printed always, asserted where the machine is quiet.
import assert from "node:assert/strict";
import { strict } from "./service.mjs";

/** @typedef {import("node:test").TestContext} Test */

/**
 * Prints the median and the worst, and asserts that the worst is below the limit;
 * without -web.strict, that the median is below the lax one.
 * @param {Test} t @param {string} what @param {number[]} figures @param {{ limit: number, lax: number, unit?: string }} o
 */
export function judge(t, what, figures, { limit, lax, unit = "ms" }) {
  assert.ok(figures.length > 0 && figures.every(Number.isFinite), `${what}: ${figures}`);
  const sorted = [...figures].sort((a, b) => a - b);
  const median = /** @type {number} */ (sorted[Math.floor(sorted.length / 2)]);
  const worst = /** @type {number} */ (sorted.at(-1));
  t.diagnostic(`${what}: median ${median.toFixed(1)} ${unit}, worst ${worst.toFixed(1)} ${unit} of ${sorted.length} (limit ${limit} ${unit})`);
  assert.ok(strict ? worst <= limit : median <= lax, `${what}: ${sorted.map((f) => f.toFixed(1)).join(" ")} ${unit}`);
}
