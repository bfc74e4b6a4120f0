// Somebody with a browser. Whatever a spec is about, nothing that a visitor sees may
// run what it should show, talk to elsewhere, or break the page's own policy.
import assert from "node:assert/strict";
import { chromium } from "playwright-core";
import { facts } from "./service.mjs";

/**
 * @typedef {import("node:test").TestContext} Test
 * @typedef {import("playwright-core").Page} Page
 * @typedef {import("playwright-core").BrowserContext} Context
 * @typedef {import("playwright-core").BrowserContextOptions} Options
 * @typedef {import("./service.mjs").Person} Person
 */

/** How long is waited for what does not happen. Machines are slow, and two specs run at a time. */
export const patience = 30_000;

const browser = await chromium.connect(String(process.env.TELEXEC_WEB_BROWSER));
/** Ends the connection to the browser, without which node would not end. */
export const leave = () => browser.close();

/** @type {Map<Person, Promise<Awaited<ReturnType<Context["storageState"]>>>>} */
const signedIn = new Map();

/** The cookies of somebody who has signed in, by the form, once for all tests of a spec. @param {Person} as */
function cookies(as) {
  let state = signedIn.get(as);
  if (!state) {
    state = (async () => {
      const context = await browser.newContext({ baseURL: facts.url });
      const page = await context.newPage();
      await signIn(page, as);
      const got = await context.storageState();
      await context.close();
      return got;
    })();
    signedIn.set(as, state);
  }
  return state;
}

/** @param {Page} page @param {Person} as @param {string} [path] */
export async function signIn(page, as, path = "/") {
  await page.goto(path);
  await page.waitForURL(/\/login/);
  await page.getByLabel("Token").fill(facts.tokens[as]);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.waitForURL((url) => url.pathname === path.split("?")[0]);
}

/**
 * Opens a context, signed in, that ends with the test. excused are problems that the
 * test itself makes, such as what the console says of a server that is away.
 * @param {Test} t
 * @param {{ as?: Person | null, excused?: RegExp, options?: Options, init?: () => void }} [o]
 */
export async function visit(t, { as = "admin", excused, options, init } = {}) {
  const context = await browser.newContext({
    baseURL: facts.url,
    viewport: { width: 1280, height: 800 },
    ...(as && { storageState: await cookies(as) }),
    ...options,
  });
  context.setDefaultTimeout(patience);
  /** @type {string[]} */
  const problems = [];
  const found = (/** @type {string} */ problem) => excused?.test(problem) || problems.push(problem);
  await context.exposeBinding("__violation", (_, what) => found(`policy: ${what}`));
  await context.addInitScript(() => {
    document.addEventListener("securitypolicyviolation", (e) =>
      // @ts-ignore bound above
      window.__violation(`${e.effectiveDirective} ${e.blockedURI} at ${e.sourceFile}:${e.lineNumber} on ${location.pathname} ${e.sample}`),
    );
  });
  if (init) await context.addInitScript(init);
  context.on("weberror", (e) => found(`error: ${e.error().stack}`));
  context.on("dialog", (dialog) => {
    found(`dialog: ${dialog.message()}`);
    void dialog.dismiss();
  });
  context.on("console", (message) => message.type() === "error" && found(`console: ${message.text()} ${message.location().url}`));
  context.on("request", (request) => {
    const { protocol, origin } = new URL(request.url());
    if (origin !== facts.url && protocol !== "data:" && protocol !== "blob:") found(`request: ${request.url()}`);
  });
  t.after(async () => {
    await context.close();
    assert.deepEqual(problems, []);
  });
  return { context, page: await context.newPage() };
}

/** @param {Page} page */
export const open = (page, /** @type {string} */ id) => page.goto(`/commands/${id}`);

/** Waits until a page has loaded what it shows. @param {Page} page */
export async function settled(page) {
  await page.getByRole("heading").first().waitFor();
  await page.waitForFunction(() => !document.querySelector("[aria-busy=true]"));
}
