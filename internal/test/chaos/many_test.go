package chaos

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/test/testenv"
)

var (
	many    = flag.Int("chaos.many", 20, "how many commands TestMany runs at once")
	seconds = flag.Int("chaos.seconds", 4, "for how many seconds each of them prints a line per second")
)

// TestMany runs many durable commands at once on one sshd, kills the service
// with -9 in their middle, and tells what all that cost.
func TestMany(t *testing.T) {
	env := testenv.Start(t, testenv.WithMaxCommands(*many), testenv.WithConfig(fmt.Sprintf("limits:\n  max_commands: %d\ndrain_timeout: 1s", *many+10)))
	h := &harness{t: t, env: env, servers: env.Servers, run: "many", began: time.Now()}
	h.dial()
	self, _ := readProc(os.Getpid())
	busyBefore := busy()

	ids := make([]string, *many)
	var starters sync.WaitGroup
	next := make(chan int) // this goroutine sends and closes; the starters end with it
	for range 32 {
		starters.Go(func() {
			for n := range next {
				ids[n] = h.startOne(t.Context(), n)
			}
		})
	}
	for n := range *many {
		next <- n
	}
	close(next)
	starters.Wait()
	accepted := time.Since(h.began)
	all := h.awaitAll(t.Context(), func(c *telexecv1.Command) bool { return c.GetState() == telexecv1.CommandState_COMMAND_STATE_RUNNING })
	t.Logf("%d commands asked for in %v, %d running at once after %v", *many, accepted.Round(time.Millisecond), all, time.Since(h.began).Round(time.Millisecond))
	if all < *many {
		t.Logf("not all at once: some have ended before the last had begun, by themselves (then give more -chaos.seconds) or not")
	}

	// A while of the plain work of following, to see what it costs.
	service, _ := readProc(env.PID())
	quiet := time.Duration(*seconds) * time.Second / 8
	pause(t.Context(), quiet)
	after, _ := readProc(env.PID())
	rss, _ := memory(env.PID())
	host := hostMemory(ids)
	t.Logf("following them: %.1f %% of a processor in the service; memory of the service %d MiB, of the host's %d processes %d MiB (their part of what they share)",
		100*float64(after.cpu-service.cpu)/float64(quiet), rss>>20, host.processes, host.pss>>20)
	info, err := env.Hosts().GetHost(t.Context(), &telexecv1.GetHostRequest{Host: env.Host})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("SSH connections: %d, as sshd counts %d", info.GetHost().GetConnections(), env.Servers[env.Host].Sessions())
	spent := after.cpu

	b := &breaker{h: h, report: func(Fault) {}}
	running := b.running(t.Context())
	env.Kill()
	spawned := h.now()
	env.Restart()
	ready := h.now() - spawned
	b.reattachedWithin(t.Context(), running, spawned, time.Minute)
	t.Logf("kill -9 with %d running: ready after %v, connected again after %s, %d not within a minute", len(b.reatt)+b.late, ready.Round(time.Millisecond), Spread(b.reatt), b.late)
	if b.late > 0 {
		t.Errorf("%d commands were not connected again", b.late)
	}

	h.awaitAll(t.Context(), func(c *telexecv1.Command) bool { return c.GetEndTime() != nil })
	lost := 0
	for n, id := range ids {
		if problem := h.verifyLines(t.Context(), id); problem != "" {
			lost++
			if lost <= 5 {
				t.Errorf("command %d, %s: %s", n, id, problem)
			}
		}
	}
	last, _ := readProc(env.PID())
	spent += last.cpu
	selfAfter, _ := readProc(os.Getpid())
	t.Logf("%d of %d lost; processor time: service %v, the machine without service and harness %v; in all %v",
		lost, *many, spent, busy()-busyBefore-spent-(selfAfter.cpu-self.cpu), time.Since(h.began).Round(time.Second))
}

// counting prints a line per second. In perl where there is one, since a sleep of
// the shell's is a new process: a thousand a second would be what is measured.
const counting = `command -v perl >/dev/null && exec perl -e '$| = 1; for my $i (0 .. $ARGV[0] - 1) { print "line $i\n"; sleep 1 } exit 7' %[1]d
i=0; while [ $i -lt %[1]d ]; do echo line $i; i=$((i+1)); sleep 1; done; exit 7`

// startOne starts a command that counts the seconds.
func (h *harness) startOne(ctx context.Context, n int) (id string) {
	resp, err := retry(ctx, h.commands.Execute, &telexecv1.ExecuteRequest{
		RequestId: "many-" + strconv.Itoa(n), Host: h.env.Host, Wait: durationpb.New(0), Labels: map[string]string{"chaos": h.run},
		Command: fmt.Sprintf(counting, *seconds),
	})
	if err != nil {
		h.t.Errorf("command %d: %v", n, err)
	}
	return resp.GetCommand().GetId()
}

// awaitAll waits until all commands are as wanted, or over, and gives how many
// were so at the same time at most.
func (h *harness) awaitAll(ctx context.Context, want func(*telexecv1.Command) bool) (most int) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(*seconds)*time.Second+5*time.Minute)
	defer cancel()
	for {
		n, open := 0, 0
		for page := ""; ; {
			resp, err := retry(ctx, h.commands.ListCommands, &telexecv1.ListCommandsRequest{PageSize: 1000, PageToken: page, Labels: map[string]string{"chaos": h.run}})
			if err != nil {
				h.t.Error(err)
				return most
			}
			for _, c := range resp.GetCommands() {
				switch {
				case want(c):
					n++
				case c.GetEndTime() == nil:
					open++
				}
			}
			if page = resp.GetNextPageToken(); page == "" {
				break
			}
		}
		most = max(most, n)
		if open == 0 {
			return most
		}
		if !pause(ctx, 200*time.Millisecond) {
			h.t.Errorf("%d commands are not as they should be after %v", open, time.Since(h.began))
			return most
		}
	}
}

// verifyLines reads what is stored of a counting command and tells what is wrong.
func (h *harness) verifyLines(ctx context.Context, id string) string {
	resp, err := retry(ctx, h.commands.GetStatus, &telexecv1.GetStatusRequest{CommandId: id})
	if err != nil {
		return err.Error()
	}
	var want strings.Builder
	for i := range *seconds {
		fmt.Fprintf(&want, "line %d\n", i)
	}
	c := resp.GetCommand()
	switch {
	case c.GetState() != telexecv1.CommandState_COMMAND_STATE_COMPLETED || c.ExitCode == nil || c.GetExitCode() != 7:
		return fmt.Sprintf("%s, exit %d, %s: %s", c.GetState(), c.GetExitCode(), c.GetFailure().GetReason(), c.GetFailure().GetMessage())
	case c.GetDurability() != telexecv1.Durability_DURABILITY_DURABLE:
		return "it was not durable: " + c.GetDurabilityReason()
	case string(resp.GetStdout().GetData()) != want.String():
		return fmt.Sprintf("its output is %q", resp.GetStdout().GetData())
	}
	return ""
}

// hostUse is what the commands take of their host.
type hostUse struct {
	processes int
	pss       int64
}

// hostMemory adds up the processes that carry one of the ids: commands, what
// watches over them and what follows them.
func hostMemory(ids []string) (use hostUse) {
	ours := make(map[string]bool, len(ids))
	for _, id := range ids {
		ours[id] = true
	}
	for pid := range pids() {
		if ours[idOf(pid)] {
			_, pss := memory(pid)
			use.processes++
			use.pss += pss
		}
	}
	return use
}
