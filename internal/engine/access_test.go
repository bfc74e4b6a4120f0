package engine_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/approval"
	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/engine"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/inventory"
	"github.com/telexec/telexec/internal/policy"
	"github.com/telexec/telexec/internal/secret"
)

// labelled are hosts with labels.
type labelled map[string]map[string]string

func (h labelled) Lookup(name string) (inventory.Host, error) {
	if labels, ok := h[name]; ok {
		return inventory.Host{Name: name, MaxCommands: 10, Labels: labels}, nil
	}
	return inventory.Host{}, fault.New(fault.NotFound, fault.ReasonUnknownHost, "there is no host %q", name)
}

func (h labelled) List() (list []inventory.Host) {
	for name, labels := range h {
		list = append(list, inventory.Host{Name: name, Labels: labels})
	}
	return list
}

// Whoever may not touch a command is told the same as if there were none.
func TestOthersAreHidden(t *testing.T) {
	o := fresh(t)
	rights, err := access.NewRights([]access.Wider{{Roles: []access.Role{access.RoleOperator}, Labels: map[string]string{"env": "staging"}}})
	if err != nil {
		t.Fatal(err)
	}
	o.Rights = rights
	o.Hosts = labelled{"h": {"env": "prod"}, "s": {"env": "staging"}}
	n := start(t, o)
	id := n.execute("cat", withInput)
	shared := n.execute("cat", withInput, func(s *command.Spec) { s.Host = "s" })
	n.running(id)
	n.running(shared)

	const nothing = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
	calls := map[string]func(by access.Caller, id string) error{
		"Get": func(by access.Caller, id string) error { _, err := n.Get(t.Context(), by, id); return err },
		"Watch": func(by access.Caller, id string) error {
			_, err := n.Watch(t.Context(), by, id, engine.WatchOptions{})
			return err
		},
		"Cancel": func(by access.Caller, id string) error { _, _, err := n.Cancel(t.Context(), by, id, 0, ""); return err },
		"Signal": func(by access.Caller, id string) error { _, err := n.Signal(t.Context(), by, id, "INT"); return err },
		"Input":  func(by access.Caller, id string) error { _, err := n.Input(t.Context(), by, id, nil, true); return err },
		"Approval": func(by access.Caller, id string) error {
			_, err := n.Approval(t.Context(), by, id)
			return err
		},
	}
	for name, call := range calls {
		for _, by := range []access.Caller{other, viewer, boss} {
			refused, absent := call(by, id), call(by, nothing)
			if fault.KindOf(refused) != fault.PermissionDenied || strings.ReplaceAll(refused.Error(), id, nothing) != absent.Error() {
				t.Errorf("%s by %s: %v; of nothing: %v", name, by.Name, refused, absent)
			}
		}
		if err := call(root, nothing); fault.KindOf(err) != fault.NotFound {
			t.Errorf("%s by an admin of nothing: %v", name, err)
		}
	}
	if s, err := n.Get(t.Context(), ann, id); err != nil || s.State != command.Running {
		t.Fatalf("it is %s, %v", s.State, err)
	}
	if _, err := n.Input(t.Context(), other, shared, nil, true); err != nil {
		t.Errorf("what is shared with operators: %v", err)
	}
	n.ended(shared)
	ids := func(by access.Caller) (ids []string) {
		list, err := n.List(t.Context(), by, command.Filter{})
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range list {
			ids = append(ids, s.ID)
		}
		return ids
	}
	for _, tc := range []struct {
		by   access.Caller
		want []string
	}{{ann, []string{shared, id}}, {root, []string{shared, id}}, {other, []string{shared}}, {viewer, nil}} {
		if got := ids(tc.by); !slices.Equal(got, tc.want) {
			t.Errorf("%s sees %q", tc.by.Name, got)
		}
	}
	n.Cancel(t.Context(), root, id, 0, "")
	n.ended(id)
}

