// The output of one command as it is looked at: a window of it in memory, which follows the end while the command
// runs, or stands where somebody reads, and gets its neighbourhood in pages.
//
//	0 ──────────────[ base ······ rows ······ end ]────────── streamed ┄┄▶
//	                 ▲ pages before    pages behind ▲        the stream
//
// The stream runs all the time, so that what comes is counted; its bytes are kept only where the window reaches it.

import { firstRowStart, Rows, type Chunk } from "./rows.ts";

export type Piece =
  | ({ type: "chunk" } & Chunk)
  | { type: "complete" }
  | { type: "other" };

/** Where the bytes come from. */
export interface Source {
  /**
   * Both streams in the order of arrival; next is the position behind what was given. Bytes that are not stored any more
   * are passed over and do not count: what is given may lie behind position + limit.
   */
  page(position: number, limit: number, signal: AbortSignal): Promise<{ chunks: Chunk[]; next: number }>;
  stream(position: number, signal: AbortSignal): AsyncIterable<Piece>;
  /** How many bytes there are by now. */
  size(signal: AbortSignal): Promise<number>;
}

export const PAGE = 256 << 10;
/** A log of so many bytes is loaded whole, and a window holds so many at most. */
export const WINDOW = 4 << 20;
export const MAX_ROWS = 400_000;
/** How far before its end a large log is opened. */
export const TAIL = 512 << 10;
/** A follower that is so far behind goes on at the end. */
const MAX_LAG = 8 << 20;
/** So many bytes a second are a flood, in which one may fall behind. */
const FLOOD = 1 << 20;
/** What is not yet in rows; with more, the stream waits. */
const MAX_PENDING = 2 << 20;

export class OutputLog {
  rows = new Rows();
  /** How many bytes are known of. */
  total = 0;
  following = true;
  /** All there will ever be has come. */
  complete = false;
  /** The window's end is where the stream is. */
  attached = true;
  /** Lines that have come since following stopped. */
  missed = 0;
  /** What is awaited: "there" the first of the stream, the others pages: around the window, or elsewhere for a jump. */
  loading: "before" | "behind" | "elsewhere" | "there" | undefined = "there";
  error: unknown;
  /** What was jumped to, marked. */
  marked: number | undefined;
  /** Where to scroll to, as soon as it is there. */
  wanted: number | undefined;

  private version = 0;
  private readonly listeners = new Set<() => void>();
  private pending: Chunk[] = [];
  private pendingBytes = 0;
  private streamed = 0;
  private broken = false; // the stream has failed
  private recent = 0; // bytes in this second
  private asked = 0; // when
  private drained: (() => void) | undefined;
  private frame: (() => void) | undefined;
  private live = new AbortController();
  private paging = new AbortController();
  private readonly source: Source;

  constructor(source: Source) {
    this.source = source;
  }

  /** Opens the log, which has so many bytes by now: at a position, or at its end. */
  open(total: number, at: number | undefined): void {
    this.total = total;
    const small = total <= WINDOW;
    if (at !== undefined) {
      this.following = false;
      this.marked = at;
      this.wanted = at;
    }
    void this.restart(small ? 0 : Math.max(0, total - (at === undefined ? TAIL : 0)));
    if (!small && at !== undefined) void this.jump(at);
  }

  close(): void {
    this.live.abort();
    this.paging.abort();
    this.frame?.();
    this.frame = undefined;
    this.drained?.();
  }

  subscribe = (listener: () => void): (() => void) => {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  };

  snapshot = (): number => this.version;

  private changed(): void {
    this.version++;
    for (const listener of this.listeners) listener();
  }

