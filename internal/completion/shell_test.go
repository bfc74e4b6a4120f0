package completion_test

import (
	"bytes"
	"cmp"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/telexec/telexec/internal/completion"
	"github.com/telexec/telexec/internal/test/testenv"
	"github.com/telexec/telexec/internal/test/tty"
)

// shells are what the tests run, by kind; ash is BusyBox's.
var shells = []string{"bash", "zsh", "fish", "dash", "ash", "mksh", "ksh"}

func shellPath(t testing.TB, kind string) string {
	t.Helper()
	name := map[string]string{"ash": "busybox", "ksh": "ksh93"}[kind]
	if name == "" {
		name = kind
	}
	file, err := exec.LookPath(name)
	if err != nil {
		testenv.Missing(t, "no "+name+"; make setup gets it")
	}
	return file
}

// console is a real shell on a real terminal, seen through a Parser.
type console struct {
	t      testing.TB
	kind   string
	nonce  string
	dir    string // of the files of the Launch
	home   string
	cmd    *exec.Cmd
	pty    *os.File
	chunks chan []byte // what the terminal gives; closed at its end
	parser *completion.Parser
	shell  completion.Event // the last ShellInfo

	queue []completion.Segment // not looked at yet
	seen  bytes.Buffer         // all data
	raw   bytes.Buffer         // all that came
}

type setup struct {
	kind   string
	path   string            // empty: where the kind is
	rc     map[string]string // files in the home directory
	env    []string
	launch func(completion.Launch) completion.Launch
	bare   bool   // without integration
	silent bool   // it will tell no marks
	under  string // name of the directory of the files
}

