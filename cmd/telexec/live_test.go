package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/telexec/telexec/internal/test/testenv"
)

// TestLive runs what needs signals, terminals and broken connections against one
// real service; what needs none of them is in the transcripts.
func TestLive(t *testing.T) {
	service := testenv.Start(t)
	for _, tt := range []struct {
		name string
		test func(*testing.T, *testenv.Env)
	}{
		{"CtrlCInterrupts", testCtrlCInterrupts},
		{"SecondCtrlCCancels", testSecondCtrlCCancels},
		{"LeavingLeavesTheCommandAlone", testLeavingLeavesTheCommandAlone},
		{"ThirdCtrlCLeaves", testThirdCtrlCLeaves},
		{"CtrlCEndsOtherSubcommands", testCtrlCEndsOtherSubcommands},
		{"ReaderOfOutputGoesAway", testReaderOfOutputGoesAway},
		{"ConnectionThatBreaks", testConnectionThatBreaks},
		{"ServiceThatStaysAway", testServiceThatStaysAway},
		{"Terminal", testTerminal},
		{"TerminalIsLeft", testTerminalIsLeft},
		{"TableOnATerminal", testTableOnATerminal},
		{"QueueOnATerminal", testQueueOnATerminal},
		{"Attach", testAttach},
		{"AttachEndsWithTheShell", testAttachEndsWithTheShell},
		{"AttachIsSignalled", testAttachIsSignalled},
		{"AttachTogether", testAttachTogether},
		{"AttachWithAWholeScreen", testAttachWithAWholeScreen},
		{"AttachToASilentService", testAttachToASilentService},
		{"AttachIsLeftBehindTheKeys", testAttachIsLeftBehindTheKeys},
		{"SessionRun", testSessionRun},
		{"Replay", testReplay},
		{"TaskOnATerminal", testTaskOnATerminal},
		{"TaskOnAPlainTerminal", testTaskOnAPlainTerminal},
		{"LargestTask", testLargestTask},
		{"TaskIsLeft", testTaskIsLeft},
		{"TaskOverABrokenWay", testTaskOverABrokenWay},
		{"ServiceIsKilled", testServiceIsKilled},
		{"ServiceOfAnAttachedCommandIsKilled", testServiceOfAnAttachedCommandIsKilled},
		{"AttachOverARestart", testAttachOverARestart},
	} {
		t.Run(tt.name, func(t *testing.T) { tt.test(t, service) })
	}
}

// live gives an invocation against the service, and a function for short
// questions to it.
func live(t *testing.T, service *testenv.Env) (i *invocation, ask func(args ...string) (stdout string, code int)) {
	t.Helper()
	env := map[string]string{"TELEXEC_SERVER": service.GRPCAddr, "TELEXEC_TOKEN": service.Token.Reveal()}
	ask = func(args ...string) (string, int) {
		t.Helper()
		q := &invocation{env: env}
		code := q.run(context.WithoutCancel(t.Context()), args...)
		if q.stderr.Len() > 0 {
			t.Logf("telexec %s: %s", strings.Join(args, " "), q.stderr.String())
		}
		return q.stdout.String(), code
	}
	return &invocation{env: env, signals: make(chan os.Signal, 8)}, ask
}

// stubborn is a command that only KILL ends. It says when it is ready.
const stubborn = `trap "" INT TERM; echo ready; while :; do sleep 0.1; done`

// patience is how long an invocation may take: then whoever reads its output is told.
const patience = time.Minute

// start runs telexec beside the test, and gives its standard output.
func (i *invocation) start(t *testing.T, args ...string) (stdout *bufio.Reader, wait func() int) {
	t.Helper()
	r, w := io.Pipe()
	done := make(chan int, 1)
	var stderr io.Writer = &i.stderr
	if i.stderrTo != nil {
		stderr = i.stderrTo
	}
	late := time.AfterFunc(patience, func() { r.CloseWithError(errors.New("it goes on and on")) })
	go func() {
		defer late.Stop()
		code := run(t.Context(), Env{
			Stdin: i.stdin, Stdout: w, Stderr: stderr, Signals: i.signals,
			Getenv: func(name string) string { return i.env[name] },
		}, args)
		w.Close()
		done <- code
	}()
	return bufio.NewReader(r), func() int {
		t.Helper()
		go io.Copy(io.Discard, r)
		select {
		case code := <-done:
			return code
		case <-time.After(patience):
			t.Fatal("it goes on and on")
			panic("unreachable")
		}
	}
}

