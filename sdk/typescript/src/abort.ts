// Waiting that can be given up.

/**
 * What waits for each signal, which has one listener for all of it: many streams may share a signal, and Node takes more
 * than ten listeners for a leak.
 */
const waiting = new WeakMap<AbortSignal, Set<(reason: unknown) => void>>();

function tell(e: Event): void {
  const signal = e.target as AbortSignal;
  const all = waiting.get(signal);
  waiting.delete(signal);
  for (const stop of all ?? []) stop(signal.reason);
}

function wait(signal: AbortSignal, stop: (reason: unknown) => void): void {
  let all = waiting.get(signal);
  if (all === undefined) {
    waiting.set(signal, (all = new Set()));
    signal.addEventListener("abort", tell);
  }
  all.add(stop);
}

function leave(signal: AbortSignal, stop: (reason: unknown) => void): void {
  const all = waiting.get(signal);
  if (!all?.delete(stop) || all.size > 0) return;
  waiting.delete(signal);
  signal.removeEventListener("abort", tell);
}

/** A signal that aborts with any of several others. Free it, so that a long-lived signal does not keep it. */
export class Linked {
  readonly #controller = new AbortController();
  readonly #sources: readonly AbortSignal[];
  readonly #abort = (reason: unknown): void => this.#controller.abort(reason);

  constructor(...sources: (AbortSignal | undefined)[]) {
    this.#sources = sources.filter((s) => s !== undefined);
    for (const s of this.#sources) {
      if (s.aborted) this.#controller.abort(s.reason);
      else wait(s, this.#abort);
    }
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  abort(reason?: unknown): void {
    this.#controller.abort(reason);
  }

  free(): void {
    for (const s of this.#sources) leave(s, this.#abort);
  }
}

/** unless gives what a promise gives, and rejects with the signal's reason where that comes first. */
export function unless<T>(signal: AbortSignal, work: Promise<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    const stop = (): void => reject(signal.reason);
    if (signal.aborted) stop();
    signal.addEventListener("abort", stop, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener("abort", stop));
  });
}

/** pause waits, and rejects with the signal's reason where that comes first. */
export function pause(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) {
      reject(signal.reason);
      return;
    }
    const stop = (): void => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, ms);
    signal?.addEventListener("abort", stop, { once: true });
  });
}
