package api

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/approval"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/inventory"
	"github.com/telexec/telexec/internal/policy"
	"github.com/telexec/telexec/internal/secret"
	"github.com/telexec/telexec/internal/session"
)

var noon = time.Date(2030, 1, 2, 12, 0, 0, 0, time.UTC)

// fill gives every field below v a value that is not its zero value, different
// ones as n grows.
func fill(v reflect.Value, n *int) {
	*n++
	switch v.Interface().(type) {
	case time.Time:
		v.Set(reflect.ValueOf(noon.Add(time.Duration(*n) * time.Second)))
		return
	case time.Duration:
		v.SetInt(int64(time.Duration(*n) * time.Second))
		return
	case command.State:
		v.SetString(string(command.Running))
		return
	case command.Origin:
		v.SetString(string(command.OriginMCP))
		return
	case command.Durability:
		v.SetString(string(command.Attached))
		return
	case command.Connection:
		v.SetString(string(command.Reconnecting))
		return
	case command.Completion:
		v.SetString(string(command.ByMark))
		return
	case session.State:
		v.SetString(string(session.Open))
		return
	case session.Keeper:
		v.SetString(string(session.KeptByScreen))
		return
	case session.Role:
		v.SetString(string(session.Writer))
		return
	case command.Outcome:
		v.SetString(string(command.Left))
		return
	case approval.State:
		v.SetString(string(approval.Approved))
		return
	case approval.Verdict:
		v.SetString(string(approval.Approve))
		return
	case policy.Effect:
		v.SetString(string(policy.RequireApproval))
		return
	case secret.Text:
		v.Set(reflect.ValueOf(secret.New(fmt.Sprintf("hush%d", *n))))
		return
	}
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt(int64(*n))
	case reflect.Uint8, reflect.Uint32:
		v.SetUint(uint64(*n % 250))
	case reflect.Float64:
		v.SetFloat(float64(*n))
	case reflect.String:
		v.SetString(fmt.Sprintf("text%d", *n))
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0), n)
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key, n)
		fill(value, n)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), n)
	case reflect.Array:
		for i := range v.Len() {
			fill(v.Index(i), n)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), n)
		}
	case reflect.Interface: // the only one there is
		v.Set(reflect.ValueOf(fault.New(fault.PermissionDenied, fault.ReasonNotYourDecision, "not yours")))
	default:
		panic("no value for " + v.Type().String())
	}
}

func full[T any]() (v T) {
	n := 0
	fill(reflect.ValueOf(&v).Elem(), &n)
	return v
}

// leaves calls f for every field below v that is not a struct, with its path.
func leaves(path string, v reflect.Value, f func(path string, v reflect.Value)) {
	switch v.Interface().(type) {
	case time.Time, secret.Text:
		f(strings.TrimPrefix(path, "."), v)
		return
	}
	switch {
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			leaves(path+"."+v.Type().Field(i).Name, v.Field(i), f)
		}
	case v.Kind() == reflect.Pointer && v.Type().Elem().Kind() == reflect.Struct:
		leaves(path, v.Elem(), f)
	case v.Kind() == reflect.Array:
		for i := range v.Len() {
			leaves(fmt.Sprintf("%s[%d]", path, i), v.Index(i), f)
		}
	default:
		f(strings.TrimPrefix(path, "."), v)
	}
}

// unset lists the fields below m that are not set, by path.
func unset(path string, m protoreflect.Message) (paths []string) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		at := path + string(f.Name())
		switch {
		case !m.Has(f):
			paths = append(paths, at)
		case f.IsList() && f.Message() != nil:
			paths = append(paths, unset(at+".", m.Get(f).List().Get(0).Message())...)
		case f.Message() != nil && !f.IsMap() && !f.IsList() && f.Message().ParentFile().Package() == "telexec.v1":
			paths = append(paths, unset(at+".", m.Get(f).Message())...)
		}
	}
	return paths
}

