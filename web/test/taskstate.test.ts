import assert from "node:assert/strict";
import { test } from "node:test";
import { applied, commandOf, findCommand, groupsOf, historyOf, placeOf, stepStateOf, tellsAll, type EventLike, type RunLike, type TaskLike } from "../src/taskstate.ts";

const run = (host: string, change: Partial<RunLike> = {}): RunLike => ({ host, state: 1, commandId: "", earlierCommandIds: [], undoState: 0, undoCommandId: "", percent: 0, ...change });

const task = (): TaskLike => ({
  id: "t", state: 1, percent: 0, currentStep: 0, sequence: 1n, queue: { position: 3 },
  steps: [
    { state: 1, undoState: 0, percent: 0, runs: [run("a"), run("b")] },
    { state: 1, undoState: 0, percent: 0, runs: [run("a")] },
  ],
});

const event = (sequence: number, change: Partial<EventLike>): EventLike => ({
  taskId: "t", sequence: BigInt(sequence), type: "status_change", state: 2, taskPercent: 0, host: "", commandId: "", stepState: 0, percent: 0, undoState: 0, ...change,
});

test("events make a task what the service says it is", () => {
  let t = task();
  const before = t;
  const tell = (change: Partial<EventLike>): void => void (t = applied(t, event(Number(t.sequence) + 1, change)));
  tell({ type: "queue_update", state: 1, queue: { position: 1 } });
  assert.deepEqual(t.queue, { position: 1 });
  tell({});
  assert.deepEqual([t.state, t.queue], [2, undefined]);
  tell({ type: "step_start", stepIndex: 0, stepState: 3 });
  tell({ type: "step_start", stepIndex: 0, host: "a", stepState: 3, commandId: "c1" });
  assert.deepEqual([t.steps[0]?.state, t.steps[0]?.runs[0]?.state, t.steps[0]?.runs[0]?.commandId], [3, 3, "c1"]);
  tell({ type: "step_progress", stepIndex: 0, percent: 40, taskPercent: 20 });
  assert.deepEqual([t.percent, t.steps[0]?.percent], [20, 40]);
  tell({ type: "step_complete", stepIndex: 0, host: "a", stepState: 5, exitCode: 3, failure: { reason: "EXIT" } });
  assert.deepEqual([t.steps[0]?.state, t.steps[0]?.runs[0]?.exitCode], [3, 3], "the other host has not run yet");
  tell({ type: "step_start", stepIndex: 0, host: "a", stepState: 3, commandId: "c2" });
  assert.deepEqual([t.steps[0]?.runs[0]?.earlierCommandIds, t.steps[0]?.runs[0]?.exitCode], [["c1"], undefined], "tried again");
  tell({ type: "step_complete", stepIndex: 0, host: "a", stepState: 4, exitCode: 0 });
  tell({ type: "step_complete", stepIndex: 0, host: "b", stepState: 4, exitCode: 0 });
  assert.equal(t.steps[0]?.state, 4);
  tell({ type: "approval_request", stepIndex: 1, host: "a", commandId: "c3", state: 3 });
  assert.deepEqual([t.state, t.steps[1]?.state], [3, 2]);
  tell({ type: "undo_start", stepIndex: 0, host: "b", commandId: "u1", undoState: 2, state: 4 });
  tell({ type: "approval_request", stepIndex: 0, host: "b", commandId: "u1", undoState: 8, state: 4 });
  assert.deepEqual([t.steps[0]?.undoState, t.steps[0]?.runs[1]?.state], [8, 4], "an undo that waits");
  tell({ type: "undo_complete", stepIndex: 0, host: "b", undoState: 4, failure: { reason: "EXIT" }, state: 4 });
  assert.deepEqual([t.steps[0]?.undoState, t.steps[0]?.runs[1]?.undoCommandId], [4, "u1"]);
  assert.deepEqual(before, task(), "what was drawn before has changed");
});

test("an event that is in it already, or is another task's, changes nothing", () => {
  const t = task();
  assert.equal(applied(t, event(1, {})), t);
  assert.equal(applied(t, event(2, { taskId: "u" })), t);
  assert.equal(applied(t, event(2, { stepIndex: 9, type: "step_start" })).steps, t.steps);
});

const at = (seconds: number): { seconds: bigint; nanos: number } => ({ seconds: BigInt(seconds), nanos: 0 });

