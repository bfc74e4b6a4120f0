package rpcserver

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/telexec/telexec/internal/fault"
)

// ownPackage holds the messages that carry rules.
const ownPackage protoreflect.FullName = "telexec.v1"

// ruleReasons gives the reason of the rules that have one of their own.
var ruleReasons = map[string]struct{ reason, hint string }{
	"command.empty":    {fault.ReasonEmptyCommand, `Give command: "uptime", or argv: ["uptime"]`},
	"command.too_long": {fault.ReasonCommandTooLong, `Send a long script as stdin to a shell: command "sh -s"`},
	"host.missing":     {fault.ReasonMissingHost, "ListHosts (GET /v1/hosts, telexec hosts) names the hosts"},
}

// newValidator compiles the rules of all requests now, so that the first caller
// does not pay for it.
func newValidator() (protovalidate.Validator, error) {
	var requests []protoreflect.MessageDescriptor
	protoregistry.GlobalFiles.RangeFilesByPackage(ownPackage, func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			methods := f.Services().Get(i).Methods()
			for j := range methods.Len() {
				requests = append(requests, methods.Get(j).Input())
			}
		}
		return true
	})
	v, err := protovalidate.New(protovalidate.WithMessageDescriptors(requests...), protovalidate.WithDisableLazy())
	if err != nil {
		return nil, fmt.Errorf("compile the rules of the API: %w", err)
	}
	return v, nil
}

// validate checks every message received against the rules in the proto.
func validate(v protovalidate.Validator) step {
	return func(ctx context.Context, c *call, next func(context.Context) error) error {
		c.checks = append(c.checks, func(message any) error {
			m, ok := message.(proto.Message)
			if !ok || m.ProtoReflect().Descriptor().ParentFile().Package() != ownPackage {
				return nil // of health or reflection
			}
			return invalid(v.Validate(m))
		})
		return next(ctx)
	}
}

// invalid gives the fault for what the validator found; nil for nil.
func invalid(err error) error {
	if err == nil {
		return nil
	}
	found, ok := errors.AsType[*protovalidate.ValidationError](err)
	if !ok || len(found.Violations) == 0 {
		return fault.From(err) // a rule that cannot be evaluated is our defect
	}
	e := fault.New(fault.Invalid, fault.ReasonInvalidRequest, "").
		WithHint("Correct the fields named in the details and ask again")
	for _, v := range found.Violations {
		f := fault.Field{
			Path:    protovalidate.FieldPathString(v.Proto.GetField()),
			Message: v.Proto.GetMessage(),
			Rule:    v.Proto.GetRuleId(),
		}
		if f.Message == "" {
			f.Message = "breaks the rule " + f.Rule
		}
		if own, ok := ruleReasons[f.Rule]; ok && e.Reason == fault.ReasonInvalidRequest {
			e.Reason, e.Hint = own.reason, own.hint
		}
		if e.Message != "" {
			e.Message += "; "
		}
		if f.Path != "" {
			e.Message += f.Path + ": "
		} else {
			f.Path = ruleField(f.Rule) // the message says what it is about
		}
		e.Message += f.Message
		e.Fields = append(e.Fields, f)
	}
	return e
}

// ruleField gives the field that a rule about a whole message is first about: the
// one that its id begins with.
func ruleField(rule string) string {
	field, _, _ := strings.Cut(rule, ".")
	return field
}
