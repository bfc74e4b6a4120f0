// The output of one command: how far it was read, in bytes from the start of each stream, and how it goes on there.

import type { MessageInitShape } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { invalid, protocolError, unreachable, type TelexecError } from "./error.js";
import { pollBytes, type Cursor } from "./follow.js";
import { CommandState, Stream, type Command } from "./gen/telexec/v1/command_pb.js";
import { StreamOutputRequestSchema, type OutputChunk, type OutputComplete, type OutputGap, type StreamOutputResponse } from "./gen/telexec/v1/command_service_pb.js";
import type { SocketMessage } from "./gen/telexec/v1/socket_pb.js";
import type { Subscribe } from "./link.js";
import type { Rest } from "./rest.js";
import { routes } from "./routes.js";

/** One of the two output streams of a command. */
export type StreamName = "stdout" | "stderr";

/** Bytes of a stream. Within a stream they follow each other exactly. */
export interface OutputChunkEvent {
  readonly type: "chunk";
  readonly stream: StreamName;
  /** Of the first byte, from the start of the stream. */
  readonly offset: number;
  /** How many bytes of both streams together lie before the first byte, in the order in which the service got them. */
  readonly position: number;
  readonly data: Uint8Array;
}

/** Bytes that are not stored any more; the stream goes on behind them. */
export interface OutputGapEvent {
  readonly type: "gap";
  readonly stream: StreamName;
  /** First byte that is missing. */
  readonly from: number;
  /** First byte behind the gap. */
  readonly to: number;
}

/** What is told of the output of a command. */
export type OutputEvent =
  | OutputChunkEvent
  | OutputGapEvent
  /** The command has changed, or this is how it is when following begins. */
  | { readonly type: "command"; readonly command: Command }
  /** All output there will ever be was told. */
  | { readonly type: "complete"; readonly stdoutBytes: number; readonly stderrBytes: number }
  /** The last event: the command as it ended. */
  | { readonly type: "ended"; readonly command: Command };

/** Where following begins, and of what. */
export interface OutputStart {
  /** First byte of stdout; 0 unless told. Not together with position. */
  readonly stdoutOffset?: number | undefined;
  /** First byte of stderr. */
  readonly stderrOffset?: number | undefined;
  /** Begin behind so many bytes of both streams together. */
  readonly position?: number | undefined;
  /** Which streams; both unless told. */
  readonly streams?: readonly StreamName[] | undefined;
  /** Milliseconds after which the service shows that it is there where nothing else happens, 1,000 to 300,000; 10,000 unless told. */
  readonly heartbeat?: number | undefined;
}

const pollWaitMs = 25_000;

const streamNames = new Map<Stream, StreamName>([
  [Stream.STDOUT, "stdout"],
  [Stream.STDERR, "stderr"],
]);

/** hasEnded reports whether a command in this state never changes again. */
export function hasEnded(state: CommandState): boolean {
  return state >= CommandState.COMPLETED;
}

export function chunkEvent(c: OutputChunk): OutputChunkEvent {
  return { type: "chunk", stream: nameOf(c.stream), offset: Number(c.offset), position: Number(c.position), data: c.data };
}

export function gapEvent(g: OutputGap): OutputGapEvent {
  return { type: "gap", stream: nameOf(g.stream), from: Number(g.from), to: Number(g.to) };
}

function nameOf(s: Stream): StreamName {
  const name = streamNames.get(s);
  if (name === undefined) throw protocolError(`the service tells of a stream ${s}, which there is not`);
  return name;
}

/** streamsOf gives the streams as a request has them. */
function streamsOf(names: readonly StreamName[] | undefined): Stream[] {
  return (names ?? []).map((n) => (n === "stdout" ? Stream.STDOUT : Stream.STDERR));
}

export class OutputCursor implements Cursor<OutputEvent> {
  readonly silenceMs: number;
  done = false;

  readonly #rest: Rest;
  readonly #id: string;
  readonly #o: OutputStart;
  /** The next byte of each stream to pass on; unknown at first where following began at a position. */
  readonly #next = new Map<StreamName, number>();
  /** Where to ask from, in place of #next, where the service has less than was read; see recover. */
  #rewound: Map<StreamName, number> | undefined;
  /** The next byte of both streams together. */
  #position: number;
  #command: Command | undefined;
  #complete = false;
  /** The command as the last poll found it, which has told all there was: what comes next is waited for. */
  #awaited: { readonly now: Command; readonly sent: OutputComplete } | undefined;

