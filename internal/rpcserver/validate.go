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
			if err := overlong(m.ProtoReflect(), ""); err != nil {
				return err
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
	e := wrongFields()
	var said []string
	for i, v := range found.Violations {
		if i == toldMost {
			said = append(said, fmt.Sprintf("and %d more", len(found.Violations)-i))
			break
		}
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
		if f.Path != "" {
			said = append(said, f.Path+": "+f.Message)
		} else {
			said = append(said, f.Message)
			f.Path = ruleField(f.Rule) // the message says what it is about
		}
		e.Fields = append(e.Fields, f)
	}
	e.Message = strings.Join(said, "; ")
	return e
}

func wrongFields() *fault.Error {
	return fault.New(fault.Invalid, fault.ReasonInvalidRequest, "").
		WithHint("Correct the fields named in the details and ask again")
}

// toldMost is how many violations are told; a list with as many elements is not too long to
// be looked at.
const toldMost = 20

// overlong refuses a list with more elements than its rule allows, before the rules of
// each element are asked, which of a hostile one takes minutes. path is that of m.
func overlong(m protoreflect.Message, path string) (wrong error) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		at := path + string(f.Name())
		switch {
		case f.IsMap():
		case f.IsList():
			list := v.List()
			if n := list.Len(); n > toldMost {
				rules, err := protovalidate.ResolveFieldRules(f)
				if most := rules.GetRepeated().GetMaxItems(); err == nil && most > 0 && uint64(n) > most {
					e, words := wrongFields(), fmt.Sprintf("has %d elements; it may have at most %d", n, most)
					e.Message, e.Fields = at+": "+words, []fault.Field{{Path: at, Message: words, Rule: "repeated.max_items"}}
					wrong = e
					return false
				}
			}
			for i := 0; f.Message() != nil && i < list.Len() && wrong == nil; i++ {
				wrong = overlong(list.Get(i).Message(), fmt.Sprintf("%s[%d].", at, i))
			}
		case f.Message() != nil:
			wrong = overlong(v.Message(), at+".")
		}
		return wrong == nil
	})
	return wrong
}

// ruleField gives the field that a rule about a whole message is first about: the
// one that its id begins with.
func ruleField(rule string) string {
	field, _, _ := strings.Cut(rule, ".")
	return field
}