// expect reads up to a line.
func expect(t *testing.T, r *bufio.Reader, line string) {
	t.Helper()
	for {
		got, err := r.ReadString('\n')
		if strings.TrimRight(got, "\r\n") == line {
			return
		}
		if err != nil {
			t.Fatalf("waiting for %q: %q, %v", line, got, err)
		}
	}
}

// commandID finds the id in what telexec says.
func commandID(t *testing.T, s string) string {
	t.Helper()
	id := regexp.MustCompile(`\b[0-7][0-9A-HJKMNP-TV-Z]{25}\b`).FindString(s)
	if id == "" {
		t.Fatalf("no id in %q", s)
	}
	return id
}

func testCtrlCInterrupts(t *testing.T, service *testenv.Env) {
	i, _ := live(t, service)
	out, wait := i.start(t, "run", "web1", `trap "echo caught; exit 9" INT; echo ready; while :; do sleep 0.1; done`)
	expect(t, out, "ready")
	i.signals <- os.Interrupt
	expect(t, out, "caught")
	if code := wait(); code != 9 || i.stderr.Len() > 0 {
		t.Errorf("code %d, stderr %q", code, i.stderr.String())
	}
}

func testSecondCtrlCCancels(t *testing.T, service *testenv.Env) {
	i, ask := live(t, service)
	out, wait := i.start(t, "run", "web1", stubborn)
	expect(t, out, "ready")
	i.signals <- os.Interrupt
	i.signals <- os.Interrupt
	if code := wait(); code != 130 {
		t.Errorf("code %d", code)
	}
	for _, want := range []string{"telexec: cancelling ", "telexec: gone", "was cancelled by "} {
		if !strings.Contains(i.stderr.String(), want) {
			t.Errorf("%q is not in %q", want, i.stderr.String())
		}
	}
	if s, _ := ask("status", commandID(t, i.stderr.String())); !strings.Contains(s, "cancelled") || !strings.Contains(s, "Ctrl-C") {
		t.Errorf("status: %s", s)
	}
}

func testLeavingLeavesTheCommandAlone(t *testing.T, service *testenv.Env) {
	for _, tt := range []struct {
		name    string
		signals []os.Signal
		code    int
	}{
		{"SIGTERM", []os.Signal{syscall.SIGTERM}, 143},
		{"SIGHUP", []os.Signal{syscall.SIGHUP}, 129},
		{"Ctrl-C and SIGTERM", []os.Signal{os.Interrupt, syscall.SIGTERM}, 143},
	} {
		t.Run(tt.name, func(t *testing.T) {
			i, ask := live(t, service)
			out, wait := i.start(t, "run", "web1", stubborn)
			expect(t, out, "ready")
			for _, s := range tt.signals {
				i.signals <- s
			}
			if code := wait(); code != tt.code || !strings.Contains(i.stderr.String(), "goes on without you") {
				t.Errorf("code %d, stderr %q", code, i.stderr.String())
			}
			id := commandID(t, i.stderr.String())
			// Its first output may be here before the word that it has started.
			if s, _ := ask("status", id); !strings.Contains(s, "running") && !strings.Contains(s, "starting") {
				t.Errorf("status: %s", s)
			}
			if s, code := ask("cancel", id); code != 0 || !strings.Contains(s, "gone") {
				t.Errorf("cancel: %d, %s", code, s)
			}
		})
	}
}

