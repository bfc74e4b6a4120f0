// The cases in a browser: what is bundled of this is put into a page, and called from outside.

import { cases } from "./cases/index.js";
import type { Faults, Service, Surroundings } from "./surroundings.js";

/** What the page can ask of the test: faults happen there. */
declare function outside(what: string, ...args: unknown[]): Promise<unknown>;

/** outsideOf makes the methods of an interface calls to the outside. */
function outsideOf<T extends object>(): T {
  return new Proxy({} as T, { get: (_, name) => (...args: unknown[]) => outside(String(name), ...args) });
}

Object.assign(globalThis, {
  runCase: async (name: string, s: Pick<Surroundings, "url" | "token" | "host">): Promise<string> => {
    const c = cases.find((c) => c.name === name);
    if (c === undefined) return "there is no such case";
    try {
      await c.run({ ...s, transport: "websocket", faults: outsideOf<Faults>(), service: outsideOf<Service>() });
      return "";
    } catch (e) {
      return e instanceof Error ? `${e.message}\n${e.stack ?? ""}` : String(e);
    }
  },
});
