// A search that goes on in the background over all of the output, also over what comes while it runs.

import type { OutputLog, Source } from "./log.ts";
import { PAGE } from "./log.ts";
import { MAX_MATCHES, Scanner, type Finder, type Match } from "./search.ts";

export class Searching {
  readonly scanner: Scanner;
  running = false;
  stopped = false;
  error: unknown;
  private readonly log: OutputLog;
  private readonly source: Source;
  private readonly stop = new AbortController();
  private readonly changed: () => void;
  private readonly unsubscribe: () => void;

  constructor(log: OutputLog, source: Source, find: Finder, changed: () => void, max = MAX_MATCHES) {
    this.log = log;
    this.source = source;
    this.changed = changed;
    this.scanner = new Scanner(find, 0, max);
    this.unsubscribe = log.subscribe(() => {
      if (!this.running && this.more) void this.run();
    });
    void this.run();
  }

  get matches(): readonly Match[] {
    return this.scanner.matches;
  }

  private get more(): boolean {
    const { full, scanned, unfinished } = this.scanner;
    return !full && (scanned < this.log.total || (this.log.complete && unfinished));
  }

  halt(): void {
    this.close();
    this.running = false;
    this.changed();
  }

  close(): void {
    this.unsubscribe();
    this.stopped = true;
    this.stop.abort();
  }

  private async run(): Promise<void> {
    if (this.running || this.stopped) return;
    this.running = true;
    this.changed();
    try {
      let last = performance.now();
      while (!this.stopped && !this.scanner.full && this.scanner.scanned < this.log.total) {
        const at = this.scanner.scanned;
        const { rows } = this.log;
        if (at >= rows.base && at < rows.end) {
          const end = Math.min(rows.end, at + PAGE);
          this.scanner.feed([...rows.between(at, end)], end);
        } else {
          const { chunks, next } = await this.source.page(at, PAGE, this.stop.signal);
          if (this.stopped) return;
          // What retention has removed is passed over.
          this.scanner.feed(chunks, Math.max(next, at + 1));
        }
        // The page stays responsive, whatever it finds.
        if (performance.now() - last > 12) {
          await new Promise((resolve) => setTimeout(resolve));
          last = performance.now();
          this.changed();
        }
      }
      if (this.log.complete && this.scanner.scanned >= this.log.total) this.scanner.finish();
    } catch (error) {
      if (this.stopped) return;
      this.error = error;
      this.stopped = true;
    } finally {
      this.running = false;
      this.changed();
    }
  }
}
