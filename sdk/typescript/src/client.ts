import { clone, create, type MessageInitShape } from "@bufbuild/protobuf";
import { durationFromMs, type Duration } from "@bufbuild/protobuf/wkt";
import { pause } from "./abort.js";
import type { BackoffOptions } from "./backoff.js";
import { TelexecError, clientClosed, invalid, protocolError, unreachable } from "./error.js";
import { EventCursor, type CommandEvent, type EventsStart } from "./events.js";
import { follow, type ConnectionEvent } from "./follow.js";
import type * as admin from "./gen/telexec/v1/admin_service_pb.js";
import type * as approvals from "./gen/telexec/v1/approval_service_pb.js";
import { OutputOptionsSchema, type Command } from "./gen/telexec/v1/command_pb.js";
import { ExecuteRequestSchema } from "./gen/telexec/v1/command_service_pb.js";
import type * as commands from "./gen/telexec/v1/command_service_pb.js";
import type * as hosts from "./gen/telexec/v1/host_service_pb.js";
import type * as policy from "./gen/telexec/v1/policy_service_pb.js";
import type { Session } from "./gen/telexec/v1/session_pb.js";
import { KeySchema, OpenSessionRequestSchema } from "./gen/telexec/v1/session_service_pb.js";
import type * as sessions from "./gen/telexec/v1/session_service_pb.js";
import type { Task } from "./gen/telexec/v1/task_pb.js";
import { SubmitTaskRequestSchema } from "./gen/telexec/v1/task_service_pb.js";
import type * as tasks from "./gen/telexec/v1/task_service_pb.js";
import type { ConnectionState, WebSocketConstructor } from "./link.js";
import { Links } from "./links.js";
import { pages, type Pages } from "./list.js";
import { OutputCursor, chunkEvent, gapEvent, whole } from "./output.js";
import type { OutputChunkEvent, OutputEvent, OutputGapEvent, OutputStart } from "./output.js";
import { Rest, type CallOptions, type TokenSource } from "./rest.js";
import { routes } from "./routes.js";
import { TaskCursor, type TaskStart, type TaskWatchEvent } from "./tasks.js";
import { SessionTerminal, type AttachOptions } from "./terminal.js";

/** How to reach the service. In a page that it serves itself, nothing has to be told. */
export interface TelexecOptions {
  /** Where its HTTP port is: "http://127.0.0.1:7080". In a browser, where the page came from unless told. */
  readonly baseUrl?: string | undefined;
  /**
   * The API key, or a function that gives one and is asked before each request. None in a browser that has signed in. That
   * the function throws is final for the first one, and later like a lost connection, unless it is a TelexecError that is
   * not temporary.
   */
  readonly token?: TokenSource | undefined;
  /** In place of the global one. */
  readonly fetch?: typeof fetch | undefined;
  /** In place of the global one; null: never. */
  readonly WebSocket?: WebSocketConstructor | null | undefined;
  /** "auto": a WebSocket, and long-polling where it cannot be had. */
  readonly transport?: "auto" | "websocket" | "polling" | undefined;
  /** Pauses between attempts, which double, at random. */
  readonly backoff?: BackoffOptions | undefined;
  /** How long a call is tried again while the service cannot be reached, where that is harmless; 10,000 unless told, 0: never. */
  readonly retryForMs?: number | undefined;
}

/** Milliseconds, or a google.protobuf.Duration. */
export type DurationInit = number | Duration;

/** What run gives. */
export interface RunResult {
  /** The command as it ended: state, exitCode, failure. */
  readonly command: Command;
  readonly stdout: Uint8Array;
  readonly stderr: Uint8Array;
  /** There was more output than keepBytes, or the service did not keep all of it. */
  readonly truncated: boolean;
}

/** How a command is run and followed. */
export interface RunOptions extends CallOptions {
  /** Is given the output as it comes. Where it gives a promise, that is waited for before the next. */
  readonly onOutput?: ((chunk: OutputChunkEvent) => unknown) | undefined;
  /** Keep so many bytes of each stream for the result, from the beginning; all unless told. */
  readonly keepBytes?: number | undefined;
}

