package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

// TestKeysOf: which arguments are keys, which are text, and which are neither.
func TestKeysOf(t *testing.T) {
	for arg, want := range map[string]string{
		"Enter": "key Enter", "enter": "key Enter", "PAGEUP": "key PageUp", "f5": "key F5",
		"ctrl+c": "key Ctrl+c", "Ctrl+C": "key Ctrl+C", "CTRL+shift+up": "key Ctrl+Shift+Up", "Ctrl++": "key Ctrl++", "alt+.": "key Alt+.",
		"q": "text q", "1+1": "text 1+1", "a+b": "text a+b", "entered": "text entered", "ctrl+": "text ctrl+", "f": "text f", "f5x": "text f5x", "C-c": "text C-c",
		"f13": "error", "F0": "error", "ctrl+foo": "error", "Control+C": "error", "ctrl+\u00e4": "error", "Ctrl+Ctrl+Ctrl+Ctrl+C": "error", "": "error", "cmd+q": "error",
		strings.Repeat("x", mostKeyText+1): "error",
	} {
		keys, err := keysOf([]string{arg}, false)
		got := "error"
		if err == nil {
			if got = "text " + keys[0].GetText(); keys[0].GetName() != "" {
				got = "key " + keys[0].GetName()
			}
		}
		if got != want {
			t.Errorf("%.30q is %s, %v; want %s", arg, got, err, want)
		}
	}
	keys, err := keysOf([]string{"Enter", "f13"}, true)
	if err != nil || keys[0].GetText() != "Enter" || keys[1].GetText() != "f13" {
		t.Errorf("%v, %v", keys, err)
	}
	if _, err := keysOf(make([]string, mostKeyArgs+1), false); err == nil {
		t.Error("as many as one likes")
	}
}

// What cannot be meant is told in the words of the command line, before anything is asked.
func TestSessionUsage(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"session", "run", "", "true"}, "the name of the session is empty"},
		{[]string{"session", "show", ""}, "the name of the session is empty"},
		{[]string{"session", "screen", ""}, "the name of the session is empty"},
		{[]string{"session", "replay", ""}, "the name of the session is empty"},
		{[]string{"session", "keys", "", "x"}, "the name of the session is empty"},
		{[]string{"session", "keys", "w1", "ls", ""}, "key 2 is empty"},
		{[]string{"session", "keys", "w1", "f13"}, "no key of the name \"f13\"\n  telexec session keys --help lists the names; --text"},
		{[]string{"session", "keys", "--settle", "6s", "w1", "x"}, "--settle is from 0 to 5"},
		{[]string{"session", "keys", "--lines", "-1", "w1", "x"}, "--lines needs a value, and \"-1\" is another flag"},
		{[]string{"session", "screen", "--lines", "10001", "w1"}, "--lines is from 0 to 10000"},
		{[]string{"session", "open", "web1", "--idle-timeout", "5s"}, "--idle-timeout is from 1m to 365 days"},
		{[]string{"session", "open", "web1", "--idle-timeout", "5"}, "--idle-timeout: \"5\" is no length of time"},
		{[]string{"session", "open", "web1", "--size", "0x0"}, "no size of a terminal\n  It has 2 to 1000 columns"},
		{[]string{"session", "open", "web1", "--name", "-x"}, "--name needs a value, and \"-x\" is another flag"},
		{[]string{"status", "--session"}, "--session needs a value\n  telexec status --help"},
		{[]string{"session", "screen", "w1", "--lines", "x"}, "--lines: \"x\" is no number"},
	} {
		i := &invocation{env: map[string]string{"TELEXEC_SERVER": nowhere}}
		if code := i.run(t.Context(), tt.args...); code != 125 || !strings.HasPrefix(i.stderr.String(), "telexec: ") || !strings.Contains(i.stderr.String(), tt.want) {
			t.Errorf("%q: code %d, %s", tt.args, code, i.stderr.String())
		}
	}
}

