// Tasks: submitted, watched over cuts, decided, cancelled and undone.

import { StepState, TaskState, TaskWait, TelexecError, UndoState, hasTaskEnded, type Telexec } from "@telexec/client";
import { equal, ok, rejected, until, withClient, type Case, type Surroundings } from "../surroundings.js";

/** begin submits steps of one command each, which `undo` takes back. */
async function begin(c: Telexec, s: Surroundings, ...commands: string[]): Promise<string> {
  const { task } = await c.submitTask({ task: "a case", steps: commands.map((command) => ({ host: s.host, command, undo: `: undo; ${command}` })) });
  ok(task, "an answer without a task");
  return task.id;
}

/** ended waits for the end. */
async function ended(c: Telexec, id: string) {
  const { task } = await c.getTask(id, { wait: 30_000, until: TaskWait.ENDED });
  ok(task !== undefined && hasTaskEnded(task.state), `the task is ${task?.state}`);
  return task;
}

export const tasks: Case[] = [
  {
    name: "a task is submitted, seen, listed and undone",
    run: (s) =>
      withClient(s, async (c) => {
        const label = `task-${Math.random()}`;
        const plan = {
          task: "roll out", conversationId: label, context: { ticket: "17" }, labels: { case: label },
          steps: [{ name: "first", host: s.host, command: "echo one", undo: "echo back" }, { host: s.host, command: "echo two" }],
        };
        const looked = await c.submitTask({ ...plan, validateOnly: true });
        equal([looked.task?.id, looked.task?.steps.map((x) => x.name)], ["", ["first", "step 2"]], "validateOnly");
        const { task } = await c.submitTask(plan);
        ok(task && task.requestId !== "", "no request id was given");
        const done = await ended(c, task.id);
        equal([done.state, done.steps.map((x) => x.state), done.steps[0]?.runs[0]?.exitCode], [TaskState.COMPLETED, [StepState.COMPLETED, StepState.COMPLETED], 0], "end");
        const found: string[] = [];
        for await (const t of c.listTasks({ pageSize: 1, conversationId: label, labels: { case: label }, states: [TaskState.COMPLETED] })) found.push(t.id);
        equal(found, [task.id], "list");

        const { preview, task: same } = await c.undoTask(task.id, { preview: true });
        equal([same?.state, preview.map((u) => `${u.step} ${u.command} ${u.state}`)], [TaskState.COMPLETED, [`step 2  ${UndoState.NOT_UNDOABLE}`, `first echo back ${UndoState.PENDING}`]], "preview");
        equal((await c.undoTask(task.id, { step: "first", reason: "wrong" })).task?.undo?.reason, "wrong", "undo");
        const undone = await ended(c, task.id);
        equal([undone.steps[0]?.undoState, undone.outcome], [UndoState.UNDONE, TaskState.COMPLETED], "undone");
        const again = await rejected(c.undoTask(task.id, { step: "first" }));
        ok(again instanceof TelexecError && again.reason === "NOTHING_TO_UNDO", String(again));
        const wrong = await rejected(c.submitTask({ task: "x", steps: [{ host: "nowhere", command: "true" }] }));
        ok(wrong instanceof TelexecError && wrong.reason === "UNKNOWN_HOST", String(wrong));
      }),
  },
  {
    name: "a task is watched from its first event to its end, over cuts, each event once",
    run: (s) =>
      withClient(
        s,
        async (c) => {
          const id = await begin(c, s, "sleep 0.6", "sleep 0.6", "sleep 0.6", "echo four");
          const sequences: number[] = [];
          const types = new Set<string>();
          let last: bigint | undefined;
          for await (const event of c.watchTask(id)) {
            if (event.type === "event") {
              sequences.push(Number(event.event.sequence));
              types.add(event.event.type);
              if (event.event.type === "step_complete") await s.faults.cut();
            }
            if (event.type === "ended") last = event.task.sequence;
          }
          equal(sequences, sequences.map((_, i) => i + 1), "sequences");
          equal(last, BigInt(sequences.length), "the end's sequence");
          for (const type of ["status_change", "step_start", "step_complete", "completed"]) ok(types.has(type), `no ${type} in ${[...types].join()}`);

          const rest: number[] = [];
          for await (const event of c.watchTask(id, { after: 3 })) if (event.type === "event") rest.push(Number(event.event.sequence));
          equal(rest, sequences.slice(3), "behind the third");
          const beyond = await rejected(drained(c.watchTask(id, { after: 1000 })));
          ok(beyond instanceof TelexecError && beyond.reason === "EVENTS_UNKNOWN", String(beyond));
        },
        { backoff: { firstMs: 20, maxMs: 200 } },
      ),
  },
  {
    name: "a step waits for a decision, which may be another command",
    run: (s) =>
      withClient(s, async (c) => {
        const id = await begin(c, s, "factor 6; factor 8", "echo then");
        const { approvals } = await c.getTask(id, { wait: 30_000, until: TaskWait.APPROVAL });
        const [approval] = approvals;
        ok(approval, "nothing waits");
        equal([approval.step, approval.command?.command], ["step 1", "factor 6; factor 8"], "what is asked for");
        // By itself it comes with the whole plan.
        equal((await c.approval(approval.id)).task?.steps.map((x) => x.command), ["factor 6; factor 8", "echo then"], "the plan");
        const decided = await c.decideTask(id, { approvalId: approval.id, approved: true, modified: { command: "factor 8" }, requestHash: approval.requestHash, message: "less" });
        equal(decided.decisions.at(-1)?.reason, "less", "reason");
        const task = await ended(c, id);
        equal([task.state, task.steps[0]?.command], [TaskState.COMPLETED, "factor 8"], "end");
        const other = await rejected(c.decideTask(id, { approvalId: id, approved: true }));
        ok(other instanceof TelexecError && other.code === "NOT_FOUND", String(other));
      }),
  },
  {
    name: "events tell of tasks, and cancel ends one",
    run: (s) =>
      withClient(
        s,
        async (c) => {
          const own = new AbortController();
          const states = new Map<string, TaskState>();
          const sequences = new Map<string, number[]>();
          let synced = false;
          const watching = (async () => {
            for await (const event of c.events({ signal: own.signal })) {
              if (event.type === "synced") synced = true;
              if (event.type === "task") states.set(event.task.id, event.task.state);
              if (event.type !== "taskEvent") continue;
              states.set(event.event.taskId, event.event.state);
              sequences.set(event.event.taskId, [...(sequences.get(event.event.taskId) ?? []), Number(event.event.sequence)]);
            }
          })();
          let failed: unknown;
          watching.catch((e: unknown) => (failed = e));
          await until(() => synced || failed !== undefined);
          const id = await begin(c, s, "sleep 600", "echo never");
          await until(() => states.get(id) === TaskState.RUNNING || failed !== undefined);
          await s.faults.cut();
          const { task } = await c.cancelTask(id, { reason: "enough", grace: 2_000 });
          equal(task?.cancellation?.reason, "enough", "reason");
          await until(() => states.get(id) === TaskState.CANCELLED || failed !== undefined);
          ok(failed === undefined, String(failed));
          const told = sequences.get(id) ?? [];
          equal(told, told.map((_, i) => (told[0] ?? 0) + i), "sequences");
          equal((await c.cancelTask(id)).alreadyEnded, true, "again");
          equal((await ended(c, id)).steps.map((x) => x.state), [StepState.CANCELLED, StepState.SKIPPED], "steps");
          own.abort();
        },
        { backoff: { firstMs: 20, maxMs: 200 } },
      ),
  },
];

async function drained(events: AsyncIterable<unknown>): Promise<void> {
  for await (const _ of events);
}
