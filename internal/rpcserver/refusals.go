package rpcserver

import (
	"context"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/command"
)

// maxName is how many bytes of a name that a stranger wrote are kept.
const maxName = 255

// Refusals is told of calls that are refused.
type Refusals interface {
	// Tell tells of one. It does not fail, and waits only for a moment.
	Tell(ctx context.Context, e audit.Entry)
}

// tellRefusals tells the audit of every call that is refused because of who asks
// or how often, before the caller is answered.
func tellRefusals(refusals Refusals) step {
	return func(ctx context.Context, c *call, next func(context.Context) error) error {
		err := next(ctx)
		if access.RefusedByAccess(err) {
			c.tell(ctx, refusals, err)
		}
		return err
	}
}

// tell tells the audit of a call that fails with err. Of the request it has what
// names things, never its content.
func (c *call) tell(ctx context.Context, refusals Refusals, err error) {
	f := faultOf(err)
	e := audit.Entry{
		Kind: audit.Refused, Principal: c.caller.Name, Origin: string(c.caller.Origin), Address: c.caller.Address, Call: c.caller.Call,
		Reason: f.Reason, Detail: f.Message, Decision: f.Metadata["decision"], Rule: f.Metadata["rule"],
		Host: f.Metadata["host"], CommandID: f.Metadata["command_id"], Task: f.Metadata["task_id"],
	}
	e.Method, e.Subject = methodName(c.method)
	if m, ok := c.message.Load().(proto.Message); ok {
		describe(&e, m.ProtoReflect())
		describePart(&e, m.ProtoReflect(), f.Metadata["field"])
	}
	refusals.Tell(ctx, e)
}

// methodName gives "Service/Method" of a method that is there. One that is not is
// "unknown", since callers can make up any number of them, and what they asked
// for is the subject.
func methodName(full string) (method, subject string) {
	name := strings.TrimPrefix(full, "/")
	dotted := protoreflect.FullName(strings.ReplaceAll(name, "/", "."))
	if d, err := protoregistry.GlobalFiles.FindDescriptorByName(dotted); err == nil {
		if m, ok := d.(protoreflect.MethodDescriptor); ok {
			return string(m.Parent().Name()) + "/" + string(m.Name()), ""
		}
	}
	return "unknown", shorten(name, maxName)
}

// describe adds what the fields of a request say: what they name stands for the
// same in every request.
func describe(e *audit.Entry, m protoreflect.Message) {
	if m.Descriptor().ParentFile().Package() != ownPackage {
		return
	}
	if start := m.Descriptor().Fields().ByName("start"); start != nil && start.Message() != nil && m.Has(start) {
		describe(e, m.Get(start).Message()) // of a call in which more is said than what it is about
	}
	for _, f := range []struct {
		to   *string
		name protoreflect.Name
	}{
		{&e.Host, "host"}, {&e.CommandID, "command_id"}, {&e.CommandID, "approval_id"}, {&e.Session, "session"}, {&e.Task, "task_id"}, {&e.Subject, "principal"},
		{&e.SudoUser, "sudo_user"},
	} {
		if value := texts(m, f.name); len(value) == 1 && value[0] != "" {
			*f.to = shorten(value[0], maxName)
		}
	}
	if sudo := m.Descriptor().Fields().ByName("sudo"); sudo != nil && sudo.Message() != nil && m.Has(sudo) {
		e.SudoUser = "root"
		if user := texts(m.Get(sudo).Message(), "user"); len(user) == 1 && user[0] != "" {
			e.SudoUser = shorten(user[0], maxName)
		}
	}
	mask, ok := maskOf(m)
	if !ok {
		return
	}
	e.Detail = mask(e.Detail) // it may quote the command
	if line := texts(m, "command"); len(line) == 1 && line[0] != "" {
		e.Command = shorten(mask(line[0]), audit.MaxCommand)
	}
	if args := texts(m, "argv"); len(args) > 0 {
		for i, size := 0, 0; i < len(args); i++ {
			if size > audit.MaxCommand { // the rest would not be seen
				args = args[:i]
				break
			}
			args[i] = mask(args[i])
			size += len(args[i]) + 1
		}
		e.Command = shorten(command.Quote(args...), audit.MaxCommand)
	}
}

