// The unary calls and the lists.

import { ApprovalState, CommandState, PolicyEffect, TelexecError, Verdict, durationFromMs, timestampDate } from "@telexec/client";
import { equal, ok, rejected, text, withClient, type Case } from "../surroundings.js";

export const calls: Case[] = [
  {
    name: "execute, get and list",
    run: (s) =>
      withClient(s, async (c) => {
        const label = `list-${Math.random()}`;
        const r = await c.execute({ host: s.host, command: "echo out; echo err >&2; exit 3", labels: { case: label, "a.b/c": "x y&z=1" } });
        ok(r.command && r.stdout && r.stderr, "an answer without command or output");
        equal([r.command.state, r.command.exitCode, text(r.stdout.data), text(r.stderr.data)], [CommandState.COMPLETED, 3, "out\n", "err\n"], "execute");
        ok(r.command.requestId !== "", "no request id was given");
        ok(timestampDate(r.command.createTime!).getTime() > Date.now() - 600_000, "a time that cannot be");

        const got = await c.get(r.command.id, { output: { text: true, stdoutOffset: 1n } });
        equal([got.command?.id, got.stdout?.text, got.stdout?.offset], [r.command.id, "ut\n", 1n], "get");

        for (let i = 0; i < 4; i++) await c.execute({ host: s.host, command: "true", labels: { case: label } });
        const ids: string[] = [];
        for await (const command of c.list({ pageSize: 2, labels: { case: label }, states: [CommandState.COMPLETED] })) ids.push(command.id);
        equal([ids.length, new Set(ids).size, ids.at(-1)], [5, 5, r.command.id], "list");
        const page = await c.list({ pageSize: 2, labels: { case: label } }).page();
        equal([page.commands.length, page.nextPageToken !== ""], [2, true], "page");
        const only = await c.list({ labels: { "a.b/c": "x y&z=1", case: label } }).page();
        equal(only.commands.length, 1, "labels with marks in them");
      }),
  },
  {
    name: "a long-poll answers at the change",
    run: (s) =>
      withClient(s, async (c) => {
        const { command } = await c.execute({ host: s.host, command: "sleep 1; exit 4", wait: durationFromMs(0) });
        const r = await c.get(command!.id, { wait: 20_000 });
        equal(r.command?.exitCode, 4, "exit code");
      }),
  },
  {
    name: "cancel, signal and input",
    run: (s) =>
      withClient(s, async (c) => {
        const sleeping = await c.execute({ host: s.host, command: "sleep 600", wait: durationFromMs(0) });
        const cancelled = await c.cancel(sleeping.command!.id, { reason: "not needed", grace: 2_000 });
        equal([cancelled.command?.state, cancelled.command?.cancellation?.reason], [CommandState.CANCELLED, "not needed"], "cancel");

        const { command } = await c.execute({ host: s.host, command: "trap 'echo usr1' USR1; echo up; cat; true", stdinOpen: true, wait: durationFromMs(0) });
        const id = command!.id;
        let out = "";
        for await (const event of c.stream(id)) {
          if (event.type === "chunk") {
            // What a command prints may be there before the word that it runs.
            while (out === "" && (await c.get(id)).command?.state !== CommandState.RUNNING);
            if (out === "") equal((await c.sendInput(id, "ä\n")).stdinBytes, 3n, "taken");
            out += text(event.data);
            if (out === "up\nä\n") {
              await c.signal(id, "CONT");
              await c.sendInput(id, new Uint8Array([120, 10]), { eof: true });
            }
          }
        }
        equal(out, "up\nä\nx\n", "output");
      }),
  },
  {
    name: "hosts and the server",
    run: (s) =>
      withClient(s, async (c) => {
        const names: string[] = [];
        for await (const host of c.hosts({ pageSize: 1 })) names.push(host.name);
        ok(names.includes(s.host), `no ${s.host} in ${names.join()}`);
        equal((await c.host(s.host)).name, s.host, "host");
        equal((await c.checkHost(s.host, { timeout: 20_000 })).ok, true, "check");
        const server = await c.serverInfo();
        ok(server.roles.includes("admin") && server.uptime !== undefined, "server info");
      }),
  },
  {
    name: "approvals and policy",
    run: (s) =>
      withClient(s, async (c) => {
        const explained = await c.explainPolicy({ host: s.host, command: "factor 6" });
        equal([explained.effect, explained.rule], [PolicyEffect.REQUIRE_APPROVAL, "ask"], "explain");
        const running = c.run({ host: s.host, command: "factor 6", requestId: crypto.randomUUID() });
        let id = "";
        while (id === "") {
          for await (const a of c.approvals({ states: [ApprovalState.PENDING], mineToDecide: true })) id = a.commandId;
        }
        const approval = await c.approval(id);
        equal(approval.command?.command, "factor 6", "what is asked for");
        const [decided] = await c.decide([{ commandId: id, verdict: Verdict.APPROVE, requestHash: approval.requestHash }]);
        equal(decided?.state, ApprovalState.APPROVED, "decided");
        equal(text((await running).stdout), "6: 2 3\n", "output");
        const again = await rejected(c.decide([{ commandId: id, verdict: Verdict.REJECT }]));
        ok(again instanceof TelexecError && again.reason === "ALREADY_DECIDED", String(again));
      }),
  },
  {
    name: "tokens and the audit",
    run: (s) =>
      withClient(s, async (c) => {
        const principal = `sdk-${Math.random().toString(36).slice(2)}`;
        const made = await c.createToken({ principal, roles: ["viewer"] });
        await withClient(
          s,
          async (viewer) => {
            equal((await viewer.serverInfo()).principal, principal, "who it is");
            const refused = await rejected(viewer.execute({ host: s.host, command: "true" }));
            ok(refused instanceof TelexecError && refused.code === "PERMISSION_DENIED" && refused.httpStatus === 403, String(refused));
          },
          { token: async () => made.secret },
        );
        const names: string[] = [];
        for await (const t of c.tokens()) names.push(t.principal);
        ok(names.includes(principal), "the key is not listed");
        ok((await c.revokeToken(principal)).revokeTime, "it is not revoked");
        const first = await c.auditEntries({ pageSize: 1, kinds: ["token.revoked"] }).page();
        equal(first.entries[0]?.subject, principal, "audit");
        equal((await c.verifyAudit()).intact, true, "intact");
      }),
  },
  {
    name: "failures tell all that the service tells",
    run: async (s) => {
      await withClient(s, async (c) => {
        const unknown = await rejected(c.execute({ host: "nowhere", command: "true" }));
        ok(unknown instanceof TelexecError, String(unknown));
        equal([unknown.code, unknown.reason, unknown.httpStatus, unknown.metadata["host"]], ["NOT_FOUND", "UNKNOWN_HOST", 404, "nowhere"], "unknown host");
        ok(unknown.hint !== "" && !unknown.message.includes(unknown.hint), `hint and message: ${unknown.message} | ${unknown.hint}`);
        const invalid = await rejected(c.execute({ host: s.host, command: "true", priority: 1000 }));
        ok(invalid instanceof TelexecError && invalid.code === "INVALID_ARGUMENT", String(invalid));
        equal(invalid.fields.map((f) => f.field), ["priority"], "fields");
        const unsaid = await rejected(c.get("nonsense"));
        ok(unsaid instanceof TelexecError && unsaid.code === "INVALID_ARGUMENT", String(unsaid));
      });
      const stranger = await rejected(withClient(s, (c) => c.serverInfo(), { token: "wrong" }));
      ok(stranger instanceof TelexecError && stranger.code === "UNAUTHENTICATED" && stranger.httpStatus === 401, String(stranger));
      // Nothing listens there, and nothing ever has: that is told at once.
      const nobody = await rejected(withClient(s, (c) => c.serverInfo(), { baseUrl: "http://127.0.0.1:9" }));
      ok(nobody instanceof TelexecError && nobody.reason === "SERVER_UNREACHABLE" && nobody.temporary, String(nobody));
    },
  },
  {
    name: "a lost answer is asked for again, and the command runs once",
    run: (s) =>
      withClient(s, async (c) => {
        await c.serverInfo();
        const label = `once-${Math.random()}`;
        await s.faults.swallow(2);
        const r = await c.execute({ host: s.host, command: "echo once", labels: { case: label } });
        equal(text(r.stdout!.data), "once\n", "answer");
        // A browser asks first whether it may ask, and it was that answer which was lost.
        ok(r.replayed || "document" in globalThis, "it was not asked again");
        equal((await c.list({ labels: { case: label } }).page()).commands.length, 1, "commands");
        // Input is not: it could arrive twice. A browser sends it again by itself on a connection that it has used before.
        if ("document" in globalThis) return;
        await s.faults.swallow(1);
        const lost = await rejected(c.sendInput(r.command!.id, "x"));
        ok(lost instanceof TelexecError && lost.reason === "SERVER_UNREACHABLE", String(lost));
      }),
  },
  {
    name: "the caller's own signal ends a call, with its reason",
    run: (s) =>
      withClient(s, async (c) => {
        const own = new AbortController();
        const waiting = rejected(c.execute({ host: s.host, command: "sleep 1" }, { signal: own.signal }));
        own.abort("enough");
        equal(await waiting, "enough", "reason");
        equal(await rejected(c.serverInfo({ signal: own.signal })), "enough", "reason of one that has aborted before");
        const closed = withClient(s, async (d) => ({ waiting: rejected(d.execute({ host: s.host, command: "sleep 1" })) }));
        const e = await (await closed).waiting;
        ok(e instanceof TelexecError && e.reason === "CLIENT_CLOSED", String(e));
      }),
  },
];