/** A part of the output in the order in which it came, as page gives it. */
export interface OutputPage {
  readonly chunks: OutputChunkEvent[];
  readonly gaps: OutputGapEvent[];
  /** The position behind it: where the next page begins. */
  readonly next: number;
  /** The command as it is. */
  readonly command: Command;
}

/** What is to be said about one approval. */
export type DecisionInit = MessageInitShape<typeof approvals.DecisionSchema>;

/** What is to be said about one approval of a task: yes or no, or what is to run instead. */
export interface TaskDecisionInit {
  readonly approvalId: string;
  readonly approved: boolean;
  /** Why; shown to whoever has asked. */
  readonly message?: string | undefined;
  /** With approved: run this instead. */
  readonly modified?: MessageInitShape<typeof approvals.ModifiedRequestSchema> | undefined;
  /** Approval.requestHash as it was shown; where it was shown to nobody, that of what waits now counts. */
  readonly requestHash?: Uint8Array | undefined;
}

/** What is to be undone of a task, and why. */
export interface TaskUndoInit {
  /** Name of the one step; all of them unless told, the last first. */
  readonly step?: string | undefined;
  /** Also what may have run; only people may say so. */
  readonly includeUnknown?: boolean | undefined;
  readonly reason?: string | undefined;
  /** Only tell what would run. */
  readonly preview?: boolean | undefined;
}

/** What to type: text as it is, or a key by its name: `{ name: "Ctrl+C" }`; see Key in the contract. */
export type KeyInit = string | { readonly name: string };

const defaultWaitMs = 30_000;
const defaultGraceMs = 500;
/** What connecting to a host and starting a shell may take, and ending all that is in one. */
const sessionMs = 90_000;
/** At the latest after so long the service tells of the screen that followed. */
const settleMs = 10_000;

/**
 * A client of one service. It may be used by many at once. What is followed shares one WebSocket, which is opened for
 * the first and closed a moment after the last; each 64 streams take another.
 */
export class Telexec {
  readonly #rest: Rest;
  readonly #links: Links;
  readonly #backoff: BackoffOptions | undefined;
  readonly #url: string;
  readonly #Socket: WebSocketConstructor | undefined;
  readonly #terminals = new Set<SessionTerminal>();
  #closed = false;