func TestEveryFieldOfACommandIsTold(t *testing.T) {
	s := full[Snapshot]()
	s.Gate.Decisions[0].Revision = s.Gate.Revision
	s.StdinClosed = false
	if missing := unset("", commandToProto(s, noon).ProtoReflect()); len(missing) > 0 {
		t.Errorf("never set: %v", missing)
	}

	// The other way round: whatever changes in the domain changes on the wire.
	inside := map[string]string{
		"Command.Spec.Line":               "shown only without argv",
		"Command.Spec.Typed":              "its origin tells",
		"Command.Spec.SessionOwner":       "told with the session",
		"Command.Spec.Stdin":              "may hold a secret",
		"Command.Spec.StdinOpen":          "stdin_open tells the moment; the PTY keeps it open here",
		"Command.Spec.QueueTimeout":       "no field of the resource",
		"Command.Spec.Durability":         "what was asked for; what was got is told",
		"Command.Spec.Sudo.Password":      "a secret",
		"Command.Spec.Sudo.NeedsPassword": "no affair of those who watch",
		"Command.Exit.CoreDumped":         "no field of the resource",
		"Command.Cancellation.Grace":      "no field of the resource",
		"Command.Earliest[0]":             "told with the output",
		"Command.Earliest[1]":             "told with the output",
		"Command.Node":                    "where it is looked after is no affair of the caller",
		"Command.Fence":                   "of the store",
		"Command.Spec.Redact":             "secrets",
		"Command.Spec.Task.Step":          "its name tells",
		"Command.Spec.Task.Hosts":         "told with the task",
		"Command.Spec.Task.Places":        "of the engine",
		"Command.Spec.Task.Undo":          "told with the task",
		"Command.Spec.Task.Undoes":        "told with the task, and the approval",
		"Command.Spec.Task.Gate":          "the approval tells",
		"Command.Spec.Task.Under":         "of the engine",
		"Command.Spec.SecretsLost":        "the failure says it when the command is to start",
	}
	told := []string{"Gate.Count", "Gate.Roles", "Gate.Deadline", "Gate.Revision", "Gate.Decisions"} // the rest with the approval itself
	leaves("", reflect.ValueOf(&s).Elem(), func(path string, _ reflect.Value) {
		if strings.HasPrefix(path, "Gate.") && !slices.Contains(told, path) {
			inside[path] = "told with the approval"
		}
	})
	before := commandToProto(s, noon)
	leaves("", reflect.ValueOf(&s).Elem(), func(path string, v reflect.Value) {
		old := reflect.ValueOf(v.Interface())
		if path == "Command.StdinClosed" { // the one that is false in an open command
			v.SetBool(true)
		} else {
			v.SetZero()
		}
		changed := !proto.Equal(before, commandToProto(s, noon))
		v.Set(old)
		if _, hidden := inside[path]; changed == hidden {
			t.Errorf("%s: changes the wire: %v", path, changed)
		}
	})
	// Values of variables are never shown.
	s.Spec.Env = map[string]string{"PASSWORD": "hunter2"}
	if text := commandToProto(s, noon).String(); strings.Contains(text, "hunter2") || !strings.Contains(text, "PASSWORD") {
		t.Errorf("environment: %s", text)
	}
}

