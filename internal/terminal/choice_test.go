package terminal_test

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/session"
	"github.com/telexec/telexec/internal/terminal"
)

// A program of one's own choosing passes no rules, as typing does not: where only some may
// type, the others choose among shells.
func TestWhoMayChooseTheShell(t *testing.T) {
	m, st := newMachine(t), openStore(t, t.TempDir())
	rights, err := access.NewRights(nil, access.RoleAdmin)
	if err != nil {
		t.Fatal(err)
	}
	set, err := terminal.New(terminal.Options{Shells: m, Journal: st, Hosts: m, Limits: usual, Rights: rights, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	s := runSet(t, set, m, st)
	program := device(t, m, "printf 'ready> '; read -r line\n")
	for shell, want := range map[string]string{
		"": fault.ReasonHostUnreachable, "bash": fault.ReasonHostUnreachable, "ksh93": fault.ReasonHostUnreachable, "busybox": fault.ReasonHostUnreachable,
		"/bin/sh": fault.ReasonHostUnreachable, "/usr/bin/fish": fault.ReasonHostUnreachable, "/usr/local/bin/tcsh": fault.ReasonHostUnreachable,
		program: fault.ReasonTypingNotAllowed, "vim": fault.ReasonTypingNotAllowed, "/usr/bin/vim": fault.ReasonTypingNotAllowed,
		"/tmp/bash": fault.ReasonTypingNotAllowed, "./bash": fault.ReasonTypingNotAllowed, "bin/bash": fault.ReasonTypingNotAllowed,
		"/bin/../tmp/bash": fault.ReasonTypingNotAllowed, "/usr/bin/x/bash": fault.ReasonTypingNotAllowed, "/bin/": fault.ReasonTypingNotAllowed,
		"bash/": fault.ReasonTypingNotAllowed, "/bash": fault.ReasonTypingNotAllowed,
	} {
		_, _, err := s.Open(t.Context(), ann, session.Spec{Host: "unreachable", Shell: shell}, false)
		if e := fault.From(err); e == nil || e.Reason != want || e.Hint == "" && want == fault.ReasonTypingNotAllowed {
			t.Errorf("%q: %v, want %s", shell, err, want)
		}
		_, _, err = s.Open(t.Context(), adm, session.Spec{Host: "unreachable", Shell: shell}, false)
		if fault.ReasonOf(err) != fault.ReasonHostUnreachable {
			t.Errorf("%q by an administrator: %v", shell, err)
		}
	}
	_, _, err = s.Open(t.Context(), ann, session.Spec{Host: "web1", Shell: program}, false)
	wants(t, err, fault.ReasonTypingNotAllowed)
	if len(m.all()) > 0 {
		t.Error("it was started")
	}
	on, _, err := s.Open(t.Context(), adm, session.Spec{Host: "web1", Name: "device", Shell: program, Keeper: session.KeptByTmux}, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range s.audit(audit.SessionOpened) {
		if e.Session == on.ID && e.Detail != "name device, shell "+program+", keeper "+string(session.KeptByTmux) {
			t.Errorf("the audit says %q", e.Detail)
		}
	}
}

// audit gives the entries of some kinds, the first one first.
func (s *service) audit(kinds ...audit.Kind) (list []audit.Entry) {
	s.t.Helper()
	rows, err := s.store.AuditRows(s.t.Context(), audit.Filter{Kinds: kinds, Limit: 5000})
	if err != nil {
		s.t.Fatal(err)
	}
	for i := range rows {
		e, err := rows[len(rows)-1-i].Entry()
		if err != nil {
			s.t.Fatal(err)
		}
		list = append(list, e)
	}
	return list
}

// Who has closed a session is told, before it has ended.
func TestWhoHasClosedASession(t *testing.T) {
	s := startAlone(t)
	on := s.open("dash")
	by := adm
	by.Address, by.Call = "192.0.2.7", "call-1"
	if _, _, err := s.Close(t.Context(), by, on.ID, "enough"); err != nil {
		t.Fatal(err)
	}
	told := s.audit(audit.SessionClose, audit.SessionEnded)
	if len(told) != 2 {
		t.Fatalf("%+v", told)
	}
	if e := told[0]; e.Kind != audit.SessionClose || e.Principal != "admin" || e.Origin != "cli" || e.Address != "192.0.2.7" || e.Call != "call-1" ||
		e.Detail != "enough" || e.Session != on.ID || e.Host != "web1" || e.Subject != on.Spec.Name {
		t.Errorf("%+v", e)
	}
	if e := told[1]; e.Kind != audit.SessionEnded || e.Principal != "ann" || e.Reason != fault.ReasonSessionClosed || !strings.Contains(e.Detail, "admin") {
		t.Errorf("%+v", e)
	}
}
