package chaos

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/test/testenv"
)

var cancels = flag.Int("chaos.cancels", len(trees), "how many commands TestCancels cancels")

// tree is a kind of command to cancel.
type tree struct {
	name  string
	line  string
	least int  // processes that it consists of
	heeds bool // it goes at INT or TERM, so that no grace is spent on it
}

var trees = []tree{
	{"sleep", "exec sleep 600", 1, true},
	{"pipeline", "sleep 600 | cat | cat", 3, true},
	{"background", "sleep 600 & sleep 600 & sleep 600", 4, true},
	{"nohup", "nohup sleep 600 >/dev/null 2>&1 & sleep 600", 3, true},
	{"setsid", "setsid sleep 600 & setsid sleep 600 & sleep 600", 4, true},
	{"ignores TERM", "trap '' INT TERM HUP; while :; do sleep 600; done", 2, false},
	{"stopped", "sleep 600 & kill -s STOP $!; kill -s STOP $$; wait", 2, true},
	{"tree of 50", "i=0; while [ $i -lt 49 ]; do sleep 600 & i=$((i+1)); done; wait", 50, true},
}

// TestCancels cancels mixed trees one after the other and measures, beside what
// the service reports, on the host's process list when they are gone.
func TestCancels(t *testing.T) {
	env := testenv.Start(t)
	hosts := []string{"web1"}
	if env.Servers["root1"] != nil {
		hosts = append(hosts, "root1")
	}
	var reported, gone, heeding, answers []time.Duration
	byTree := make(map[string][]time.Duration)
	proven, zombies := 0, 0
	for n := range *cancels {
		shape, host := trees[n%len(trees)], hosts[n/len(trees)%len(hosts)]
		m, err := cancelOne(t.Context(), env, host, shape, fmt.Sprintf("CHAOS_CANCEL=%d-%d", os.Getpid(), n))
		if err != nil {
			t.Fatalf("cancel %d, %s on %s: %v", n, shape.name, host, err)
		}
		if m.outcome == telexecv1.CancelOutcome_CANCEL_OUTCOME_GONE && m.left == 0 {
			proven++
		} else {
			t.Errorf("cancel %d, %s on %s: %v, and %d processes live", n, shape.name, host, m.outcome, m.left)
		}
		zombies += m.zombies
		reported, gone, answers = append(reported, m.reported), append(gone, m.gone), append(answers, m.answer)
		byTree[shape.name] = append(byTree[shape.name], m.gone)
		if shape.heeds {
			heeding = append(heeding, m.gone)
		}
	}
	for _, shape := range trees {
		t.Logf("%-13s request to gone %s", shape.name, Spread(byTree[shape.name]))
	}
	t.Logf("%d cancels: %.1f %% proven gone, %d zombies", *cancels, 100*float64(proven)/float64(*cancels), zombies)
	t.Logf("request to gone, on the host's process list: %s", Spread(gone))
	t.Logf("  of trees that heed INT or TERM:            %s", Spread(heeding))
	t.Logf("request to gone, as the service reports it:  %s", Spread(reported))
	t.Logf("request to answer:                           %s", Spread(answers))
	if p99 := Quantile(heeding, 0.99); *cancels >= 100 && p99 >= time.Second {
		t.Errorf("trees that heed TERM took %v to go, p99", p99)
	}
	if slowest := Quantile(answers, 1); slowest >= 3*time.Second {
		t.Errorf("an answer took %v", slowest)
	}
	if zombies > 0 {
		t.Errorf("%d zombies", zombies)
	}
}

// measured is one cancel.
type measured struct {
	outcome                telexecv1.CancelOutcome
	reported, gone, answer time.Duration
	left, zombies          int
}

func cancelOne(ctx context.Context, env *testenv.Env, host string, shape tree, variable string) (m measured, err error) {
	ctx, stop := context.WithTimeout(ctx, 30*time.Second)
	defer stop()
	name, value, _ := strings.Cut(variable, "=")
	commands := env.Commands()
	resp, err := commands.Execute(ctx, &telexecv1.ExecuteRequest{
		Host: host, Command: shape.line, Env: map[string]string{name: value}, Wait: durationpb.New(0),
	}, grpc.WaitForReady(true))
	if err != nil {
		return m, err
	}
	var processes []proc
	for len(processes) < shape.least {
		if !pause(ctx, 20*time.Millisecond) {
			return m, fmt.Errorf("after 30 s it has %d processes, want %d", len(processes), shape.least)
		}
		processes = carriers(variable)
	}
	asked := time.Now()
	over := make(chan time.Duration, 1) // one value, when all processes that were seen are gone
	go func() {
		for _, p := range processes {
			for p.lives() && pause(ctx, time.Millisecond) {
			}
		}
		over <- time.Since(asked)
	}()
	cancelled, err := commands.Cancel(ctx, &telexecv1.CancelRequest{CommandId: resp.GetCommand().GetId(), Reason: "measured"})
	m.answer = time.Since(asked)
	m.gone = <-over
	if err != nil {
		return m, err
	}
	m.outcome, m.reported = cancelled.GetReport().GetOutcome(), cancelled.GetReport().GetDuration().AsDuration()
	m.left = len(carriers(variable))
	// Whoever has adopted the dead may take a moment to take note of them.
	for range 100 {
		m.zombies = 0
		for _, p := range processes {
			if p.zombie() {
				m.zombies++
			}
		}
		if m.zombies == 0 || !pause(ctx, 10*time.Millisecond) {
			break
		}
	}
	return m, nil
}
