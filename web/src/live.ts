// What happens in the service, as it happens: one subscription for the whole page.

import { useCallback, useSyncExternalStore } from "react";
import type { Command } from "@telexec/client";
import { client, problemOf } from "./client.ts";
import { hasEnded } from "./format.ts";
import { Known } from "./known.ts";

/** Ended commands that are remembered beside those that have not ended. */
const MAX_ENDED = 500;
/** How often the page is drawn anew, however much happens. */
const PAUSE = 30;
/** And those parts of it for which the service is asked something. */
const LONG_PAUSE = 1000;

const known = new Known<Command>(hasEnded, MAX_ENDED);
const listeners = new Set<() => void>();
const patient = new Set<() => void>();
let synced = false;
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

// Many changes that come at once are one for the page; the first of them does not wait.
function tell(): void {
  if (scheduled) return;
  scheduled = true;
  const act = (): void => {
    scheduled = false;
    told = performance.now();
    known.settle();
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
      else if (event.type === "synced") {
        synced = true;
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
