/**
 * The client of telexec, which runs commands on remote hosts over SSH and never loses one.
 *
 *     const client = new Telexec({ baseUrl: "http://127.0.0.1:7080", token });
 *     const { command, stdout } = await client.run({ host: "web1", command: "uptime" });
 *
 * @packageDocumentation
 */

export { Telexec } from "./client.js";
export type {
  DecisionInit, DurationInit, KeyInit, OutputPage, RunOptions, RunResult, TaskDecisionInit, TaskUndoInit, TelexecOptions,
} from "./client.js";
export { Reason, TelexecError } from "./error.js";
export type { Code, FieldProblem } from "./error.js";
export { hasEnded } from "./output.js";
export type { OutputChunkEvent, OutputEvent, OutputGapEvent, OutputStart, StreamName } from "./output.js";
export type { CommandEvent, EventsStart } from "./events.js";
export { hasTaskEnded } from "./tasks.js";
export type { TaskStart, TaskWatchEvent } from "./tasks.js";
export { SessionTerminal } from "./terminal.js";
export type { AttachOptions, Size, TerminalEvent, TerminalScreenEvent } from "./terminal.js";
export type { ConnectionEvent } from "./follow.js";
export type { ConnectionState, WebSocketConstructor, WebSocketLike } from "./link.js";
export type { BackoffOptions } from "./backoff.js";
export type { CallOptions, TokenSource } from "./rest.js";
export type { Pages } from "./list.js";

// Times and spans in requests and answers.
export { durationFromMs, durationMs, timestampDate, timestampFromDate, timestampFromMs, timestampMs } from "@bufbuild/protobuf/wkt";
export type { Duration, Timestamp } from "@bufbuild/protobuf/wkt";

// All messages and enums of telexec.v1.
export * from "./gen/telexec/v1/command_pb.js";
export * from "./gen/telexec/v1/command_service_pb.js";
export * from "./gen/telexec/v1/event_service_pb.js";
export * from "./gen/telexec/v1/host_service_pb.js";
export * from "./gen/telexec/v1/approval_service_pb.js";
export * from "./gen/telexec/v1/policy_service_pb.js";
export * from "./gen/telexec/v1/admin_service_pb.js";
export * from "./gen/telexec/v1/session_pb.js";
export * from "./gen/telexec/v1/session_service_pb.js";
export * from "./gen/telexec/v1/task_pb.js";
export * from "./gen/telexec/v1/task_service_pb.js";
export * from "./gen/telexec/v1/socket_pb.js";
