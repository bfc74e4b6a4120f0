/** How long to wait between attempts. */
export interface BackoffOptions {
  /** The longest first pause; 250 ms unless told. */
  readonly firstMs?: number | undefined;
  /** The longest pause of all; 15 s unless told. */
  readonly maxMs?: number | undefined;
}

/** What timers can wait, in milliseconds; a longer one would be over at once. */
export const longestTimer = 2 ** 31 - 1;

/**
 * Pauses that double, each anything from nothing to its whole length ("full jitter"), so that the clients of a service
 * that has come back do not all come back at once.
 */
export class Backoff {
  readonly #first: number;
  readonly #max: number;
  #attempts = 0;

  constructor(o: BackoffOptions = {}) {
    this.#first = o.firstMs ?? 250;
    this.#max = o.maxMs ?? 15_000;
  }

  /** How many pauses were taken since the last reset. */
  get attempts(): number {
    return this.#attempts;
  }

  /** next gives the next pause in milliseconds, at least as long as was asked for. */
  next(atLeast = 0): number {
    const longest = Math.min(this.#max, this.#first * 2 ** Math.min(this.#attempts++, 30));
    return Math.min(longestTimer, atLeast + Math.random() * longest);
  }

  reset(): void {
    this.#attempts = 0;
  }
}
