package chaos

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var full = flag.Bool("chaos.full", false, "the full form: what make chaos runs")

// form is how much a run does.
type form struct {
	commands, faults, workers int
	scale, pace               float64       // of the scripts
	over                      time.Duration // in which all commands begin and all faults happen
	longest                   time.Duration // that a fault lasts
}

var (
	shortForm = form{commands: 40, faults: 15, workers: 16, scale: 0.02, pace: 0.15, over: 18 * time.Second, longest: time.Second}
	fullForm  = form{commands: 560, faults: 220, workers: 32, scale: 1, pace: 1, over: 9 * time.Minute, longest: 4 * time.Second}
)

// seedOf gives the seed that was asked for, or a new one.
func seedOf(t *testing.T) uint64 {
	text := os.Getenv("CHAOS_SEED")
	if text == "" {
		return rand.Uint64N(1_000_000_000)
	}
	seed, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("CHAOS_SEED is %q; give a number", text)
	}
	return seed
}

// TestChaos is the harness at work. Repeat a run with CHAOS_SEED.
func TestChaos(t *testing.T) {
	f := shortForm
	if *full {
		f = fullForm
	}
	seed := seedOf(t)
	t.Logf("seed %d: CHAOS_SEED=%d repeats this run", seed, seed)
	h := newHarness(t, seed)
	records := Plan(seed, f.commands, f.scale, f.pace, h.places)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()

	var struck atomic.Int64
	b := &breaker{h: h, report: func(fault Fault) {
		struck.Add(1)
		if *full {
			t.Logf("%7.1fs %s for %v", fault.From.Seconds(), fault, (fault.To - fault.From).Round(time.Millisecond))
		}
	}}
	var started, ended atomic.Int64
	var workers sync.WaitGroup
	next := make(chan *Record) // the dealer sends and closes; the workers end with it
	workers.Go(func() {
		defer close(next)
		for i, r := range records {
			if !pause(ctx, f.over*time.Duration(i)/time.Duration(len(records))-h.now()) {
				return
			}
			next <- r
		}
	})
	for range f.workers {
		workers.Go(func() {
			for r := range next {
				started.Add(1)
				h.drive(ctx, r)
				ended.Add(1)
			}
		})
	}
	if *full {
		workers.Go(func() {
			for int(ended.Load()) < len(records) && pause(ctx, 10*time.Second) {
				fmt.Printf("chaos: %v, %d of %d commands started, %d ended, %d of %d faults\n",
					h.now().Round(time.Second), started.Load(), len(records), ended.Load(), struck.Load(), f.faults)
			}
		})
	}
	b.strike(ctx, Blows(seed, f.faults, f.over, f.longest, h.places))
	workers.Wait()

	h.conclude(ctx, seed, records, b)
}

// conclude audits, checks and reports.
func (h *harness) conclude(ctx context.Context, seed uint64, records []*Record, b *breaker) {
	t := h.t
	var general []string // violations that are no one command's
	if err := h.audit(ctx, records); err != nil {
		general = append(general, "the audit: "+err.Error())
	}
	summary := &Summary{Seed: seed, Faults: make(map[FaultKind]int), Reattached: b.reatt, Late: b.late}
	summary.Tombstones = h.leftovers(ctx, records)
	general = append(general, h.strays()...)
	h.env.Stop()
	problems, err := checkStore(ctx, h.env.DataDir)
	if err != nil {
		problems = append(problems, err.Error())
	}
	for _, p := range problems {
		general = append(general, "the store: "+p)
	}
	var report strings.Builder
	for _, what := range general {
		fmt.Fprintf(&report, "VIOLATION, seed %d: %s\n", seed, what)
	}
	summary.Violations = len(general)
	for _, r := range records {
		violations := r.Check(b.done)
		summary.Violations += len(violations)
		summary.Add(r, b.done)
		for _, what := range violations {
			fmt.Fprintf(&report, "VIOLATION, seed %d, command %s: %s\n", seed, r.ID(), what)
		}
		if len(violations) > 0 {
			report.WriteString(r.History(b.done) + "\n")
		}
	}
	for _, f := range b.done {
		summary.Faults[f.Kind]++
	}
	summary.Took = h.now()
	t.Logf("\n%s", summary)
	if summary.Violations > 0 {
		t.Errorf("%d violations; CHAOS_SEED=%d repeats the run; logs and histories are in %s\n%s",
			summary.Violations, seed, h.keep(report.String()), head(report.String(), 20_000))
	}
}

// keep writes what explains a violation to a directory that stays.
func (h *harness) keep(report string) (dir string) {
	dir, err := os.MkdirTemp("", "telexec-chaos-violation-")
	if err != nil {
		return err.Error()
	}
	files := map[string]string{"violations.txt": report, "telexecd.log": h.env.Log()}
	for name, s := range h.servers {
		files["sshd-"+name+".log"] = s.Log()
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return err.Error()
		}
	}
	return dir
}

// head cuts a text that is too long to read at once.
func head(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return text[:most] + "\n… the rest is in the file"
}