func testThirdCtrlCLeaves(t *testing.T, service *testenv.Env) {
	i, ask := live(t, service)
	out, wait := i.start(t, "run", "web1", stubborn)
	expect(t, out, "ready")
	// All three at once: the cancel needs longer than that.
	for range 3 {
		i.signals <- os.Interrupt
	}
	if code := wait(); code != 130 || !strings.Contains(i.stderr.String(), "left command ") {
		t.Errorf("code %d, stderr %q", code, i.stderr.String())
	}
	if s, code := ask("cancel", commandID(t, i.stderr.String())); code != 0 {
		t.Errorf("cancel: %s", s)
	}
}

func testCtrlCEndsOtherSubcommands(t *testing.T, service *testenv.Env) {
	i, ask := live(t, service)
	id, _ := ask("run", "-d", "web1", stubborn)
	id = strings.TrimSpace(id)
	defer ask("cancel", id)
	out, wait := i.start(t, "logs", "-f", id)
	expect(t, out, "ready")
	i.signals <- os.Interrupt
	if code := wait(); code != 130 || i.stderr.Len() > 0 {
		t.Errorf("code %d, stderr %q", code, i.stderr.String())
	}
}

// As with ssh, a command whose output nobody reads ends.
func testReaderOfOutputGoesAway(t *testing.T, service *testenv.Env) {
	i, ask := live(t, service)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	go func() {
		_, _ = bufio.NewReader(r).ReadString('\n')
		r.Close()
	}()
	code := run(t.Context(), Env{
		Stdout: w, Stderr: &i.stderr, Signals: i.signals, Getenv: func(name string) string { return i.env[name] },
	}, []string{"run", "--label", "test=epipe", "web1", "yes"})
	if code != 141 || i.stderr.Len() > 0 {
		t.Errorf("code %d, stderr %q", code, i.stderr.String())
	}
	// What it has printed by then may be more than is collected before the answer.
	s, _ := ask("history", "--label", "test=epipe")
	id := commandID(t, s)
	ask("logs", "-f", "--only", "stderr", id)
	if s, _ = ask("status", id); !strings.Contains(s, "cancelled") {
		t.Errorf("status: %s", s)
	}
}

// A service that is reached through a connection that breaks again and again
// still gives every byte once, and takes every byte once.
func testConnectionThatBreaks(t *testing.T, service *testenv.Env) {
	i, _ := live(t, service)
	c := startCutter(t, i.env["TELEXEC_SERVER"], 300_000)
	i.env["TELEXEC_SERVER"] = c.addr
	data := make([]byte, 3_000_000)
	for k := range data {
		data[k] = byte(k * k >> 7)
	}
	i.stdin = bytes.NewReader(data)
	code := i.run(t.Context(), "run", "web1", "cat; exit 6")
	if code != 6 || sha256.Sum256(i.stdout.Bytes()) != sha256.Sum256(data) {
		t.Errorf("code %d, %d bytes, stderr %q", code, i.stdout.Len(), i.stderr.String())
	}
	if c.cuts() == 0 {
		t.Error("nothing was cut: the test tests nothing")
	}
}

func testServiceThatStaysAway(t *testing.T, service *testenv.Env) {
	i, ask := live(t, service)
	c := startCutter(t, i.env["TELEXEC_SERVER"], 1<<30)
	through := &invocation{env: map[string]string{"TELEXEC_SERVER": c.addr, "TELEXEC_TOKEN": i.env["TELEXEC_TOKEN"]}}
	out, wait := through.start(t, "run", "--retry-for", "1s", "web1", stubborn)
	expect(t, out, "ready")
	c.stop()
	if code := wait(); code != 125 || !strings.Contains(through.stderr.String(), "The command goes on: telexec logs -f ") {
		t.Errorf("code %d, stderr %q", code, through.stderr.String())
	}
	if s, code := ask("cancel", commandID(t, through.stderr.String())); code != 0 {
		t.Errorf("cancel: %s", s)
	}
}

