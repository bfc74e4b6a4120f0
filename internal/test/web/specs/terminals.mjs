// Terminals of sessions, as specs open and read them.
import assert from "node:assert/strict";
import { facts, rest } from "./service.mjs";
import { patience } from "./visitor.mjs";

/** @typedef {import("./visitor.mjs").Page} Page @typedef {import("./service.mjs").Json} Json @typedef {import("./service.mjs").Person} Person */

/**
 * Opens a session by REST. bash, so that what is shown is the same everywhere.
 * @param {Json} [request] @param {Person} [as] @returns {Promise<Json>}
 */
export async function openSession(request = {}, as = "admin") {
  return JSON.parse(await rest("/v1/sessions", { as, body: { host: facts.host, shell: "bash", columns: 100, rows: 30, ...request } })).session;
}

/** @param {string} session @param {Person} [as] @returns {Promise<Json>} */
export const getSession = async (session, as = "admin") => JSON.parse(await rest(`/v1/sessions/${session}`, { as })).session;

/** Closes it. @param {string} session */
export const closeSession = (session) => rest(`/v1/sessions/${session}:close`, { body: {} });

/** What the service says is on the screen. @param {string} session @returns {Promise<Json>} */
export const readScreen = async (session, scrollback = 0) => JSON.parse(await rest(`/v1/sessions/${session}/screen?scrollbackLines=${scrollback}`));

/** Types by the API. @param {string} session @param {Json[]} keys @param {Person} [as] @returns {Promise<Json>} */
export const sendKeys = async (session, keys, as = "admin") => JSON.parse(await rest(`/v1/sessions/${session}:keys`, { as, body: { keys } })).screen;

/** Goes to the terminal of a session, and waits until it can be used. @param {Page} page @param {string} name */
export async function attach(page, name, { mayType = true } = {}) {
  await page.goto(`/sessions/${name}`);
  await ready(page, { mayType });
}

/** Waits until the terminal of the page is attached, and what has come is drawn. @param {Page} page */
export async function ready(page, { mayType = true } = {}) {
  await page.locator(`[data-testid=terminal][data-may-type=${mayType}] .xterm`).waitFor();
  await page.locator("[data-testid=viewer][data-me=true]").waitFor();
}

/** Types into the terminal. @param {Page} page @param {string} text */
export async function type(page, text) {
  await page.locator("[data-testid=terminal] .xterm-helper-textarea").focus();
  await page.keyboard.type(text);
}

/**
 * What the terminal of the page shows: the lines of its screen, where its cursor is, and how far it has scrolled.
 * @param {Page} page
 */
export const picture = (page) =>
  page.evaluate(() => {
    const { terminal: term } = /** @type {any} */ (document.querySelector("[data-testid=terminal] .terminal"));
    const b = term.buffer.active;
    const line = (/** @type {number} */ y) => (b.getLine(y)?.translateToString(true) ?? "").replace(/ +$/, "");
    return {
      columns: /** @type {number} */ (term.cols), rows: /** @type {number} */ (term.rows),
      lines: /** @type {string[]} */ (Array.from({ length: term.rows }, (_, y) => line(b.baseY + y))),
      scrollback: /** @type {string[]} */ (Array.from({ length: b.baseY }, (_, y) => line(y))),
      cursor: /** @type {[number, number]} */ ([b.cursorY, b.cursorX]),
      alternate: b.type === "alternate", top: /** @type {number} */ (b.viewportY), base: /** @type {number} */ (b.baseY),
    };
  });

/** Each cell of the screen with its looks, as text that can be compared. @param {Page} page @returns {Promise<string[]>} */
export const cells = (page) =>
  page.evaluate(() => {
    const { terminal: term } = /** @type {any} */ (document.querySelector("[data-testid=terminal] .terminal"));
    const b = term.buffer.active;
    const rows = [];
    for (let y = 0; y < term.rows; y++) {
      const line = b.getLine(b.baseY + y);
      let text = "";
      for (let x = 0; x < term.cols; x++) {
        const c = line.getCell(x);
        if (c.getWidth() === 0) continue;
        const chars = c.getChars() || " ";
        const looks = [c.getFgColorMode(), c.getFgColor(), c.getBgColorMode(), c.getBgColor(), c.isBold(), c.isDim(), c.isItalic(), c.isUnderline(), c.isInverse(), c.isInvisible(), c.isStrikethrough()];
        text += chars === " " && looks.every((l) => l === 0 || l === -1) ? " " : `${chars}‹${looks.join()}›`;
      }
      rows.push(text.trimEnd());
    }
    return rows;
  });

/** Waits until a line of the screen, or above it, is like that. @param {Page} page @param {RegExp} like */
export async function shows(page, like) {
  const { source, flags } = like;
  await page
    .waitForFunction(
      ({ source, flags }) => {
        const element = /** @type {any} */ (document.querySelector("[data-testid=terminal] .terminal"));
        if (!element?.terminal) return false;
        const b = element.terminal.buffer.active;
        const like = new RegExp(source, flags);
        for (let y = b.length - 1; y >= 0; y--) if (like.test((b.getLine(y)?.translateToString(true) ?? "").replace(/ +$/, ""))) return true;
        return false;
      },
      { source, flags },
      { polling: 50 },
    )
    .catch(async (e) => {
      throw new Error(`no line is like ${like}:\n${(await picture(page)).lines.join("\n")}`, { cause: e });
    });
}

/** Sees to it that the page shows what the service says is there; what is on its way is waited for. @param {Page} page @param {string} session */
export async function sameScreen(page, session, scrollback = 0, what = "the page") {
  for (const late = Date.now() + patience; ; ) {
    const told = await readScreen(session, scrollback);
    const shown = await picture(page);
    const above = Number(told.scrollbackLines ?? 0);
    const want = { lines: told.lines ?? [], cursor: [Number(told.cursorRow ?? 0), Number(told.cursorColumn ?? 0)], alternate: told.alternateScreen ?? false, columns: told.session.columns, rows: told.session.rows };
    const got = { lines: [...shown.scrollback.slice(shown.scrollback.length - above), ...shown.lines], cursor: shown.cursor, alternate: shown.alternate, columns: shown.columns, rows: shown.rows };
    try {
      assert.deepEqual(got, want, what);
      return shown;
    } catch (e) {
      if (Date.now() > late) throw e;
      await page.waitForTimeout(50);
    }
  }
}

/** Notes when a text is drawn on the terminal of the page for the first time; whenShown gives that. @param {Page} page @param {string} text */
export const noteText = (page, text) =>
  page.evaluate((text) => {
    const w = /** @type {any} */ (window);
    const { terminal: term } = /** @type {any} */ (document.querySelector("[data-testid=terminal] .terminal"));
    w.__shown = undefined;
    let from = term.buffer.active.baseY;
    const look = () => {
      const b = term.buffer.active;
      // Much may have come behind it since the last time.
      for (let y = Math.min(from, b.baseY); y < b.length && w.__shown === undefined; y++) {
        if (b.getLine(y)?.translateToString(true).includes(text)) w.__shown = performance.timeOrigin + performance.now();
      }
      from = b.baseY;
      if (w.__shown !== undefined) listener.dispose();
    };
    // Drawn, and not only known.
    const listener = term.onRender(look);
  }, text);

/** @param {Page} page @returns {Promise<number>} */
export async function whenShown(page) {
  const at = await page.waitForFunction(() => /** @type {any} */ (window).__shown, undefined, { polling: 10 });
  return Number(await at.jsonValue());
}
