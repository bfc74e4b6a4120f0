// What goes wrong, in the one shape that the service gives all failures: a google.rpc.Status with an ErrorInfo.
// docs/errors.md of the service lists the reasons.

import { fromJson, type JsonObject, type JsonValue } from "@bufbuild/protobuf";
import { anyUnpack, durationMs, type Duration } from "@bufbuild/protobuf/wkt";
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from "./gen/google/rpc/error_details_pb.js";
import type { BadRequest, ErrorInfo } from "./gen/google/rpc/error_details_pb.js";
import type { Status } from "./gen/google/rpc/status_pb.js";

/** The gRPC codes by their numbers. */
const codes = [
  "OK",
  "CANCELLED",
  "UNKNOWN",
  "INVALID_ARGUMENT",
  "DEADLINE_EXCEEDED",
  "NOT_FOUND",
  "ALREADY_EXISTS",
  "PERMISSION_DENIED",
  "RESOURCE_EXHAUSTED",
  "FAILED_PRECONDITION",
  "ABORTED",
  "OUT_OF_RANGE",
  "UNIMPLEMENTED",
  "INTERNAL",
  "UNAVAILABLE",
  "DATA_LOSS",
  "UNAUTHENTICATED",
] as const;

/** A gRPC code, by name. */
export type Code = (typeof codes)[number];

/** Reasons that this package gives itself. All others come from the service. */
export const Reason = {
  /** No connection to the service, or it broke, or it does not answer. */
  unreachable: "SERVER_UNREACHABLE",
  /** The options of the client cannot work. */
  invalidOptions: "INVALID_OPTIONS",
  /** The service sent what the contract rules out. */
  protocol: "PROTOCOL_ERROR",
  /** The client was closed. */
  closed: "CLIENT_CLOSED",
} as const;

/** What is wrong with one field of a request. */
export interface FieldProblem {
  /** The field, as in the proto: "output.limit_bytes". */
  readonly field: string;
  /** What is wrong with it. */
  readonly message: string;
}

/** What a TelexecError is made of. */
export interface Problem {
  code: Code;
  message: string;
  reason?: string;
  hint?: string;
  metadata?: Readonly<Record<string, string>>;
  fields?: readonly FieldProblem[];
  retryDelayMs?: number;
  httpStatus?: number;
  cause?: unknown;
}

/** A call or a stream that failed. What the caller's own AbortSignal ends is none: that rejects with the signal's reason. */
export class TelexecError extends Error {
  /** The gRPC code. */
  readonly code: Code;
  /** Stable, upper snake case, for programs. Empty where something between here and the service answered instead of it. */
  readonly reason: string;
  /** One sentence for people: what to do next. May be empty. */
  readonly hint: string;
  /** Facts for programs: "host", "command_id", … */
  readonly metadata: Readonly<Record<string, string>>;
  /** Which fields of the request are wrong. */
  readonly fields: readonly FieldProblem[];
  /** Set where the service says that a retry helps, and after which time. */
  declare readonly retryDelayMs?: number;
  /** Set where an HTTP answer told of it. */
  declare readonly httpStatus?: number;

  constructor(p: Problem) {
    super(p.message, p.cause === undefined ? undefined : { cause: p.cause });
    this.name = "TelexecError";
    this.code = p.code;
    this.reason = p.reason ?? "";
    this.hint = p.hint ?? "";
    this.metadata = p.metadata ?? {};
    this.fields = p.fields ?? [];
    if (p.retryDelayMs !== undefined) this.retryDelayMs = p.retryDelayMs;
    if (p.httpStatus !== undefined) this.httpStatus = p.httpStatus;
  }

  /** Whether the same may well work a little later. */
  get temporary(): boolean {
    return this.code === "UNAVAILABLE" || this.retryDelayMs !== undefined;
  }
}

/** unreachable is the failure of a connection. */
export function unreachable(message: string, cause?: unknown): TelexecError {
  return new TelexecError({
    code: "UNAVAILABLE",
    reason: Reason.unreachable,
    message,
    hint: "Check that the service runs and that its address is right; commands go on without this connection",
    cause,
  });
}

/** invalid is the failure of options that cannot work. */
export function invalid(message: string, hint: string): TelexecError {
  return new TelexecError({ code: "INVALID_ARGUMENT", reason: Reason.invalidOptions, message, hint });
}

/** clientClosed is how all ends that is under way when the client is closed. */
export function clientClosed(): TelexecError {
  return new TelexecError({ code: "CANCELLED", reason: Reason.closed, message: "the client was closed" });
}

