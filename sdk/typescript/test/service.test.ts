// The cases in Node, against the service that the environment names; internal/test/sdk starts it.

import { after, before, describe, it } from "node:test";
import { cases } from "./cases/index.js";
import { control, setting } from "./environment.js";
import { Proxy } from "./proxy.js";

const transport = "WebSocket" in globalThis ? "websocket" : "polling";

describe(transport, () => {
  let proxy: Proxy;
  before(async () => {
    proxy = await Proxy.start(setting("TELEXEC_URL"));
  });
  after(() => proxy.close());
  for (const c of cases) {
    if (c.over !== undefined && c.over !== transport) continue;
    it(c.name, { timeout: 60_000 }, async () => {
      try {
        await c.run({
          url: proxy.url,
          token: setting("TELEXEC_TOKEN"),
          host: setting("TELEXEC_HOST"),
          transport,
          faults: proxy,
          service: control,
        });
      } finally {
        await proxy.mend();
      }
    });
  }
});