// inList is a field of one of a list, as a refusal names it: "steps[2].undo".
var inList = regexp.MustCompile(`^(\w+)\[([0-9]{1,6})\]\.(\w+)`)

// describePart adds what that one of a list says whose field was refused; nothing where
// the refusal is about all of it.
func describePart(e *audit.Entry, m protoreflect.Message, field string) {
	named := inList.FindStringSubmatch(field)
	if named == nil {
		return
	}
	list := m.Descriptor().Fields().ByName(protoreflect.Name(named[1]))
	i, err := strconv.Atoi(named[2])
	if err != nil || list == nil || !list.IsList() || list.Message() == nil || i >= m.Get(list).List().Len() {
		return
	}
	part := m.Get(list).List().Get(i).Message()
	describe(e, part)
	if undo := texts(part, "undo"); named[3] == "undo" && len(undo) == 1 {
		e.Command = shorten(undo[0], audit.MaxCommand)
	}
}

// texts gives the values of a field of text, one or a list; none of another one,
// or one that the contract calls a secret.
func texts(m protoreflect.Message, name protoreflect.Name) []string {
	f := m.Descriptor().Fields().ByName(name)
	if f == nil || f.Kind() != protoreflect.StringKind {
		return nil
	}
	if options, _ := f.Options().(*descriptorpb.FieldOptions); options.GetDebugRedact() {
		return nil
	}
	if !f.IsList() {
		return []string{m.Get(f).String()}
	}
	list := m.Get(f).List()
	values := make([]string, list.Len())
	for i := range values {
		values[i] = list.Get(i).String()
	}
	return values
}

// What a request may call secret, by the rules of the contract. One that breaks
// them may come from a stranger who wants to keep us busy.
const (
	maxSecrets = 65
	maxSecret  = 4096
)

// maskOf gives what masks in a text all that the request calls secret: those
// values may stand in the command line as well. Of a long text it gives more than
// an entry shows, and not all. ok is false where there is more than the contract
// allows, and nothing must be shown.
func maskOf(m protoreflect.Message) (mask func(string) string, ok bool) {
	var values []string
	ok = true
	add := func(value string) {
		if value != "" {
			values = append(values, value)
		}
		ok = ok && len(value) <= maxSecret && len(values) <= maxSecrets
	}
	fields := m.Descriptor().Fields()
	if f := fields.ByName("redact"); f != nil && f.IsList() {
		list := m.Get(f).List()
		for i := 0; i < list.Len() && ok; i++ {
			add(list.Get(i).String())
		}
	}
	if f := fields.ByName("env"); f != nil && f.IsMap() && ok {
		names := texts(m, "secret_env")
		for i := 0; i < len(names) && ok; i++ {
			if key := protoreflect.ValueOfString(names[i]).MapKey(); m.Get(f).Map().Has(key) {
				add(m.Get(f).Map().Get(key).String())
			}
		}
	}
	if f := fields.ByName("sudo"); f != nil && f.Message() != nil && m.Has(f) && ok {
		sudo := m.Get(f).Message()
		if password := sudo.Descriptor().Fields().ByName("password"); password != nil {
			add(sudo.Get(password).String())
		}
	}
	replace := strings.NewReplacer(masks(values)...)
	return func(text string) string {
		if len(text) > audit.MaxCommand+maxSecret {
			text = strings.ToValidUTF8(text[:audit.MaxCommand+maxSecret], "")
		}
		return replace.Replace(text)
	}, ok
}

// masks gives pairs of what is replaced by what: long ones first, for a short one
// may be the beginning of another, and each also as it stands in a text that quotes
// it, for Go or for a shell.
func masks(values []string) []string {
	slices.SortStableFunc(values, func(a, b string) int { return len(b) - len(a) })
	pairs := make([]string, 0, 2*len(values))
	for _, v := range values {
		stars := strings.Repeat("*", min(len(v), maxSecret))
		pairs = append(pairs, v, stars)
		quoted := strconv.Quote(v)
		for _, other := range []string{quoted[1 : len(quoted)-1], strings.ReplaceAll(v, `'`, `'\''`)} {
			if other != v {
				pairs = append(pairs, other, stars)
			}
		}
	}
	return pairs
}

// shorten gives at most n bytes of s. What was cut off shows.
func shorten(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n-len("…")], "") + "…"
}
