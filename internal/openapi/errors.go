package main

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/code"

	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/rpcserver"
)

const (
	statusSchema = "google.rpc.Status"
	anySchema    = "type.googleapis.com/google.rpc."
	// otherResponse is of the statuses that no operation names.
	otherResponse = "Other"
)

// everywhere lists the statuses that every operation can answer with.
var everywhere = []int{
	http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusTooManyRequests,
	http.StatusInternalServerError, http.StatusServiceUnavailable, http.StatusGatewayTimeout,
}

// refusals lists the statuses that are not 200, each with a failure that gives
// it. The body is made of it by the same table as in the service.
var refusals = []struct {
	description string
	err         *fault.Error
}{
	{
		"The request is wrong, or cannot be met in the state the command is in.",
		&fault.Error{
			Kind: fault.Invalid, Reason: fault.ReasonInvalidRequest, Message: "wait: must be less than or equal to 3600s",
			Fields: []fault.Field{{Path: "wait", Message: "must be less than or equal to 3600s", Rule: "duration.lte"}},
		},
	},
	{
		"Nothing says who calls, or what does is not known or over.",
		fault.New(fault.Unauthenticated, fault.ReasonNoCredentials, "the call carries no credentials").
			WithHint("Send a token: authorization: Bearer TOKEN"),
	},
	{
		"The caller is known but may not, or the Host or Origin of the request is not allowed.",
		fault.New(fault.PermissionDenied, fault.ReasonForbiddenOrigin, "requests from https://elsewhere.example are not allowed").
			WithHint("Add it to the allowed origins in the configuration of telexecd"),
	},
	{
		"What the request names does not exist.",
		fault.New(fault.NotFound, fault.ReasonUnknownHost, "there is no host web9").With("host", "web9").WithHint("ListHosts names the hosts"),
	},
	{
		"It exists with other content, or somebody else has changed it meanwhile.",
		fault.New(fault.AlreadyExists, fault.ReasonRequestIDReused, "request id deploy-42 was used for another command").
			With("request_id", "deploy-42").WithHint("Choose a new request id for a new command"),
	},
	{
		"A limit is reached: of calls, of open streams, of commands that wait. Where a retry helps it says when.",
		fault.New(fault.Exhausted, fault.ReasonQueueFull, "10000 commands are waiting, which is the limit").
			WithHint("Try again when some have ended").WithRetry(5 * time.Second),
	},
	{
		"A defect of the service; its log has the details.",
		fault.From(errors.New("a defect")),
	},
	{
		"This build or this host cannot do it.",
		fault.New(fault.Unsupported, fault.ReasonNotSupported, "switch1 has no shell, which sudo needs").WithHint("Leave out sudo, or choose another host"),
	},
	{
		"The service shuts down or its store fails; try again.",
		fault.New(fault.Unavailable, fault.ReasonDraining, "the service is shutting down").WithHint("Try again in a moment").WithRetry(time.Second),
	},
	{
		"The call took longer than its deadline. A command it has started goes on.",
		fault.From(context.DeadlineExceeded),
	},
}

// responseName is the name of a status in components/responses.
func responseName(status int) string {
	return strings.ReplaceAll(http.StatusText(status), " ", "")
}

// errorResponses gives components/responses: one per refusal, with the reasons of
// its status.
func errorResponses(reasons map[string][]string) object {
	responses := object{}
	for _, r := range refusals {
		status, body := rpcserver.Problem(r.err)
		response := object{
			"description": r.description + "\n\nReasons that have this status: " + strings.Join(reasons[strconv.Itoa(status)], ", ") + ".",
			"content": object{"application/json": object{
				"schema":  object{"$ref": "#/components/schemas/" + statusSchema},
				"example": example(body),
			}},
		}
		if after := r.err.RetryAfter; after > 0 {
			response["headers"] = object{"Retry-After": object{
				"description": "Seconds to wait before it is worth asking again; there where the body has a RetryInfo.",
				"schema":      object{"type": "integer", "minimum": 0},
				"example":     int(after.Seconds()),
			}}
		}
		responses[responseName(status)] = response
	}
	responses[otherResponse] = object{
		"description": "Every other error has the same form: 405 for a path that takes another method, which Allow names; 408 for a body that did not arrive; " +
			"413 for one that is too large; 415 for one that does not say that it is JSON where a cookie or a certificate says who calls.",
		"content": object{"application/json": object{"schema": object{"$ref": "#/components/schemas/" + statusSchema}}},
	}
	return responses
}

// errorSchema describes google.rpc.Status with the details that telexec sends.
func errorSchema() object {
	text := func(description string) object { return object{"type": "string", "description": description} }
	detail := func(name, description string, properties object) object {
		properties["@type"] = object{"type": "string", "const": anySchema + name}
		return object{"type": "object", "title": name, "description": description, "required": []any{"@type"}, "properties": properties}
	}
	return object{
		"type":        "object",
		"description": "Every error has this form.",
		"required":    []any{"code", "message", "details"},
		"properties": object{
			"code": object{"type": "integer", "format": "int32", "description": "The gRPC status code, for instance 5 for NOT_FOUND.",
				"minimum": 1, "maximum": len(code.Code_name) - 1},
			"message": text("What happened, for people."),
			"details": object{"type": "array", "description": "Facts for programs; an ErrorInfo is always among them.", "items": object{"anyOf": []any{
				detail("ErrorInfo", "Which error it is.", object{
					"reason":   text("Stable name in upper snake case; docs/errors.md lists all."),
					"domain":   object{"type": "string", "const": "telexec"},
					"metadata": object{"type": "object", "description": "Facts by name: host, command_id; under hint, what to do about it.", "additionalProperties": object{"type": "string"}},
				}),
				detail("BadRequest", "Which fields are wrong.", object{"fieldViolations": object{"type": "array", "items": object{
					"type": "object",
					"properties": object{
						"field":       text("Path of the field: output.limit_bytes."),
						"description": text("What is wrong with it."),
						"reason":      text("Id of the rule that it breaks."),
					},
				}}}),
				detail("RetryInfo", "When a retry helps.", object{"retryDelay": text("Seconds: " + strconv.Quote("5s") + ".")}),
				object{"type": "object", "title": "Other", "description": "Any other detail, by its @type.", "required": []any{"@type"},
					"properties": object{"@type": object{"type": "string"}}, "additionalProperties": true},
			}}},
		},
	}
}
