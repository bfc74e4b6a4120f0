package sqlite

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/session"
)

// childDir is set in the environment of the child that TestKilled kills.
const childDir = "TELEXEC_STORETEST_DIR"

// child writes commands with output, and sessions with recordings, from several
// goroutines and prints what was acknowledged, until it is killed.
func child(dir string) {
	s, err := Open(context.Background(), filepath.Join(dir, "commands.db"), Options{Key: testKey})
	if err != nil {
		fmt.Println("error", err)
		return
	}
	var mu sync.Mutex
	say := func(args ...any) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Println(args...) // one write: never half a line but the last
	}
	for seed := range 4 {
		go func() {
			for {
				c := benchCommand(time.Now())
				if _, _, err := s.Create(context.Background(), c, nil, nil, accepted(c)); err != nil {
					say("error", err)
				}
				say("created", c.ID)
				r := rand.New(rand.NewPCG(uint64(seed), uint64(time.Now().UnixNano())))
				var whole []byte
				for range 1 + r.IntN(4) {
					chunk := command.Chunk{Offset: int64(len(whole)), Data: bytes.Repeat([]byte{byte(r.Uint32())}, 1+r.IntN(900_000))} // in rows and in files
					whole = append(whole, chunk.Data...)
					c.Size[0] = chunk.End()
					c.Version++
					if err := s.Apply(context.Background(), command.Change{From: c.State, Fence: c.Fence, Command: c, Output: []command.Chunk{chunk}}); err != nil {
						say("error", err)
					}
					say("output", c.ID, c.Version, len(whole), fmt.Sprintf("%x", sha256.Sum256(whole)))
				}
				if err := s.Apply(context.Background(), end(c)); err != nil {
					say("error", err)
				}
			}
		}()
	}
	for seed := range 2 {
		go func() {
			for {
				one := newSession()
				if err := s.CreateSession(context.Background(), one, audit.Entry{Time: one.CreateTime, Kind: audit.SessionOpened, Subject: one.ID}); err != nil {
					say("error", err)
				}
				r := rand.New(rand.NewPCG(uint64(seed), uint64(time.Now().UnixNano())))
				var whole []byte
				for range 1 + r.IntN(12) {
					piece := bytes.Repeat([]byte{byte(r.Uint32())}, 1+r.IntN(1<<r.IntN(22)))
					if err := s.AppendRecording(context.Background(), one.ID, int64(len(whole)), piece); err != nil {
						say("error", err)
					}
					whole = append(whole, piece...)
					say("recorded", one.ID, len(whole), fmt.Sprintf("%x", sha256.Sum256(whole)))
				}
			}
		}()
	}
	select {}
}

// TestKilled kills a writing process, several times over, and requires that all
// that was acknowledged is there, recordings too, and that the audit tells as much as is there.
func TestKilled(t *testing.T) {
	dir := t.TempDir()
	type state struct {
		version, size int64
		sum           string
	}
	acknowledged, recorded := map[string]state{}, map[string]state{}
	for round := range 3 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childDir+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		n := 0
		for lines.Scan() {
			var id string
			var st state
			line := lines.Text()
			if strings.HasPrefix(line, "error") {
				t.Error(line)
			} else if _, err := fmt.Sscanf(line, "output %s %d %d %s", &id, &st.version, &st.size, &st.sum); err == nil && len(st.sum) == 64 {
				acknowledged[id] = st
			} else if _, err := fmt.Sscanf(line, "recorded %s %d %s", &id, &st.size, &st.sum); err == nil && len(st.sum) == 64 {
				recorded[id] = st
			} else if _, err := fmt.Sscanf(line, "created %s", &id); err == nil && len(id) == 26 {
				acknowledged[id] = state{version: 1}
			}
			if n++; n == 120+40*round {
				if err := cmd.Process.Kill(); err != nil { // SIGKILL
					t.Fatal(err)
				}
			}
		}
		_ = cmd.Wait()
		s := open(t, dir)
		check(t, s)
		asTold(t, s)
		for id, st := range acknowledged {
			c, err := s.Get(t.Context(), id)
			if err != nil || c.Version < st.version || c.Size[0] < st.size {
				t.Fatalf("round %d: %s is version %d with %d bytes, %v; acknowledged was %+v", round, id, c.Version, c.Size[0], err, st)
			}
			// What was not acknowledged is there whole or not at all.
			data, err := s.ReadOutput(t.Context(), id, command.Stdout, 0, 8<<20)
			if err != nil || int64(len(data)) != c.Size[0] {
				t.Fatalf("round %d: %s has %d of %d bytes, %v", round, id, len(data), c.Size[0], err)
			}
			if st.sum != "" && fmt.Sprintf("%x", sha256.Sum256(data[:st.size])) != st.sum {
				t.Fatalf("round %d: the output of %s is not what was acknowledged", round, id)
			}
		}
		for id, st := range recorded {
			data, err := s.ReadRecording(t.Context(), id, 0, 64<<20)
			if err != nil || int64(len(data)) < st.size || fmt.Sprintf("%x", sha256.Sum256(data[:st.size])) != st.sum {
				t.Fatalf("round %d: the recording of %s has %d bytes, %v; acknowledged was %+v", round, id, len(data), err, st)
			}
			// It goes on where it ended, over whatever the kill has left behind it.
			if st.size < int64(len(data)) {
				st.size, st.sum = int64(len(data)), fmt.Sprintf("%x", sha256.Sum256(data))
			}
			if err := s.AppendRecording(t.Context(), id, st.size, []byte("goes on")); err != nil {
				t.Fatal(err)
			}
			recorded[id] = st
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if len(acknowledged) < 10 || len(recorded) < 5 {
		t.Fatalf("only %d commands and %d recordings were acknowledged", len(acknowledged), len(recorded))
	}
}

// asTold requires that the audit is whole and tells what has become of every command,
// and no more than that.
func asTold(t *testing.T, s *Store) {
	t.Helper()
	if err := verify(t, s); err != nil {
		t.Fatal(err)
	}
	all, err := s.List(t.Context(), command.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	told := 0
	for _, c := range all {
		rows, err := s.AuditRows(t.Context(), audit.Filter{CommandID: c.ID})
		if err != nil {
			t.Fatal(err)
		}
		told += len(rows)
		kinds := make([]audit.Kind, len(rows))
		for i, row := range rows {
			e, err := row.Entry()
			if err != nil {
				t.Fatal(err)
			}
			kinds[i] = e.Kind
		}
		due := []audit.Kind{audit.CommandAccepted}
		if c.Ended() {
			due = []audit.Kind{audit.CommandEnded, audit.CommandAccepted}
		}
		if !slices.Equal(kinds, due) {
			t.Fatalf("of %s, which is %s, the audit tells %q", c.ID, c.State, kinds)
		}
	}
	rows, err := s.AuditRows(t.Context(), audit.Filter{Kinds: []audit.Kind{audit.SessionOpened}})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		e, err := row.Entry()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Session(t.Context(), e.Subject); err != nil {
			t.Fatal(err)
		}
	}
	list, err := s.Sessions(t.Context(), session.Filter{Limit: 1 << 20})
	if err != nil || len(list) != len(rows) {
		t.Fatalf("there are %d sessions, %v; the audit tells of %d", len(list), err, len(rows))
	}
	told += len(rows)
	if head, err := s.AuditHead(t.Context()); err != nil || head.Seq != int64(told) {
		t.Fatalf("the audit has %d rows, %v, of which %d are of commands and sessions that are there", head.Seq, err, told)
	}
}
