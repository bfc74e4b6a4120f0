package chaos

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestPlay: what the actor prints is what the harness expects, for every kind.
func TestPlay(t *testing.T) {
	for seed, kind := range Kinds {
		t.Run(string(kind), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := Script{Kind: kind, Seed: uint64(seed), Scale: 0.01, Pace: 1, Exit: 7}
				var stdout, stderr bytes.Buffer
				input := make([]byte, 0)
				if kind == Given || kind == Fed {
					input = make([]byte, s.Size(Stdout))
					s.Content(Typed, 0, input)
				}
				began := time.Now()
				code, err := Play(t.Context(), s.Args(), bytes.NewReader(input), &stdout, &stderr)
				if err != nil || code != 7 {
					t.Fatalf("%d, %v", code, err)
				}
				if took := time.Since(began); took != s.Lasts() {
					t.Errorf("it took %v, and should %v", took, s.Lasts())
				}
				for stream, got := range map[Stream][]byte{Stdout: stdout.Bytes(), Stderr: stderr.Bytes()} {
					h := sha256.Sum256(got)
					if size := s.Size(stream); int64(len(got)) != size || hex.EncodeToString(h[:]) != s.Sum(stream, size) {
						t.Errorf("%s: %d bytes, want %d, or their sum is another", stream, len(got), size)
					}
				}
			})
		})
	}
}

// TestPlayRefuses: an actor that cannot play its script does not end as if it had.
func TestPlayRefuses(t *testing.T) {
	given := Script{Kind: Given, Seed: 3, Scale: 1, Pace: 1}.Args()
	steady := Script{Kind: Steady, Seed: 3, Scale: 1, Pace: 1}.Args()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for name, play := range map[string]func() (int, error){
		"short input": func() (int, error) {
			return Play(t.Context(), given, strings.NewReader("x"), &bytes.Buffer{}, &bytes.Buffer{})
		},
		"no input":     func() (int, error) { return Play(t.Context(), given, broken{}, &bytes.Buffer{}, &bytes.Buffer{}) },
		"closed pipe":  func() (int, error) { return Play(t.Context(), steady, nil, broken{}, broken{}) },
		"ended":        func() (int, error) { return Play(ended, steady, nil, &bytes.Buffer{}, &bytes.Buffer{}) },
		"no arguments": func() (int, error) { return Play(t.Context(), nil, nil, nil, nil) },
	} {
		if code, err := play(); err == nil || code != 2 {
			t.Errorf("%s: %d, %v", name, code, err)
		}
	}
	for i := 1; i < len(steady); i++ {
		args := slices.Clone(steady)
		args[i] = "x"
		if _, err := ParseScript(args); err == nil {
			t.Errorf("%q was taken", args)
		}
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error)  { return 0, errors.New("broken") }
func (broken) Write([]byte) (int, error) { return 0, errors.New("broken") }

// TestContent: a byte is the same from wherever the reading begins, and differs
// between streams and seeds.
func TestContent(t *testing.T) {
	for _, seed := range []uint64{6, 7} {
		whole := make([]byte, 1000)
		Content(seed, Stdout, 0, whole)
		for _, from := range []int{1, 7, 8, 79, 80, 500} {
			part := make([]byte, 100)
			Content(seed, Stdout, int64(from), part)
			if !bytes.Equal(part, whole[from:from+100]) {
				t.Errorf("seed %d: other bytes from %d on", seed, from)
			}
		}
		other := make([]byte, 1000)
		if Content(seed, Stderr, 0, other); bytes.Equal(whole, other) {
			t.Errorf("seed %d: both streams are the same", seed)
		}
		if Content(seed+2, Stdout, 0, other); bytes.Equal(whole, other) {
			t.Errorf("seeds %d and %d are the same", seed, seed+2)
		}
		if lines := bytes.Count(whole, []byte("\n")); seed%2 == 0 && lines != 12 {
			t.Errorf("%d lines of text", lines)
		}
	}
}

// TestPlan: the same seed gives the same commands and faults, and a full run has
// every exit code, kind and fault.
func TestPlan(t *testing.T) {
	places := []Place{{Name: "a"}, {Name: "b", Wire: true}, {Name: "c", Small: true, Disk: true}}
	plan := Plan(5, 512, 1, 1, places)
	again := Plan(5, 512, 1, 1, places)
	codes, kinds, signalled := map[int]bool{}, map[Kind]int{}, map[string]bool{}
	for i, r := range plan {
		if r.Script != again[i].Script || r.Host != again[i].Host || r.Cancel != again[i].Cancel {
			t.Fatalf("command %d differs", i)
		}
		codes[r.Script.Exit] = true
		kinds[r.Script.Kind]++
		signalled[r.Script.Signal] = true
		if r.Host == "c" && (r.Script.Kind == Bulk || r.Script.Kind == Bursts) {
			t.Errorf("command %d prints too much for a small disk", i)
		}
		if r.Script.Kind == Endless && !r.Cancel && r.Timeout == 0 {
			t.Errorf("command %d never ends", i)
		}
	}
	if len(codes) != 256 || len(kinds) != len(Kinds) || len(signalled) < 10 {
		t.Errorf("%d exit codes, kinds %v, signals %v", len(codes), kinds, signalled)
	}
	kinds = map[Kind]int{}
	for _, r := range Plan(6, 16, 1, 1, places[:2]) {
		kinds[r.Script.Kind]++
	}
	if len(kinds) != len(Kinds) {
		t.Errorf("16 commands have the kinds %v", kinds)
	}

	blows := Blows(5, 200, time.Minute, time.Second, places)
	if !slices.Equal(blows, Blows(5, 200, time.Minute, time.Second, places)) {
		t.Error("the faults differ")
	}
	struck := map[FaultKind]bool{}
	last := time.Duration(0)
	for _, b := range blows {
		struck[b.Kind] = true
		if b.At < last || b.At > time.Minute {
			t.Errorf("a fault at %v behind one at %v", b.At, last)
		}
		last = b.At
		if b.Kind == FillDisk && b.Host != "c" || b.Kind == DropLink && b.Host != "b" || b.Kind == KillService && b.Host != "" {
			t.Errorf("%s on %q", b.Kind, b.Host)
		}
	}
	if len(struck) != len(faultWeights) {
		t.Errorf("faults %v", struck)
	}
	for _, b := range Blows(5, 100, time.Minute, time.Second, places[:1]) {
		if b.Kind == FillDisk || b.Kind == DropLink {
			t.Errorf("%s without a host for it", b.Kind)
		}
	}
}
