// Tasks as events change them, how a step's hosts fall into groups, and which of them are history: all that needs neither the
// service nor a page.

// The numbers are those of the contract, which never change: TaskState, StepState and UndoState.
const QUEUED = 1;
const TASK_RUNNING = 2;
const RUNNING = 3;
const AWAITING = 2;
const PENDING = 1;
const COMPLETED = 4;
/** Of several runs' states, which is that of the step: the first of these that one has. */
const FIRST = [RUNNING, AWAITING];
const LAST = [5, 7, 6, 8]; // failed, lost, cancelled, skipped
const UNDO_RUNNING = 2;
const UNDO_FAILED = 4;
const UNDO_AWAITING = 8;
const UNDO_ORDER = [UNDO_RUNNING, UNDO_AWAITING, 1, UNDO_FAILED, 6, 7, 5, 3]; // … pending, …, unknown, cancelled, not undoable, undone

export interface Stamp {
  seconds: bigint;
  nanos: number;
}

export interface RunLike {
  host: string;
  state: number;
  commandId: string;
  earlierCommandIds: string[];
  exitCode?: number | undefined;
  failure?: object | undefined;
  undoFailure?: object | undefined;
  undoState: number;
  undoCommandId: string;
  percent: number;
  startTime?: Stamp | undefined;
  endTime?: Stamp | undefined;
  retryTime?: Stamp | undefined;
}

export interface StepLike {
  state: number;
  undoState: number;
  percent: number;
  runs: RunLike[];
}

export interface TaskLike {
  id: string;
  state: number;
  percent: number;
  currentStep: number;
  sequence: bigint;
  startTime?: Stamp | undefined;
  endTime?: Stamp | undefined;
  failure?: object | undefined;
  queue?: object | undefined;
  steps: StepLike[];
}

export interface EventLike {
  taskId: string;
  sequence: bigint;
  type: string;
  state: number;
  taskPercent: number;
  stepIndex?: number | undefined;
  host: string;
  commandId: string;
  stepState: number;
  exitCode?: number | undefined;
  failure?: object | undefined;
  percent: number;
  queue?: object | undefined;
  undoState: number;
  time?: Stamp | undefined;
}

/** Reports whether a task in this state does nothing more. */
export function taskEnded(state: number): boolean {
  return state >= 5;
}

/** Reports whether a step, or one of its runs, has come to its end. */
export function stepEnded(state: number): boolean {
  return state >= COMPLETED;
}

/** The state of a step, as the service makes it of those of its runs. */
export function stepStateOf(runs: readonly { state: number }[]): number {
  const has = (state: number): boolean => runs.some((r) => r.state === state);
  const open = FIRST.find(has);
  if (open !== undefined) return open;
  if (has(PENDING)) return runs.every((r) => r.state === PENDING) ? PENDING : RUNNING;
  return LAST.find(has) ?? COMPLETED;
}

function undoStateOf(runs: readonly { undoState: number }[]): number {
  return UNDO_ORDER.find((state) => runs.some((r) => r.undoState === state)) ?? 0;
}

/** Reports whether an event tells all that has changed with it: then there is nothing to ask for. */
export function tellsAll(e: { type: string }): boolean {
  return e.type === "step_progress" || e.type === "queue_update";
}

/**
 * Gives a task as it is after an event; itself, where it has that in it. What an event does not tell, such as when a run is
 * tried again, is as it was until the task is asked for.
 */
export function applied<T extends TaskLike>(task: T, e: EventLike): T {
  if (e.taskId !== task.id || e.sequence <= task.sequence) return task;
  const now: T = { ...task, sequence: e.sequence, state: e.state, percent: e.taskPercent };
  if (e.type === "queue_update") now.queue = e.queue;
  else if (e.state !== QUEUED) now.queue = undefined;
  if (e.state === TASK_RUNNING) now.startTime ??= e.time;
  now.endTime = taskEnded(e.state) ? (task.endTime ?? e.time) : undefined;
  const at = e.stepIndex;
  // Why it had failed stays when it is undone.
  if (e.type === "error" && at === undefined) now.failure = e.failure;
  const step = at === undefined ? undefined : task.steps[at];
  if (at !== undefined && step !== undefined) {
    if (e.type === "step_start" || e.type === "undo_start") now.currentStep = at;
    now.steps = task.steps.with(at, stepAfter(step, e));
  }
  if (taskEnded(e.state)) now.currentStep = Math.max(0, task.steps.length - 1);
  return now;
}