// Of a session everything is told but the nonce of its shell's marks: whoever knew it
// could forge the end of a command.
func TestEveryFieldOfASessionIsTold(t *testing.T) {
	s := full[session.Session]()
	if missing := unset("", sessionToProto(s, true).ProtoReflect()); len(missing) > 0 {
		t.Errorf("never set: %v", missing)
	}
	inside := map[string]string{
		"Nonce":             "a secret of the service and the shell",
		"Sole":              "for the next run of the service",
		"Spec.Shell":        "what was asked for; what it is is told",
		"Spec.Term":         "no field of the resource",
		"Spec.Size.Columns": "what was asked for; what it is is told",
		"Spec.Size.Rows":    "what was asked for; what it is is told",
		"Spec.Keeper":       "what was asked for; what it is is told",
	}
	before := sessionToProto(s, true)
	leaves("", reflect.ValueOf(&s).Elem(), func(path string, v reflect.Value) {
		old := reflect.ValueOf(v.Interface())
		v.SetZero()
		changed := !proto.Equal(before, sessionToProto(s, true))
		v.Set(old)
		if _, hidden := inside[path]; changed == hidden {
			t.Errorf("%s: changes the wire: %v", path, changed)
		}
	})
	leaves("Viewers", reflect.ValueOf(&s.Viewers[0]).Elem(), func(path string, v reflect.Value) {
		old := reflect.ValueOf(v.Interface())
		v.SetZero()
		if proto.Equal(before, sessionToProto(s, true)) {
			t.Errorf("%s does not change the wire", path)
		}
		v.Set(old)
	})
	if text := sessionToProto(s, true).String(); strings.Contains(text, s.Nonce) {
		t.Errorf("the nonce is told: %s", text)
	}
	// What is not there yet is not filled in, and what programs say need not be UTF-8.
	got := sessionToProto(session.Session{ID: "X", State: session.Opening, Spec: session.Spec{Name: "n", Host: "h"}, Title: "a\xff"}, false)
	want := &telexecv1.Session{Id: "X", Name: "n", Host: "h", State: telexecv1.SessionState_SESSION_STATE_OPENING, CreatedBy: &telexecv1.Actor{}, Title: "a\uFFFD"}
	if !proto.Equal(got, want) || got.ExitCode != nil || got.RecordingTruncatedOffset != nil {
		t.Errorf("%v", got)
	}
}

func TestEveryFieldOfARequestForASessionCounts(t *testing.T) {
	r, n := &telexecv1.OpenSessionRequest{}, 0
	fullMessage(r.ProtoReflect(), &n)
	r.Keeper = telexecv1.Keeper_KEEPER_TMUX
	v := reflect.ValueOf(sessionSpecFromProto(r))
	for i := range v.NumField() {
		if v.Field(i).IsZero() {
			t.Errorf("Spec.%s is never set", v.Type().Field(i).Name)
		}
	}
	fields := r.ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		one := &telexecv1.OpenSessionRequest{}
		one.ProtoReflect().Set(f, r.ProtoReflect().Get(f))
		// reuse is not about the session, but about what to do where there is one.
		if changed := !reflect.DeepEqual(sessionSpecFromProto(one), sessionSpecFromProto(&telexecv1.OpenSessionRequest{})); changed == (f.Name() == "reuse") {
			t.Errorf("%s: changes the spec: %v", f.Name(), changed)
		}
	}
	if got := sessionSpecFromProto(&telexecv1.OpenSessionRequest{Columns: 100}); got.Size != (session.Size{Columns: 100, Rows: 24}) || got.Keeper != "" {
		t.Errorf("%+v", got)
	}

	list := &telexecv1.ListSessionsRequest{Ended: true, Host: "h", Principal: "ann", Name: "n"}
	if got, want := sessionFilterFromProto(list), (session.Filter{Host: "h", Principal: "ann", Name: "n"}); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
	if got := sessionFilterFromProto(&telexecv1.ListSessionsRequest{}); !slices.Equal(got.States, []session.State{session.Opening, session.Open, session.Closing}) {
		t.Errorf("%+v", got)
	}

	start := &telexecv1.AttachStart{}
	fullMessage(start.ProtoReflect(), &n)
	v = reflect.ValueOf(attachOptionsFromProto(start))
	for i := range v.NumField() {
		if v.Field(i).IsZero() {
			t.Errorf("AttachOptions.%s is never set", v.Type().Field(i).Name)
		}
	}
	if got := attachOptionsFromProto(&telexecv1.AttachStart{}); !reflect.DeepEqual(got, AttachOptions{Scrollback: -1}) {
		t.Errorf("%+v", got)
	}
}