  constructor(o: TelexecOptions = {}) {
    const baseUrl = baseOf(o.baseUrl);
    this.#backoff = o.backoff;
    this.#rest = new Rest({
      baseUrl,
      token: o.token,
      fetch: o.fetch ?? ((input, init) => globalThis.fetch(input, init)),
      backoff: o.backoff,
      retryForMs: o.retryForMs ?? 10_000,
    });
    const Socket = o.transport === "polling" || o.WebSocket === null ? undefined : (o.WebSocket ?? globalSocket());
    if (Socket === undefined && o.transport === "websocket") {
      throw invalid(
        "there is no WebSocket here",
        "Give one as the option WebSocket, use Node 22, start Node 20 with --experimental-websocket, or leave out transport",
      );
    }
    this.#Socket = Socket;
    this.#url = baseUrl.replace(/^http/, "ws");
    this.#links = new Links({
      url: `${this.#url}/v1/socket`,
      token: () => this.#rest.token(),
      WebSocket: Socket,
      socketOnly: o.transport === "websocket",
      backoff: o.backoff,
      probe: (signal) => this.#rest.call({ ...routes.getServerInfo, repeatable: false }, {}, { signal }),
    });
  }

  // ── calls ───────────────────────────────────────────────────────────────────────────────────────────────────────

  /**
   * Starts a command and waits for its end up to `wait`, 30 s unless told. It always carries a request id, so that a
   * lost answer is asked for again and the command runs once. What lasts longer than some minutes is better run with run.
   */
  execute(request: MessageInitShape<typeof ExecuteRequestSchema>, o?: CallOptions): Promise<commands.ExecuteResponse> {
    const r = copyOf(request);
    if (r.requestId === "") r.requestId = randomId();
    // Said, so that it is known how long the answer may take.
    r.wait ??= durationFromMs(defaultWaitMs);
    return this.#rest.call(routes.execute, r, o, msOf(r.wait));
  }

  /** Tells where a command is. With wait it is a long-poll; see GetStatusRequest. */
  get(
    id: string,
    q: {
      readonly wait?: DurationInit | undefined;
      readonly ifVersionGreaterThan?: bigint | number | undefined;
      readonly output?: MessageInitShape<typeof commands.GetStatusRequestSchema>["output"];
    } = {},
    o?: CallOptions,
  ): Promise<commands.GetStatusResponse> {
    return this.#rest.call(
      routes.getStatus,
      {
        commandId: id,
        ...(q.wait === undefined ? {} : { wait: durationOf(q.wait) }),
        ...(q.ifVersionGreaterThan === undefined ? {} : { ifVersionGreaterThan: BigInt(q.ifVersionGreaterThan) }),
        ...(q.output === undefined ? {} : { output: q.output }),
      },
      o,
      q.wait === undefined ? 0 : msOf(q.wait),
    );
  }

  /** Ends a command and all its processes, and answers when their end is proven or the grace is over. Idempotent. */
  cancel(
    id: string,
    q: { readonly reason?: string | undefined; readonly grace?: DurationInit | undefined } = {},
    o?: CallOptions,
  ): Promise<commands.CancelResponse> {
    return this.#rest.call(
      routes.cancel,
      { commandId: id, reason: q.reason ?? "", ...(q.grace === undefined ? {} : { grace: durationOf(q.grace) }) },
      o,
      q.grace === undefined ? defaultGraceMs : msOf(q.grace),
    );
  }

  /** Sends one signal, "INT" or "USR1", to the command's process group. */
  signal(id: string, name: string, o?: CallOptions): Promise<commands.SignalResponse> {
    return this.#rest.call(routes.signal, { commandId: id, signal: name }, o);
  }

  /** Writes to the standard input of a command, at most 1 MiB; a string as UTF-8. */
  sendInput(
    id: string,
    data: Uint8Array | string,
    q: { readonly eof?: boolean | undefined } = {},
    o?: CallOptions,
  ): Promise<commands.SendInputResponse> {
    const bytes = typeof data === "string" ? new TextEncoder().encode(data) : new Uint8Array(data);
    return this.#rest.call(routes.sendInput, { commandId: id, data: bytes, eof: q.eof ?? false }, o);
  }

  /** Commands, newest first. */
  list(
    filter: MessageInitShape<typeof commands.ListCommandsRequestSchema> = {},
    o?: CallOptions,
  ): Pages<Command, commands.ListCommandsResponse> {
    return pages(
      (pageToken) => this.#rest.call(routes.listCommands, { ...filter, pageToken }, o),
      (p) => p.commands,
    );
  }

  // ── sessions ────────────────────────────────────────────────────────────────────────────────────────────────────

  /**
   * Starts a shell on a host, on a terminal that lasts, and answers when it has shown its prompt. Commands run in it by
   * execute or run with `session` in place of `host`. With a name and `reuse` one that is open is given instead.
   */
  openSession(request: MessageInitShape<typeof OpenSessionRequestSchema>, o?: CallOptions): Promise<sessions.OpenSessionResponse> {
    const r = create(OpenSessionRequestSchema, request);
    return this.#rest.call(r.reuse && r.name !== "" ? routes.reuseSession : routes.openSession, r, o, sessionMs);
  }

  /** A session, by its name or id: how it is, and who is there. */
  async session(session: string, o?: CallOptions): Promise<Session> {
    return there((await this.#rest.call(routes.getSession, { session }, o)).session, "session");
  }

  /** Sessions, newest first; with `ended` also those that are over. */
  sessions(filter: MessageInitShape<typeof sessions.ListSessionsRequestSchema> = {}, o?: CallOptions): Pages<Session, sessions.ListSessionsResponse> {
    return pages(
      (pageToken) => this.#rest.call(routes.listSessions, { ...filter, pageToken }, o),
      (p) => p.sessions,
    );
  }

  /** Ends the shell and what runs in it. Closing one that has ended is harmless. */
  closeSession(session: string, q: { readonly reason?: string | undefined } = {}, o?: CallOptions): Promise<sessions.CloseSessionResponse> {
    return this.#rest.call(routes.closeSession, { session, reason: q.reason ?? "" }, o, sessionMs);
  }

  /** The command that runs in a session, else its last; see GetStatusRequest. */
  statusInSession(session: string, o?: CallOptions): Promise<commands.GetStatusResponse> {
    return this.#rest.call(routes.sessionStatus, { session, output: { omit: true } }, o);
  }

  /** Ends what runs in a session, whoever typed it, and never its shell. With noTask in the answer nothing ran. */
  cancelInSession(
    session: string,
    q: { readonly reason?: string | undefined; readonly grace?: DurationInit | undefined } = {},
    o?: CallOptions,
  ): Promise<commands.CancelResponse> {
    return this.#rest.call(
      routes.cancelSession,
      { session, reason: q.reason ?? "", ...(q.grace === undefined ? {} : { grace: durationOf(q.grace) }) },
      o,
      q.grace === undefined ? defaultGraceMs : msOf(q.grace),
    );
  }

  /** What is on the screen now, as text. */
  screen(session: string, q: { readonly scrollback?: number | undefined } = {}, o?: CallOptions): Promise<sessions.ReadScreenResponse> {
    return this.#rest.call(routes.readScreen, { session, scrollbackLines: q.scrollback ?? 0 }, o);
  }

  /** Types, and gives the screen that follows once it has not changed for `settle`. */
  sendKeys(
    session: string,
    keys: readonly KeyInit[],
    q: { readonly settle?: DurationInit | undefined; readonly scrollback?: number | undefined } = {},
    o?: CallOptions,
  ): Promise<sessions.SendKeysResponse> {
    return this.#rest.call(
      routes.sendKeys,
      {
        session,
        keys: keys.map((k) => create(KeySchema, { key: typeof k === "string" ? { case: "text", value: k } : { case: "name", value: k.name } })),
        scrollbackLines: q.scrollback ?? 0,
        ...(q.settle === undefined ? {} : { settle: durationOf(q.settle) }),
      },
      o,
      settleMs,
    );
  }

  /**
   * The recording of a session, as far as it is: the bytes of a file in the format asciicast v2. It goes on at the exact
   * byte when the connection breaks.
   */
  async *recording(session: string, q: { readonly offset?: number | undefined } = {}, o: CallOptions = {}): AsyncGenerator<Uint8Array, void, undefined> {
    whole("offset", q.offset);
    let offset = q.offset ?? 0;
    let failures = 0;
    for (;;) {
      try {
        for await (const piece of this.#rest.lines(routes.readRecording, { session, offset: BigInt(offset) }, { signal: o.signal, silenceMs: 30_000 })) {
          if (Number(piece.offset) !== offset) throw protocolError(`the service left out bytes ${offset} to ${piece.offset} of the recording`, "DATA_LOSS");
          offset += piece.data.length;
          failures = 0;
          if (piece.data.length > 0) yield piece.data;
          if (piece.last) return;
        }
        throw unreachable("the answer was cut off");
      } catch (e) {
        if (!(e instanceof TelexecError) || !e.temporary || ++failures > 5) throw e;
        await pause(Math.max(e.retryDelayMs ?? 0, 100 * 2 ** failures), o.signal);
      }
    }
  }

  /**
   * Attaches to the terminal of a session, with the first pull: first the screen as it is, then its output and what happens
   * there, last "ended". It goes on at the exact byte when the connection is lost. Leaving the loop leaves the session as it is.
   */
  attach(session: string, o: AttachOptions = {}): SessionTerminal {
    const terminal = new SessionTerminal(
      {
        url: `${this.#url}/v1/sessions/${encodeURIComponent(session)}/terminal`,
        token: () => this.#rest.token(),
        WebSocket: this.#Socket,
        backoff: this.#backoff,
        probe: (signal) => this.session(session, { signal }),
        closed: (t) => this.#terminals.delete(t),
      },
      o,
    );
    if (this.#closed) terminal.fail(clientClosed());
    else this.#terminals.add(terminal);
    return terminal;
  }

  // ── tasks ───────────────────────────────────────────────────────────────────────────────────────────────────────

  /**
   * Stores a task, and answers at once; it goes on whatever happens to the caller and to the service. As execute it always
   * carries a request id, so that it is stored once.
   */
  submitTask(request: MessageInitShape<typeof SubmitTaskRequestSchema>, o?: CallOptions): Promise<tasks.SubmitTaskResponse> {
    const r = clone(SubmitTaskRequestSchema, create(SubmitTaskRequestSchema, request));
    if (r.requestId === "" && !r.validateOnly) r.requestId = randomId();
    return this.#rest.call(routes.submitTask, r, o);
  }

  /**
   * Tells how a task is, and which approvals it waits for. With wait it is a long-poll for what `until` says: its end, an
   * approval, the next step; see GetTaskRequest.
   */
  getTask(
    id: string,
    q: {
      readonly wait?: DurationInit | undefined;
      readonly until?: tasks.TaskWait | undefined;
      readonly ifVersionGreaterThan?: bigint | number | undefined;
    } = {},
    o?: CallOptions,
  ): Promise<tasks.GetTaskResponse> {
    return this.#rest.call(
      routes.getTask,
      {
        taskId: id,
        ...(q.wait === undefined ? {} : { wait: durationOf(q.wait) }),
        ...(q.until === undefined ? {} : { until: q.until }),
        ...(q.ifVersionGreaterThan === undefined ? {} : { ifVersionGreaterThan: BigInt(q.ifVersionGreaterThan) }),
      },
      o,
      q.wait === undefined ? 0 : msOf(q.wait),
    );
  }

  /** Tasks, newest first. */
  listTasks(filter: MessageInitShape<typeof tasks.ListTasksRequestSchema> = {}, o?: CallOptions): Pages<Task, tasks.ListTasksResponse> {
    return pages(
      // The service's offset is of the first page.
      (pageToken) => this.#rest.call(routes.listTasks, { ...filter, pageToken }, o),
      (p) => p.tasks,
    );
  }

  /** Cancels what runs of a task, or its undo, and nothing more of it begins. What was done is not undone. Idempotent. */
  cancelTask(
    id: string,
    q: { readonly reason?: string | undefined; readonly grace?: DurationInit | undefined } = {},
    o?: CallOptions,
  ): Promise<tasks.CancelTaskResponse> {
    return this.#rest.call(
      routes.cancelTask,
      { taskId: id, reason: q.reason ?? "", ...(q.grace === undefined ? {} : { grace: durationOf(q.grace) }) },
      o,
      q.grace === undefined ? defaultGraceMs : msOf(q.grace),
    );
  }

  /** Begins to take back what a task that has ended has done, or with `preview` only tells what would run. */
  undoTask(id: string, q: TaskUndoInit = {}, o?: CallOptions): Promise<tasks.UndoTaskResponse> {
    return this.#rest.call(
      q.preview ? routes.previewUndo : routes.undoTask,
      { taskId: id, stepId: q.step ?? "", includeUnknown: q.includeUnknown ?? false, reason: q.reason ?? "", preview: q.preview ?? false },
      o,
    );
  }

  /** Decides about one approval that a task waits for; gives it as it then is. Several are decided with decide. */
  async decideTask(id: string, d: TaskDecisionInit, o?: CallOptions): Promise<approvals.Approval> {
    const request = {
      taskId: id,
      approvalId: d.approvalId,
      approved: d.approved,
      message: d.message ?? "",
      ...(d.modified === undefined ? {} : { modifiedParameters: d.modified }),
      ...(d.requestHash === undefined ? {} : { requestHash: new Uint8Array(d.requestHash) }),
    };
    return there((await this.#rest.call(routes.decideTask, request, o)).approval, "approval");
  }

  /** Hosts, by name. */
  hosts(filter: MessageInitShape<typeof hosts.ListHostsRequestSchema> = {}, o?: CallOptions): Pages<hosts.Host, hosts.ListHostsResponse> {
    return pages(
      (pageToken) => this.#rest.call(routes.listHosts, { ...filter, pageToken }, o),
      (p) => p.hosts,
    );
  }

  /** One host. */
  async host(name: string, o?: CallOptions): Promise<hosts.Host> {
    return there((await this.#rest.call(routes.getHost, { host: name }, o)).host, "host");
  }

  /** Connects to a host and tells what it found. That it cannot be reached is an answer, not an error. */
  checkHost(name: string, q: { readonly timeout?: DurationInit | undefined } = {}, o?: CallOptions): Promise<hosts.CheckHostResponse> {
    const timeout = q.timeout === undefined ? {} : { timeout: durationOf(q.timeout) };
    return this.#rest.call(routes.checkHost, { host: name, ...timeout }, o, 60_000);
  }

  /** Approvals, newest first. */
  approvals(
    filter: MessageInitShape<typeof approvals.ListApprovalsRequestSchema> = {},
    o?: CallOptions,
  ): Pages<approvals.Approval, approvals.ListApprovalsResponse> {
    return pages(
      (pageToken) => this.#rest.call(routes.listApprovals, { ...filter, pageToken }, o),
      (p) => p.approvals,
    );
  }

  /** The approval of a command. */
  async approval(commandId: string, o?: CallOptions): Promise<approvals.Approval> {
    return there((await this.#rest.call(routes.getApproval, { commandId }, o)).approval, "approval");
  }

  /**
   * Decides one approval or several: all of them or none. A decision names the requestHash that the decider was shown.
   * Gives the approvals as they then are, in the same order.
   */
  async decide(decisions: DecisionInit[], o?: CallOptions): Promise<approvals.Approval[]> {
    return (await this.#rest.call(routes.decideApprovals, { decisions }, o)).approvals;
  }

  /** Tells what the rules would say to a command; nothing is started. */
  explainPolicy(request: MessageInitShape<typeof policy.ExplainPolicyRequestSchema>, o?: CallOptions): Promise<policy.ExplainPolicyResponse> {
    return this.#rest.call(routes.explainPolicy, request, o);
  }

  /** What this server is and how it does, and who the caller is. */
  serverInfo(o?: CallOptions): Promise<admin.GetServerInfoResponse> {
    return this.#rest.call(routes.getServerInfo, {}, o);
  }

  /** API keys, by the names of their principals. Only an admin may. */
  tokens(filter: MessageInitShape<typeof admin.ListTokensRequestSchema> = {}, o?: CallOptions): Pages<admin.Token, admin.ListTokensResponse> {
    return pages(
      (pageToken) => this.#rest.call(routes.listTokens, { ...filter, pageToken }, o),
      (p) => p.tokens,
    );
  }

  /** Makes an API key, whose token is in the answer, this once. */
  createToken(request: MessageInitShape<typeof admin.CreateTokenRequestSchema>, o?: CallOptions): Promise<admin.CreateTokenResponse> {
    return this.#rest.call(routes.createToken, request, o);
  }

  /** Takes an API key back, at once. */
  async revokeToken(principal: string, o?: CallOptions): Promise<admin.Token> {
    return there((await this.#rest.call(routes.revokeToken, { principal }, o)).token, "token");
  }

  /** The audit, newest first. Only an admin may. */
  auditEntries(
    filter: MessageInitShape<typeof admin.ListAuditEntriesRequestSchema> = {},
    o?: CallOptions,
  ): Pages<admin.AuditEntry, admin.ListAuditEntriesResponse> {
    return pages(
      (pageToken) => this.#rest.call(routes.listAuditEntries, { ...filter, pageToken }, o),
      (p) => p.entries,
    );
  }

  /** Tells whether the audit is as it was written. */
  verifyAudit(known: MessageInitShape<typeof admin.VerifyAuditRequestSchema> = {}, o?: CallOptions): Promise<admin.VerifyAuditResponse> {
    return this.#rest.call(routes.verifyAudit, known, o, 5 * 60_000);
  }

  // ── live ────────────────────────────────────────────────────────────────────────────────────────────────────────

  /**
   * Runs a command to its end, whatever is lost on the way. That it failed is told by the command's state and exitCode;
   * it is no error of this call. Aborting stops waiting, and never the command: cancel does that.
   */
  async run(request: MessageInitShape<typeof ExecuteRequestSchema>, o: RunOptions = {}): Promise<RunResult> {
    const { signal } = o;
    const r = copyOf(request);
    r.wait = durationFromMs(0);
    r.output = create(OutputOptionsSchema, { omit: true });
    const begun = await this.execute(r, { signal });
    const id = there(begun.command, "command").id;
    const keep = o.keepBytes ?? Infinity;
    const kept = { stdout: new Kept(keep), stderr: new Kept(keep) };
    for await (const event of this.stream(id, { signal })) {
      if (event.type === "chunk") {
        kept[event.stream].add(event.data);
        await o.onOutput?.(event);
      } else if (event.type === "gap") {
        kept[event.stream].cut = true;
      } else if (event.type === "ended") {
        const { stdout, stderr } = kept;
        return { command: event.command, stdout: stdout.bytes(), stderr: stderr.bytes(), truncated: stdout.cut || stderr.cut };
      }
    }
    throw protocolError(`the output of ${id} has no end`);
  }

  /**
   * Follows a command: first how it is, then its output in the order in which it came and whatever changes, last "ended".
   * It goes on at the exact byte when a connection is lost, and begins with the first pull. Leaving the loop ends it and
   * does not touch the command. It is for one consumer: go through it once.
   */
  stream(id: string, o: OutputStart & CallOptions = {}): AsyncIterableIterator<OutputEvent | ConnectionEvent> {
    return follow(() => this.#links.pick(), new OutputCursor(this.#rest, id, o), { signal: o.signal, backoff: this.#backoff });
  }

  /** Part of the output, both streams in the order in which they came: what there is from position on, not followed. */
  async page(
    id: string,
    o: { readonly position?: number | undefined; readonly limitBytes?: number | undefined } & CallOptions = {},
  ): Promise<OutputPage> {
    const from = o.position ?? 0;
    const limit = o.limitBytes ?? 256 << 10;
    whole("position", from);
    whole("limitBytes", limit);
    const request = { commandId: id, position: BigInt(from), limitBytes: BigInt(limit) };
    return this.#rest.collect(routes.streamOutput, request, { signal: o.signal, silenceMs: 30_000 }, async (messages) => {
      const chunks: OutputChunkEvent[] = [];
      const gaps: OutputGapEvent[] = [];
      let next = from;
      let command: Command | undefined;
      for await (const { event } of messages) {
        if (event.case === "chunk") {
          const chunk = chunkEvent(event.value);
          chunks.push(chunk);
          next = chunk.position + chunk.data.length;
        } else if (event.case === "gap") {
          gaps.push(gapEvent(event.value));
        } else if (event.case === "ended") {
          command = event.value;
        }
      }
      // Otherwise an answer that was cut off would look like the end of the output.
      if (command === undefined) throw unreachable("the answer was cut off");
      return { chunks, gaps, next, command };
    });
  }

  /**
   * Tells what happens to a task, each event once and in its order: first how it is, then its events from `after` on, last
   * "ended". It goes on behind the last event when a connection is lost. For one consumer, as stream. A task that is undone
   * after its end is watched anew, after its last sequence.
   */
  watchTask(id: string, o: TaskStart & CallOptions = {}): AsyncIterableIterator<TaskWatchEvent | ConnectionEvent> {
    return follow(() => this.#links.pick(), new TaskCursor(this.#rest, id, o), { signal: o.signal, backoff: this.#backoff });
  }

  /**
   * Tells the changes of all commands, sessions and tasks that the caller may see: first what was missed, then "synced", then
   * what happens. It goes on after a loss without missing a command's last state, or any event of a task. For one consumer, as stream.
   */
  events(o: EventsStart & CallOptions = {}): AsyncIterableIterator<CommandEvent | ConnectionEvent> {
    return follow(() => this.#links.pick(), new EventCursor(this.#rest, o), { signal: o.signal, backoff: this.#backoff });
  }

  /** How what is followed reaches this client. */
  get connection(): ConnectionState {
    return this.#links.state;
  }

  /** Is called whenever connection changes, until the function that it gives is called. */
  onConnection(callback: (state: ConnectionState) => void): () => void {
    return this.#links.watch(callback);
  }

  /** Makes the next attempt to connect at once, where one is waited for. */
  retryNow(): void {
    this.#links.retryNow();
    for (const terminal of this.#terminals) terminal.retryNow();
  }

  /** Ends all that is under way here; commands go on. */
  close(): void {
    this.#closed = true;
    for (const terminal of [...this.#terminals]) terminal.fail(clientClosed());
    this.#links.close();
    this.#rest.close();
  }
}

/** Kept is the beginning of a stream. */
class Kept {
  readonly #limit: number;
  readonly #parts: Uint8Array[] = [];
  #size = 0;
  cut = false;

  constructor(limit: number) {
    this.#limit = limit;
  }

  add(data: Uint8Array): void {
    const fits = Math.min(data.length, this.#limit - this.#size);
    this.cut ||= fits < data.length;
    if (fits <= 0) return;
    this.#parts.push(data.subarray(0, fits));
    this.#size += fits;
  }

  bytes(): Uint8Array {
    const all = new Uint8Array(this.#size);
    let at = 0;
    for (const part of this.#parts) {
      all.set(part, at);
      at += part.length;
    }
    return all;
  }
}

function baseOf(given: string | undefined): string {
  const base = given ?? globalThis.location?.origin;
  const hint = 'Give the HTTP port of telexecd as the option baseUrl: "http://127.0.0.1:7080"';
  if (base === undefined) throw invalid("the address of the service is not known", hint);
  let url: URL | undefined;
  try {
    url = new URL(base);
  } catch {
    // Said below.
  }
  // What stands behind the path would end up in its middle, and fetch refuses credentials.
  if (url === undefined || !/^https?:$/.test(url.protocol) || url.search + url.hash + url.username + url.password !== "") {
    throw invalid(`${JSON.stringify(base)} is no address of a service`, hint);
  }
  return (url.origin + url.pathname).replace(/\/+$/, "");
}

function globalSocket(): WebSocketConstructor | undefined {
  return (globalThis as { WebSocket?: WebSocketConstructor }).WebSocket;
}

/** copyOf makes a message of its own, also of one that the caller has made. */
function copyOf(request: MessageInitShape<typeof ExecuteRequestSchema>): commands.ExecuteRequest {
  return clone(ExecuteRequestSchema, create(ExecuteRequestSchema, request));
}

/** randomId is a UUID; crypto.randomUUID itself is only there on pages that came over TLS. */
function randomId(): string {
  const b = crypto.getRandomValues(new Uint8Array(16));
  b[6] = ((b[6] ?? 0) & 0x0f) | 0x40;
  b[8] = ((b[8] ?? 0) & 0x3f) | 0x80;
  const hex = Array.from(b, (x) => x.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

function durationOf(d: DurationInit): Duration {
  return typeof d === "number" ? durationFromMs(d) : d;
}

function msOf(d: DurationInit): number {
  return typeof d === "number" ? d : Number(d.seconds) * 1000 + d.nanos / 1e6;
}

/** there gives what an answer must have. */
function there<T>(value: T | undefined, what: string): T {
  if (value === undefined) throw protocolError(`the answer has no ${what}`);
  return value;
}
