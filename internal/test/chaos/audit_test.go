package chaos

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	_ "modernc.org/sqlite"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

// audit asks, when all is over, what the service and the hosts know of each
// command, and puts it into the records.
func (h *harness) audit(ctx context.Context, records []*Record) error {
	listed, err := h.listed(ctx)
	if err != nil {
		return err
	}
	var readers sync.WaitGroup
	next := make(chan *Record) // this goroutine sends and closes; the readers end with it
	for range 3 {
		readers.Go(func() {
			for r := range next {
				h.auditOne(ctx, r)
			}
		})
	}
	for _, r := range records {
		if r.ID() != "" {
			r.Listed = listed[r.ID()]
			next <- r
		}
	}
	close(next)
	readers.Wait()
	if len(listed) != len(records) {
		return fmt.Errorf("the history has %d commands, %d were asked for", len(listed), len(records))
	}
	return nil
}

// listed pages through the commands of this run.
func (h *harness) listed(ctx context.Context) (map[string]Sighting, error) {
	all := make(map[string]Sighting)
	for page := ""; ; {
		asked := h.now()
		resp, err := retry(ctx, h.commands.ListCommands, &telexecv1.ListCommandsRequest{
			PageSize: 100, PageToken: page, Labels: map[string]string{"chaos": h.run},
		})
		if err != nil {
			return nil, err
		}
		for _, c := range resp.GetCommands() {
			if _, twice := all[c.GetId()]; twice {
				return nil, fmt.Errorf("the history has %s twice", c.GetId())
			}
			all[c.GetId()] = h.sighting("list", asked, c)
		}
		if page = resp.GetNextPageToken(); page == "" {
			return all, nil
		}
	}
}

func (h *harness) auditOne(ctx context.Context, r *Record) {
	asked := h.now()
	resp, err := retry(ctx, h.commands.GetStatus, &telexecv1.GetStatusRequest{CommandId: r.ID(), Output: &telexecv1.OutputOptions{Omit: true}})
	if err != nil {
		r.Note(h.now(), "audit: GetStatus: %v", err)
		return
	}
	r.Status = h.sighting("audit", asked, resp.GetCommand())
	r.See(r.Status)
	if r.Status.State == "LOST" && r.Attached {
		// What is left of it on the host is ended by a cancel, as its hint says.
		cancelled, err := retry(ctx, h.commands.Cancel, &telexecv1.CancelRequest{CommandId: r.ID(), Reason: "audit"})
		r.Note(h.now(), "audit: cancel of what is LOST: %v, %v", cancelled.GetReport().GetOutcome(), err)
	}
	// And once more from the store, which no watcher had a hand in.
	stored := NewWatch("audit", r.Script, [2]int64{})
	if err := h.watchOnce(ctx, r, stored, 0); err != nil {
		stored.Failed(err)
	}
	r.Stored = stored
	lines, err := os.ReadFile(h.startsFile(r))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		r.Note(h.now(), "audit: %v", err)
	}
	r.Starts = bytes.Count(lines, []byte("start\n"))
}

// cleanLimit is how long the hosts may take to be clean.
const cleanLimit = 20 * time.Second

// leftovers waits until nothing is left of the commands on their hosts, and
// notes what is when it must be gone. It counts the tombstones: empty files by
// which a start that was tried again knows that it is not to happen any more.
func (h *harness) leftovers(ctx context.Context, records []*Record) (tombstones int) {
	ctx, cancel := context.WithTimeout(ctx, cleanLimit)
	defer cancel()
	todo := records
	for patient := true; len(todo) > 0; {
		var dirty []*Record
		tombstones = 0
		for _, r := range todo {
			if r.ID() == "" {
				continue
			}
			left := h.leftOf(r)
			var bad []string
			for _, what := range left {
				if path, ok := strings.CutPrefix(what, "file "); ok && strings.HasSuffix(path, ".go") && h.empty(r.Host, path) {
					tombstones++
					continue
				}
				bad = append(bad, what)
			}
			if len(left) > 0 {
				dirty = append(dirty, r)
			}
			r.Left = bad
		}
		done := true
		for _, r := range dirty {
			done = done && len(r.Left) == 0
		}
		if done || !patient {
			return tombstones
		}
		todo = dirty
		patient = pause(ctx, 200*time.Millisecond)
	}
	return tombstones
}

func (h *harness) leftOf(r *Record) []string {
	if m := h.machines[r.Host]; m != nil {
		return m.Leftovers(r.ID())
	}
	return h.servers[r.Host].Leftovers(r.ID())
}

// empty reports whether a file of a host has nothing in it.
func (h *harness) empty(host, path string) bool {
	if m := h.machines[host]; m != nil {
		path = m.Path(m.User, path)
	}
	info, err := os.Stat(path)
	return err == nil && info.Size() == 0
}

// strays lists the processes of this run that are still there, whatever they
// call themselves: all inherit the mark of the run.
func (h *harness) strays() (found []string) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return []string{err.Error()}
	}
	for _, e := range entries {
		env, err := os.ReadFile(filepath.Join("/proc", e.Name(), "environ"))
		if err != nil || !bytes.Contains(append([]byte{0}, env...), []byte("\x00"+mark+"="+h.run+"\x00")) {
			continue
		}
		line, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		found = append(found, fmt.Sprintf("process %s %q", e.Name(), bytes.ReplaceAll(line, []byte{0}, []byte(" "))))
	}
	return found
}

// checkStore opens the file of a service that was stopped and lets SQLite look
// for damage, and for commands that have not ended.
func checkStore(ctx context.Context, dataDir string) (problems []string, err error) {
	files, err := filepath.Glob(filepath.Join(dataDir, "*.db"))
	if err != nil || len(files) != 1 {
		return nil, fmt.Errorf("want one store in %s, found %v (%v)", dataDir, files, err)
	}
	db, err := sql.Open("sqlite", "file:"+files[0]+"?mode=ro")
	if err != nil {
		return nil, err
	}
	defer db.Close()
	for pragma, fine := range map[string]string{"integrity_check": "ok", "foreign_key_check": ""} {
		rows, err := db.QueryContext(ctx, "PRAGMA "+pragma)
		if err != nil {
			return nil, err
		}
		for rows.Next() {
			columns, _ := rows.Columns()
			values := make([]any, len(columns))
			for i := range values {
				values[i] = new(sql.NullString)
			}
			if err := rows.Scan(values...); err != nil {
				return nil, errors.Join(err, rows.Close())
			}
			if said := values[0].(*sql.NullString).String; said != fine || fine == "" {
				problems = append(problems, pragma+": "+said)
			}
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			return nil, err
		}
	}
	return problems, nil
}
