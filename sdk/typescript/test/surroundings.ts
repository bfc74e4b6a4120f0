import { Telexec, type TelexecOptions } from "@telexec/client";

/** What a case runs in: a real service, and what can be done to the way there. */
export interface Surroundings {
  /** Of the service, by a way on which faults happen. */
  readonly url: string;
  readonly token: string;
  readonly host: string;
  readonly transport: "websocket" | "polling";
  readonly faults: Faults;
  readonly service: Service;
}

/** What happens on the way to the service. */
export interface Faults {
  /** Cuts all connections that there are. */
  cut(): Promise<void>;
  /** Takes connections and passes nothing on, as a network that drops packets. */
  hang(on: boolean): Promise<void>;
  /** Breaks a connection as soon as the service answers on it, for the next n answers. */
  swallow(n: number): Promise<void>;
  /** Answers a handshake as a proxy does that does not know WebSockets. */
  refuseUpgrades(on: boolean): Promise<void>;
  /** Passes everything on so much later. */
  delay(ms: number): Promise<void>;
  /** How many bytes the service has sent so far. */
  received(): Promise<number>;
}

/** What is done to the service itself. */
export interface Service {
  /** Ends it as an operator does, and starts it again. */
  restart(): Promise<void>;
  /** The same with kill -9. */
  kill(): Promise<void>;
}

export interface Case {
  readonly name: string;
  /** Only where output comes over that. */
  readonly over?: "websocket" | "polling";
  run(s: Surroundings): Promise<void>;
}

/** withClient gives a case a client of its own, and closes it. */
export async function withClient<T>(s: Surroundings, use: (c: Telexec) => Promise<T>, o: TelexecOptions = {}): Promise<T> {
  const client = new Telexec({ baseUrl: s.url, token: s.token, transport: s.transport, ...o });
  try {
    return await use(client);
  } finally {
    client.close();
  }
}

export function ok(value: unknown, message: string): asserts value {
  if (!value) throw new Error(message);
}

export function equal(got: unknown, want: unknown, what: string): void {
  const show = (v: unknown): string => JSON.stringify(v, (_, x: unknown) => (typeof x === "bigint" ? `${x}n` : x)) ?? "undefined";
  if (show(got) !== show(want)) throw new Error(`${what}: got ${show(got)}, want ${show(want)}`);
}

/** rejected gives the error that a promise ends with. */
export async function rejected(work: Promise<unknown>): Promise<unknown> {
  try {
    await work;
  } catch (e) {
    return e;
  }
  throw new Error("it did not fail");
}

/** until waits until a condition holds, for a while. */
export async function until(condition: () => boolean): Promise<void> {
  const late = Date.now() + 30_000;
  while (!condition()) {
    if (Date.now() > late) throw new Error(`waited in vain for ${condition.toString()}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

export const text = (b: Uint8Array): string => new TextDecoder().decode(b);

export async function sha256(parts: readonly Uint8Array[]): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", await new Blob([...parts] as BlobPart[]).arrayBuffer());
  return Array.from(new Uint8Array(digest), (b) => b.toString(16).padStart(2, "0")).join("");
}
