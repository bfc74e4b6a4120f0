// Following: what the service says is taken by a cursor, which knows how far it is, and waits in a bounded queue for the
// consumer. What is lost on the way, and what has no room in the queue, is asked for again from the cursor; so that
// nothing is ever missing or there twice, and a consumer that does not pull costs neither memory nor anybody's time.

import { Linked, pause } from "./abort.js";
import { Backoff, type BackoffOptions } from "./backoff.js";
import { TelexecError, fromStatus, protocolError, unreachable } from "./error.js";
import type { SocketMessage } from "./gen/telexec/v1/socket_pb.js";
import type { ConnectionState, Follower, Link, Subscribe } from "./link.js";

/** The connection of a stream was lost, or is back, or is another one; the stream itself goes on. */
export interface ConnectionEvent {
  readonly type: "connection";
  readonly connection: ConnectionState;
}

/** A cursor is how far following has come. */
export interface Cursor<E> {
  readonly silenceMs: number;
  /** It has ended: nothing more comes. */
  readonly done: boolean;
  /** What to ask a socket for now. */
  subscribe(): Subscribe;
  /** What of a message is new; behind the end, nothing. It rejects by a TelexecError what cannot be. */
  accept(message: SocketMessage): E[];
  /**
   * poll asks over HTTP for what is new, and waits a while where there is nothing. What it gives, the consumer has when
   * it is over: it neither waits behind that nor gives much more than pollBytes. It may be given up at any time: what it
   * gave counts. false: it was given up, or has not asked, so that nothing is known of the service.
   */
  poll(signal: AbortSignal, give: (events: E[]) => void): Promise<boolean>;
  /**
   * recover finds out whether another attempt is worth it after a failure that is not temporary, and then goes on;
   * otherwise it gives false.
   */
  recover(error: TelexecError, signal: AbortSignal): Promise<boolean>;
  /** How much memory an event takes, about. */
  size(event: E): number;
}

/** What waits for the consumer: beyond high the subscription is ended, and made again when there is less than low. */
const high = 1 << 20;
const low = 256 << 10;

/** About how much a poll gives. */
export const pollBytes = 512 << 10;

/** The consumer does not want more. */
const finished = Symbol("finished");

/** follow gives what a cursor gives, one by one. It begins with the first pull. */
export function follow<E>(
  pick: () => Link,
  cursor: Cursor<E>,
  o: { readonly signal: AbortSignal | undefined; readonly backoff: BackoffOptions | undefined },
): AsyncIterableIterator<E | ConnectionEvent> {
  const following = new Following(pick, cursor, o.signal, o.backoff);
  const events = following.events();
  return {
    [Symbol.asyncIterator]() {
      return this;
    },
    next: () => events.next(),
    // Also while a pull waits, which a generator alone would let wait on.
    return: async () => {
      following.finish();
      await events.return();
      return { done: true, value: undefined };
    },
  };
}

class Following<E> implements Follower {
  readonly #pick: () => Link;
  readonly #cursor: Cursor<E>;
  readonly #signal: AbortSignal | undefined;
  readonly #backoff: Backoff;

  readonly #queue: (E | ConnectionEvent)[] = [];
  #bytes = 0;
  /** Nothing is subscribed, because the queue is full or a failure is being thought over. */
  #held = false;
  #link: Link | undefined;
  #error: TelexecError | undefined;
  /** A failure that may pass. */
  #trouble: TelexecError | undefined;
  #wake: (() => void) | undefined;
  /** The consumer has been told that the connection is not what it was. */
  #told = false;
  /** Of the caller's patience; undefined before the first pull, so that a stream nobody reads holds nobody's signal. */
  #until: Linked | undefined;
  /** Ends a poll, or the pause behind it. */
  #poll: Linked | undefined;

  constructor(pick: () => Link, cursor: Cursor<E>, signal: AbortSignal | undefined, backoff: BackoffOptions | undefined) {
    this.#pick = pick;
    this.#cursor = cursor;
    this.#signal = signal;
    this.#backoff = new Backoff(backoff);
  }

  finish(): void {
    this.#until?.abort(finished);
  }