// A service that is killed and comes back is waited for. The command has gone on
// meanwhile: its input is still open, its output goes on, its exit code arrives.
func testServiceIsKilled(t *testing.T, service *testenv.Env) {
	i, _ := live(t, service)
	stdin, keyboard := io.Pipe()
	i.stdin = stdin
	out, wait := i.start(t, "run", "--durable", "web1", `echo ready; while read x; do echo "got $x"; done; exit 7`)
	expect(t, out, "ready")
	_, _ = io.WriteString(keyboard, "one\n")
	expect(t, out, "got one")
	service.Kill()
	service.Restart()
	_, _ = io.WriteString(keyboard, "two\n")
	expect(t, out, "got two")
	keyboard.Close()
	// It depends on who is quicker whether the service is seen on its way to the host.
	told := regexp.MustCompile(`^(telexec: the service has lost the connection to web1; .*\n)?(telexec: the connection to web1 is back; .*\n)?$`)
	if code := wait(); code != 7 || !told.MatchString(i.stderr.String()) {
		t.Errorf("code %d, stderr %q", code, i.stderr.String())
	}
}

// An attached command is lost with its service, and that is told: never exit
// code 0.
func testServiceOfAnAttachedCommandIsKilled(t *testing.T, service *testenv.Env) {
	i, _ := live(t, service)
	// It writes, so that it ends when nobody is there to read: the test leaves nothing behind.
	out, wait := i.start(t, "run", "--attached", "web1", "echo ready; while sleep 0.1; do echo on; done")
	expect(t, out, "ready")
	service.Kill()
	service.Restart()
	if code := wait(); code != 125 || !strings.Contains(i.stderr.String(), "[SERVICE_RESTARTED]") {
		t.Errorf("code %d, stderr %q", code, i.stderr.String())
	}
}

// cutter is a way to a service that cuts each connection after so many bytes
// from the service or to it.
type cutter struct {
	addr     string
	listener net.Listener
	wg       sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]bool
	cut   int
}

func startCutter(t *testing.T, target string, after int64) *cutter {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cutter{addr: l.Addr().String(), listener: l, conns: map[net.Conn]bool{}}
	t.Cleanup(c.stop)
	c.wg.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", target)
			if err != nil {
				near.Close()
				continue
			}
			c.mu.Lock()
			c.conns[near], c.conns[far] = true, true
			c.mu.Unlock()
			pipe := func(dst, src net.Conn) {
				if n, _ := io.CopyN(dst, src, after); n == after {
					c.mu.Lock()
					c.cut++
					c.mu.Unlock()
				}
				dst.Close()
				src.Close()
			}
			c.wg.Go(func() { pipe(near, far) })
			c.wg.Go(func() { pipe(far, near) })
		}
	})
	return c
}

func (c *cutter) cuts() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cut
}

func (c *cutter) stop() {
	c.listener.Close()
	c.mu.Lock()
	for conn := range c.conns {
		conn.Close()
	}
	c.mu.Unlock()
	c.wg.Wait()
}

// openTerminal makes a pseudo-terminal: what is written to keyboard is typed on
// tty.
func openTerminal(t *testing.T) (keyboard, tty *os.File) {
	t.Helper()
	keyboard, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		testenv.Missing(t, "no pseudo-terminals here: "+err.Error())
	}
	t.Cleanup(func() { keyboard.Close() })
	// Not through Fd, which would make reads block beyond their deadline.
	raw, err := keyboard.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var n int
	controlErr := raw.Control(func(fd uintptr) {
		if err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); err != nil {
			return
		}
		if err = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: 33, Col: 111}); err != nil {
			return
		}
		n, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
	})
	if err := errors.Join(err, controlErr, keyboard.SetReadDeadline(time.Now().Add(30*time.Second))); err != nil {
		t.Fatal(err)
	}
	tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tty.Close() })
	return keyboard, tty
}

