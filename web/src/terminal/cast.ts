// A recording in the format asciicast v2 (https://docs.asciinema.org/manual/asciicast/v2/), read as it comes: one line of
// JSON with the size, then one for each event, [seconds, kind, data].

/** What a terminal is given, and when. */
export type Frame =
  | { readonly at: number; readonly kind: "output"; readonly data: string | Uint8Array }
  | { readonly at: number; readonly kind: "size"; readonly columns: number; readonly rows: number };

/** A place that has a name: a command was begun there, or the recording ends early. */
export interface Mark {
  readonly at: number;
  readonly label: string;
}

export interface Header {
  readonly columns: number;
  readonly rows: number;
  /** When it was recorded. */
  readonly time: Date | undefined;
  readonly title: string;
}

/** A line is a write of at most 64 KiB, escaped; one without an end is none of ours. */
const MAX_LINE = 4 << 20;

export class CastReader {
  header: Header | undefined;
  readonly frames: Frame[] = [];
  readonly marks: Mark[] = [];
  /** Lines that could not be read. */
  bad = 0;

  readonly #decoder = new TextDecoder();
  #rest = "";
  #overlong = false;
  /** The bytes of the output event that comes next, where its text could not have them. */
  #exact: Uint8Array | undefined;
  #last = 0;

  /** How long it is, in seconds. */
  get duration(): number {
    return this.#last;
  }

  /** Takes a piece of the file. A line whose end has not come yet waits for the next one. */
  push(data: Uint8Array): void {
    const lines = (this.#rest + this.#decoder.decode(data, { stream: true })).split("\n");
    this.#rest = lines.pop() ?? "";
    for (const line of lines) {
      if (this.#overlong) this.#overlong = false;
      else this.#line(line);
    }
    if (this.#rest.length > MAX_LINE) {
      if (!this.#overlong) this.bad++;
      this.#overlong = true;
      this.#rest = "";
    }
  }

  /** Says that nothing more comes: a last line may have no end. */
  end(): void {
    const last = this.#rest + this.#decoder.decode();
    this.#rest = "";
    // One that was cut off in its middle is no mistake of the file.
    if (last !== "" && !this.#overlong && complete(last)) this.#line(last);
  }

  #line(text: string): void {
    if (text.trim() === "") return;
    let value: unknown;
    try {
      value = JSON.parse(text);
    } catch {
      this.bad++;
      return;
    }
    if (this.header === undefined) this.#header(value);
    else this.#event(value);
  }

  #header(value: unknown): void {
    const h = value as { version?: unknown; width?: unknown; height?: unknown; timestamp?: unknown; title?: unknown } | null;
    if (typeof h !== "object" || h === null || h.version !== 2 || !isSize(h.width, 1000) || !isSize(h.height, 1000)) {
      throw new Error("this is no recording in the format asciicast v2");
    }
    this.header = {
      columns: h.width,
      rows: h.height,
      time: typeof h.timestamp === "number" ? new Date(h.timestamp * 1000) : undefined,
      title: typeof h.title === "string" ? h.title : "",
    };
  }

  #event(value: unknown): void {
    if (!Array.isArray(value) || typeof value[0] !== "number" || !(value[0] >= 0) || typeof value[1] !== "string" || typeof value[2] !== "string") {
      this.bad++;
      return;
    }
    // Time never goes back, whatever the file says: a player could not.
    const at = Math.max(this.#last, value[0]);
    const data = value[2];
    switch (value[1]) {
      case "o": {
        const exact = this.#exact;
        this.#exact = undefined;
        this.frames.push({ at, kind: "output", data: exact ?? data });
        break;
      }
      case "x-telexec-bytes":
        this.#exact = bytesOf(data);
        if (this.#exact === undefined) this.bad++;
        return; // no moment of its own
      case "r": {
        const [, columns, rows] = /^(\d{1,4})x(\d{1,4})$/.exec(data) ?? [];
        if (columns === undefined || !isSize(Number(columns), 1000) || !isSize(Number(rows), 1000)) {
          this.bad++;
          return;
        }
        this.frames.push({ at, kind: "size", columns: Number(columns), rows: Number(rows) });
        break;
      }
      case "m":
        this.marks.push({ at, label: data });
        break;
      default: // what others may have put there: players pass over it
        return;
    }
    this.#last = at;
  }
}

function isSize(n: unknown, most: number): n is number {
  return Number.isInteger(n) && (n as number) >= 1 && (n as number) <= most;
}

function complete(line: string): boolean {
  try {
    JSON.parse(line);
    return true;
  } catch {
    return false;
  }
}

function bytesOf(base64: string): Uint8Array | undefined {
  try {
    return Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
  } catch {
    return undefined;
  }
}