// Who reuses a session is told where it is not as it was asked for, and what to do where it
// cannot be had.
func TestReuse(t *testing.T) {
	h := &house{sessions: []*telexecv1.Session{{
		Name: "own1", Host: "web1", Shell: "bash", Columns: 80, Rows: 24, Keeper: telexecv1.Keeper_KEEPER_TMUX,
		IdleTimeout: durationpb.New(time.Hour), Labels: map[string]string{"app": "shop"},
	}}}
	i := h.start(t)
	code := i.run(t.Context(), "session", "open", "web1", "-n", "own1", "--reuse", "--shell", "/bin/zsh", "--size", "90x30", "--keeper", "none",
		"--idle-timeout", "2h", "--label", "app=blog", "--label", "x=y")
	want := "telexec: own1 is as it was opened: its shell is bash, not /bin/zsh; its size is 80x24, not 90x30; its keeper is tmux, not none; " +
		"its --idle-timeout is 1 h, not 2 h; its label app is shop, not blog; its label x is none, not y\n"
	if code != 0 || i.stdout.String() != "own1\n" || i.stderr.String() != want {
		t.Errorf("code %d, %s%s", code, i.stdout.String(), i.stderr.String())
	}
	i = h.start(t)
	code = i.run(t.Context(), "session", "open", "web1", "-n", "own1", "--reuse", "--shell", "bash", "--size", "80x24", "--keeper", "tmux", "--idle-timeout", "1h", "--label", "app=shop")
	if code != 0 || i.stderr.Len() > 0 {
		t.Errorf("nothing differs: code %d, %s", code, i.stderr.String())
	}
	refused, err := status.New(codes.AlreadyExists, `an open session has the name "own1"`).WithDetails(&errdetails.ErrorInfo{Domain: "telexec", Reason: "SESSION_EXISTS"})
	if err != nil {
		t.Fatal(err)
	}
	h.refuse = refused.Err()
	for _, tt := range []struct {
		args []string
		want string
	}{{nil, "give --reuse to have that one"}, {[]string{"--reuse"}, "That one is on another host, or another's"}} {
		i = h.start(t)
		code = i.run(t.Context(), append([]string{"session", "open", "web1", "-n", "own1"}, tt.args...)...)
		if said := i.stderr.String(); code != 125 || !strings.Contains(said, tt.want) || len(tt.args) > 0 && strings.Contains(said, "--reuse") {
			t.Errorf("%q: code %d, %s", tt.args, code, said)
		}
	}
}

// Output that was not kept is told also by who shows what was.
func TestLogsOfWhatWasNotKept(t *testing.T) {
	end := completed(2)
	end.Truncation = &telexecv1.Truncation{Reason: "the connection was lost"}
	s := &scripted{
		list:   []*telexecv1.Command{end},
		status: func(int) (*telexecv1.Command, error) { return end, nil },
		stream: func(out grpc.ServerStreamingServer[telexecv1.StreamOutputResponse]) error {
			_ = out.Send(outputEvent(0, "part\n"))
			return out.Send(endedEvent(end))
		},
	}
	for _, tt := range []struct {
		args []string
		told string
	}{
		{nil, "telexec: some of the output was not kept: the connection was lost\n"}, {[]string{"-q"}, ""}, {[]string{"--json"}, ""},
	} {
		i := s.start(t)
		if code := i.run(t.Context(), append([]string{"logs", someID}, tt.args...)...); code != 0 || i.stderr.String() != tt.told || !strings.Contains(i.stdout.String(), "part") && len(tt.args) == 0 {
			t.Errorf("%q: code %d, %s%s", tt.args, code, i.stdout.String(), i.stderr.String())
		}
	}
}

// Of standard input it is told whether something is there, and nothing is read.
func TestWaits(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	empty := waits(r)
	fmt.Fprint(w, "abc")
	full := waits(r)
	w.Close()
	p := make([]byte, 10)
	n, _ := r.Read(p)
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	file, err := os.Open("session_test.go")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	_, tty := openTerminal(t)
	got := []bool{empty, full, string(p[:n]) == "abc", waits(r), waits(null), waits(file), waits(tty), waits(nil), waits(strings.NewReader("abc"))}
	if want := []bool{false, true, true, false, false, true, false, false, false}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