  async *events(): AsyncGenerator<E | ConnectionEvent, void, undefined> {
    const until = (this.#until = new Linked(this.#signal));
    const { signal } = until;
    const wake = (): void => this.#wake?.();
    signal.addEventListener("abort", wake);
    const link = (this.#link = this.#pick());
    try {
      if (!signal.aborted) link.attach(this);
      while (!signal.aborted) {
        const event = this.#queue.shift();
        if (event !== undefined) {
          this.#bytes -= this.#size(event);
          yield event;
          if (this.#held && this.#trouble === undefined && this.#bytes <= low) this.#release(link);
        } else if (this.#cursor.done) {
          return;
        } else if (this.#error !== undefined) {
          throw this.#error;
        } else if (this.#trouble !== undefined) {
          await this.#recover(this.#trouble, link, signal);
        } else if (link.polling) {
          await this.#ask(link, signal);
        } else {
          await new Promise<void>((resolve) => (this.#wake = resolve));
        }
      }
      if (signal.reason !== finished) throw signal.reason;
    } finally {
      link.detach(this);
      signal.removeEventListener("abort", wake);
      until.free();
    }
  }

  /** recover waits until what has failed may work. */
  async #recover(error: TelexecError, link: Link, signal: AbortSignal): Promise<void> {
    try {
      // A token that is given anew before each request may be good again.
      if (error.code === "UNAUTHENTICATED") await link.check(signal);
      if (error.temporary || error.code === "UNAUTHENTICATED" || (await this.#cursor.recover(error, signal))) {
        await this.#pause(this.#backoff.next(error.retryDelayMs), signal);
        this.#trouble = undefined;
        this.#release(link);
        return;
      }
      this.#error = error;
    } catch (e) {
      if (signal.aborted) return; // seen by the loop
      if (!(e instanceof TelexecError)) throw e;
      this.#trouble = e;
      if (!e.temporary) this.#error = e;
    }
  }

  /** ask polls once. */
  async #ask(link: Link, signal: AbortSignal): Promise<void> {
    const poll = new Linked(signal);
    this.#poll = poll;
    try {
      const asked = await this.#cursor.poll(poll.signal, (events) => this.#push(events));
      if (!asked) return;
      this.#backoff.reset();
      link.pollWorked();
    } catch (e) {
      if (poll.signal.aborted) return; // seen by the loop
      if (!(e instanceof TelexecError)) throw e;
      if (!e.temporary) {
        this.#trouble = e;
        return;
      }
      const delay = this.#backoff.next(e.retryDelayMs);
      link.pollFailed(e, this.#backoff.attempts, new Date(Date.now() + delay));
      await this.#pause(delay, signal);
    } finally {
      this.#poll = undefined;
      poll.free();
    }
  }

  /**
   * pause waits, but not beyond the caller's patience or the need for it. Events do not end it: when many poll for a
   * service that is gone, each failure is an event for all the others.
   */
  async #pause(ms: number, signal: AbortSignal): Promise<void> {
    const waiting = new Linked(signal);
    this.#poll = waiting;
    try {
      await pause(ms, waiting.signal);
    } catch {
      // It is over; the loop sees why.
    } finally {
      this.#poll = undefined;
      waiting.free();
    }
  }

  #release(link: Link): void {
    this.#held = false;
    link.resubscribe(this);
  }

  #hold(): void {
    this.#held = true;
    this.#link?.unsubscribe(this);
  }

  #push(events: readonly (E | ConnectionEvent)[]): void {
    for (const e of events) {
      this.#queue.push(e);
      this.#bytes += this.#size(e);
    }
    this.#wake?.();
  }

  #size(event: E | ConnectionEvent): number {
    return isConnection(event) ? 0 : this.#cursor.size(event);
  }

  // ── of the link ─────────────────────────────────────────────────────────────────────────────────────────────────

  get silenceMs(): number {
    return this.#cursor.silenceMs;
  }

  subscribe(): Subscribe | undefined {
    return this.#held || this.#cursor.done ? undefined : this.#cursor.subscribe();
  }

  receive(message: SocketMessage): void {
    try {
      const data = message.data?.data;
      if (data?.case === "error") throw fromStatus(data.value);
      // Nobody has asked for that: the answer to unsubscribe is not told to the one who left.
      if (data?.case === "unsubscribed") throw unreachable("the service has ended the subscription");
      const events = this.#cursor.accept(message);
      if (events.length > 0) this.#backoff.reset();
      this.#push(events);
    } catch (e) {
      this.#hold();
      // Whatever else it is, it must not end the socket's own work.
      this.#trouble = e instanceof TelexecError ? e : protocolError(`the service said something that cannot be: ${String(e)}`, "INTERNAL", e);
      this.#wake?.();
      return;
    }
    if (this.#bytes > high && !this.#cursor.done) this.#hold();
  }

  fail(error: TelexecError): void {
    this.#error ??= error;
    this.#wake?.();
    this.#poll?.abort();
  }

  hurry(): void {
    this.#poll?.abort();
  }

  stateChanged(connection: ConnectionState): void {
    if (connection.state === "live") this.hurry();
    const news = connection.state === "reconnecting" || connection.state === "polling" || (connection.state === "live" && this.#told);
    if (!news) return;
    this.#told = connection.state !== "live";
    // Only the newest counts of several in a row.
    const last = this.#queue.at(-1);
    if (last !== undefined && isConnection(last)) this.#queue.pop();
    this.#push([{ type: "connection", connection }]);
  }
}

function isConnection<E>(event: E | ConnectionEvent): event is ConnectionEvent {
  return typeof event === "object" && event !== null && "type" in event && event.type === "connection";
}
