package sshexec

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/inventory"
	"github.com/telexec/telexec/internal/test/sshtest"
)

func TestExit(t *testing.T) {
	eachUser(t, func(t *testing.T, h *host) {
		for line, want := range map[string]string{
			"true":                       "0",
			"exit 3":                     "3",
			"exit 255":                   "255",
			"no-such-program-here":       "127",
			"kill -9 $$":                 "signal KILL",
			"kill -s TERM $$":            "signal TERM",
			"exec sh -c 'kill -INT $$'":  "signal INT",
			"exec sh -c 'kill -USR1 $$'": "signal USR1",
			"(exit 4)":                   "4",
			"-x":                         "127", // not an option of sh
			"+x":                         "127",
			"if":                         "2",
		} {
			_, _, exit := h.line(command.Spec{Line: line})
			if got := code(exit); got != want {
				t.Errorf("%q: %s, want %s", line, got, want)
			}
		}
	})
}

// What a command prints arrives as it is, each stream whole and apart.
func TestOutput(t *testing.T) {
	h := start(t, sshtest.Options{User: sshtest.PlainUser(t)})
	for _, c := range []struct{ line, stdout, stderr string }{
		{"echo out; echo err >&2", "out\n", "err\n"},
		{"printf 'no end'", "no end", ""},
		{`printf 'a\0b\377\200\n'`, "a\x00b\xff\x80\n", ""},
		{"echo 'telexec:AAAAAAAAAAAAAAAAAAAAAAAAAA: started 9 9 9 sh b 1' >&2", "", "telexec:AAAAAAAAAAAAAAAAAAAAAAAAAA: started 9 9 9 sh b 1\n"},
		{"echo one\necho two\n\n", "one\ntwo\n", ""},
		{"cat <<X\n$((1+1)) 'q' \"d\" `echo b` \\ ! \nX\n", "2 'q' \"d\" b \\ ! \n", ""},
		{"echo 'grün €\x01\t\x7f'", "grün €\x01\t\x7f\n", ""},
		{"echo \"$0 $# $1\"", "/bin/sh 0 \n", ""},
	} {
		stdout, stderr, exit := h.line(command.Spec{Line: c.line})
		if stdout != c.stdout || stderr != c.stderr || code(exit) != "0" {
			t.Errorf("%q: stdout %q, stderr %q, %s", c.line, stdout, stderr, code(exit))
		}
	}
}

func homeOf(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Split(line, ":"); f[0] == name {
			return f[5]
		}
	}
	t.Fatalf("no account %s", name)
	return ""
}