  // restart reads the stream from a position on, with an empty window there; what is read again is not new.
  private async restart(position: number): Promise<void> {
    this.live.abort();
    this.paging.abort();
    const signal = (this.live = new AbortController()).signal;
    const { rows: before } = this;
    const again = position === before.base && before.count > 0;
    const empty = (this.rows = new Rows(position));
    if (again) empty.linesBefore = before.linesBefore;
    this.pending = [];
    this.pendingBytes = 0;
    this.frame?.();
    this.frame = undefined;
    this.drained?.();
    this.streamed = position;
    this.attached = true;
    this.complete = false;
    this.broken = false;
    this.error = undefined;
    this.loading = "there";
    let aligned = position === 0 || again;
    let next = position; // behind what the stream has brought
    try {
      for await (const piece of this.source.stream(position, signal)) {
        if (signal.aborted) return;
        if (piece.type === "complete") {
          this.flush();
          this.complete = true;
          this.loaded();
          this.changed();
        }
        if (piece.type !== "chunk") {
          // The stream has answered: an output without bytes is loaded too.
          if (this.loading === "there" && this.total === 0) {
            this.loaded();
            this.changed();
          }
          continue;
        }
        let { data, position: at } = piece;
        if (at < next && (this.attached || at < this.rows.end)) {
          // The service was killed, and what it had told but not stored has come from the host in another order.
          void this.restart(this.rows.base);
          return;
        }
        next = at + data.length;
        // Where a jump was faster there are rows already.
        if (!aligned && this.rows === empty) {
          const start = firstRowStart([piece]);
          data = data.subarray(start - at);
          at = start;
          this.rows = new Rows(start);
        }
        aligned = true;
        if (data.length === 0) continue;
        this.pending.push({ stream: piece.stream, position: at, data });
        this.pendingBytes += data.length;
        this.recent += data.length;
        this.schedule();
        if (this.pendingBytes > MAX_PENDING) {
          await new Promise<void>((resolve) => (this.drained = resolve));
        }
        if (signal.aborted) return;
        await this.keepUp(signal);
      }
      if (!signal.aborted) {
        this.flush();
        this.loaded();
        this.changed();
      }
    } catch (error) {
      if (signal.aborted) return;
      this.flush();
      this.broken = true;
      this.error = error;
      this.loaded();
      this.changed();
    }
  }

  // loaded tells that the stream has answered; pages that are under way still are.
  private loaded(): void {
    if (this.loading === "there") this.loading = undefined;
  }

  /** Tries again what has failed: the window and the stream from its beginning on, or a page. */
  retry(): void {
    const { rows, wanted } = this;
    const away = wanted !== undefined && (wanted < rows.base || wanted >= rows.end);
    if (this.broken) void this.restart(rows.base);
    this.error = undefined;
    if (away) void this.jump(wanted, false);
    this.changed();
  }

  // keepUp goes on at the end where a flood has left the follower behind.
  private async keepUp(signal: AbortSignal): Promise<void> {
    const now = performance.now();
    if (now - this.asked < 1000) return;
    const flood = this.recent > FLOOD;
    this.recent = 0;
    this.asked = now;
    if (!flood || !this.following) return;
    const size = await this.source.size(signal).catch(() => 0);
    if (signal.aborted || !this.following) return;
    this.total = Math.max(this.total, size);
    if (size - this.streamed - this.pendingBytes > MAX_LAG) void this.restart(size - TAIL);
  }

  // schedule puts what has come into rows with the next frame; a hidden tab has no frames.
  private schedule(): void {
    if (this.frame !== undefined) return;
    if (document.visibilityState === "visible") {
      const id = requestAnimationFrame(() => this.flush());
      this.frame = () => cancelAnimationFrame(id);
    } else {
      const id = setTimeout(() => this.flush(), 100);
      this.frame = () => clearTimeout(id);
    }
  }

  private flush(): void {
    this.frame?.();
    this.frame = undefined;
    const chunks = this.pending;
    this.pending = [];
    this.pendingBytes = 0;
    for (const chunk of chunks) {
      this.streamed = chunk.position + chunk.data.length;
      if (!this.following) this.missed += feeds(chunk.data.subarray(Math.max(0, this.total - chunk.position)));
      if (this.attached) this.rows.append(chunk);
    }
    this.total = Math.max(this.total, this.streamed);
    if (this.attached) this.loaded();
    if (this.following) {
      // In quarters, so that rows are not moved with every frame.
      if (this.rows.bytes > WINDOW || this.rows.count > MAX_ROWS) this.rows.trimFront((WINDOW * 3) / 4, (MAX_ROWS * 3) / 4);
    } else if (this.rows.bytes > WINDOW || this.rows.count > MAX_ROWS) {
      // Somebody reads here: what comes is counted, and fetched when it is wanted.
      this.attached = false;
    }
    this.drained?.();
    this.drained = undefined;
    this.changed();
  }

  pause(): void {
    if (!this.following) return;
    this.following = false;
    this.missed = 0;
    this.changed();
  }