func TestWhoMayStart(t *testing.T) {
	o := gated(t, policy.Gate{})
	n := start(t, o)
	for _, tc := range []struct {
		by   access.Caller
		line string
		want string
	}{
		{viewer, "true", fault.ReasonRoleMissing},
		{boss, "true", fault.ReasonRoleMissing},
		{ann, "apt upgrade", fault.ReasonPolicyDenied},
		{root, "echo x; apt upgrade", fault.ReasonPolicyDenied},
		{ann, "echo fine", ""},
	} {
		s, _, err := n.Execute(t.Context(), tc.by, command.Spec{Host: "h", Line: tc.line, Durability: n.kind})
		if fault.ReasonOf(err) != tc.want || err != nil && s.ID != "" {
			t.Errorf("%s, %q: %v", tc.by.Name, tc.line, err)
		}
		if f := fault.From(err); tc.want == fault.ReasonPolicyDenied && (f.Metadata["rule"] != "never" || f.Metadata["decision"] != "deny") {
			t.Errorf("facts %v", f.Metadata)
		}
	}
	list, err := n.List(t.Context(), root, command.Filter{})
	if err != nil || len(list) != 1 {
		t.Errorf("%d commands, %v", len(list), err)
	}
	n.ended(list[0].ID)

	said, err := n.Explain(ann, ann, command.Spec{Host: "h", Line: "echo a; apt x"})
	if err != nil || said.Effect != policy.Deny || said.Rule != "never" || len(said.Commands) != 2 {
		t.Errorf("%+v, %v", said, err)
	}
	if _, err := n.Explain(ann, other, command.Spec{Host: "h", Line: "true"}); fault.ReasonOf(err) != fault.ReasonRoleMissing {
		t.Errorf("about others: %v", err)
	}
	if _, err := n.Explain(root, other, command.Spec{Host: "h", Line: "true"}); err != nil {
		t.Error(err)
	}
	// New rules are in force for what is asked for from now on; what was accepted
	// is answered again all the same.
	spec := command.Spec{Host: "h", Line: "true", Durability: n.kind, RequestID: "r1"}
	s, _, err := n.Execute(t.Context(), ann, spec)
	if err != nil {
		t.Fatal(err)
	}
	n.ended(s.ID)
	none, err := policy.New(policy.Rules{Default: policy.Deny})
	if err != nil {
		t.Fatal(err)
	}
	n.SetPolicy(none)
	if again, replayed, err := n.Execute(t.Context(), ann, spec); err != nil || !replayed || again.ID != s.ID {
		t.Errorf("%+v, %v, %v", again, replayed, err)
	}
	spec.RequestID = "r2"
	if _, _, err := n.Execute(t.Context(), ann, spec); fault.ReasonOf(err) != fault.ReasonPolicyDenied {
		t.Error(err)
	}
}

// The audit has who did what, and what came of it, with a digest of all output.
func TestTold(t *testing.T) {
	o := fresh(t)
	o.Excerpt = 4
	n := start(t, o)
	id := n.execute("cat; echo oops >&2; kill -TERM $$", withInput)
	n.running(id)
	for range 3 {
		if _, err := n.Input(t.Context(), ann, id, []byte("0123456789\n"), false); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := n.Signal(t.Context(), root, id, "CONT"); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Input(t.Context(), root, id, nil, true); err != nil {
		t.Fatal(err)
	}
	s := n.ended(id)
	var got []string
	entries := told(t, o, id)
	for _, e := range entries {
		got = append(got, fmt.Sprintf("%s %s %s %s", e.Kind, e.Principal, e.Outcome, e.Signal))
	}
	if want := []string{
		"command.accepted ann STARTING ", "command.input ann  ", "command.signal root  CONT", "command.input root  ",
		"command.ended ann FAILED TERM",
	}; !slices.Equal(got, want) {
		t.Fatalf("told %q", got)
	}
	first, last := entries[0], entries[len(entries)-1]
	if first.Address != ann.Address || first.Origin != "grpc" || first.Call != "call-1" || first.Host != "h" || first.Command != s.CommandLine() ||
		len(first.RequestHash) != 32 || first.Decision != "allow" || first.Rule != policy.RuleDefault {
		t.Errorf("%+v", first)
	}
	out := strings.Repeat("0123456789\n", 3)
	sum := sha256.Sum256([]byte(out))
	if o := last.Stdout; o == nil || o.Size != 33 || !bytes.Equal(o.Digest, sum[:]) || string(o.Head) != "0123" || string(o.Tail) != "789\n" {
		t.Errorf("stdout %+v", last.Stdout)
	}
	if o := last.Stderr; o == nil || o.Size != 5 || string(o.Head) != "oops" || string(o.Tail) != "\n" {
		t.Errorf("stderr %+v", last.Stderr)
	}
	if last.Reason != fault.ReasonSignalled || last.ExitCode != nil {
		t.Errorf("%+v", last)
	}
}

// The digest is of all output, also of what an owner before has stored.
func TestToldOverARestart(t *testing.T) {
	o, _ := onMachine(t)
	o.Excerpt = 100
	n := start(t, o)
	id := n.execute("echo one; read x; echo two", withInput)
	n.prints(id, "one")
	n.stores(id, "its output", func(c command.Command) bool { return c.Size[command.Stdout] == 4 })
	n.crash()
	n = start(t, o)
	n.until(id, "connected", func(s engine.Snapshot) bool { return s.Connection == command.Connected })
	n.input(id, "")
	n.ended(id)
	sum := sha256.Sum256([]byte("one\ntwo\n"))
	last := told(t, o, id, audit.CommandEnded)[0]
	if s := last.Stdout; s == nil || s.Size != 8 || !bytes.Equal(s.Digest, sum[:]) || string(s.Head) != "one\ntwo\n" {
		t.Errorf("stdout %+v", s)
	}
}

// A command whose acceptance cannot be told is not accepted; a signal that cannot
// be told is not sent.
func TestNothingWithoutTheAudit(t *testing.T) {
	o := fresh(t)
	journal := &deaf{Journal: o.Journal}
	o.Journal = journal
	n := start(t, o)
	id := n.execute("cat", withInput)
	n.running(id)
	journal.full.Store(true)
	if _, _, err := n.Execute(t.Context(), ann, command.Spec{Host: "h", Line: "true", Durability: n.kind}); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("accepted: %v", err)
	}
	if _, err := n.Signal(t.Context(), ann, id, "KILL"); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("signalled: %v", err)
	}
	if _, err := n.Input(t.Context(), ann, id, []byte("x"), true); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("written: %v", err)
	}
	journal.full.Store(false)
	if s := n.running(id); s.Exit.Signal != "" {
		t.Error("it was killed")
	}
	n.Cancel(t.Context(), ann, id, 0, "")
	n.ended(id)
}

