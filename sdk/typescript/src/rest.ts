// The calls over HTTP: one JSON object there and one back, or a stream of lines. A GET has its request in the path and
// the query, a POST in its body; names and forms are those of protobuf's JSON mapping.

import { create, fromJson, toJson } from "@bufbuild/protobuf";
import type { DescMessage, JsonObject, JsonValue, MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import { Linked, pause, unless } from "./abort.js";
import { Backoff, longestTimer, type BackoffOptions } from "./backoff.js";
import { TelexecError, clientClosed, fromHttp, fromStatusJson, protocolError, unreachable } from "./error.js";

/** How a single call is made. */
export interface CallOptions {
  /** Gives the call up. What the service has begun goes on. */
  readonly signal?: AbortSignal | undefined;
}

/** A token, or what gives one before each request. */
export type TokenSource = string | (() => string | Promise<string>);

/** One kind of call. */
export interface Route<Req extends DescMessage, Resp extends DescMessage> {
  readonly method: "GET" | "POST";
  /** The path; `{name}` is a field of the request. */
  readonly path: string;
  readonly request: Req;
  readonly response: Resp;
  /** It may reach the service twice without harm, so that a lost answer is asked for again. */
  readonly repeatable: boolean;
}

/** What an answer may take beyond what the service was asked to wait for. */
const answerMs = 30_000;
/** A line of a stream has at most so many characters: 1 MiB of output in base64, and what is around it. */
const maxLine = 4 << 20;

/** Of the connections that a browser has, the others are for calls. */
const maxWaiting = 3;
/** How long is paused where waiting for an answer would take one too many. */
const insteadMs = 2_000;

export interface RestOptions {
  readonly baseUrl: string;
  readonly token: TokenSource | undefined;
  readonly fetch: typeof fetch;
  readonly backoff: BackoffOptions | undefined;
  readonly retryForMs: number;
}

export class Rest {
  readonly #o: RestOptions;
  /** Ends all that is under way when the client is closed. */
  readonly #closed = new AbortController();
  /** Something has answered: the address is right, so that a failure from then on may be worth another attempt. */
  #answered = false;
  #hadToken = false;
  /** Long-polls under way. */
  #waiting = 0;

  constructor(o: RestOptions) {
    this.#o = o;
  }

  /**
   * token gives what to prove oneself with; undefined: nothing, or a browser's cookie. That it cannot be had is final for
   * the first one; later it may well be had again, as what gives it may need the same network.
   */
  async token(): Promise<string | undefined> {
    const t = this.#o.token;
    if (t === undefined) return undefined;
    let given: string;
    try {
      given = typeof t === "function" ? await t() : t;
    } catch (cause) {
      if (cause instanceof TelexecError) throw cause;
      const message = `there is no token: ${plain(cause)}`;
      const hint = "Look at the function that is the option token; it may throw a TelexecError to end what waits";
      throw new TelexecError({ code: this.#hadToken ? "UNAVAILABLE" : "UNAUTHENTICATED", message, hint, cause });
    }
    const token = String(given).trim(); // as of a file with a line in it
    if (/[^\x21-\x7e]/.test(token)) {
      throw new TelexecError({ code: "UNAUTHENTICATED", message: "the token has characters that no token has", hint: "Give the API key as it was shown" });
    }
    this.#hadToken = true;
    return token;
  }

  close(): void {
    this.#closed.abort(clientClosed());
  }

  /** call makes a call; waitMs is how long the service was asked to wait before it answers. */
  async call<Req extends DescMessage, Resp extends DescMessage>(
    route: Route<Req, Resp>,
    init: MessageInitShape<Req>,
    o: CallOptions = {},
    waitMs = 0,
  ): Promise<MessageShape<Resp>> {
    const request = create(route.request, init);
    const backoff = new Backoff(this.#o.backoff);
    let giveUp: number | undefined;
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.#once(route, request, o.signal, waitMs + answerMs);
      } catch (e) {
        if (!route.repeatable) throw e;
        giveUp ??= performance.now() + this.#o.retryForMs;
        await this.#again(e, attempt, giveUp, backoff, o.signal);
      }
    }
  }

  /**
   * wait makes a call that the service answers when there is news, at the latest after waitMs. A browser has no more than
   * six connections to a service of HTTP/1.1: where too many wait already, it gives undefined after a while. It is made
   * once: whoever waits tells of a failure, and goes on as it sees fit.
   */
  async wait<Req extends DescMessage, Resp extends DescMessage>(
    route: Route<Req, Resp>,
    init: MessageInitShape<Req>,
    signal: AbortSignal,
    waitMs: number,
  ): Promise<MessageShape<Resp> | undefined> {
    if (this.#waiting >= maxWaiting && "location" in globalThis) {
      await this.#pause(insteadMs, signal);
      return undefined;
    }
    this.#waiting++;
    try {
      return await this.#once(route, create(route.request, init), signal, waitMs + answerMs);
    } finally {
      this.#waiting--;
    }
  }

  /** collect reads a stream to its end and gives what use makes of it; where it breaks, it begins anew. */
  async collect<Req extends DescMessage, Resp extends DescMessage, T>(
    route: Route<Req, Resp>,
    init: MessageInitShape<Req>,
    o: CallOptions & { readonly silenceMs: number },
    use: (messages: AsyncIterable<MessageShape<Resp>>) => Promise<T>,
  ): Promise<T> {
    const backoff = new Backoff(this.#o.backoff);
    let giveUp: number | undefined;
    for (let attempt = 1; ; attempt++) {
      try {
        return await use(this.lines(route, init, o));
      } catch (e) {
        giveUp ??= performance.now() + this.#o.retryForMs;
        await this.#again(e, attempt, giveUp, backoff, o.signal);
      }
    }
  }

  /** again waits until a call is worth another attempt after a failure, or throws it. */
  async #again(e: unknown, attempt: number, giveUp: number, backoff: Backoff, signal: AbortSignal | undefined): Promise<void> {
    if (!(e instanceof TelexecError) || !e.temporary || this.#o.retryForMs <= 0) throw e;
    if (!this.#answered) {
      // A wrong address is told at once; but what failed may have been an old connection that others had left.
      if (attempt > 1) throw e;
      return;
    }
    const delay = backoff.next(e.retryDelayMs);
    if (performance.now() + delay > giveUp) throw e;
    await this.#pause(delay, signal);
  }

  async #once<Req extends DescMessage, Resp extends DescMessage>(
    route: Route<Req, Resp>,
    request: MessageShape<Req>,
    signal: AbortSignal | undefined,
    limitMs: number,
  ): Promise<MessageShape<Resp>> {
    const until = new Linked(signal, this.#closed.signal);
    const limit = setTimeout(
      () => until.abort(unreachable(`the service has not answered within ${limitMs / 1000} s`)),
      Math.min(limitMs, longestTimer),
    );
    try {
      const response = await this.#send(route, request, until.signal, "application/json");
      const text = await this.#onTheWay(() => response.text(), until.signal);
      return this.#parse(route.response, text);
    } finally {
      clearTimeout(limit);
      until.free();
    }
  }

  /** lines gives the messages of a stream, one by one as they are asked for. */
  async *lines<Req extends DescMessage, Resp extends DescMessage>(
    route: Route<Req, Resp>,
    init: MessageInitShape<Req>,
    o: CallOptions & { readonly silenceMs: number },
  ): AsyncGenerator<MessageShape<Resp>, void, undefined> {
    const until = new Linked(o.signal, this.#closed.signal);
    // Silence counts only while something is waited for: a slow reader is not the service's fault.
    let limit: ReturnType<typeof setTimeout> | undefined;
    const guarded = async <T>(work: () => Promise<T>): Promise<T> => {
      limit = setTimeout(
        () => until.abort(unreachable(`nothing has come for ${o.silenceMs / 1000} s`)),
        Math.min(o.silenceMs, longestTimer),
      );
      try {
        return await work();
      } finally {
        clearTimeout(limit);
      }
    };
    try {
      const response = await guarded(() => this.#send(route, create(route.request, init), until.signal, "application/x-ndjson"));
      const reader = response.body?.getReader();
      if (!reader) return;
      const decoder = new TextDecoder();
      let rest = "";
      for (;;) {
        const { done, value } = await guarded(() => this.#onTheWay(() => reader.read(), until.signal));
        rest += done ? decoder.decode() : decoder.decode(value, { stream: true });
        const lines = rest.split("\n");
        rest = lines.pop() ?? "";
        for (const line of lines) {
          if (line !== "") yield this.#line(route.response, line);
        }
        if (done) {
          // A line without its end was cut off on the way.
          if (rest !== "") throw unreachable("the answer was cut off");
          return;
        }
        if (rest.length > maxLine) throw protocolError("a line of the answer has no end");
      }
    } finally {
      until.abort(); // the rest of the body, if nobody wants it
      until.free();
    }
  }

  #line<Resp extends DescMessage>(schema: Resp, line: string): MessageShape<Resp> {
    const json = this.#json(line);
    if (json["error"] !== undefined) throw fromStatusJson(json["error"]) ?? protocolError("the service tells of a failure that cannot be understood");
    return this.#message(schema, json);
  }

  #parse<Resp extends DescMessage>(schema: Resp, text: string): MessageShape<Resp> {
    return this.#message(schema, this.#json(text));
  }

  #message<Resp extends DescMessage>(schema: Resp, json: JsonObject): MessageShape<Resp> {
    try {
      return fromJson(schema, json, { ignoreUnknownFields: true });
    } catch (cause) {
      throw protocolError(`the service's ${schema.name} cannot be understood`, "INTERNAL", cause);
    }
  }

  #json(text: string): JsonObject {
    let json: JsonValue;
    try {
      json = JSON.parse(text) as JsonValue;
    } catch {
      throw unreachable("the answer is no JSON: it was cut off, or something else than telexec answered");
    }
    if (typeof json !== "object" || json === null || Array.isArray(json)) throw protocolError("the answer is no object of JSON");
    return json;
  }

  async #send<Req extends DescMessage, Resp extends DescMessage>(
    route: Route<Req, Resp>,
    request: MessageShape<Req>,
    signal: AbortSignal,
    accept: string,
  ): Promise<Response> {
    const json = toJson(route.request, request) as JsonObject;
    const path = route.path.replace(/\{(\w+)\}/g, (_, name: string) => {
      const value = json[name];
      delete json[name];
      return encodeURIComponent(typeof value === "string" ? value : "");
    });
    const headers: Record<string, string> = { accept };
    const token = await unless(signal, this.token());
    if (token !== undefined) headers["authorization"] = `Bearer ${token}`;
    const init: RequestInit = { method: route.method, headers, signal, cache: "no-store" };
    let url = this.#o.baseUrl + path;
    if (route.method === "GET") {
      const query = queryOf(route.request, json).toString();
      if (query !== "") url += `?${query}`;
    } else {
      headers["content-type"] = "application/json";
      init.body = JSON.stringify(json);
    }
    signal.throwIfAborted();
    // fetch must be called as a function of the global object.
    const send = this.#o.fetch;
    const response = await this.#onTheWay(() => send(url, init), signal);
    this.#answered = true;
    if (response.ok) return response;
    throw await this.#failure(response, signal);
  }

  async #failure(response: Response, signal: AbortSignal): Promise<TelexecError> {
    const text = await this.#onTheWay(() => response.text(), signal);
    try {
      const failure = fromStatusJson(JSON.parse(text) as JsonValue, response.status);
      if (failure) return failure;
    } catch {
      // Not JSON: not ours.
    }
    return fromHttp(response.status, text, response.headers.get("retry-after"));
  }

  /** onTheWay tells the loss of the connection apart from the caller's own abort. */
  async #onTheWay<T>(work: () => Promise<T>, signal: AbortSignal): Promise<T> {
    try {
      return await work();
    } catch (cause) {
      if (signal.aborted) throw signal.reason;
      throw unreachable(`the service at ${this.#o.baseUrl} cannot be reached: ${plain(cause)}`, cause);
    }
  }

  async #pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
    const until = new Linked(signal, this.#closed.signal);
    try {
      await pause(ms, until.signal);
    } finally {
      until.free();
    }
  }
}

