// The cases in Chromium, on a page of another origin with a token; and the browser's example of the README on a page of
// the service itself, with its cookie.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, before, describe, it } from "node:test";
import { chromium, type Browser, type Page } from "playwright-core";
import { cases } from "./cases/index.js";
import { control, setting } from "./environment.js";
import { Proxy } from "./proxy.js";

describe("Chromium", () => {
  let browser: Browser;
  before(async () => {
    browser = await chromium.launch({ executablePath: setting("TELEXEC_CHROMIUM"), args: ["--no-sandbox", "--disable-dev-shm-usage"] });
  });
  after(() => browser.close());

  describe("a page from elsewhere", () => {
    let proxy: Proxy;
    let page: Page;
    before(async () => {
      proxy = await Proxy.start(setting("TELEXEC_URL"));
      page = await browser.newPage();
      page.setDefaultTimeout(60_000);
      const doing = { ...bound(proxy), ...control } as Record<string, (...args: unknown[]) => Promise<unknown>>;
      await page.exposeFunction("outside", (what: string, ...args: unknown[]) => doing[what]?.(...args));
      await page.goto(setting("TELEXEC_ORIGIN"));
      await page.evaluate(await readFile(setting("TELEXEC_BUNDLE"), "utf8"));
    });
    after(async () => {
      await page.close();
      await proxy.close();
    });
    for (const { name } of cases.filter((c) => c.over !== "polling")) {
      it(name, { timeout: 60_000 }, async () => {
        const s = { url: proxy.url, token: setting("TELEXEC_TOKEN"), host: setting("TELEXEC_HOST") };
        try {
          const failure = await page.evaluate(
            ({ name, s }) => (globalThis as unknown as { runCase: (name: string, s: object) => Promise<string> }).runCase(name, s),
            { name, s },
          );
          assert.equal(failure, "");
        } finally {
          await proxy.mend();
        }
      });
    }
  });

  it("the service's own page, by its cookie", { timeout: 60_000 }, async () => {
    const page = await browser.newPage();
    await page.goto(`${setting("TELEXEC_URL")}/login`);
    await page.locator("input[type=password], textarea, input[name=token]").first().fill(setting("TELEXEC_TOKEN"));
    await page.locator("button, input[type=submit]").first().click();
    await page.waitForURL((url) => url.pathname !== "/login");
    const sockets: string[] = [];
    page.on("websocket", (socket) => sockets.push(socket.url()));
    await page.evaluate(`${await readFile(setting("TELEXEC_EXAMPLE"), "utf8")}\nglobalThis.example`);
    assert.equal(await page.title(), "0 hello from a page");
    // Of this page's own client, if the page has one, and of the example's.
    assert.ok(sockets.length >= 1 && sockets.every((url) => url.endsWith("/v1/socket")), sockets.join(" "));
    await page.close();
  });
});

/** bound gives the methods of a proxy as functions. */
function bound(p: Proxy): object {
  return {
    cut: () => p.cut(),
    hang: (on: boolean) => p.hang(on),
    swallow: (n: number) => p.swallow(n),
    refuseUpgrades: (on: boolean) => p.refuseUpgrades(on),
    delay: (ms: number) => p.delay(ms),
    received: () => p.received(),
  };
}