function stepAfter<S extends StepLike>(step: S, e: EventLike): S {
  const run = runOf(step, e);
  const old = step.runs[run];
  if (old === undefined) {
    // Of the step as a whole.
    return { ...step, state: e.stepState === 0 ? step.state : e.stepState, percent: e.type === "step_progress" || e.type === "step_complete" ? Math.max(e.percent, step.percent) : step.percent };
  }
  const runs = step.runs.with(run, { ...runAfter(old, e), host: e.host || old.host });
  return { ...step, runs, state: stepStateOf(runs), undoState: undoStateOf(runs) };
}

// Which run an event is about; -1: the step as a whole. In a session there is one, whose host is known late: it is known by
// its command, or where that was not let run, by the failure.
function runOf(step: StepLike, e: EventLike): number {
  const by = (is: (r: RunLike) => boolean): number => step.runs.findIndex(is);
  const command = e.commandId === "" ? -1 : by((r) => r.commandId === e.commandId || r.undoCommandId === e.commandId);
  if (command >= 0) return command;
  const host = e.host === "" ? -1 : by((r) => r.host === e.host);
  if (host >= 0) return host;
  return step.runs.length === 1 && (e.commandId !== "" || e.host !== "" || e.failure !== undefined) ? 0 : -1;
}

function runAfter(run: RunLike, e: EventLike): RunLike {
  switch (e.type) {
    case "step_start":
      return {
        ...run, state: e.stepState || RUNNING, commandId: e.commandId, startTime: e.time, endTime: undefined, exitCode: undefined, failure: undefined, retryTime: undefined, percent: 0,
        earlierCommandIds: run.commandId === "" || run.commandId === e.commandId ? run.earlierCommandIds : [...run.earlierCommandIds, run.commandId],
      };
    case "approval_request":
      if (e.undoState !== 0) return { ...run, undoState: e.undoState, undoCommandId: e.commandId || run.undoCommandId };
      return { ...run, state: AWAITING, commandId: e.commandId || run.commandId };
    case "step_complete":
      return { ...run, state: e.stepState || run.state, exitCode: e.exitCode, failure: e.failure, endTime: e.time, percent: 100 };
    case "undo_start":
      return { ...run, undoState: e.undoState || UNDO_RUNNING, undoCommandId: e.commandId || run.undoCommandId };
    case "undo_complete":
      return { ...run, undoState: e.undoState || run.undoState, undoFailure: e.failure };
    default:
      // People have let it run, or it is tried again.
      if (e.undoState !== 0) return { ...run, undoState: e.undoState, undoCommandId: e.commandId || run.undoCommandId };
      return e.stepState === 0 ? run : { ...run, state: e.stepState };
  }
}

/**
 * The rows of the history, newest first: those of the pages that were read, each as it is known by now, and what has ended
 * since. What is older than the pages comes with its page.
 */
export function historyOf<T extends { id: string; state: number }>(
  pages: { all: ReadonlyMap<string, T>; next: string }, active: readonly T[], ended: readonly T[], matches: (task: T) => boolean,
): T[] {
  const rows = new Map(pages.all);
  let oldest = "";
  for (const id of pages.all.keys()) if (oldest === "" || id < oldest) oldest = id;
  for (const task of ended) if (rows.has(task.id) || pages.next === "" || oldest === "" || task.id > oldest) rows.set(task.id, task);
  for (const { id } of active) rows.delete(id);
  return [...rows.values()].filter((t) => taskEnded(t.state) && matches(t)).sort((a, b) => (a.id < b.id ? 1 : -1));
}