// startOnTerminal runs telexec with a new terminal as its three streams.
func (i *invocation) startOnTerminal(t *testing.T, args ...string) (keyboard *os.File, screen *bufio.Reader, wait func() int) {
	t.Helper()
	keyboard, tty := openTerminal(t)
	done := make(chan int, 1)
	go func() {
		done <- run(t.Context(), Env{
			Stdin: tty, Stdout: tty, Stderr: tty, Signals: i.signals,
			Getenv: func(name string) string {
				if value, ok := i.env[name]; ok || name != "TERM" {
					return value
				}
				return "xterm"
			},
		}, args)
	}()
	return keyboard, bufio.NewReader(keyboard), func() int { return <-done }
}

// The command sees a terminal like this one, and every key reaches it, also
// Ctrl-C.
func testTerminal(t *testing.T, service *testenv.Env) {
	i, _ := live(t, service)
	i.env["TERM"] = "vt100"
	keyboard, screen, wait := i.startOnTerminal(t, "run", "-t", "web1",
		`echo $TERM; stty size; trap "echo caught; exit 3" INT; read x; echo "got $x"; while :; do sleep 0.1; done`)
	expect(t, screen, "vt100")
	expect(t, screen, "33 111")
	_, _ = keyboard.WriteString("hello\r")
	expect(t, screen, "got hello")
	_, _ = keyboard.WriteString("\x03")
	expect(t, screen, "^Ccaught")
	if code := wait(); code != 3 {
		t.Errorf("code %d", code)
	}
}

// "~." behind a new line leaves the command alone.
func testTerminalIsLeft(t *testing.T, service *testenv.Env) {
	i, ask := live(t, service)
	keyboard, screen, wait := i.startOnTerminal(t, "run", "-t", "web1", "stty -echo; echo ready; cat")
	expect(t, screen, "ready")
	_, _ = keyboard.WriteString("\r~.")
	line, err := screen.ReadString('\n')
	for err == nil && !strings.Contains(line, "goes on without you") {
		line, err = screen.ReadString('\n')
	}
	if code := wait(); code != 130 || err != nil {
		t.Fatalf("code %d, %q, %v", code, line, err)
	}
	if s, code := ask("cancel", commandID(t, line)); code != 0 {
		t.Errorf("cancel: %s", s)
	}
}

// A table is cut at the edge, and has colours unless they are not wanted.
func testTableOnATerminal(t *testing.T, service *testenv.Env) {
	i, ask := live(t, service)
	ask("run", "--label", "test=wide", "web1", ": "+strings.Repeat("x", 300))
	for _, tt := range []struct{ noColour, head string }{{"", "\x1b[1mID\x1b[0m "}, {"1", "ID "}} {
		i.env["NO_COLOR"] = tt.noColour
		_, screen, wait := i.startOnTerminal(t, "history", "--label", "test=wide", "--limit", "1")
		head, err := screen.ReadString('\n')
		if err != nil || !strings.HasPrefix(head, tt.head) {
			t.Errorf("%q, %v", head, err)
		}
		row, err := screen.ReadString('\n')
		row = strings.TrimRight(row, "\r\n")
		if err != nil || len([]rune(row)) != 111 || !strings.HasSuffix(row, "x…") {
			t.Errorf("%q, %v", row, err)
		}
		if code := wait(); code != 0 {
			t.Errorf("code %d", code)
		}
	}
}

// Who reads along is told about the queue.
func testQueueOnATerminal(t *testing.T, service *testenv.Env) {
	i, ask := live(t, service)
	var ids []string
	for range 10 { // as many as the host may run at once
		id, _ := ask("run", "-d", "web1", "sleep 60")
		ids = append(ids, strings.TrimSpace(id))
	}
	_, screen, wait := i.startOnTerminal(t, "run", "web1", "echo done")
	line, err := screen.ReadString('\n')
	if err != nil || !strings.Contains(line, "waits on web1: place ") {
		t.Errorf("%q, %v", line, err)
	}
	for _, id := range ids {
		if _, code := ask("cancel", id); code != 0 {
			t.Errorf("cancel: code %d", code)
		}
	}
	expect(t, screen, "done")
	if code := wait(); code != 0 {
		t.Errorf("code %d", code)
	}
}