  /** Goes to the end and stays there. */
  follow(): void {
    this.following = true;
    this.missed = 0;
    this.wanted = undefined;
    if (!this.attached) {
      void this.restart(this.total <= WINDOW ? 0 : Math.max(0, Math.max(this.total, this.streamed) - TAIL));
    }
    this.changed();
  }

  /** Shows the neighbourhood of a position and marks its row. */
  async jump(position: number, mark = true): Promise<void> {
    this.following = false;
    this.missed = 0;
    // An address may name a place that is not there.
    position = Math.max(0, Math.min(position, this.total - 1));
    if (mark) this.marked = position;
    this.wanted = position;
    if (position >= this.rows.base && position < this.rows.end) {
      // A jump that is under way goes elsewhere.
      if (this.loading === "elsewhere") {
        this.paging.abort();
        this.loading = undefined;
      }
      this.changed();
      return;
    }
    this.paging.abort();
    const signal = (this.paging = new AbortController()).signal;
    this.loading = "elsewhere";
    this.changed();
    try {
      const from = Math.max(0, position - PAGE / 2);
      const rows = new Rows(from);
      const end = Math.min(this.total, position + PAGE / 2);
      await this.fill(rows, end, position, signal);
      if (signal.aborted) return;
      this.rows = rows;
      this.attached = rows.end >= this.streamed;
      this.loading = undefined;
      this.error = undefined;
    } catch (error) {
      if (signal.aborted) return;
      this.loading = undefined;
      this.error = error;
    }
    this.changed();
  }

  // fill reads pages into rows up to an end. They begin with a whole row, unless a byte that must be in them lies before it.
  private async fill(rows: Rows, end: number, must: number, signal: AbortSignal): Promise<void> {
    let at = rows.end;
    let aligned = rows.base === 0 || rows.count > 0;
    while (at < end) {
      const { chunks, next } = await this.source.page(at, Math.min(PAGE, end - at), signal);
      const first = chunks[0];
      if (!aligned && first !== undefined && first.position <= must) {
        const start = firstRowStart(chunks);
        rows.base = rows.end = start <= must ? start : first.position;
      }
      if (first !== undefined) aligned = true;
      // What retention has removed shows as a gap where something follows.
      for (const { stream, position, data } of chunks) {
        if (position < end) rows.append({ stream, position, data: data.subarray(0, end - position) });
      }
      if (next <= at) return;
      at = next;
    }
  }

  /** Gets what lies before the window. */
  async before(): Promise<void> {
    if (this.loading !== undefined || this.rows.base === 0) return;
    const rows = this.rows;
    const signal = (this.paging = new AbortController()).signal;
    this.loading = "before";
    this.changed();
    try {
      const front = new Rows(Math.max(0, rows.base - PAGE));
      await this.fill(front, rows.base, rows.base - 1, signal);
      if (signal.aborted || this.rows !== rows) return;
      if (front.end < rows.base) front.gap(rows.base);
      rows.prepend(front);
      if (rows.trimBack(WINDOW, MAX_ROWS)) this.attached = false;
      this.loading = undefined;
    } catch (error) {
      if (signal.aborted) return;
      this.loading = undefined;
      this.error = error;
    }
    this.changed();
  }

  /** Gets what lies behind the window, where the stream does not bring it. */
  async behind(): Promise<void> {
    if (this.loading !== undefined || this.attached) return;
    const rows = this.rows;
    if (rows.end >= this.total) {
      // The window was full when the last of it came: what was read first makes room.
      rows.trimFront(WINDOW / 2, MAX_ROWS / 2);
      this.attached = rows.end >= this.streamed;
      this.changed();
      return;
    }
    const signal = (this.paging = new AbortController()).signal;
    this.loading = "behind";
    this.changed();
    try {
      await this.fill(rows, Math.min(rows.end + PAGE, this.total), rows.end, signal);
      if (signal.aborted || this.rows !== rows) return;
      rows.trimFront(WINDOW, MAX_ROWS);
      this.attached = rows.end >= this.streamed;
      this.loading = undefined;
    } catch (error) {
      if (signal.aborted) return;
      this.loading = undefined;
      this.error = error;
    }
    this.changed();
  }
}

function feeds(data: Uint8Array): number {
  let n = 0;
  for (let at = data.indexOf(0x0a); at >= 0; at = data.indexOf(0x0a, at + 1)) n++;
  return n;
}