test("a task begins, fails, ends, and is undone, with its times", () => {
  let t = task();
  const tell = (change: Partial<EventLike>): void => void (t = applied(t, event(Number(t.sequence) + 1, change)));
  const times = () => [t.startTime?.seconds, t.endTime?.seconds];
  tell({ type: "queue_update", state: 1, queue: { position: 1 }, time: at(1) });
  assert.deepEqual(times(), [undefined, undefined]);
  tell({ time: at(2) });
  tell({ type: "step_start", stepIndex: 0, host: "a", stepState: 3, commandId: "c1", time: at(3) });
  assert.deepEqual(times(), [2n, undefined]);
  tell({ type: "error", stepIndex: 0, host: "a", commandId: "c1", stepState: 3, failure: { reason: "EXIT_STATUS" }, time: at(4) });
  assert.equal(t.failure, undefined, "that of a run is not that of the task");
  // What is stored together has one state.
  tell({ type: "step_complete", stepIndex: 0, host: "a", commandId: "c1", stepState: 5, state: 6, time: at(5) });
  tell({ type: "error", state: 6, failure: { reason: "STEP_FAILED" }, time: at(5) });
  tell({ state: 6, time: at(6) });
  assert.deepEqual([...times(), t.failure, t.currentStep], [2n, 5n, { reason: "STEP_FAILED" }, 1]);
  tell({ state: 4, time: at(7) });
  tell({ type: "undo_start", stepIndex: 0, host: "b", commandId: "u1", undoState: 2, state: 4, taskPercent: 10, time: at(8) });
  assert.deepEqual([...times(), t.currentStep, t.percent], [2n, undefined, 0, 10]);
  tell({ state: 8, taskPercent: 60, time: at(9) });
  assert.deepEqual([...times(), t.failure, t.currentStep, t.percent], [2n, 9n, { reason: "STEP_FAILED" }, 1, 60], "why it had failed stays");
});

test("one that is cancelled in the queue has never begun", () => {
  const t = applied(task(), event(2, { state: 7, time: at(2) }));
  assert.deepEqual([t.startTime, t.endTime?.seconds], [undefined, 2n]);
});

test("a step in a session, whose host is known late", () => {
  let t: TaskLike = { ...task(), steps: [{ state: 1, undoState: 0, percent: 0, runs: [run("")] }] };
  const tell = (change: Partial<EventLike>): void => void (t = applied(t, event(Number(t.sequence) + 1, { stepIndex: 0, ...change })));
  const now = () => t.steps[0]?.runs[0];
  tell({ type: "step_start", stepState: 3 });
  assert.equal(now()?.commandId, "");
  tell({ type: "step_start", stepState: 3, commandId: "c1" });
  assert.deepEqual([now()?.state, now()?.commandId, now()?.host], [3, "c1", ""]);
  tell({ type: "approval_request", stepState: 2, commandId: "c1", host: "web1" });
  assert.deepEqual([now()?.state, now()?.host, t.steps[0]?.state], [2, "web1", 2]);
  tell({ stepState: 3, commandId: "c1", host: "web1" });
  tell({ type: "step_complete", stepState: 5, commandId: "c1", exitCode: 2, failure: { reason: "EXIT_STATUS" } });
  assert.deepEqual([now()?.state, now()?.exitCode, now()?.host, t.steps[0]?.state], [5, 2, "web1", 5]);
  tell({ type: "step_complete", stepState: 5, percent: 100 });
  assert.deepEqual([now()?.exitCode, t.steps[0]?.percent], [2, 100], "that of the whole step");
  tell({ type: "undo_start", commandId: "u1", undoState: 2, state: 4 });
  tell({ type: "undo_complete", commandId: "u1", undoState: 3, state: 4 });
  assert.deepEqual([now()?.undoCommandId, now()?.undoState, now()?.commandId], ["u1", 3, "c1"]);
});

test("a step in a session that is not there was not let run", () => {
  const t = applied({ ...task(), steps: [{ state: 3, undoState: 0, percent: 0, runs: [run("", { state: 3, commandId: "c1" })] }] }, event(2, { type: "step_complete", stepIndex: 0, stepState: 5, failure: { reason: "UNKNOWN_SESSION" } }));
  assert.deepEqual([t.steps[0]?.state, t.steps[0]?.runs[0]?.state], [5, 5]);
});

test("people have let an undo run", () => {
  let t: TaskLike = { ...task(), state: 4, steps: [{ state: 4, undoState: 8, percent: 100, runs: [run("a", { state: 4, commandId: "c1", undoState: 8, undoCommandId: "u1" })] }] };
  t = applied(t, event(2, { type: "status_change", state: 4, stepIndex: 0, host: "a", commandId: "u1", undoState: 2 }));
  assert.deepEqual([t.steps[0]?.undoState, t.steps[0]?.runs[0]?.undoState, t.steps[0]?.state], [2, 2, 4]);
});

