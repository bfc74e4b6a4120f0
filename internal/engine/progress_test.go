package engine_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/engine"
	"github.com/telexec/telexec/internal/secret"
)

// written counts the writes to a journal.
type written struct {
	engine.Journal
	n atomic.Int64
}

func (w *written) Apply(ctx context.Context, ch command.Change) error {
	w.n.Add(1)
	return w.Journal.Apply(ctx, ch)
}

// percents follows a command and gives what it is told of its progress, each as
// soon as it differs from the one before.
func percents(t *testing.T, n *node, id string) (told func() []string) {
	w, err := n.Watch(t.Context(), ann, id, engine.WatchOptions{Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan []string, 1)
	go func() {
		defer w.Close()
		var all []string
		for {
			ev, err := w.Next(t.Context())
			if err != nil {
				done <- all
				return
			}
			if ev.Snapshot == nil || ev.Snapshot.Progress == nil {
				continue
			}
			p := ev.Snapshot.Progress
			if s := fmt.Sprintf("%g %s", p.Percent, p.Label); len(all) == 0 || s != all[len(all)-1] {
				all = append(all, s)
			}
		}
	}()
	return func() []string { return <-done }
}

func exited(code int) command.Ending {
	return command.Ending{Exit: command.Exit{Code: &code}}
}

// A command that tells its progress a hundred times a second is told about five
// times a second, at once at first, and never without the last.
func TestProgressIsToldInMeasure(t *testing.T) {
	r := newTimeless(nil)
	bubble(t, r, command.Spec{}, func(t *testing.T, n *node, id string) {
		told := percents(t, n, id)
		draw := func(value int) {
			t.Helper()
			if err := r.run.Output(command.Stdout, fmt.Appendf(nil, "\rExporting %d%%\r", value)); err != nil {
				t.Fatal(err)
			}
		}
		draw(0)
		for i := range 98 {
			draw(i + 1)
			<-time.After(10 * time.Millisecond)
		}
		<-time.After(200 * time.Millisecond)
		synctest.Wait()
		if s, err := n.Get(t.Context(), ann, id); err != nil || s.Progress == nil || s.Progress.Percent != 98 {
			t.Errorf("200 ms after the last: %+v, %v", s.Progress, err)
		}
		draw(99)
		synctest.Wait()
		draw(100)
		draw(101) // is none
		synctest.Wait()
		r.ends <- exited(0)
		s := n.ended(id)
		if s.Progress == nil || s.Progress.Percent != 100 || s.Progress.Label != "Exporting" || s.Progress.Time.IsZero() {
			t.Errorf("at the end: %+v", s.Progress)
		}
		all := told()
		if len(all) < 6 || len(all) > 9 || all[0] != "1 Exporting" || all[len(all)-1] != "100 Exporting" {
			t.Errorf("told %q", all)
		}
		<-time.After(time.Second)
		if after, _ := n.Get(t.Context(), ann, id); after.Version != s.Version {
			t.Errorf("version %d became %d after the end", s.Version, after.Version)
		}
	})
}

// Progress alone is not written: it goes with what is written next.
func TestProgressIsNotWrittenAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := fresh(t)
		journal := &written{Journal: o.Journal}
		r := newTimeless(nil)
		o.Journal, o.Runner = journal, r
		n := start(t, o)
		s, _, err := n.Execute(t.Context(), ann, command.Spec{Host: "h", Line: "true"})
		if err != nil {
			t.Fatal(err)
		}
		n.running(s.ID)
		for i := range 4 { // the last one waits for its turn, and the output does not
			r.run.Output(command.Stdout, fmt.Appendf(nil, "Uploading: %d%%\n", i))
		}
		synctest.Wait()
		r.run.Output(command.Stdout, []byte("Uploading: 50%\n"))
		<-time.After(100 * time.Millisecond)
		synctest.Wait()
		before := journal.n.Load()
		<-time.After(time.Minute)
		synctest.Wait()
		if after := journal.n.Load(); after != before {
			t.Errorf("%d writes, and %d after a minute of silence", before, after)
		}
		if got, err := n.Get(t.Context(), ann, s.ID); err != nil || got.Progress == nil || got.Progress.Percent != 50 {
			t.Errorf("told %+v, %v", got.Progress, err)
		}
		n.stop() // which lets go of the command
		if got, err := journal.Get(t.Context(), s.ID); err != nil || got.Progress == nil || got.Progress.Percent != 50 {
			t.Errorf("stored %+v, %v", got.Progress, err)
		}
	})
}

// A label shows no more than the output does.
func TestProgressIsMasked(t *testing.T) {
	r := newTimeless(nil)
	spec := command.Spec{Redact: []secret.Text{secret.New("hunter2hunter2")}}
	bubble(t, r, spec, func(t *testing.T, n *node, id string) {
		r.run.Output(command.Stderr, []byte("Uploading hunter2hun"))
		r.run.Output(command.Stderr, []byte("ter2: 1%\nUploading hunter2hunter2: 2%\n"))
		r.ends <- exited(0)
		if s := n.ended(id); s.Progress == nil || s.Progress.Label != "Uploading **************" {
			t.Errorf("%+v", s.Progress)
		}
	})
}

// An installation by apt, as a terminal got it, from a real process.
func TestProgressOfApt(t *testing.T) {
	n := start(t, fresh(t))
	for file, want := range map[string]string{
		"apt-fancy": "92 Setting up telexec-alpha (1.0-1)", "apt-plain": "87.5 Setting up telexec-alpha (1.0-1)", "dd": "none",
	} {
		s := n.ended(n.execute("cat ../output/testdata/progress/" + file + ".txt"))
		got := "none"
		if p := s.Progress; p != nil {
			got = fmt.Sprintf("%g %s", p.Percent, p.Label)
		}
		if got != want || s.State != command.Completed {
			t.Errorf("%s: %s, %s", file, got, s.State)
		}
	}
}