func TestACommandThatHasNotStarted(t *testing.T) {
	c := commandToProto(Snapshot{Command: command.Command{ID: "X", State: command.Queued, Spec: command.Spec{Host: "h", Line: "true"}}}, noon)
	want := &telexecv1.Command{
		Name: "commands/X", Id: "X", State: telexecv1.CommandState_COMMAND_STATE_QUEUED, Host: "h", Command: "true", CreatedBy: &telexecv1.Actor{},
	}
	if !proto.Equal(c, want) {
		t.Errorf("%v", c)
	}
	if c.ExitCode != nil || c.GetDuration() != nil || c.GetTruncation() != nil {
		t.Errorf("filled in: %v", c)
	}
}

func TestTruncationTellsOnlyWhatIsMissing(t *testing.T) {
	c := commandToProto(Snapshot{Command: command.Command{Truncation: &command.Truncation{Offset: command.Sizes{-1, 0}, Reason: "full"}}}, noon)
	if c.GetTruncation().StdoutOffset != nil || c.GetTruncation().StderrOffset == nil {
		t.Errorf("%v", c.GetTruncation())
	}
}

// fullRequest sets every field of a message.
func fullMessage(m protoreflect.Message, n *int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		switch {
		case f.IsMap():
			m.Mutable(f).Map().Set(protoreflect.ValueOfString(fmt.Sprintf("key%d", *n)).MapKey(), protoreflect.ValueOfString("value"))
		case f.IsList() && f.Message() != nil:
			fullMessage(m.Mutable(f).List().AppendMutable().Message(), n)
		case f.IsList():
			m.Mutable(f).List().Append(scalar(f, n))
		case f.Message() != nil && f.Message().FullName() == "google.protobuf.Duration":
			*n++
			m.Set(f, protoreflect.ValueOfMessage(durationpb.New(time.Duration(*n)*time.Second).ProtoReflect()))
		case f.Message() != nil && f.Message().FullName() == "google.protobuf.Timestamp":
			*n++
			m.Set(f, protoreflect.ValueOfMessage(timestamppb.New(noon.Add(time.Duration(*n)*time.Hour)).ProtoReflect()))
		case f.Message() != nil:
			fullMessage(m.Mutable(f).Message(), n)
		default:
			m.Set(f, scalar(f, n))
		}
	}
}

func scalar(f protoreflect.FieldDescriptor, n *int) protoreflect.Value {
	*n++
	switch f.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(int32(*n))
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(uint32(*n))
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64(float64(*n))
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(int64(*n))
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(fmt.Sprintf("text%d", *n))
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte{byte(*n)})
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(f.Enum().Values().Len() - 1))
	}
	panic("no value for " + string(f.FullName()))
}

func TestEveryFieldOfARequestCounts(t *testing.T) {
	r, n := &telexecv1.ExecuteRequest{}, 0
	fullMessage(r.ProtoReflect(), &n)
	r.SecretEnv = slices.Collect(maps.Keys(r.Env))
	all, err := specFromProto(r)
	if err != nil {
		t.Fatal(err)
	}
	v := reflect.ValueOf(all)
	for i := range v.NumField() {
		// SecretsLost is of the store; what session it is, and that somebody typed it, the
		// engine finds out; what task it is of, workflow knows.
		name := v.Type().Field(i).Name
		if v.Field(i).IsZero() && !slices.Contains([]string{"SecretsLost", "SessionID", "SessionOwner", "Typed", "Task"}, name) {
			t.Errorf("Spec.%s is never set", name)
		}
	}
	base, err := specFromProto(&telexecv1.ExecuteRequest{Command: "true"})
	if err != nil {
		t.Fatal(err)
	}
	fields := r.ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if !r.ProtoReflect().Has(f) {
			continue
		}
		one, base := &telexecv1.ExecuteRequest{Command: "true"}, base
		if f.Name() == "secret_env" { // names what is in env
			one.Env = r.Env
			base.Env = r.Env
		}
		one.ProtoReflect().Set(f, r.ProtoReflect().Get(f))
		s, err := specFromProto(one)
		if err != nil {
			t.Errorf("%s: %v", f.Name(), err)
		}
		// Two are about the answer, and one about what to do with the request.
		answer := f.Name() == "wait" || f.Name() == "output" || f.Name() == "if_busy"
		if changed := !reflect.DeepEqual(s, base); changed == answer {
			t.Errorf("%s: changes the spec: %v", f.Name(), changed)
		}
	}
}

