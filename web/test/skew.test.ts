import assert from "node:assert/strict";
import { test } from "node:test";
import { aheadBy } from "../src/skew.ts";

test("how far the clock of the service is ahead", () => {
  const hour = 3_600_000;
  assert.equal(aheadBy(0, 1000 + hour, 900, 1100), hour);
  assert.equal(aheadBy(0, 1000 - hour, 900, 1100), -hour);
  // Small differences are those of the measure.
  assert.equal(aheadBy(0, 1400, 900, 1100), 0);
  assert.equal(aheadBy(hour, 1300 + hour, 900, 1100), hour);
  assert.equal(aheadBy(0, 6000, 0, 8000), 0, "a slow answer tells little");
});
