package terminal_test

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/telexec/telexec/internal/asciicast"
	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/secret"
	"github.com/telexec/telexec/internal/session"
	"github.com/telexec/telexec/internal/terminal"
)

var auditEntry = audit.Entry{Time: time.Unix(1, 0), Kind: audit.SessionOpened}

// tape is what a recording has.
type tape struct {
	output  string
	marks   []string
	resizes []string
}

// recording reads the whole recording of a session in small pieces.
func (s *service) recording(on session.Session) (all tape) {
	s.t.Helper()
	var file strings.Builder
	for last := false; !last; {
		var piece []byte
		var err error
		piece, last, err = s.Recording(s.t.Context(), ann, on.ID, int64(file.Len()), 1000)
		if err != nil {
			s.t.Fatal(err)
		}
		file.Write(piece)
	}
	return readTape(s.t, file.String())
}

// tapeOf is recording where the first of it may not be stored yet.
func (s *service) tapeOf(on session.Session) tape {
	s.t.Helper()
	s.poll("a recording", func() bool {
		piece, _, err := s.Recording(s.t.Context(), ann, on.ID, 0, 1)
		return err == nil && len(piece) > 0
	})
	return s.recording(on)
}

func readTape(t testing.TB, file string) (all tape) {
	t.Helper()
	r, err := asciicast.NewReader(strings.NewReader(file))
	if err != nil {
		t.Fatalf("%v in %q", err, file)
	}
	at := time.Duration(0)
	for {
		e, err := r.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		if e.At < at {
			t.Errorf("at %v, behind %v", e.At, at)
		}
		at = e.At
		switch e.Kind {
		case asciicast.Output:
			all.output += string(e.Data)
		case asciicast.Marker:
			all.marks = append(all.marks, e.Label)
		case asciicast.Resize:
			all.resizes = append(all.resizes, fmt.Sprintf("%dx%d", e.Width, e.Height))
		}
	}
}

func TestTheRecordingIsExact(t *testing.T) {
	s := start(t)
	on := s.open("bash")
	zero := int64(0)
	v := s.attach(ann, on, terminal.AttachOptions{From: &zero, Size: &session.Size{Columns: 100, Rows: 30}})
	s.run(on, "printf 'ä\\xe2\\x82'; sleep 0.1; printf '\\xac\\xff\\x00\\x1b[1m\\n'").ends("0", "MARK")
	s.run(on, "seq 30000").ends("0", "MARK")
	if _, _, err := s.Close(t.Context(), ann, on.ID, ""); err != nil {
		t.Fatal(err)
	}
	v.seen("end", func(e terminal.Event) bool { return e.Kind == terminal.EventEnded })
	got := s.recording(on)
	if got.output != v.text() || len(got.output) < 100000 || !strings.Contains(got.output, "ä\xe2\x82\xac\xff\x00\x1b[1m") {
		t.Errorf("recorded %d bytes, seen %d", len(got.output), len(v.text()))
	}
	if len(got.marks) != 2 || got.marks[1] != "seq 30000" || len(got.resizes) != 1 || got.resizes[0] != "100x30" {
		t.Errorf("%q, %q", got.marks, got.resizes)
	}
	_, _, err := s.Recording(t.Context(), bob, on.ID, 0, 10)
	wants(t, err, fault.ReasonAccessDenied)
}

func TestTheRecordingHasALimitAndNoSecrets(t *testing.T) {
	limits := usual
	limits.RecordingBytes = 200 << 10
	m, st := newMachine(t), openStore(t, t.TempDir())
	set, err := terminal.New(terminal.Options{Shells: m, Journal: st, Hosts: m, Limits: limits, Redact: []secret.Text{secret.New("hunter22hunter")}})
	if err != nil {
		t.Fatal(err)
	}
	s := runSet(t, set, m, st)
	on := s.open("bash")
	out := s.run(on, "echo pass hunter22; echo hunter22hunter; seq 10000").ends("0", "MARK")
	s.run(on, "seq 100000").ends("0", "MARK")
	s.poll("that it is cut", func() bool { return s.get(on).Truncated != nil })
	cut := *s.get(on).Truncated
	if _, _, err := s.Close(t.Context(), ann, on.ID, ""); err != nil {
		t.Fatal(err)
	}
	got := s.recording(on)
	if n := len(got.marks); got.marks[n-1] != "the recording has reached its limit" || strings.Contains(strings.Join(got.marks, "\n"), "hunter22hunter") {
		t.Errorf("%q", got.marks)
	}
	if !strings.Contains(out, "hunter22hunter\r\n") || strings.Contains(got.output, "hunter22hunter") || !strings.Contains(got.output, "pass hunter22\r\n**************\r\n") {
		t.Errorf("%q", got.output[:300])
	}
	if int64(len(got.output)) < cut || cut < 50<<10 {
		t.Errorf("%d bytes, cut at %d", len(got.output), cut)
	}

	limits.Record = false
	off := startWith(t, m, st, limits)
	plain := off.open("dash")
	_, _, err = off.Recording(t.Context(), ann, plain.ID, 0, 10)
	wants(t, err, fault.ReasonNotRecorded)
}