func TestWhatCannotBeHadIsRefused(t *testing.T) {
	// What only the domain can check is still checked.
	_, err := specFromProto(&telexecv1.ExecuteRequest{Host: "h", Command: strings.Repeat("x", 70_000), Env: map[string]string{"A": strings.Repeat("x", 60_000)}})
	if fault.ReasonOf(err) != fault.ReasonCommandTooLong {
		t.Errorf("long together: %v", err)
	}
}

func TestSecretsToMask(t *testing.T) {
	env := map[string]string{"A": "tops3cret", "B": "1234", "C": strings.Repeat("x", 4096), "SHORT": "123", "LONG": strings.Repeat("x", 4097), "NONE": ""}
	spec, err := specFromProto(&telexecv1.ExecuteRequest{Host: "h", Command: "true", Env: env, SecretEnv: []string{"A", "B", "C"}, Redact: []string{"other"}})
	if err != nil {
		t.Fatal(err)
	}
	var values []string
	for _, v := range spec.Redact {
		values = append(values, v.Reveal())
	}
	if !slices.Equal(values, []string{env["A"], env["B"], env["C"], "other"}) {
		t.Errorf("%.40q", values)
	}
	for i, name := range []string{"SHORT", "LONG", "NONE", "NOT_THERE"} {
		for before := range 2 {
			names := append([]string{"A"}[:before:before], name)
			_, err := specFromProto(&telexecv1.ExecuteRequest{Host: "h", Command: "true", Env: env, SecretEnv: names})
			e := fault.From(err)
			if err == nil || e.Reason != fault.ReasonInvalidRequest || e.Kind != fault.Invalid || e.Hint == "" || len(e.Fields) != 1 ||
				e.Fields[0].Path != fmt.Sprintf("secret_env[%d]", before) || !strings.Contains(e.Message, name) || strings.Contains(e.Text(), "123") {
				t.Errorf("%d: %v", i, err)
			}
		}
	}
}

func TestSudo(t *testing.T) {
	for name, c := range map[string]struct {
		sudo     *telexecv1.Sudo
		user     string // empty: no sudo
		password string
	}{
		"none":            {nil, "", ""},
		"root by default": {&telexecv1.Sudo{}, "root", ""},
		"root":            {&telexecv1.Sudo{User: "root"}, "root", ""},
		"somebody":        {&telexecv1.Sudo{User: "deploy", Password: "hunter2"}, "deploy", "hunter2"},
	} {
		t.Run(name, func(t *testing.T) {
			spec, err := specFromProto(&telexecv1.ExecuteRequest{Host: "h", Command: "true", Sudo: c.sudo})
			if err != nil {
				t.Fatal(err)
			}
			if (spec.Sudo == nil) != (c.user == "") {
				t.Fatalf("sudo is %v", spec.Sudo)
			}
			if s := spec.Sudo; s != nil && (s.User != c.user || s.Password.Reveal() != c.password || s.NeedsPassword != (c.password != "")) {
				t.Errorf("user %q, password %q, needs one %v", s.User, s.Password.Reveal(), s.NeedsPassword)
			}
			// Whoever sees the command, or a Spec in a log, sees the user alone.
			told := commandToProto(Snapshot{Command: command.Command{Spec: spec}}, noon)
			if told.GetSudoUser() != c.user {
				t.Errorf("sudo_user is %q", told.GetSudoUser())
			}
			asJSON, err := json.Marshal(spec)
			if err != nil {
				t.Fatal(err)
			}
			for _, text := range []string{told.String(), string(asJSON), fmt.Sprintf("%+v %#v %+v", spec, spec, spec.Sudo)} {
				if strings.Contains(text, "hunter2") {
					t.Errorf("the password is shown: %s", text)
				}
			}
		})
	}
	// A command that the store gives back without a user is still root's.
	if c := commandToProto(Snapshot{Command: command.Command{Spec: command.Spec{Sudo: &command.Sudo{}}}}, noon); c.GetSudoUser() != "root" {
		t.Errorf("sudo_user is %q", c.GetSudoUser())
	}
}

