// Starts the one browser of all specs, tells its address, and ends it when standard
// input ends: so it goes with the test that started it, however that ends.
import { chromium } from "playwright-core";

const server = await chromium.launchServer({
  executablePath: String(process.argv[2]),
  // Chromium's sandbox does not run as root.
  chromiumSandbox: process.getuid?.() !== 0,
  args: [
    "--enable-precise-memory-info", // else performance.memory is rounded, and told seldom
    "--js-flags=--expose-gc",
  ],
});
console.log(server.wsEndpoint());
process.stdin.resume().on("end", () => void server.close());