  constructor(rest: Rest, id: string, o: OutputStart) {
    for (const name of ["stdoutOffset", "stderrOffset", "position", "heartbeat"] as const) whole(name, o[name]);
    this.#rest = rest;
    this.#id = id;
    this.#o = o;
    // Three heartbeats and none came, but 25 s unless the caller wants another rhythm.
    this.silenceMs = o.heartbeat === undefined ? 25_000 : Math.max(3_000, 2.5 * o.heartbeat);
    this.#position = o.position ?? 0;
    if (this.#position === 0) {
      this.#next.set("stdout", o.stdoutOffset ?? 0);
      this.#next.set("stderr", o.stderrOffset ?? 0);
    }
  }

  subscribe(): Subscribe {
    return { case: "subscribeOutput", value: { ...this.#where(), follow: true } };
  }

  /** where is the request for what was not read yet. */
  #where(): MessageInitShape<typeof StreamOutputRequestSchema> {
    const request = { commandId: this.#id, streams: streamsOf(this.#o.streams), heartbeat: durationFromMs(this.#o.heartbeat ?? 10_000) };
    const at = this.#rewound ?? this.#next;
    const stdout = at.get("stdout");
    const stderr = at.get("stderr");
    // Offsets where they are known: unlike a position they cannot be taken amiss.
    if (stdout !== undefined && stderr !== undefined) return { ...request, stdoutOffset: BigInt(stdout), stderrOffset: BigInt(stderr) };
    return { ...request, position: BigInt(this.#position) };
  }

  accept(message: SocketMessage): OutputEvent[] {
    if (this.done) return [];
    const data = message.data?.data;
    switch (data?.case) {
      case "chunk":
        return this.#chunk(data.value);
      case "gap":
        return this.#gap(data.value);
      case "command":
        return this.#changed(data.value);
      case "outputComplete":
        return this.#completed(Number(data.value.stdoutBytes), Number(data.value.stderrBytes));
      case "ended":
        this.done = true;
        return [{ type: "ended", command: data.value }];
      default:
        return [];
    }
  }

  #chunk(c: OutputChunk): OutputEvent[] {
    const event = chunkEvent(c);
    const next = this.#next.get(event.stream) ?? event.offset;
    if (event.offset > next) {
      throw protocolError(`the service left out bytes ${next} to ${event.offset} of ${event.stream} without saying so`, "DATA_LOSS");
    }
    const known = Math.min(next - event.offset, event.data.length);
    const end = event.offset + event.data.length;
    if (known === event.data.length) return [];
    this.#next.set(event.stream, end);
    this.#position = event.position + event.data.length;
    if (known === 0) return [event];
    return [{ ...event, offset: event.offset + known, position: event.position + known, data: event.data.subarray(known) }];
  }

  #gap(g: OutputGap): OutputEvent[] {
    const event = gapEvent(g);
    const next = this.#next.get(event.stream) ?? event.from;
    if (event.to <= next) return [];
    this.#next.set(event.stream, event.to);
    return [{ ...event, from: Math.max(event.from, next) }];
  }

  /** changed passes on what is news: a subscription begins with the command as it is, also one that goes on. */
  #changed(c: Command): OutputEvent[] {
    const known = this.#command;
    if (known !== undefined && (c.version < known.version || (c.version === known.version && mark(c) === mark(known)))) return [];
    this.#command = c;
    return [{ type: "command", command: c }];
  }

  #completed(stdoutBytes: number, stderrBytes: number): OutputEvent[] {
    if (this.#complete) return [];
    this.#complete = true;
    return [{ type: "complete", stdoutBytes, stderrBytes }];
  }

  async poll(signal: AbortSignal, give: (events: OutputEvent[]) => void): Promise<boolean> {
    if (this.#awaited !== undefined) {
      const known = this.#awaited;
      this.#awaited = undefined;
      return this.#wait(known.now, known.sent, signal, give);
    }
    let now: Command | undefined;
    let sent: OutputComplete | undefined;
    let bytes = 0;
    const request = { ...this.#where(), limitBytes: BigInt(pollBytes) };
    for await (const said of this.#rest.lines(routes.streamOutput, request, { signal, silenceMs: pollWaitMs })) {
      if (signal.aborted) return false;
      if (said.event.case === "ended") now = said.event.value;
      else if (said.event.case === "outputComplete") sent = said.event.value;
      else give(this.#polled(said));
      if (said.event.case === "chunk") bytes += said.event.value.data.length;
    }
    if (signal.aborted) return false;
    if (now === undefined || sent === undefined) throw unreachable("the answer was cut off");
    const cut = bytes >= pollBytes;
    if (!cut && hasEnded(now.state) && this.#hasAll(sent, now)) {
      this.done = true;
      give([...this.#changed(now), ...this.#completed(Number(now.stdoutBytes), Number(now.stderrBytes)), { type: "ended", command: now }]);
      return true;
    }
    give(this.#changed(now));
    if (!cut && !hasEnded(now.state)) this.#awaited = { now, sent }; // otherwise there is more
    return true;
  }

  /** wait waits for news behind what a poll has found; it gives what poll gives. */
  async #wait(now: Command, sent: OutputComplete, signal: AbortSignal, give: (events: OutputEvent[]) => void): Promise<boolean> {
    const status = await this.#rest.wait(
      routes.getStatus,
      {
        commandId: this.#id,
        wait: durationFromMs(pollWaitMs),
        ifVersionGreaterThan: now.version,
        // Bytes behind what was sent are news, also those that came before now was told; the answer needs none of them.
        output: { limitBytes: 1, stdoutOffset: this.#wants("stdout") ? sent.stdoutBytes : now.stdoutBytes, stderrOffset: this.#wants("stderr") ? sent.stderrBytes : now.stderrBytes },
      },
      signal,
      pollWaitMs,
    );
    if (signal.aborted || status === undefined) return false;
    if (status.command && !hasEnded(status.command.state)) give(this.#changed(status.command));
    return true;
  }

  /** polled gives the events of a stream that does not follow: its completeness is only that of the moment. */
  #polled(said: StreamOutputResponse): OutputEvent[] {
    switch (said.event.case) {
      case "chunk":
        return this.#chunk(said.event.value);
      case "gap":
        return this.#gap(said.event.value);
      case "command":
        return this.#changed(said.event.value);
      default:
        return [];
    }
  }

  #wants(s: StreamName): boolean {
    return this.#o.streams === undefined || this.#o.streams.length === 0 || this.#o.streams.includes(s);
  }

  /** hasAll reports whether what was sent is all that the command, as it was told behind, has printed. */
  #hasAll(sent: OutputComplete, c: Command): boolean {
    return (!this.#wants("stdout") || sent.stdoutBytes >= c.stdoutBytes) && (!this.#wants("stderr") || sent.stderrBytes >= c.stderrBytes);
  }

  async recover(error: TelexecError, signal: AbortSignal): Promise<boolean> {
    if (error.code !== "OUT_OF_RANGE" || this.#command === undefined || this.#rewound !== undefined) return false;
    // The service has less than was read: it was killed before the last bytes were stored, and the command ended with it.
    // Nothing more comes, but the end is still to be told.
    const { command } = await this.#rest.call(routes.getStatus, { commandId: this.#id, output: { omit: true } }, { signal });
    if (command === undefined) return false;
    this.#rewound = new Map<StreamName, number>([
      ["stdout", Math.min(this.#next.get("stdout") ?? 0, Number(command.stdoutBytes))],
      ["stderr", Math.min(this.#next.get("stderr") ?? 0, Number(command.stderrBytes))],
    ]);
    return true;
  }

  size(event: OutputEvent): number {
    switch (event.type) {
      case "chunk":
        return event.data.length + 256;
      case "command":
      case "ended":
        return sizeOf(event.command);
      default:
        return 256;
    }
  }
}

/** sizeOf gives how much memory a command takes, about: what may be large of it is the command line. */
export function sizeOf(c: Command): number {
  return 2_048 + 2 * c.command.length;
}

/** whole refuses what cannot be a number of bytes or of changes. */
export function whole(name: string, n: number | bigint | undefined): void {
  if (n === undefined || (n >= 0 && (typeof n === "bigint" || Number.isSafeInteger(n)))) return;
  throw invalid(`${name} is ${n}, and must be a whole number from 0 on`, `Give ${name} as an earlier event had it`);
}

/** mark tells states of a command of one version apart: what changes without a new one. */
export function mark(c: Command): string {
  return [c.watchers, c.progress?.percent, c.progress?.label, c.queue?.position, c.connection].join("\n");
}