func TestDurability(t *testing.T) {
	for p, want := range map[telexecv1.Durability]command.Durability{
		telexecv1.Durability_DURABILITY_UNSPECIFIED: "",
		telexecv1.Durability_DURABILITY_DURABLE:     command.Durable,
		telexecv1.Durability_DURABILITY_ATTACHED:    command.Attached,
	} {
		s, err := specFromProto(&telexecv1.ExecuteRequest{Host: "h", Command: "true", Durability: p})
		if err != nil || s.Durability != want || durabilityToProto(want) != p {
			t.Errorf("%s is %q, %v", p, s.Durability, err)
		}
	}
}

func TestEveryFilterCounts(t *testing.T) {
	r, n := &telexecv1.ListCommandsRequest{}, 0
	fullMessage(r.ProtoReflect(), &n)
	fields := r.ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		one := &telexecv1.ListCommandsRequest{}
		one.ProtoReflect().Set(f, r.ProtoReflect().Get(f))
		got, none := filterFromProto(one)
		// The session is found by its name, and then by its id.
		page := f.Name() == "page_size" || f.Name() == "page_token" || f.Name() == "session"
		if changed := none || !reflect.DeepEqual(got, command.Filter{}); changed == page {
			t.Errorf("%s: changes the filter: %v", f.Name(), changed)
		}
	}
	f, none := filterFromProto(&telexecv1.ListCommandsRequest{Active: true})
	if none || !slices.Equal(f.States, []command.State{command.AwaitingApproval, command.Queued, command.Starting, command.Running}) || !command.States[4].Ended() {
		t.Errorf("active: %v %v", f.States, none)
	}
	f, none = filterFromProto(&telexecv1.ListCommandsRequest{Active: true, States: []telexecv1.CommandState{
		telexecv1.CommandState_COMMAND_STATE_RUNNING, telexecv1.CommandState_COMMAND_STATE_FAILED}})
	if none || !slices.Equal(f.States, []command.State{command.Running}) {
		t.Errorf("active and states: %v %v", f.States, none)
	}
	if _, none = filterFromProto(&telexecv1.ListCommandsRequest{Active: true, States: []telexecv1.CommandState{telexecv1.CommandState_COMMAND_STATE_FAILED}}); !none {
		t.Error("active and ended at once can match")
	}
}