// open starts a shell and waits for its first prompt.
func open(t testing.TB, s setup) *console {
	t.Helper()
	c := &console{t: t, kind: s.kind, nonce: completion.NewNonce(), dir: filepath.Join(t.TempDir(), s.under), home: t.TempDir(), chunks: make(chan []byte, 1024)}
	file := cmp.Or(s.path, shellPath(t, s.kind))
	if s.kind == "fish" { // it would ask for the versions of its own files
		s.env = append(s.env, "fish_greeting=")
	}
	launch, ok := completion.Integrate(s.kind, file, c.nonce)
	if !ok {
		t.Fatal("no integration of", s.kind)
	}
	if s.launch != nil {
		launch = s.launch(launch)
	}
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	_, nested := completion.Nested(c.nonce)
	files := map[string]string{"nested": nested}
	for name, content := range launch.Files {
		files[name] = content
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(c.dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, content := range s.rc {
		at := filepath.Join(c.home, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(at), 0o700), os.WriteFile(at, []byte(content), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	argv := launch.Argv
	if s.bare {
		argv = []string{file, "-l"}
		if s.kind == "ash" {
			argv = []string{file, "ash", "-l"}
		}
	}
	c.cmd = exec.CommandContext(t.Context(), argv[0])
	c.cmd.Path = argv[0]
	c.cmd.Args = nil
	for _, a := range argv {
		c.cmd.Args = append(c.cmd.Args, strings.ReplaceAll(a, "{dir}", c.dir))
	}
	c.cmd.Dir = c.home
	c.cmd.Env = append([]string{"HOME=" + c.home, "PATH=" + os.Getenv("PATH"), "TERM=xterm-256color", "LANG=C.UTF-8", "USER=me"}, s.env...)
	for name, value := range launch.Env {
		c.cmd.Env = append(c.cmd.Env, name+"="+strings.ReplaceAll(value, "{dir}", c.dir))
	}
	var err error
	if c.pty, err = tty.Start(c.cmd, 80, 24); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(c.chunks)
		for {
			b := make([]byte, 4096)
			n, err := c.pty.Read(b)
			if n > 0 {
				c.chunks <- b[:n]
			}
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(c.close)
	c.parser = completion.NewParser(c.nonce)
	if !s.bare && !s.silent {
		c.shell = c.await(completion.ShellInfo)
		c.ready()
	}
	return c
}

func (c *console) close() {
	if c.cmd.ProcessState != nil {
		return
	}
	_ = syscall.Kill(-c.cmd.Process.Pid, syscall.SIGHUP)
	_ = c.cmd.Process.Kill()
	_ = c.pty.Close()
	for range c.chunks { // the reader ends
	}
	_ = c.cmd.Wait()
	if shown := c.seen.String(); strings.Contains(shown, c.nonce) {
		c.t.Errorf("a mark is visible in %q", shown)
	}
}

// next gives the next piece; ok is false at the end of the terminal.
func (c *console) next(deadline <-chan time.Time) (s completion.Segment, ok bool) {
	c.t.Helper()
	for len(c.queue) == 0 {
		select {
		case b, open := <-c.chunks:
			if !open {
				c.parser.Flush(c.enqueue)
				if len(c.queue) == 0 {
					return completion.Segment{}, false
				}
				break
			}
			c.take(b)
		case <-time.After(20 * time.Millisecond):
			c.parser.Flush(c.enqueue)
		case <-deadline:
			c.t.Fatalf("%s: waited for nothing; came: %q", c.kind, tail(c.raw.String()))
		}
	}
	s, c.queue = c.queue[0], c.queue[1:]
	return s, true
}

func tail(s string) string { return s[max(0, len(s)-400):] }

const patience = 10 * time.Second

func (c *console) await(kind completion.Kind) completion.Event {
	c.t.Helper()
	e, _ := c.until(kind)
	return e
}

// until gives the next event of a kind, and what was put out before it.
func (c *console) until(kinds ...completion.Kind) (completion.Event, string) {
	c.t.Helper()
	deadline := time.After(patience)
	var out bytes.Buffer
	for {
		s, ok := c.next(deadline)
		switch {
		case !ok:
			c.t.Fatalf("%s: the terminal has ended; came: %q", c.kind, tail(c.raw.String()))
		case s.Event == nil:
			out.Write(s.Data)
		case slices.Contains(kinds, s.Event.Kind):
			return *s.Event, out.String()
		}
	}
}

// ready waits until the shell reads: its prompt has ended, or has begun and nothing more
// comes.
func (c *console) ready() {
	c.t.Helper()
	deadline, quiet, begun := time.After(patience), time.NewTimer(patience), false
	for {
		if len(c.queue) == 0 && begun {
			quiet.Reset(150 * time.Millisecond)
			select {
			case b, open := <-c.chunks:
				if open {
					c.take(b)
				}
			case <-quiet.C:
				return
			}
			continue
		}
		switch s, ok := c.next(deadline); {
		case !ok:
			c.t.Fatalf("%s: the terminal has ended; came: %q", c.kind, tail(c.raw.String()))
		case s.Event == nil:
		case s.Event.Kind == completion.PromptEnd:
			return
		case s.Event.Kind == completion.PromptStart:
			begun = true
		}
	}
}

// take puts into the queue what the terminal has given.
func (c *console) take(b []byte) {
	c.raw.Write(b)
	c.parser.Write(b, c.enqueue)
}

func (c *console) enqueue(s completion.Segment) {
	s.Data = bytes.Clone(s.Data)
	c.seen.Write(s.Data)
	c.queue = append(c.queue, s)
}

func (c *console) write(s string) {
	c.t.Helper()
	if err := c.pty.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		c.t.Fatal(err)
	}
	if _, err := c.pty.WriteString(s); err != nil {
		c.t.Fatal(err)
	}
}

// result is what became of a command.
type result struct {
	line string
	out  string // without the echo of what was typed
	code int
}

// run has a text run as one command.
func (c *console) run(text string) result {
	c.t.Helper()
	c.write(string(completion.Type(c.shell.Shell, text)))
	r := c.result()
	c.ready()
	return r
}

func (c *console) result() (r result) {
	c.t.Helper()
	var e completion.Event
	if c.shell.Starts {
		var start completion.Event
		if start, r.out = c.until(completion.CommandStart, completion.CommandEnd); start.Kind == completion.CommandEnd {
			r.code = start.Code
			return r
		}
		r.line = start.Line
	}
	e, r.out = c.until(completion.CommandEnd)
	r.code = e.Code
	if e.PID != c.shell.PID {
		c.t.Errorf("%s: the end is told by %d, the shell is %d", c.kind, e.PID, c.shell.PID)
	}
	if !c.shell.Starts {
		_, r.out, _ = strings.Cut(r.out, "\n")
	}
	return r
}

// says is run, with what must have come of it.
func (c *console) says(text, out string, code int) {
	c.t.Helper()
	r := c.run(text)
	got := plainText(r.out)
	same := got == out
	if !c.shell.Starts && !same { // several lines are shown in a way of their own
		same = strings.HasSuffix(got, "\n"+out) || strings.HasSuffix(got, "> "+out)
	}
	if !same || r.code != code {
		c.t.Errorf("%s: %.200q: %d %.2000q, want %d %.500q", c.kind, text, r.code, got, code, out)
	}
}

// plainText is output without the carriage returns of the terminal, and without what
// fish and others decorate it with.
func plainText(s string) string {
	s = escapes.ReplaceAllString(s, "")
	return strings.ReplaceAll(strings.ReplaceAll(s, "\r\n", "\n"), "\r", "")
}

// shows waits until the output has a text, from here on.
func (c *console) shows(text string) {
	c.t.Helper()
	var out strings.Builder
	for deadline := time.After(patience); !strings.Contains(out.String(), text); {
		s, ok := c.next(deadline)
		if !ok {
			c.t.Fatalf("%s: the terminal has ended without %q; came: %q", c.kind, text, tail(c.raw.String()))
		}
		out.Write(s.Data)
	}
}

// ends waits until the shell has ended with this code.
func (c *console) ends(code int) {
	c.t.Helper()
	for deadline := time.After(patience); ; {
		s, ok := c.next(deadline)
		if !ok {
			break
		}
		if s.Event != nil && (s.Event.Kind == completion.PromptEnd || s.Event.Kind == completion.CommandEnd && s.Event.Code != code) {
			c.t.Errorf("%s: after exit: %+v", c.kind, s.Event)
		}
	}
	if _ = c.cmd.Wait(); c.cmd.ProcessState.ExitCode() != code {
		c.t.Errorf("%s: the shell has ended with %d, want %d", c.kind, c.cmd.ProcessState.ExitCode(), code)
	}
}

// nest types the line of Nested at a prompt and waits for that shell.
func (c *console) nest() {
	c.t.Helper()
	line, _ := completion.Nested(c.nonce)
	c.write(strings.ReplaceAll(line, "{dir}", c.dir) + "\r")
	c.shell = c.await(completion.ShellInfo)
	if e, out := c.until(completion.PromptStart, completion.CommandEnd); e.Kind != completion.PromptStart {
		c.t.Errorf("%s: %+v before the first prompt, %q", c.shell.Shell, e, out)
	} else {
		c.queue = slices.Insert(c.queue, 0, completion.Segment{Event: &e})
	}
	c.ready()
}

// quiet waits until ok, when nothing has come for a while.
func (c *console) quiet(ok func() bool) {
	c.t.Helper()
	for deadline := time.After(patience); ; {
		select {
		case b, open := <-c.chunks:
			if !open {
				c.t.Fatalf("%s: the terminal has ended; came: %q", c.kind, tail(c.raw.String()))
			}
			c.take(b)
		case <-time.After(100 * time.Millisecond):
			c.parser.Flush(c.enqueue)
			if ok() {
				c.queue = nil
				return
			}
		case <-deadline:
			c.t.Fatalf("%s: waited for nothing; came: %q", c.kind, tail(c.raw.String()))
		}
	}
}