/** Hosts of a step that came to the same. */
export interface Group<R> {
  key: string;
  runs: R[];
  /** Whether their outputs are known to be the same. */
  same: boolean;
}

/**
 * Puts runs that came to the same together: state, exit code, reason of a failure, undo, and, where outputOf knows it, output.
 * What went wrong comes first, then the largest group.
 */
export function groupsOf<R extends Pick<RunLike, "state" | "exitCode" | "failure" | "undoState" | "undoFailure">>(
  runs: readonly R[],
  outputOf: (run: R) => string | undefined,
): Group<R>[] {
  const groups = new Map<string, Group<R>>();
  for (const run of runs) {
    const output = outputOf(run);
    const key = JSON.stringify([run.state, run.exitCode ?? "", reasonOf(run.failure), run.undoState, reasonOf(run.undoFailure), output ?? ""]);
    const group = groups.get(key);
    if (group === undefined) groups.set(key, { key, runs: [run], same: output !== undefined });
    else group.runs.push(run);
  }
  const wrong = (g: Group<R>): number => (LAST.includes(g.runs[0]?.state ?? 0) ? 0 : 1);
  return [...groups.values()].sort((a, b) => wrong(a) - wrong(b) || b.runs.length - a.runs.length);
}

function reasonOf(failure: object | undefined): string {
  return failure !== undefined && "reason" in failure ? String(failure.reason) : "";
}

/** Where a task's step is, of "tasks/{id}/steps/{name}"; undefined for what is none. */
export function placeOf(taskStep: string): { task: string; step: string } | undefined {
  const found = /^tasks\/([0-7][0-9A-HJKMNP-TV-Z]{25})\/steps\/(.+)$/.exec(taskStep);
  return found?.[1] === undefined || found[2] === undefined ? undefined : { task: found[1], step: found[2] };
}

/** Where a command of a task is: in which step, on which host, and whether it takes that back. */
export interface CommandPlace {
  id: string;
  step: number;
  run: number;
  undoes: boolean;
}

/** The command that is worth looking at: one that runs, one that waits, or else the last one, one that failed before others. */
export function commandOf(task: { steps: readonly { runs: readonly RunLike[] }[] }): CommandPlace | undefined {
  const all: (CommandPlace & { rank: number })[] = [];
  task.steps.forEach((step, i) =>
    step.runs.forEach((r, j) => {
      if (r.undoCommandId !== "") all.push({ id: r.undoCommandId, step: i, run: j, undoes: true, rank: r.undoState === UNDO_RUNNING ? 6 : r.undoState === UNDO_AWAITING ? 5 : r.undoState === UNDO_FAILED ? 2 : 1 });
      if (r.commandId === "") return;
      const rank = r.state === RUNNING ? 4 : r.state === AWAITING ? 3 : r.state === 5 || r.state === 7 ? 2 : 1;
      all.push({ id: r.commandId, step: i, run: j, undoes: false, rank });
    }),
  );
  const open = all.filter((c) => c.rank >= 3).sort((a, b) => b.rank - a.rank)[0];
  if (open !== undefined) return open;
  // Ids are in the order of their making: the last step, or the last undo.
  const last = all.reduce<CommandPlace | undefined>((found, c) => (found === undefined || c.id > found.id ? c : found), undefined);
  const beside = all.filter((c) => last !== undefined && c.step === last.step && c.undoes === last.undoes);
  return beside.sort((a, b) => b.rank - a.rank || a.run - b.run)[0];
}

/** The place of a command in a task; undefined where it is none of its. */
export function findCommand(task: { steps: readonly { runs: readonly RunLike[] }[] }, id: string): CommandPlace | undefined {
  for (const [step, s] of task.steps.entries()) {
    for (const [run, r] of s.runs.entries()) {
      if (r.commandId === id || r.earlierCommandIds.includes(id)) return { id, step, run, undoes: false };
      if (r.undoCommandId === id) return { id, step, run, undoes: true };
    }
  }
  return undefined;
}