/** protocolError tells of something that the contract rules out. */
export function protocolError(message: string, code: Code = "INTERNAL", cause?: unknown): TelexecError {
  return new TelexecError({ code, reason: Reason.protocol, message, hint: "Check that service and client are of versions that fit", cause });
}

/** Details of a failure, as far as this package knows them. */
interface Details {
  info?: ErrorInfo;
  badRequest?: BadRequest;
  retryDelay?: Duration;
}

/** fromStatus makes the error of a status in wire format. */
export function fromStatus(status: Status): TelexecError {
  const details: Details = {};
  for (const any of status.details) {
    const info = anyUnpack(any, ErrorInfoSchema);
    if (info) details.info = info;
    const badRequest = anyUnpack(any, BadRequestSchema);
    if (badRequest) details.badRequest = badRequest;
    const retry = anyUnpack(any, RetryInfoSchema);
    if (retry?.retryDelay) details.retryDelay = retry.retryDelay;
  }
  return fromParts(status.code, status.message, details);
}

/** fromStatusJson makes the error of a status in JSON, or gives undefined where it is none. */
export function fromStatusJson(json: JsonValue, httpStatus?: number): TelexecError | undefined {
  if (!isObject(json) || typeof json["code"] !== "number" || typeof json["message"] !== "string") return undefined;
  const details: Details = {};
  for (const detail of Array.isArray(json["details"]) ? json["details"] : []) {
    if (!isObject(detail)) continue;
    const { "@type": type, ...value } = detail;
    const options = { ignoreUnknownFields: true };
    switch (type) {
      case "type.googleapis.com/google.rpc.ErrorInfo":
        details.info = fromJson(ErrorInfoSchema, value, options);
        break;
      case "type.googleapis.com/google.rpc.BadRequest":
        details.badRequest = fromJson(BadRequestSchema, value, options);
        break;
      case "type.googleapis.com/google.rpc.RetryInfo": {
        const delay = fromJson(RetryInfoSchema, value, options).retryDelay;
        if (delay) details.retryDelay = delay;
        break;
      }
    }
  }
  return fromParts(json["code"], json["message"], details, httpStatus);
}

function fromParts(code: number, message: string, d: Details, httpStatus?: number): TelexecError {
  const { hint = "", ...metadata } = d.info?.metadata ?? {};
  // The service's message ends with the hint, for clients that show nothing else.
  const tail = ". " + hint;
  const p: Problem = {
    code: codes[code] ?? "UNKNOWN",
    message: hint !== "" && message.endsWith(tail) ? message.slice(0, -tail.length) : message,
    reason: d.info?.reason ?? "",
    hint,
    metadata,
    fields: (d.badRequest?.fieldViolations ?? []).map((v) => ({ field: v.field, message: v.description })),
  };
  if (d.retryDelay) p.retryDelayMs = durationMs(d.retryDelay);
  if (httpStatus !== undefined) p.httpStatus = httpStatus;
  return new TelexecError(p);
}

/** fromHttp makes the error of an answer that is not the service's: a proxy's, or another server's. */
export function fromHttp(status: number, text: string, retryAfter: string | null = null): TelexecError {
  const p: Problem = {
    code: httpCodes.get(status) ?? (status >= 500 ? "UNAVAILABLE" : "UNKNOWN"),
    message: `the server answered with HTTP ${status}, and not as telexec does: ${JSON.stringify(text.slice(0, 200))}`,
    hint: "Check that the address is that of telexecd's HTTP port, and what stands in between",
    httpStatus: status,
  };
  // RFC 6585: who asks too often may come again, and by RFC 9110 may be told when.
  if (status === 429) p.retryDelayMs = 1_000;
  if (retryAfter !== null && /^\d{1,6}$/.test(retryAfter)) p.retryDelayMs = Number(retryAfter) * 1_000;
  return new TelexecError(p);
}

const httpCodes = new Map<number, Code>([
  [400, "INVALID_ARGUMENT"],
  [401, "UNAUTHENTICATED"],
  [403, "PERMISSION_DENIED"],
  [404, "NOT_FOUND"],
  [405, "UNIMPLEMENTED"],
  [408, "UNAVAILABLE"],
  [429, "RESOURCE_EXHAUSTED"],
  [431, "INVALID_ARGUMENT"],
]);

function isObject(v: JsonValue | undefined): v is JsonObject {
  return typeof v === "object" && v !== null && !Array.isArray(v);
}