/** plain gives the heart of what fetch says: Node's own cause is deeper than "fetch failed". */
function plain(e: unknown): string {
  if (!(e instanceof Error)) return String(e);
  const { cause } = e;
  return cause instanceof Error && cause.message !== "" ? cause.message : e.message;
}

/** queryOf gives the fields of a request as REST takes them: `output.text=true`, `labels[app]=shop`, `states=…&states=…`. */
function queryOf(schema: DescMessage, json: JsonObject): URLSearchParams {
  const query = new URLSearchParams();
  const add = (at: string, value: JsonValue): void => {
    if (value !== null) query.append(at, typeof value === "string" ? value : JSON.stringify(value));
  };
  const walk = (desc: DescMessage, object: JsonObject, prefix: string): void => {
    for (const field of desc.fields) {
      const value = object[field.jsonName];
      if (value === undefined) continue;
      const at = prefix + field.jsonName;
      if (Array.isArray(value)) {
        for (const v of value) add(at, v);
      } else if (typeof value !== "object" || value === null) {
        add(at, value);
      } else if (field.fieldKind === "message") {
        walk(field.message, value, `${at}.`);
      } else {
        for (const [key, v] of Object.entries(value)) add(`${at}[${key}]`, v);
      }
    }
  };
  walk(schema, json, "");
  return query;
}
