// The calls of the service, as docs/guide.md and GET /openapi.json tell them.

import type { DescMessage } from "@bufbuild/protobuf";
import * as admin from "./gen/telexec/v1/admin_service_pb.js";
import * as approval from "./gen/telexec/v1/approval_service_pb.js";
import * as command from "./gen/telexec/v1/command_service_pb.js";
import * as event from "./gen/telexec/v1/event_service_pb.js";
import * as host from "./gen/telexec/v1/host_service_pb.js";
import * as policy from "./gen/telexec/v1/policy_service_pb.js";
import * as session from "./gen/telexec/v1/session_service_pb.js";
import * as task from "./gen/telexec/v1/task_service_pb.js";
import type { Route } from "./rest.js";

function get<Req extends DescMessage, Resp extends DescMessage>(path: string, request: Req, response: Resp): Route<Req, Resp> {
  return { method: "GET", path, request, response, repeatable: true };
}

/** post is a call that does something; one that may be made twice without harm says so. */
function post<Req extends DescMessage, Resp extends DescMessage>(
  path: string,
  request: Req,
  response: Resp,
  repeatable = false,
): Route<Req, Resp> {
  return { method: "POST", path, request, response, repeatable };
}

export const routes = {
  // With a request id, which the client always gives.
  execute: post("/v1/commands", command.ExecuteRequestSchema, command.ExecuteResponseSchema, true),
  streamOutput: get("/v1/commands/{commandId}/output", command.StreamOutputRequestSchema, command.StreamOutputResponseSchema),
  getStatus: get("/v1/commands/{commandId}", command.GetStatusRequestSchema, command.GetStatusResponseSchema),
  cancel: post("/v1/commands/{commandId}:cancel", command.CancelRequestSchema, command.CancelResponseSchema, true),
  signal: post("/v1/commands/{commandId}:signal", command.SignalRequestSchema, command.SignalResponseSchema),
  sendInput: post("/v1/commands/{commandId}:input", command.SendInputRequestSchema, command.SendInputResponseSchema),
  listCommands: get("/v1/commands", command.ListCommandsRequestSchema, command.ListCommandsResponseSchema),

  sessionStatus: get("/v1/sessions/{session}/status", command.GetStatusRequestSchema, command.GetStatusResponseSchema),
  cancelSession: post("/v1/sessions/{session}:cancel", command.CancelRequestSchema, command.CancelResponseSchema, true),

  // Of a lost answer nobody knows whether it opened one. With a name and reuse that does not matter.
  openSession: post("/v1/sessions", session.OpenSessionRequestSchema, session.OpenSessionResponseSchema),
  reuseSession: post("/v1/sessions", session.OpenSessionRequestSchema, session.OpenSessionResponseSchema, true),
  getSession: get("/v1/sessions/{session}", session.GetSessionRequestSchema, session.GetSessionResponseSchema),
  listSessions: get("/v1/sessions", session.ListSessionsRequestSchema, session.ListSessionsResponseSchema),
  closeSession: post("/v1/sessions/{session}:close", session.CloseSessionRequestSchema, session.CloseSessionResponseSchema, true),
  readScreen: get("/v1/sessions/{session}/screen", session.ReadScreenRequestSchema, session.ReadScreenResponseSchema),
  sendKeys: post("/v1/sessions/{session}:keys", session.SendKeysRequestSchema, session.SendKeysResponseSchema),
  readRecording: get("/v1/sessions/{session}/recording", session.ReadRecordingRequestSchema, session.ReadRecordingResponseSchema),

  // With a request id, which the client always gives.
  submitTask: post("/v1/tasks", task.SubmitTaskRequestSchema, task.SubmitTaskResponseSchema, true),
  getTask: get("/v1/tasks/{taskId}", task.GetTaskRequestSchema, task.GetTaskResponseSchema),
  listTasks: get("/v1/tasks", task.ListTasksRequestSchema, task.ListTasksResponseSchema),
  cancelTask: post("/v1/tasks/{taskId}:cancel", task.CancelTaskRequestSchema, task.CancelTaskResponseSchema, true),
  // Where the answer is lost, the next one is that the task has not ended: it is being undone.
  undoTask: post("/v1/tasks/{taskId}:undo", task.UndoTaskRequestSchema, task.UndoTaskResponseSchema),
  previewUndo: post("/v1/tasks/{taskId}:undo", task.UndoTaskRequestSchema, task.UndoTaskResponseSchema, true),
  decideTask: post("/v1/tasks/{taskId}:decide", task.DecideTaskRequestSchema, task.DecideTaskResponseSchema),
  watchTask: get("/v1/tasks/{taskId}/events", task.WatchTaskRequestSchema, task.WatchTaskResponseSchema),

  watchEvents: get("/v1/events", event.WatchEventsRequestSchema, event.WatchEventsResponseSchema),

  listHosts: get("/v1/hosts", host.ListHostsRequestSchema, host.ListHostsResponseSchema),
  getHost: get("/v1/hosts/{host}", host.GetHostRequestSchema, host.GetHostResponseSchema),
  checkHost: post("/v1/hosts/{host}:check", host.CheckHostRequestSchema, host.CheckHostResponseSchema, true),

  listApprovals: get("/v1/approvals", approval.ListApprovalsRequestSchema, approval.ListApprovalsResponseSchema),
  getApproval: get("/v1/approvals/{commandId}", approval.GetApprovalRequestSchema, approval.GetApprovalResponseSchema),
  decideApprovals: post("/v1/approvals:decide", approval.DecideApprovalsRequestSchema, approval.DecideApprovalsResponseSchema),

  explainPolicy: post("/v1/policy:explain", policy.ExplainPolicyRequestSchema, policy.ExplainPolicyResponseSchema, true),

  getServerInfo: get("/v1/server", admin.GetServerInfoRequestSchema, admin.GetServerInfoResponseSchema),
  createToken: post("/v1/tokens", admin.CreateTokenRequestSchema, admin.CreateTokenResponseSchema),
  listTokens: get("/v1/tokens", admin.ListTokensRequestSchema, admin.ListTokensResponseSchema),
  revokeToken: post("/v1/tokens/{principal}:revoke", admin.RevokeTokenRequestSchema, admin.RevokeTokenResponseSchema, true),
  listAuditEntries: get("/v1/audit", admin.ListAuditEntriesRequestSchema, admin.ListAuditEntriesResponseSchema),
  verifyAudit: get("/v1/audit:verify", admin.VerifyAuditRequestSchema, admin.VerifyAuditResponseSchema),
} as const;
