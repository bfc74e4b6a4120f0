package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/screen"
	"github.com/telexec/telexec/internal/test/testenv"
)

// seat is somebody at a terminal on which telexec runs: what he types, and what he
// sees.
type seat struct {
	*screen.Screen
	keyboard, tty *os.File
	resized       chan os.Signal
	before        *term.State
	shown         chan []byte // by the terminal; closed where it is gone
	ended         chan int    // has the exit code
	all           strings.Builder
}

// sit runs telexec on a new terminal.
func (i *invocation) sit(t *testing.T, args ...string) *seat {
	t.Helper()
	keyboard, tty := openTerminal(t)
	before, err := term.GetState(int(tty.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	s := &seat{
		Screen: screen.New(111, 33, 100), keyboard: keyboard, tty: tty, resized: make(chan os.Signal, 1), before: before,
		shown: make(chan []byte), ended: make(chan int, 1),
	}
	over := t.Context().Done()
	go func() {
		defer close(s.shown)
		for {
			p := make([]byte, 4<<10)
			n, err := keyboard.Read(p)
			if err != nil {
				return
			}
			select {
			case s.shown <- p[:n]:
			case <-over:
				return
			}
		}
	}()
	go func() {
		s.ended <- run(t.Context(), Env{
			Stdin: tty, Stdout: tty, Stderr: tty, Signals: i.signals, Resized: s.resized,
			Getenv: func(name string) string { return i.env[name] },
		}, args)
	}()
	return s
}

func (s *seat) types(text string) { _, _ = s.keyboard.WriteString(text) }

// text is what is to be seen, and has gone by.
func (s *seat) text() string {
	lines, _ := s.Lines(100)
	return strings.TrimRight(strings.Join(lines, "\n"), "\n")
}

// sees waits until each of the texts is to be seen.
func (s *seat) sees(t *testing.T, texts ...string) {
	t.Helper()
	s.until(t, strings.Join(texts, ", "), func() bool {
		now := s.text()
		return !slices.ContainsFunc(texts, func(text string) bool { return !strings.Contains(now, text) })
	})
}

func (s *seat) until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.After(20 * time.Second); !ok(); {
		select {
		case p, there := <-s.shown:
			if !there {
				t.Fatalf("waiting for %q the terminal went away; it shows\n%s", what, s.text())
			}
			s.show(p)
		case code := <-s.ended:
			s.ended <- code
			if s.drain(); !ok() {
				t.Fatalf("waiting for %q telexec ended with %d; the terminal shows\n%s", what, code, s.text())
			}
		case <-deadline:
			t.Fatalf("waiting for %q: the terminal shows\n%s", what, s.text())
		}
	}
}

// prompts waits until the shell has shown its prompt.
func (s *seat) prompts(t *testing.T) {
	t.Helper()
	s.until(t, "a prompt", func() bool { return s.LineToCursor() == "$ " })
}

func (s *seat) show(p []byte) {
	s.all.Write(p)
	_, _ = s.Write(p)
}

// drain shows what telexec has written before it ended, which the terminal may still
// have: a mark is written behind it.
func (s *seat) drain() {
	const mark = "\x1b]0;drained\x07"
	_, _ = io.WriteString(s.tty, mark)
	for p := range s.shown {
		if s.show(p); strings.HasSuffix(s.all.String(), mark) {
			return
		}
	}
}

// leaves waits for the end of telexec. The terminal must be as it was, with nothing asked
// of it and no program's modes left.
func (s *seat) leaves(t *testing.T, wantCode int, texts ...string) {
	t.Helper()
	s.until(t, "the end", func() bool { return len(s.ended) > 0 })
	if code := <-s.ended; code != wantCode {
		t.Errorf("exit code %d, want %d; the terminal shows\n%s", code, wantCode, s.text())
	}
	s.drain()
	for _, text := range texts {
		if !strings.Contains(s.text(), text) {
			t.Errorf("%q is not to be seen:\n%s", text, s.text())
		}
	}
	after, err := term.GetState(int(s.tty.Fd()))
	if err != nil || !reflect.DeepEqual(after, s.before) {
		t.Errorf("the terminal is not as it was: %+v, %v; it was %+v", after, err, s.before)
	}
	if a := s.Answers(); len(a) > 0 {
		t.Errorf("the terminal was asked, and would have answered %q", a)
	}
	if s.Alternate() || s.ApplicationCursor() || s.BracketedPaste() {
		t.Error("a program's modes are left")
	}
	if _, column := s.Cursor(); column != 0 {
		t.Errorf("the cursor is in column %d", column)
	}
}

// resize gives the terminal another size.
func (s *seat) resize(t *testing.T, columns, rows int) {
	t.Helper()
	if err := unix.IoctlSetWinsize(int(s.tty.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: uint16(columns), Row: uint16(rows)}); err != nil {
		t.Fatal(err)
	}
	s.Resize(columns, rows)
	s.resized <- syscall.SIGWINCH
}

// session opens one, and gives its name.
func session(t *testing.T, ask func(...string) (string, int), args ...string) string {
	t.Helper()
	out, code := ask(append([]string{"session", "open", "web1"}, args...)...)
	name := strings.TrimSpace(out)
	if code != 0 || name == "" {
		t.Fatalf("no session: code %d, %q", code, out)
	}
	t.Cleanup(func() { ask("session", "close", name) })
	return name
}

// bare is a shell without settings of anybody: its prompt is "$ ".
var bare = []string{"--shell", "sh", "--keeper", "none"}

func testAttach(t *testing.T, service *testenv.Env) {
	i, ask := live(t, service)
	name := session(t, ask, append(bare, "--size", "160x48")...)
	ask("session", "run", name, "echo before")
	i.env["NO_COLOR"] = "1" // has no bearing on what the session shows
	s := i.sit(t, "session", "attach", name)
	s.sees(t, "before", "$")
	s.types("echo a''b; stty size\r")
	s.sees(t, "\nab\n33 111\n")
	s.resize(t, 100, 40)
	s.types("stty size\r")
	s.sees(t, "\n40 100\n")
	s.types(`printf '\033[31mre''d\033[0m\n'` + "\r")
	s.sees(t, "\nred\n")
	if !strings.Contains(s.all.String(), "\x1b[31mred") {
		t.Error("its colours are not the session's")
	}
	// What programs ask is answered by the service, once, and not by the terminal here. The
	// cursor is where the session has it.
	s.types(`stty -icanon -echo min 0 time 5; printf 'x\033[6n\033[c\033]11;?\007\033P$qm\033\\'; od -c; stty sane; echo answ''ered` + "\r")
	s.sees(t, "033   [", "\nanswered\n")
	// Bytes that are no text go through, and what follows is as it was.
	s.types(`head -c 600 /dev/zero | tr '\0' '\377'; printf '\n%s\n' do''ne` + "\r")
	s.sees(t, "\ndone\n")
	// Remarks stand above the line that is being typed, which goes on.
	s.types("echo mark''er\r~?")
	s.sees(t, "\nmarker\n", "[telexec] ~. leave")
	s.prompts(t)
	s.types("echo o~.ne")
	s.sees(t, "$ echo o~.ne")
	s.types("\r~w")
	s.sees(t, "\no~.ne\n", "[telexec] admin via cli (telexec attach), writer, has the keyboard (you)")
	s.prompts(t)
	s.types("echo ")
	s.sees(t, "$ echo")
	s.types("two\r")
	s.sees(t, "\n$ echo two\ntwo\n")
	s.types("~~x\r")
	s.sees(t, " ~x: not found")
	// A stranger's "~." is not the user's.
	s.types("\x1b[200~\r~.\r\x1b[201~")
	s.types("\recho still''here\r")
	s.sees(t, "stillhere")
	s.types("\r~.")
	s.leaves(t, 0, "telexec: left "+name+", which goes on")
	if out, _ := ask("session", "ls"); !strings.Contains(out, name) {
		t.Errorf("it does not go on: %s", out)
	}
}

func testAttachEndsWithTheShell(t *testing.T, service *testenv.Env) {
	i, ask := live(t, service)
	for _, tt := range []struct {
		typed string
		code  int
		told  string
	}{
		{"exit 7\r", 7, " has ended: its shell has exited with code 7"},
		{"exit\r", 0, " has ended: its shell has exited\n"},
	} {
		name := session(t, ask, bare...)
		s := i.sit(t, "session", "attach", name)
		s.sees(t, "$")
		s.types(`printf '\033[?1h\033[?2004h\033[?25l'` + "\r" + tt.typed)
		s.leaves(t, tt.code)
		if !strings.Contains(s.text()+"\n", name+tt.told) {
			t.Errorf("%q is not told:\n%s", tt.told, s.text())
		}
	}
	// Closed by somebody else.
	name := session(t, ask, bare...)
	s := i.sit(t, "session", "attach", name)
	s.sees(t, "$")
	if _, code := ask("session", "close", name, "--reason", "too late"); code != 0 {
		t.Errorf("close: code %d", code)
	}
	s.leaves(t, 125, "telexec: the session "+name+" has ended: ", "too late", "[SESSION_CLOSED]")
	// And one that is not there.
	s = i.sit(t, "session", "attach", "nowhere")
	s.leaves(t, 125, "nowhere", "telexec session lists those that are open")
	if strings.Contains(s.all.String(), "\x1b[2J") {
		t.Error("the terminal was cleared for nothing")
	}
	s = i.sit(t, "session", "attach", name)
	s.leaves(t, 125, "has ended: it was closed by admin: too late", "telexec session open starts another")
}

func testAttachIsSignalled(t *testing.T, service *testenv.Env) {
	i, ask := live(t, service)
	name := session(t, ask, bare...)
	for signal, code := range map[os.Signal]int{syscall.SIGTERM: 143, syscall.SIGHUP: 129, os.Interrupt: 130} {
		s := i.sit(t, "session", "attach", name)
		s.sees(t, "$")
		i.signals <- signal
		s.leaves(t, code)
	}
	if out, _ := ask("session", "show", name); !strings.Contains(out, "open") {
		t.Errorf("it does not go on: %s", out)
	}
}

// Several in one session: who comes and goes is told, who has the keyboard, and who
// only looks.
func testAttachTogether(t *testing.T, service *testenv.Env) {
	i, ask := live(t, service)
	name := session(t, ask, bare...)
	a := i.sit(t, "session", "attach", name)
	a.sees(t, "$")
	b := i.sit(t, "session", "attach", name, "--observe")
	b.sees(t, "$", "[telexec] admin via cli (telexec attach), writer")
	a.sees(t, "[telexec] admin via cli (telexec attach), observer is here")
	a.types("echo on''e\r")
	b.sees(t, "\none\n")
	b.types("echo no\r")
	b.sees(t, "you only look here")
	b.types("echo no\r~k")
	b.sees(t, "attach without --observe")
	b.types("\r~.")
	b.leaves(t, 0)
	if n := strings.Count(b.text(), "nothing that is typed is sent"); n != 1 {
		t.Errorf("it is told %d times", n)
	}
	a.sees(t, "[telexec] admin via cli has left")
	if strings.Contains(a.text(), "echo no") {
		t.Errorf("an observer has typed:\n%s", a.text())
	}

	// The keyboard is taken, asked for, taken back and released.
	a.types("\r~k")
	a.sees(t, "[telexec] you have the keyboard")
	b = i.sit(t, "session", "attach", name)
	b.sees(t, "admin via cli (telexec attach), writer, has the keyboard")
	b.types("abc")
	b.sees(t, "has the keyboard of session "+name+"; Enter ~k takes it")
	b.types("\r~k")
	b.sees(t, "[telexec] you have the keyboard")
	a.sees(t, "[telexec] admin via cli has the keyboard now; Enter ~k takes it")
	b.types("echo tw''o\r~r")
	a.sees(t, "\ntwo\n")
	b.sees(t, "[telexec] nobody has the keyboard")
	if n := strings.Count(b.text(), "Enter ~k takes it"); n != 1 {
		t.Errorf("the refusal is told %d times", n)
	}
	a.prompts(t)
	b.types("~.") // what stood before it would reach the shell
	b.leaves(t, 0)
	// --take takes it, and with it the size.
	a.resize(t, 120, 40)
	a.types("until stty size | grep -q '40 120'; do sleep 0.1; done; echo wi''de\r")
	a.sees(t, "\nwide\n")
	b = i.sit(t, "session", "attach", name, "--take")
	b.sees(t, "[telexec] you have the keyboard")
	b.types("until stty size | grep -q '33 111'; do sleep 0.1; done; echo nar''row\r")
	b.sees(t, "\nnarrow\n")
	if strings.Contains(b.text(), "the session has") {
		t.Errorf("a size is told that is out of date:\n%s", b.text())
	}
	b.types("~.")
	b.leaves(t, 0)
	a.types("\r~.")
	a.leaves(t, 0)
}

// A program that has the whole screen is not disturbed by remarks, and they are not
// lost.
func testAttachWithAWholeScreen(t *testing.T, service *testenv.Env) {
	i, ask := live(t, service)
	name := session(t, ask, bare...)
	s := i.sit(t, "session", "attach", name)
	s.sees(t, "$")
	s.types(`printf '\033[?1049h\033[H\033[2Jfull\r\nscreen'; read x; printf '\033[?1049l'; echo af''ter` + "\r")
	s.sees(t, "full\nscreen")
	q := i.sit(t, "session", "attach", "--quiet", name)
	q.sees(t, "full\nscreen")
	s.until(t, "a bell", func() bool { return strings.Contains(s.all.String(), "\a") })
	if !s.Alternate() || s.Row(0) != "full" || s.Row(1) != "screen" || s.Row(2) != "" {
		t.Errorf("the screen was disturbed:\n%s", s.text())
	}
	s.types("\r")
	s.sees(t, "\nafter\n", "is here")
	q.sees(t, "\nafter\n")
	q.prompts(t)
	s.types("~.") // what stood before it would reach the shell
	s.leaves(t, 0)
	q.types("echo quie''t\r")
	q.sees(t, "\nquiet\n")
	q.types("\r~.")
	q.leaves(t, 0)
	if strings.Contains(q.all.String(), "telexec") {
		t.Errorf("--quiet tells:\n%s", q.text())
	}
}

// Who waits for a service that does not answer can leave.
func testAttachToASilentService(t *testing.T, service *testenv.Env) {
	i, ask := live(t, service)
	name := session(t, ask, bare...)
	through := func(addr string) *invocation {
		return &invocation{env: map[string]string{"TELEXEC_SERVER": addr, "TELEXEC_TOKEN": i.env["TELEXEC_TOKEN"]}, signals: i.signals}
	}
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	s := through(silent.Addr().String()).sit(t, "session", "attach", name)
	i.signals <- os.Interrupt
	s.leaves(t, 130)

	c := startCutter(t, service.GRPCAddr, 1<<30)
	s = through(c.addr).sit(t, "session", "attach", "--retry-for", "0", name)
	s.sees(t, "$")
	c.stop()
	s.leaves(t, 125, "telexec: ")

	c = startCutter(t, service.GRPCAddr, 1<<30)
	s = through(c.addr).sit(t, "session", "attach", name)
	s.sees(t, "$")
	s.types("echo typ")
	s.sees(t, "echo typ")
	c.stop()
	s.sees(t, "the service is waited for; Enter ~. leaves")
	s.types("x")
	s.sees(t, "not typed")
	s.types("x\r~.")
	s.leaves(t, 0, "left "+name)
	if n := strings.Count(s.text(), "the service is waited for"); n != 1 {
		t.Errorf("it is told %d times", n)
	}
}

// What was typed before "~." gets there, also when it came at once with it.
func testAttachIsLeftBehindTheKeys(t *testing.T, service *testenv.Env) {
	i, ask := live(t, service)
	name := session(t, ask, bare...)
	for n, typed := range []string{"x", strings.Repeat("y", 3000)} {
		file := fmt.Sprintf("typed%d", n)
		s := i.sit(t, "session", "attach", name)
		s.sees(t, "$")
		s.types("echo " + typed + " > " + file + "\r~.")
		s.leaves(t, 0, "left "+name+", which goes on")
		if strings.Contains(s.text(), "may not have got there") {
			t.Errorf("%d: it is not sure:\n%s", n, s.text())
		}
		// Behind what was typed in the shell's order.
		if out, code := ask("session", "run", name, "cat "+file); code != 0 || strings.TrimSpace(out) != typed {
			t.Errorf("%d: %d bytes were typed, code %d; the shell has %d", n, len(typed), code, len(out))
		}
	}
}

// Who types for a service that takes nothing can leave all the same, and is told.
func TestAttachToAServiceThatTakesNothing(t *testing.T) {
	h := &house{sessions: []*telexecv1.Session{{Name: "deploy", Id: someID}}}
	i := h.start(t)
	s := i.sit(t, "session", "attach", "deploy")
	s.sees(t, "$ ready")
	began := time.Now()
	s.types("echo one\r~.and more")
	s.leaves(t, 0, "left deploy, which goes on; what was typed last may not have got there")
	if took := time.Since(began); took < leaveWithin || took > leaveWithin+5*time.Second {
		t.Errorf("it took %v", took)
	}
	s = i.sit(t, "session", "attach", "deploy")
	s.sees(t, "$ ready")
	s.types("~.")
	s.leaves(t, 0)
	if strings.Contains(s.text(), "may not have got there") {
		t.Errorf("nothing was typed:\n%s", s.text())
	}
}

// A command in a session: its output to the byte, its exit code, Ctrl-C, and what is
// told about a queue, and about an end without an exit code.
func testSessionRun(t *testing.T, service *testenv.Env) {
	i, ask := live(t, service)
	name := session(t, ask, bare...)
	if out, code := ask("session", "run", name, `printf 'a\001\377\033[1m\tz\n'; (exit 5)`); code != 5 || out != "a\x01\xff\x1b[1m\tz\r\n" {
		t.Errorf("%q, %d", out, code)
	}
	// Ctrl-C interrupts it, and the shell goes on.
	out, wait := i.start(t, "session", "run", name, `v=kept; echo ready; sleep 60`)
	expect(t, out, "ready")
	i.signals <- os.Interrupt
	if code := wait(); code != 130 {
		t.Errorf("code %d: %s", code, i.stderr.String())
	}
	// A second one cancels what does not care.
	out, wait = i.start(t, "session", "run", name, `sh -c 'trap "" INT; echo ready; while :; do sleep 0.1; done'`)
	expect(t, out, "ready")
	i.signals <- os.Interrupt
	i.signals <- os.Interrupt
	if code := wait(); code != 130 || !strings.Contains(i.stderr.String(), "was cancelled by admin") {
		t.Errorf("code %d: %s", code, i.stderr.String())
	}
	if out, code := ask("session", "run", name, "echo $v"); out != "kept\r\n" || code != 0 {
		t.Errorf("%q, %d", out, code)
	}
	// Who waits is told for what.
	id, _ := ask("session", "run", "-d", name, "sleep 60")
	_, screen, wait := i.startOnTerminal(t, "session", "run", name, "echo done")
	line, err := screen.ReadString('\n')
	if err != nil || !strings.Contains(line, " waits on "+name+": place 1") || !strings.Contains(line, "until what runs there has ended") {
		t.Errorf("%q, %v", line, err)
	}
	if _, code := ask("cancel", strings.TrimSpace(id)); code != 0 {
		t.Errorf("cancel: code %d", code)
	}
	expect(t, screen, "done")
	if code := wait(); code != 0 {
		t.Errorf("code %d", code)
	}
}

// The service is killed and comes back: a shell that something keeps goes on, and so
// does the terminal; of another one the end is told.
func testAttachOverARestart(t *testing.T, service *testenv.Env) {
	if _, err := os.Stat("/usr/bin/tmux"); err != nil {
		testenv.Missing(t, "no tmux here: "+err.Error())
	}
	i, ask := live(t, service)
	kept := session(t, ask, "--shell", "sh", "--keeper", "tmux")
	lost := session(t, ask, bare...)
	a := i.sit(t, "session", "attach", kept)
	a.sees(t, "$")
	a.types("v=kep''t; echo s''et\r")
	a.sees(t, "\nset\n")
	b := i.sit(t, "session", "attach", lost)
	b.sees(t, "$")
	service.Kill()
	a.sees(t, "the service is waited for; Enter ~. leaves")
	service.Restart()
	// What is on the screen then is soon drawn anew, when the service is back at the host.
	a.until(t, "connected again", func() bool { return strings.Contains(a.all.String(), "[telexec] connected again") })
	// What is typed before the service is back at the host is refused.
	a.until(t, "the service back at the host", func() bool {
		out, _ := ask("session", "show", kept)
		return strings.Contains(out, "open")
	})
	a.types("echo $v\r")
	a.sees(t, "\nkept\n")
	a.types("exit 3\r")
	a.leaves(t, 3)
	b.leaves(t, 125, lost+" has ended: the service was restarted, and nothing kept the shell")
}