func TestBulkOutputIsExact(t *testing.T) {
	eachUser(t, func(t *testing.T, h *host) {
		dir := h.server.Dir
		var want [2][32]byte
		for i, name := range []string{"out", "err"} {
			data := make([]byte, 20<<20)
			random := rand.NewChaCha8([32]byte{byte(i)})
			random.Read(data)
			want[i] = sha256.Sum256(data)
			if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		sums := [2]interface {
			Write([]byte) (int, error)
			Sum([]byte) []byte
		}{sha256.New(), sha256.New()}
		p, err := h.runner.startAttached(t.Context(), newID(), h.inv,
			&command.Spec{Line: "cat " + dir + "/err >&2 & cat " + dir + "/out; wait"},
			func(s command.Stream, data []byte) error { sums[s].Write(data); return nil })
		if err != nil {
			t.Fatal(err)
		}
		if exit, err := p.Wait(); err != nil || code(exit) != "0" {
			t.Fatal(exit, err)
		}
		for _, s := range command.Streams {
			if !bytes.Equal(sums[s].Sum(nil), want[s][:]) {
				t.Errorf("%v is not what was printed", s)
			}
		}
	})
}

func TestLongLine(t *testing.T) {
	h := start(t, sshtest.Options{})
	stdout, _, _ := h.line(command.Spec{Line: "head -c 1048576 /dev/zero | tr '\\0' x; echo"})
	if stdout != strings.Repeat("x", 1<<20)+"\n" {
		t.Errorf("%d bytes", len(stdout))
	}
}

func TestEnvironment(t *testing.T) {
	eachUser(t, func(t *testing.T, h *host) {
		env := map[string]string{
			"PLAIN": "x", "EMPTY": "", "SPACES": " a  b ", "QUOTES": `'"` + "`", "DOLLAR": "$HOME $(id) ${x}",
			"BACKSLASH": `\ \\ \n \0101 \c`, "BANG": "a!b!!", "LINES": "\na\n\nb\n\n", "BYTES": "\x01\xff\x80é\n\n", "TAB": "\t",
			"PERCENT": "%s %b %", "GLOB": "* ? [a]", "TELEXEC_ID": "mine", "telexec_line": "echo no", "_": "u",
		}
		spec := command.Spec{Line: "cat /proc/self/environ", Env: env}
		r := h.start(spec)
		if _, err := r.Wait(); err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		for pair := range strings.SplitSeq(r.text(command.Stdout), "\x00") {
			k, v, _ := strings.Cut(pair, "=")
			got[k] = v
		}
		env["TELEXEC_ID"] = r.id // the marker is ours
		delete(env, "telexec_line")
		delete(env, "_") // a shell sets it anew for each command
		for k, v := range env {
			if got[k] != v {
				t.Errorf("%s: %q, want %q", k, got[k], v)
			}
		}
		// No list of processes shows the values.
		r = h.start(command.Spec{Line: "tr '\\0' ' ' </proc/$$/cmdline; tr '\\0' ' ' </proc/$PPID/cmdline", Env: map[string]string{"SECRET": "hush-hush"}})
		r.Wait()
		if strings.Contains(r.text(command.Stdout), "hush") {
			t.Error("a value of the environment is among the arguments")
		}
	})
}

func TestArgv(t *testing.T) {
	h := start(t, sshtest.Options{})
	args := []string{"a b", "", "'", `"`, `\`, "$HOME", "`id`", "*", "!", "-n", "a\nb\n", "é\xff", ";", "~", "#", "\t"}
	for _, login := range []bool{false, true} {
		stdout, stderr, _ := h.line(command.Spec{Argv: append([]string{"printf", "<%s>"}, args...), LoginShell: login})
		if want := "<" + strings.Join(args, "><") + ">"; stdout != want {
			t.Errorf("login %v: %q, want %q; stderr %q", login, stdout, want, stderr)
		}
	}
}

func TestLongProgram(t *testing.T) {
	h := start(t, sshtest.Options{})
	// Each quote takes four bytes in an exec request: it must go another way.
	line := "cat <<'X' | wc -c\n" + strings.Repeat("'", 110_000) + "\nX\n"
	stdout, _, _ := h.line(command.Spec{Line: line, Stdin: []byte("unused")})
	if strings.TrimSpace(stdout) != "110001" {
		t.Errorf("%q", stdout)
	}
	_, err := h.runner.startAttached(t.Context(), newID(), h.inv, &command.Spec{Line: line, Pty: &command.Pty{}}, newOutput().sink)
	if fault.ReasonOf(err) != fault.ReasonCommandTooLong {
		t.Errorf("with a terminal: %v", err)
	}
}

func TestWorkingDirectory(t *testing.T) {
	eachUser(t, func(t *testing.T, h *host) {
		for dir, want := range map[string]string{
			"":      homeOf(t, h.inv.User),
			"/":     "/",
			"/usr/": "/usr",
			"../..": "/",
		} {
			stdout, _, _ := h.line(command.Spec{Line: "pwd", WorkingDirectory: dir, Env: map[string]string{"CDPATH": "/usr"}})
			if strings.TrimSpace(stdout) != filepath.Clean(want) && dir != "../.." {
				t.Errorf("%q: %q, want %q", dir, stdout, want)
			}
		}
		nasty := filepath.Join(h.server.Dir, "a 'b' $c\nd")
		if err := os.Mkdir(nasty, 0o755); err != nil {
			t.Fatal(err)
		}
		if stdout, _, _ := h.line(command.Spec{Line: "pwd", WorkingDirectory: nasty}); stdout != nasty+"\n" {
			t.Errorf("%q", stdout)
		}
		_, err := h.runner.startAttached(t.Context(), newID(), h.inv, &command.Spec{Line: "pwd", WorkingDirectory: "/no/such"}, newOutput().sink)
		if fault.ReasonOf(err) != fault.ReasonBadWorkingDir || !strings.Contains(err.Error(), "no directory") {
			t.Errorf("missing: %v", err)
		}
		if h.inv.User == "root" {
			return
		}
		locked := filepath.Join(h.server.Dir, "locked")
		if err := os.Mkdir(locked, 0o700); err != nil {
			t.Fatal(err)
		}
		_, err = h.runner.startAttached(t.Context(), newID(), h.inv, &command.Spec{Line: "pwd", WorkingDirectory: locked}, newOutput().sink)
		if os.Geteuid() == 0 && (fault.ReasonOf(err) != fault.ReasonBadWorkingDir || !strings.Contains(err.Error(), "may not enter")) {
			t.Errorf("denied: %v", err)
		}
	})
}

func TestLoginShell(t *testing.T) {
	h := start(t, sshtest.Options{User: sshtest.PlainUser(t)})
	// A login shell says so in $0 or reads the profile, which sets PATH anew.
	stdout, _, _ := h.line(command.Spec{Line: "echo \"$PATH\"; exit 5", LoginShell: true, Env: map[string]string{"PATH": "/only/here", "SHELL": "/bin/false"}})
	if !strings.Contains(stdout, "/usr/bin") {
		t.Errorf("the profile was not read: %q", stdout)
	}
	if _, _, exit := h.line(command.Spec{Line: "kill -9 $$", LoginShell: true}); code(exit) != "signal KILL" {
		t.Error(code(exit))
	}
}

func TestPty(t *testing.T) {
	eachUser(t, func(t *testing.T, h *host) {
		spec := command.Spec{Line: "tty >/dev/null && echo yes; echo err >&2; echo $TERM; stty size; exit 7", Pty: &command.Pty{Columns: 99, Rows: 33, Term: "vt100"}}
		stdout, stderr, exit := h.line(spec)
		if want := "yes\r\nerr\r\nvt100\r\n33 99\r\n"; stdout != want || stderr != "" || code(exit) != "7" {
			t.Errorf("stdout %q, stderr %q, %s", stdout, stderr, code(exit))
		}
		r := h.start(command.Spec{Line: "stty -echo; echo ready; cat; read -r x; echo \"<$x>\"", Pty: &command.Pty{}})
		r.await(t, has("ready"))
		if total, err := r.Input(t.Context(), []byte("typed"), true); total != 5 || err != nil {
			t.Fatal(total, err)
		}
		r.await(t, has("typed"))
		if total, err := r.Input(t.Context(), []byte("more\n"), false); total != 10 || err != nil {
			t.Fatal(total, err)
		}
		if _, err := r.Input(t.Context(), nil, true); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Wait(); err != nil {
			t.Fatal(err)
		}
		if got := r.text(command.Stdout); got != "ready\r\ntyped<more>\r\n" {
			t.Errorf("%q", got)
		}
	})
}

func TestPtyRefused(t *testing.T) {
	h := start(t, sshtest.Options{ExtraConfig: []string{"PermitTTY no"}})
	_, err := h.runner.startAttached(t.Context(), newID(), h.inv, &command.Spec{Line: "true", Pty: &command.Pty{}}, newOutput().sink)
	f, ok := errors.AsType[*fault.Error](err)
	if !ok || f.Reason != fault.ReasonExecRefused || !strings.Contains(f.Hint, "PermitTTY") || strings.Contains(f.Message, "it said") {
		t.Errorf("%v: %+v", err, f)
	}
}

// A host that runs something else instead says what it said, and nothing counts
// as started.
func TestForcedCommand(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ forced, said string }{
		{"echo this account is closed; exit 1", "this account is closed"},
		{"echo only on stderr >&2; kill -9 $$", "only on stderr"},
		{"true", "exit code 0"},
		{"head -c 3000000 /dev/zero >&2", "megabyte"},
		{"echo Password:; exec sleep 30", "Password:"},
		{"echo telexec:x: started 2 2 2 sh b 1; cat", "did not start"},
	} {
		t.Run(c.said, func(t *testing.T) {
			t.Parallel()
			h := start(t, sshtest.Options{ExtraConfig: []string{"ForceCommand " + c.forced}})
			if strings.Contains(c.forced, "sleep") {
				// It neither starts nor ends: the host's time is over, and the sweep's.
				h.runner = New(newDialer(t), Options{StartTimeout: 4 * time.Second, ControlTimeout: 300 * time.Millisecond})
			}
			out := newOutput()
			_, err := h.runner.startAttached(t.Context(), newID(), h.inv, &command.Spec{Line: "true"}, out.sink)
			f := fault.From(err)
			reason := fault.ReasonStartFailed
			if strings.Contains(c.forced, "exec sleep") {
				reason = fault.ReasonNoExitStatus // what may still come is not known
			}
			if f == nil || f.Reason != reason || !strings.Contains(f.Message, c.said) || f.Hint == "" {
				t.Fatalf("%v", err)
			}
			if out.text(command.Stdout)+out.text(command.Stderr) != "" {
				t.Error("what the host said counts as output")
			}
		})
	}
}

// A login shell that has become another one since the last run is found out.
func TestLoginShellChanges(t *testing.T) {
	dir := t.TempDir()
	h := start(t, sshtest.Options{User: sshtest.PlainUser(t), ExtraConfig: []string{
		`ForceCommand if [ -e ` + dir + `/other ]; then case $SSH_ORIGINAL_COMMAND in exec*) ;; *) echo what? >&2; exit 1;; esac; fi; eval "$SSH_ORIGINAL_COMMAND"`,
	}})
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	account := h.inv.User + "@" + h.inv.Address
	for range 2 {
		if stdout, _, _ := h.line(command.Spec{Line: "echo hi"}); stdout != "hi\n" {
			t.Errorf("%q", stdout)
		}
		if _, ok := h.runner.plain.Load(account); !ok {
			t.Error("the login shell is not seen to be a sh")
		}
	}
	if err := os.WriteFile(dir+"/other", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if stdout, stderr, _ := h.line(command.Spec{Line: "echo hi"}); stdout != "hi\n" || stderr != "" {
		t.Errorf("%q, %q", stdout, stderr)
	}
}

// Login files that talk are output; the greeting is found behind them.
func TestChatter(t *testing.T) {
	h := start(t, sshtest.Options{ExtraConfig: []string{
		`ForceCommand echo chat; printf 'err without end' >&2; set -x; eval "$SSH_ORIGINAL_COMMAND"`,
	}})
	stdout, stderr, exit := h.line(command.Spec{Line: "echo hi; exit 2"})
	if stdout != "chat\nhi\n" || code(exit) != "2" || !strings.HasPrefix(stderr, "err without end") {
		t.Errorf("%q, %q, %s", stdout, stderr, code(exit))
	}
}

// A host that is too slow to start is swept: nothing runs afterwards.
func TestSlowStart(t *testing.T) {
	t.Parallel()
	// Only the session of the start is slow, the one of the sweep is not.
	h, flag := forced(t, isControl+` || sleep 3`)
	h.runner = New(newDialer(t), Options{StartTimeout: 200 * time.Millisecond})
	_, err := h.runner.startAttached(t.Context(), newID(), h.inv, &command.Spec{Line: "touch " + flag + "; sleep 100"}, newOutput().sink)
	if fault.ReasonOf(err) != fault.ReasonNoExitStatus {
		t.Fatal(err)
	}
	// The sweep ends the first session, or else its sleep does.
	eventually(t, "the slow session has ended", func() bool {
		return strings.Count(h.server.Log(), "Close session") >= 2
	})
	if _, err := os.Stat(flag); err == nil {
		t.Error("the command ran although its start had failed")
	}
}

func TestStartRefusesWhatNoShellCanBeTold(t *testing.T) {
	r := New(nil, Options{})
	for _, c := range []struct {
		id   string
		spec command.Spec
	}{
		{"", command.Spec{Line: "true"}},
		{"a'b", command.Spec{Line: "true"}},
		{"a", command.Spec{Line: "a\x00b"}},
		{"a", command.Spec{Line: "true", WorkingDirectory: "\x00"}},
		{"a", command.Spec{Line: "true", Env: map[string]string{"A": "\x00"}}},
		{"a", command.Spec{Line: "true", Env: map[string]string{"A;id": ""}}},
		{"a", command.Spec{Line: "true", Env: map[string]string{"1A": ""}}},
		{"a", command.Spec{Line: "true", Env: map[string]string{"": ""}}},
	} {
		if _, err := r.startAttached(t.Context(), c.id, h0, &c.spec, nil); fault.ReasonOf(err) != fault.ReasonInvalidRequest {
			t.Errorf("%q %+v: %v", c.id, c.spec, err)
		}
	}
}

func TestStartWithoutConnection(t *testing.T) {
	h := start(t, sshtest.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := h.runner.startAttached(ctx, newID(), h.inv, &command.Spec{Line: "true"}, nil); fault.KindOf(err) != fault.Cancelled {
		t.Errorf("with an ended context: %v", err)
	}
	h.server.Stop()
	if _, err := New(newDialer(t), Options{}).startAttached(t.Context(), newID(), h.inv, &command.Spec{Line: "true"}, nil); err == nil {
		t.Error("started on a server that is down")
	}
}

// Killing the server's session is told at once, and is never an exit.
func TestConnectionLost(t *testing.T) {
	eachUser(t, func(t *testing.T, h *host) {
		r := h.start(command.Spec{Line: "echo ready; sleep 100"})
		r.await(t, has("ready"))
		begin := time.Now()
		h.server.KillSessions()
		exit, err := r.Wait()
		if fault.ReasonOf(err) != fault.ReasonConnectionLost || exit.Code != nil || exit.Signal != "" {
			t.Fatal(exit, err)
		}
		if took := time.Since(begin); took > 5*time.Second {
			t.Errorf("told after %v", took)
		}
		// It still runs on the host; a cancel over a new connection finds it.
		report, err := r.Cancel(t.Context(), 500*time.Millisecond)
		if err != nil || report.Outcome != command.Gone && report.Outcome != command.AlreadyEnded {
			t.Errorf("%+v, %v", report, err)
		}
		if left := carriers(t, r.id); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	})
}

func TestConnectionLostWhileTheSinkBlocks(t *testing.T) {
	h := start(t, sshtest.Options{})
	blocked, free := make(chan struct{}), make(chan struct{})
	var once sync.Once
	p, err := h.runner.startAttached(t.Context(), newID(), h.inv, &command.Spec{Line: "yes"}, func(command.Stream, []byte) error {
		once.Do(func() { close(blocked) })
		<-free
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	<-blocked
	h.server.KillSessions()
	<-p.ses.Lost
	select {
	case <-p.Done():
		t.Fatal("done before the sink has all")
	default:
	}
	close(free)
	if _, err := p.Wait(); fault.ReasonOf(err) != fault.ReasonConnectionLost {
		t.Error(err)
	}
}

// The streams share one window, but one that is not taken for a while does not
// stop the other.
func TestOneStreamBlocked(t *testing.T) {
	h := start(t, sshtest.Options{})
	free := make(chan struct{})
	var got [2]int
	p, err := h.runner.startAttached(t.Context(), newID(), h.inv,
		&command.Spec{Line: "head -c 1000000 /dev/zero >&2; head -c 9000000 /dev/zero"},
		func(s command.Stream, data []byte) error {
			if s == command.Stderr {
				<-free
			}
			got[s] += len(data)
			if got[command.Stdout] == 9000000 && s == command.Stdout {
				close(free)
			}
			return nil
		})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Wait(); err != nil || got != [2]int{9000000, 1000000} {
		t.Error(got, err)
	}
}

func TestSinkFails(t *testing.T) {
	h := start(t, sshtest.Options{})
	calls := 0
	p, err := h.runner.startAttached(t.Context(), newID(), h.inv, &command.Spec{Line: "head -c 9000000 /dev/zero; exit 3"}, func(command.Stream, []byte) error {
		calls++
		return errSink
	})
	if err != nil {
		t.Fatal(err)
	}
	exit, err := p.Wait()
	if code(exit) != "3" || !errors.Is(err, errSink) || fault.ReasonOf(err) != fault.ReasonOutputIncomplete || calls != 1 {
		t.Errorf("%s, %v, %d calls", code(exit), err, calls)
	}
}

// As with ssh, the end waits for a child that holds standard output.
func TestBackgroundChild(t *testing.T) {
	h := start(t, sshtest.Options{})
	r := h.start(command.Spec{Line: "sleep 100 & echo parent"})
	r.await(t, has("parent"))
	eventually(t, "the shell has ended", func() bool { return !alive(itoa(r.who.pid)) })
	select {
	case <-r.Done():
		t.Fatal("done while a child holds standard output")
	default:
	}
	report, err := r.Cancel(t.Context(), 500*time.Millisecond)
	if err != nil || report.Outcome != command.Gone || report.Ended != 1 {
		t.Errorf("%+v, %v", report, err)
	}
	if exit, err := r.Wait(); err != nil || code(exit) != "0" {
		t.Errorf("%s, %v", code(exit), err)
	}

	// One that holds nothing is nobody's business.
	r = h.start(command.Spec{Line: "sleep 1000 </dev/null >/dev/null 2>&1 & echo $!"})
	if exit, err := r.Wait(); err != nil || code(exit) != "0" {
		t.Errorf("%s, %v", code(exit), err)
	}
	child, err := strconv.Atoi(strings.TrimSpace(r.text(command.Stdout)))
	if err != nil || !alive(itoa(int64(child))) {
		t.Fatalf("a child in the background was ended with an ordinary end: %v", err)
	}
	defer syscall.Kill(child, syscall.SIGKILL)
	report, err = r.Cancel(t.Context(), 0)
	if err != nil || report.Outcome != command.AlreadyEnded {
		t.Errorf("%+v, %v", report, err)
	}
}

func TestClose(t *testing.T) {
	h := start(t, sshtest.Options{})
	r := h.start(command.Spec{Line: "echo ready; sleep 1000"})
	r.await(t, has("ready"))
	if d, why := r.Durability(); d != command.Attached || why == "" || time.Since(r.Started()) > time.Minute {
		t.Error(d, why, r.Started())
	}
	r.Close()
	r.Close()
	if exit, err := r.Wait(); fault.ReasonOf(err) != fault.ReasonConnectionLost || exit.Code != nil {
		t.Error(exit, err)
	}
	if report, err := r.Cancel(t.Context(), 0); err != nil || report.Outcome != command.Gone {
		t.Errorf("%+v, %v", report, err)
	}
	<-r.Done()
}

func TestStartTimeout(t *testing.T) {
	host := inventory.Host{}
	if got := New(nil, Options{}).startTimeout(host); got != 15*time.Second {
		t.Error(got)
	}
	host.ConnectTimeout = time.Second
	if got := New(nil, Options{}).startTimeout(host); got != time.Second {
		t.Error(got)
	}
	if got := New(nil, Options{StartTimeout: time.Hour}).startTimeout(host); got != time.Hour {
		t.Error(got)
	}
}

func TestSignalName(t *testing.T) {
	for in, want := range map[string]string{"KILL": "KILL", "SIGTERM": "TERM", "SIG@openssh.com": "UNKNOWN", "": "UNKNOWN", "a\x00": "UNKNOWN"} {
		if got := signalName(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// slowToReach is a dialer that needs longer than a start may take, and then
// cannot reach the host.
type slowToReach struct {
	Dialer
	takes time.Duration
}

func (d slowToReach) OpenFirst(ctx context.Context, _ inventory.Host) (Session, error) {
	select {
	case <-ctx.Done():
		return Session{}, context.Cause(ctx)
	case <-time.After(d.takes):
		return Session{}, fault.New(fault.Unavailable, fault.ReasonConnectTimeout, "it takes connections, but says nothing")
	}
}

// Why a host cannot be reached is the dialer's to say, however long it takes.
func TestSlowToReach(t *testing.T) {
	r := New(slowToReach{takes: 200 * time.Millisecond}, Options{StartTimeout: 50 * time.Millisecond})
	_, err := r.Start(t.Context(), Run{ID: newID(), Host: inventory.Host{Name: "far"}, Spec: &command.Spec{Line: "true"}, Fence: 1})
	if fault.ReasonOf(err) != fault.ReasonConnectTimeout {
		t.Error(err)
	}
}