func TestEveryWordHasItsEnum(t *testing.T) {
	for _, s := range command.States {
		if p := stateToProto(s); p == 0 || stateFromProto(p) != s {
			t.Errorf("state %s is %v", s, p)
		}
	}
	if len(command.States) != len(telexecv1.CommandState_name)-1 {
		t.Error("the states differ in number")
	}
	for _, o := range command.Origins {
		if p := originToProto(o); p == 0 || originFromProto(p) != o {
			t.Errorf("origin %s is %v", o, p)
		}
	}
	if len(command.Origins) != len(telexecv1.Origin_name)-1 || originFromProto(0) != "" {
		t.Error("the origins differ in number")
	}
	for _, s := range approval.States {
		if p := approvalStateToProto(s); p == 0 || approvalStateFromProto(p) != s {
			t.Errorf("approval state %s is %v", s, p)
		}
	}
	if len(approval.States) != len(telexecv1.ApprovalState_name)-1 {
		t.Error("the states of approvals differ in number")
	}
	verdicts := []approval.Verdict{approval.Approve, approval.Reject, approval.Modify}
	for _, v := range verdicts {
		if p := verdictToProto(v); p == 0 || verdictFromProto(p) != v {
			t.Errorf("verdict %s is %v", v, p)
		}
	}
	if len(verdicts) != len(telexecv1.Verdict_name)-1 {
		t.Error("the verdicts differ in number")
	}
	for _, s := range command.Streams {
		if streamFromProto(streamToProto(s)) != s {
			t.Errorf("stream %s", s)
		}
	}
	for word, p := range map[any]protoreflect.Enum{
		command.Durable:      durabilityToProto(command.Durable),
		command.Attached:     durabilityToProto(command.Attached),
		session.Opening:      sessionStateToProto(session.Opening),
		session.Open:         sessionStateToProto(session.Open),
		session.Closing:      sessionStateToProto(session.Closing),
		session.Ended:        sessionStateToProto(session.Ended),
		session.KeptByNone:   keeperToProto(session.KeptByNone),
		session.KeptByTmux:   keeperToProto(session.KeptByTmux),
		session.KeptByScreen: keeperToProto(session.KeptByScreen),
		session.KeptByDtach:  keeperToProto(session.KeptByDtach),
		session.Observer:     roleToProto(session.Observer),
		session.Writer:       roleToProto(session.Writer),
		command.Connected:    connectionToProto(command.Connected),
		command.Reconnecting: connectionToProto(command.Reconnecting),
		command.ByExitStatus: completionToProto(command.ByExitStatus),
		command.ByMark:       completionToProto(command.ByMark),
		command.ByPrompt:     completionToProto(command.ByPrompt),
		command.BySilence:    completionToProto(command.BySilence),
		command.Gone:         outcomeToProto(command.Gone),
		command.AlreadyEnded: outcomeToProto(command.AlreadyEnded),
		command.NeverStarted: outcomeToProto(command.NeverStarted),
		command.Pending:      outcomeToProto(command.Pending),
		command.Left:         outcomeToProto(command.Left),
		command.Unproven:     outcomeToProto(command.Unproven),

		policy.Allow:           effectToProto(policy.Allow),
		policy.Deny:            effectToProto(policy.Deny),
		policy.RequireApproval: effectToProto(policy.RequireApproval),
	} {
		if p.Number() == 0 {
			t.Errorf("%v has no enum value", word)
		}
	}
}

func TestEveryWordOfASessionIsUnderstood(t *testing.T) {
	for number := range telexecv1.Keeper_name {
		if p := telexecv1.Keeper(number); keeperToProto(keeperFromProto(p)) != p || (keeperFromProto(p) == "") != (p == 0) {
			t.Errorf("%s is %q", p, keeperFromProto(p))
		}
	}
	for number := range telexecv1.ViewerRole_name {
		if p := telexecv1.ViewerRole(number); roleToProto(roleFromProto(p)) != p || (roleFromProto(p) == "") != (p == 0) {
			t.Errorf("%s is %q", p, roleFromProto(p))
		}
	}
	seen := map[KeyboardAction]bool{}
	for number := range telexecv1.KeyboardAction_name {
		if a := keyboardActionFromProto(telexecv1.KeyboardAction(number)); seen[a] || (a == 0) != (number == 0) {
			t.Errorf("%d is %d", number, a)
		} else {
			seen[a] = true
		}
	}
	if len(session.States) != len(telexecv1.SessionState_name)-1 {
		t.Error("the states of sessions differ in number")
	}
}

func TestEveryFieldOfAHostIsTold(t *testing.T) {
	h := inventory.Host{
		Name: "web1", Address: "10.0.0.1:22", User: "deploy", Labels: map[string]string{"env": "prod"}, MaxCommands: 7,
		Source: inventory.FromSSHConfig, Via: []inventory.Host{{Name: "a"}, {Name: "b"}},
	}
	p := hostToProto(h, 1, 2, full[Link]())
	if missing := unset("", p.ProtoReflect()); len(missing) > 0 {
		t.Errorf("never set: %v", missing)
	}
	if !slices.Equal(p.GetProxyJump(), []string{"a", "b"}) || p.GetSource() != telexecv1.HostSource_HOST_SOURCE_SSH_CONFIG {
		t.Errorf("%v", p)
	}
	if hostToProto(inventory.Host{Source: inventory.FromConfig}, 0, 0, Link{}).GetSource() != telexecv1.HostSource_HOST_SOURCE_CONFIG {
		t.Error("source config")
	}
}
