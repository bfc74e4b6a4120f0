import { Link, type ConnectionState, type LinkOptions } from "./link.js";

/** Which of several states is that of all: what people want to know first. */
const order: readonly ConnectionState["state"][] = ["reconnecting", "connecting", "polling", "live", "idle"];

/** The links of a client: one, and another where a socket takes no more. */
export class Links {
  readonly #o: LinkOptions;
  readonly #all: Link[] = [];
  readonly #watchers = new Set<(state: ConnectionState) => void>();
  #state: ConnectionState = { state: "idle", attempt: 0 };
  #closed = false;

  constructor(o: LinkOptions) {
    this.#o = o;
  }

  get state(): ConnectionState {
    return this.#state;
  }

  /** pick gives a link that takes one more follower. */
  pick(): Link {
    let link = this.#all.find((l) => !l.full);
    if (link === undefined) {
      link = new Link(this.#o, () => this.#changed());
      if (this.#closed) link.close();
      this.#all.push(link);
    }
    return link;
  }

  watch(callback: (state: ConnectionState) => void): () => void {
    this.#watchers.add(callback);
    return () => this.#watchers.delete(callback);
  }

  retryNow(): void {
    for (const link of this.#all) link.retryNow();
  }

  close(): void {
    this.#closed = true;
    for (const link of this.#all) link.close();
  }

  #changed(): void {
    let worst: ConnectionState | undefined;
    for (const { state } of this.#all) {
      if (worst === undefined || order.indexOf(state.state) < order.indexOf(worst.state)) worst = state;
    }
    if (worst === undefined || same(worst, this.#state)) return;
    this.#state = worst;
    for (const callback of [...this.#watchers]) {
      try {
        callback(worst);
      } catch (e) {
        // The caller's mistake is told where such are told, and does not stop what is followed.
        queueMicrotask(() => {
          throw e;
        });
      }
    }
  }
}

function same(a: ConnectionState, b: ConnectionState): boolean {
  return a.state === b.state && a.attempt === b.attempt && a.retryAt?.getTime() === b.retryAt?.getTime() && a.reason === b.reason;
}