// deaf is a journal that can be made to take nothing that is told to the audit.
type deaf struct {
	engine.Journal
	full atomic.Bool
}

func (d *deaf) Create(ctx context.Context, c command.Command, hash []byte, gate *approval.Approval, told audit.Entry) (command.Command, bool, error) {
	if d.full.Load() {
		return command.Command{}, false, errDead
	}
	return d.Journal.Create(ctx, c, hash, gate, told)
}

func (d *deaf) Record(ctx context.Context, told ...audit.Entry) error {
	if d.full.Load() {
		return errDead
	}
	return d.Journal.Record(ctx, told...)
}

// What is secret is masked byte for byte, wherever the pieces of it end, and also
// by the next owner of the command.
func TestRedacted(t *testing.T) {
	o, _ := onMachine(t)
	o.Redact = []secret.Text{secret.New("of-the-service")}
	n := start(t, o)
	id := n.execute("echo a of-the-service; printf hunter; read x; printf '2!'; echo; echo hunt", withInput,
		func(s *command.Spec) { s.Redact = []secret.Text{secret.New("hunter2!")} })
	n.prints(id, "a **************\n")
	n.stores(id, "the first line", func(c command.Command) bool { return c.Size[command.Stdout] == 17 })
	n.crash()
	n = start(t, o)
	n.until(id, "connected", func(s engine.Snapshot) bool { return s.Connection == command.Connected })
	n.input(id, "")
	s := n.ended(id)
	if got, want := n.output(id), "a **************\n********\nhunt\n"; got != want || s.Size[command.Stdout] != int64(len(want)) {
		t.Errorf("%q, %d bytes", got, s.Size[command.Stdout])
	}
	for _, e := range told(t, o, id) {
		if strings.Contains(e.Command, "of-the-service") || !strings.Contains(e.Command, "printf hunter; ") {
			t.Errorf("%s tells %q", e.Kind, e.Command)
		}
	}
	if len(s.Spec.Redact) != 0 {
		t.Error("an ended command keeps what to mask")
	}
	if _, _, err := n.Execute(t.Context(), ann, command.Spec{Host: "h", Line: "true", Redact: []secret.Text{secret.New("abc")}}); fault.KindOf(err) != fault.Invalid {
		t.Errorf("a secret of three bytes: %v", err)
	}
	if running, queued := n.Load("h"); running+queued != 0 {
		t.Errorf("%d run and %d wait", running, queued)
	}
}