test("which events leave something to be asked", () => {
  assert.deepEqual(["step_progress", "queue_update", "status_change", "step_start", "error"].map((type) => tellsAll({ type })), [true, true, false, false, false]);
});

test("the history has each row once, as it is known by now", () => {
  const row = (id: string, state: number): { id: string; state: number } => ({ id, state });
  const pages = { all: new Map([row("5", 5), row("4", 6), row("3", 5)].map((r) => [r.id, r])), next: "more" };
  const ids = (o: { active?: ReturnType<typeof row>[]; ended?: ReturnType<typeof row>[]; next?: string; matches?: (r: { state: number }) => boolean }): string[] =>
    historyOf({ ...pages, next: o.next ?? pages.next }, o.active ?? [], o.ended ?? [], o.matches ?? (() => true)).map((r) => `${r.id} ${r.state}`);
  assert.deepEqual(ids({}), ["5 5", "4 6", "3 5"]);
  assert.deepEqual(ids({ active: [row("4", 4)] }), ["5 5", "3 5"], "one is being undone");
  assert.deepEqual(ids({ ended: [row("4", 8), row("6", 5)] }), ["6 5", "5 5", "4 8", "3 5"], "one was undone, and one has come");
  assert.deepEqual(ids({ ended: [row("5", 8)], matches: (r) => r.state === 5 }), ["3 5"], "the filter is for what it is now");
  assert.deepEqual(ids({ ended: [row("1", 5)] }), ["5 5", "4 6", "3 5"], "what is older comes with its page");
  assert.deepEqual(ids({ ended: [row("1", 5)], next: "" }), ["5 5", "4 6", "3 5", "1 5"]);
});

test("the state of a step is that of its runs", () => {
  const of = (...states: number[]): number => stepStateOf(states.map((state) => ({ state })));
  assert.deepEqual([of(1, 1), of(4, 1), of(4, 2), of(3, 2), of(4, 4), of(4, 5), of(7, 6), of(8, 4)], [1, 3, 2, 3, 4, 5, 7, 8]);
});

test("hosts that came to the same are one group, what went wrong first", () => {
  const runs = [...Array.from({ length: 18 }, (_, i) => run(`h${i}`, { state: 4, exitCode: 0 })), run("odd", { state: 4, exitCode: 0 }), run("bad", { state: 5, exitCode: 2 })];
  const groups = groupsOf(runs, (r) => (r.host === "bad" ? undefined : r.host === "odd" ? "2" : "1"));
  assert.deepEqual(groups.map((g) => [g.runs.length, g.runs[0]?.host, g.same]), [[1, "bad", false], [18, "h0", true], [1, "odd", true]]);
  assert.equal(groupsOf(runs, () => undefined).length, 2);
});

test("where a command's step is", () => {
  assert.deepEqual(placeOf("tasks/01ARZ3NDEKTSV4RRFFQ69G5FAV/steps/step 1"), { task: "01ARZ3NDEKTSV4RRFFQ69G5FAV", step: "step 1" });
  for (const none of ["", "tasks/x/steps/a", "tasks/01ARZ3NDEKTSV4RRFFQ69G5FAV", "tasks/01ARZ3NDEKTSV4RRFFQ69G5FAV/steps/"]) assert.equal(placeOf(none), undefined);
});

test("the command that is looked at", () => {
  const at = (...steps: Partial<RunLike>[][]): string | undefined => commandOf({ steps: steps.map((runs) => ({ runs: runs.map((r, i) => run(`h${i}`, r)) })) })?.id;
  assert.equal(at([{}]), undefined);
  assert.equal(at([{ state: 4, commandId: "1" }], [{ state: 4, commandId: "2" }, { state: 3, commandId: "3" }]), "3", "one that runs");
  assert.equal(at([{ state: 4, commandId: "1" }], [{ state: 2, commandId: "2" }]), "2", "one that waits");
  assert.equal(at([{ state: 4, commandId: "1" }], [{ state: 5, commandId: "2" }, { state: 4, commandId: "3" }], [{ state: 8 }]), "2", "one that failed");
  assert.equal(at([{ state: 4, commandId: "1" }], [{ state: 4, commandId: "2" }, { state: 4, commandId: "3" }]), "2", "the last step");
  assert.equal(at([{ state: 4, commandId: "1", undoCommandId: "9", undoState: 3 }], [{ state: 4, commandId: "2", undoCommandId: "8", undoState: 3 }]), "9", "the last undo");
  const t = { steps: [{ runs: [run("h", { commandId: "2", earlierCommandIds: ["1"], undoCommandId: "3" })] }] };
  assert.deepEqual(["1", "2", "3", "4"].map((id) => findCommand(t, id)?.undoes), [false, false, true, undefined]);
});
