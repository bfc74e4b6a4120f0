// What time it is: for everything that ticks, so that all of it ticks at once, and for the service, whose clock need not
// be that of the browser.

import { useSyncExternalStore } from "react";
import { aheadBy } from "./skew.ts";

const ticking = new Set<() => void>();
let now = Date.now();
let timer: ReturnType<typeof setInterval> | undefined;
let ahead = 0;

// It stands still while nobody looks.
function tick(listener: () => void): () => void {
  ticking.add(listener);
  if (timer === undefined) {
    now = Date.now();
    timer = setInterval(() => {
      if (document.visibilityState === "hidden") return;
      now = Date.now();
      for (const each of ticking) each();
    }, 500);
  }
  return () => {
    ticking.delete(listener);
    if (ticking.size === 0) {
      clearInterval(timer);
      timer = undefined;
    }
  };
}

const never = (): (() => void) => () => undefined;

/** The time of this browser in milliseconds, twice a second. */
export function useNow(wanted = true): number {
  return useSyncExternalStore(wanted ? tick : never, () => now);
}

/** The time of the service, for what it has dated. */
export function useServiceNow(wanted = true): number {
  return useNow(wanted) + ahead;
}

/** Notes what the service's clock said when it was asked, as far as sent and received let one know. */
export function noteServiceTime(service: number, sent: number, received: number): void {
  ahead = aheadBy(ahead, service, sent, received);
}
