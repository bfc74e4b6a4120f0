// What happens in the service, as it happens: one subscription for the whole page.

import { useCallback, useMemo, useSyncExternalStore } from "react";
import { SessionState, hasTaskEnded, type Command, type Session, type Task, type TaskEvent } from "@telexec/client";
import { client, problemOf } from "./client.ts";
import { hasEnded } from "./format.ts";
import { Known } from "./known.ts";
import { applied, tellsAll } from "./taskstate.ts";

/** Ended commands that are remembered beside those that have not ended. */
const MAX_ENDED = 500;
/** How often the page is drawn anew, however much happens. */
const PAUSE = 30;
/** And those parts of it for which the service is asked something. */
const LONG_PAUSE = 1000;

const known = new Known<Command>(hasEnded, MAX_ENDED);
const sessions = new Known<Session>((s) => s.state === SessionState.ENDED, MAX_ENDED);
const tasks = new Known<Task>((t) => hasTaskEnded(t.state), MAX_ENDED);
// Of a task as events have made it: the last one that does not tell all.
const asksAt = new WeakMap<Task, bigint>();
const listeners = new Set<() => void>();
const patient = new Set<() => void>();
let synced = false;
let syncs = 0;
let failed: unknown;
let version = 0;
let slowVersion = 0;
let running: AbortController | undefined;
let scheduled = false;
let slowScheduled = false;
let told = -Infinity; // when

export function learn(command: Command): Command {
  const newest = known.learn(command);
  tell();
  return newest;
}

export function learnSession(session: Session): Session {
  const newest = sessions.learn(session);
  tell();
  return newest;
}

/** Takes a task as an answer has it, unless events have told more of it by now. Gives what is newest. */
export function learnTask(task: Task): Task {
  const now = tasks.get(task.id);
  if (now !== undefined && now.sequence > task.sequence) return now;
  const newest = tasks.learn(task);
  tell();
  return newest;
}

function happened(event: TaskEvent): void {
  const task = tasks.get(event.taskId);
  if (task === undefined) return; // forgotten, for nobody looks at it
  const now = applied(task, event);
  if (now === task) return;
  asksAt.set(now, tellsAll(event) ? lastAsk(task) : now.sequence);
  tasks.learn(now);
  tell();
}

/** The last event of a task that leaves something to be asked for. */
export function lastAsk(task: Task): bigint {
  return asksAt.get(task) ?? task.sequence;
}

// Those that ended while nobody listened are asked for: only what has not ended is told again.
function lookAfter(open: readonly string[]): void {
  const there = new Set(open);
  for (const session of sessions.active) {
    if (!there.has(session.id)) client.session(session.id).then(learnSession, () => undefined);
  }
}

// Many changes that come at once are one for the page; the first of them does not wait.
function tell(): void {
  if (scheduled) return;
  scheduled = true;
  const act = (): void => {
    scheduled = false;
    told = performance.now();
    known.settle();
    sessions.settle();
    tasks.settle();
    version++;
    for (const listener of listeners) listener();
  };
  const wait = told + PAUSE - performance.now();
  if (wait <= 0) queueMicrotask(act);
  else setTimeout(act, wait);
  if (slowScheduled) return;
  slowScheduled = true;
  setTimeout(() => {
    slowScheduled = false;
    slowVersion++;
    for (const listener of patient) listener();
  }, LONG_PAUSE);
}

/** Begins to listen, for as long as the page lives; again where that has failed. */
export async function listen(): Promise<void> {
  if (running !== undefined) return;
  running = new AbortController();
  failed = undefined;
  tell();
  try {
    for await (const event of client.events({ signal: running.signal })) {
      if (event.type === "command") learn(event.command);
      else if (event.type === "session") learnSession(event.session);
      else if (event.type === "task") learnTask(event.task);
      else if (event.type === "taskEvent") happened(event.event);
      else if (event.type === "synced") {
        synced = true;
        syncs++;
        sessions.settle();
        lookAfter(event.sessions);
        tell();
      }
    }
  } catch (error) {
    failed = error;
    problemOf(error);
    tell();
  } finally {
    running = undefined;
  }
}

function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

function subscribeSlowly(listener: () => void): () => void {
  patient.add(listener);
  return () => patient.delete(listener);
}

export function useActive(): { commands: readonly Command[]; synced: boolean; failed: unknown } {
  useSyncExternalStore(subscribe, () => version);
  return { commands: known.active, synced, failed };
}

/** Sessions, newest first: those that are open, and of those that have ended the ones that were seen here. */
export function useSessions(): { open: readonly Session[]; ended: readonly Session[]; synced: boolean; failed: unknown } {
  useSyncExternalStore(subscribe, () => version);
  return { open: sessions.active, ended: sessions.ended, synced, failed };
}

/** Tasks, newest first: those that have not ended, and of the others those that were seen here. */
export function useTasks(): { active: readonly Task[]; ended: readonly Task[]; synced: boolean; failed: unknown } {
  useSyncExternalStore(subscribe, () => version);
  return { active: tasks.active, ended: tasks.ended, synced, failed };
}

/** A task, which is not forgotten while it is shown. */
export function useTask(id: string): Task | undefined {
  const hold = useCallback(
    (listener: () => void) => {
      const release = tasks.hold(id);
      const unsubscribe = subscribe(listener);
      return () => {
        unsubscribe();
        release();
      };
    },
    [id],
  );
  return useSyncExternalStore(hold, () => tasks.get(id));
}

/** How often all that was missed has been told: what came and went meanwhile was not, so that lists are read anew then. */
export function useSyncs(): number {
  return useSyncExternalStore(subscribe, () => syncs);
}

/** The open session of a name, or the one of an id. */
export function sessionNamed(ref: string): Session | undefined {
  return sessions.get(ref) ?? sessions.active.find((s) => s.name === ref);
}

/** The commands of a session that are known, newest first. */
export function useCommandsIn(session: string): readonly Command[] {
  useSyncExternalStore(subscribe, () => version);
  const at = version;
  return useMemo(() => [...known.active, ...known.ended].filter((c) => c.sessionId === session).sort((a, b) => (a.id < b.id ? 1 : -1)), [session, at]);
}

/** Changes when a command begins or ceases to await an approval, and with each change of one that does; empty where none does. */
export function useAwaiting(): string {
  const { commands } = useActive();
  return commands.filter((c) => c.awaitedApproval !== undefined).map((c) => `${c.id}/${c.version}`).join();
}

/** Commands that have ended while this page looked. */
export function useEnded(): readonly Command[] {
  useSyncExternalStore(subscribe, () => version);
  return known.ended;
}

/** A command, which is not forgotten while it is shown. */
export function useCommand(id: string): Command | undefined {
  const hold = useCallback(
    (listener: () => void) => {
      const release = known.hold(id);
      const unsubscribe = subscribe(listener);
      return () => {
        unsubscribe();
        release();
      };
    },
    [id],
  );
  return useSyncExternalStore(hold, () => known.get(id));
}

/** Changes when commands do, once a second at most: for what must ask the service then. */
export function useSlowVersion(): number {
  return useSyncExternalStore(subscribeSlowly, () => slowVersion);
}
