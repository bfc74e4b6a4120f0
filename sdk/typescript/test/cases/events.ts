// Following what happens to all commands.

import { CommandState, hasEnded } from "@telexec/client";
import { equal, ok, until, withClient, type Case } from "../surroundings.js";
import { begin } from "./output.js";

export const events: Case[] = [
  {
    name: "events tell the life of each command, over cuts too",
    run: (s) =>
      withClient(
        s,
        async (c) => {
          const own = new AbortController();
          const versions = new Map<string, bigint>();
          const ended = new Map<string, CommandState>();
          const failures: string[] = [];
          let synced = 0;
          const watching = (async () => {
            for await (const event of c.events({ signal: own.signal, host: s.host })) {
              if (event.type === "synced") synced++;
              if (event.type !== "command") continue;
              const { id, version, state } = event.command;
              ok((versions.get(id) ?? -1n) <= version, `${id} went back from ${versions.get(id)} to ${version}`);
              versions.set(id, version);
              if (hasEnded(state)) ended.set(id, state);
              if (event.command.failure) failures.push(event.command.failure.message);
            }
          })();
          let failed: unknown;
          watching.catch((e: unknown) => (failed = e));
          await until(() => synced > 0 || failed !== undefined);
          ok(failed === undefined, String(failed));
          const ids: string[] = [];
          for (let i = 0; i < 6; i++) {
            ids.push(await begin(c, s, `sleep 0.3; exit ${i}`));
            if (i % 2 === 1) await s.faults.cut();
          }
          const last = await begin(c, s, "sleep 600");
          await c.cancel(last);
          await until(() => failed !== undefined || (ids.every((id) => ended.has(id)) && ended.has(last)));
          ok(failed === undefined, String(failed));
          equal([ended.get(ids[0]!), ended.get(last)], [CommandState.COMPLETED, CommandState.CANCELLED], `ends ${failures.join("; ")}`);
          own.abort();
        },
        { backoff: { firstMs: 20, maxMs: 200 } },
      ),
  },
  {
    name: "events go on behind a sequence",
    run: (s) =>
      withClient(s, async (c) => {
        let after = 0n;
        for await (const event of c.events()) {
          if (event.type !== "synced") continue;
          after = event.sequence;
          break;
        }
        const label = `after-${Math.random()}`;
        const { command } = await c.execute({ host: s.host, command: "exit 9", labels: { case: label } });
        const seen: string[] = [];
        for await (const event of c.events({ after, labels: { case: label } })) {
          if (event.type === "synced") break;
          if (event.type === "command") seen.push(`${event.command.id} ${event.command.exitCode} ${event.sequence > after}`);
        }
        equal(seen, [`${command!.id} 9 true`], "what was missed");
      }),
  },
];
