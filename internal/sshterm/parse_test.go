package sshterm

import (
	"bytes"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/session"
)

// pieces is a source of what is in text, cut at the given sizes in turn.
func pieces(text string, sizes ...int) *source {
	s := &source{pieces: make(chan []byte, len(text)+1), back: make(chan []byte, len(text)+1), letGo: make(chan struct{})}
	for i := 0; len(text) > 0; i++ {
		n := min(max(1, sizes[i%len(sizes)]), len(text))
		s.pieces <- []byte(text[:n])
		text = text[n:]
	}
	close(s.pieces)
	return s
}

// A line of ours is found wherever it is cut, and nothing else is taken for one.
func TestPlainStream(t *testing.T) {
	const sign = "\x1etelexec:N: "
	for _, c := range []struct{ in, out, words string }{
		{"all output", "all output", ""},
		{"out" + sign + "exit 3\r\n", "out", "exit 3"},
		{"out" + sign + "exit 3\nbehind", "out", "exit 3"},
		{"\x1etelexec:M: exit 3\r\n", "\x1etelexec:M: exit 3\r\n", ""},
		{"\x1e\x1e" + sign + "gone\r\n", "\x1e\x1e", "gone"},
		{sign + "no end of line", sign + "no end of line", ""},
		{"bye\r\n" + string(dtachEnd) + sign + "exit 0\r\n", "bye\r\n", "exit 0"},
		{"bye" + string(dtachEnd) + "no, it goes on", "bye" + string(dtachEnd) + "no, it goes on", ""},
		{"\x1b[999H\x1b[6n", "\x1b[999H\x1b[6n", ""},
		{sign + strings.Repeat("x", maxWords+1) + sign + "gone\n", sign + strings.Repeat("x", maxWords+1), "gone"},
	} {
		for size := 1; size < 80; size += 7 {
			p := &plainStream{src: pieces(c.in, size, 1, 3), token: []byte(sign), before: dtachEnd}
			out, err := io.ReadAll(p)
			if err != nil || string(out) != c.out || p.verdict() != c.words {
				t.Errorf("%.80q by %d: %.80q %q %v", c.in, size, out, p.verdict(), err)
			}
		}
	}
}

// Without a sign every byte is the shell's.
func TestPlainStreamAlone(t *testing.T) {
	all := "a\x1etelexec:N: exit 3\r\n" + string(dtachEnd)
	if out, err := io.ReadAll(&plainStream{src: pieces(all, 5)}); err != nil || string(out) != all {
		t.Errorf("%q %v", out, err)
	}
}

func FuzzPlainStream(f *testing.F) {
	f.Add("out\x1etelexec:N: exit 3\r\n", 4, 9)
	f.Add("out"+string(dtachEnd)+"\x1etelexec:N: exit 3\r\n", 1, 1)
	f.Add("\x1b[999H\r\n[EOF - dtach\x1e\x1etelexec:\x1b[999H", 2, 3)
	f.Fuzz(func(t *testing.T, text string, one, other int) {
		read := func(sizes ...int) (string, string) {
			p := &plainStream{src: pieces(text, sizes...), token: []byte("\x1etelexec:N: "), before: dtachEnd}
			out, _ := io.ReadAll(p)
			return string(out), p.verdict()
		}
		whole, words := read(len(text) + 1)
		cut, also := read(one, other)
		if whole != cut || words != also {
			t.Errorf("%q: whole %q %q, cut %q %q", text, whole, words, cut, also)
		}
		if !strings.HasPrefix(text, whole) {
			t.Errorf("%q became %q", text, whole)
		}
	})
}

// escaped is output as tmux tells it.
func escaped(b []byte) string {
	var s strings.Builder
	for _, c := range b {
		if c < ' ' || c == '\\' {
			fmt.Fprintf(&s, "\\%03o", c)
		} else {
			s.WriteByte(c)
		}
	}
	return s.String()
}

// What tmux says is taken apart wherever it is cut.
func TestControl(t *testing.T) {
	long := bytes.Repeat([]byte("0123\x1b\\\n\xff"), 2000)
	in := "%begin 1 2 0\n%end 1 2 0\n%session-changed $0 telexec\n" +
		"%begin 1 3 1\n" + asked + " %7\n%end 1 3 1\n" +
		"%output %7 a\\033b\n%output %8 of another\n%window-add @1\n%output %7 \n" +
		"%begin 1 4 1\n%output %7 this is an answer\n%end 1 3 1\n%end 1 4 1\n" +
		"%output %7 " + escaped(long) + "\n%outputs\n%exit\n\x1etelexec:N: exit 4\nbehind"
	for size := 1; size < 300; size += 13 {
		c := &control{src: pieces(in, size, 2, 31), w: io.Discard, asking: true}
		out, err := io.ReadAll(c)
		if err != nil || string(out) != "a\x1bb"+string(long) || c.verdict() != "exit 4" || c.pane != "%7" {
			t.Fatalf("by %d: %.60q… %d %q %q %v", size, out, len(out), c.verdict(), c.pane, err)
		}
		if want := []answer{{[]string{asked + " %7"}, true}, {[]string{"%output %7 this is an answer", "%end 1 3 1"}, true}}; !reflect.DeepEqual(c.answers, want) {
			t.Fatalf("answers: %v", c.answers)
		}
	}
}

// Nothing is asked or typed before tmux has attached us: what is printed until then it
// does not tell.
func TestControlWaits(t *testing.T) {
	var w strings.Builder // of the goroutine, but while that waits for a piece
	src := &source{pieces: make(chan []byte), back: make(chan []byte, 8), letGo: make(chan struct{})}
	c := &control{src: src, w: &w}
	began := make(chan error)
	go func() { began <- c.begin() }()
	for _, piece := range []string{"%begin 1 1 0\n%end 1 1 0\n", "%output %0 too early\n%sess", "ion-chang"} {
		src.pieces <- []byte(piece)
		if w.Len() > 0 {
			t.Fatalf("behind %q it says %q", piece, w.String())
		}
	}
	src.pieces <- []byte("ed $0 telexec\n")
	src.pieces <- []byte("%begin 1 2 1\n" + asked + " %0\n%end 1 2 1\n")
	if err := <-began; err != nil || !strings.HasPrefix(w.String(), "display-message") || !strings.HasSuffix(w.String(), "send-keys -t %0 -H 0a\n") {
		t.Errorf("%v: it says %q", err, w.String())
	}
}

func FuzzControl(f *testing.F) {
	f.Add([]byte("%begin 1 2 1\n%output %0 no\n%end 1 2 1\n%output %0 a\\033\\134\n%exit\n"), 3, 5)
	f.Add([]byte("%output %0 \\0\n%output %0 \\9999\\\n\n%output %0\n%output"), 1, 2)
	f.Fuzz(func(t *testing.T, text []byte, one, other int) {
		read := func(sizes ...int) string {
			c := &control{src: pieces(string(text), sizes...), w: io.Discard, pane: "%0"}
			out, _ := io.ReadAll(c)
			return string(out) + "\x00" + c.verdict()
		}
		if whole, cut := read(len(text)+1), read(one, other); whole != cut {
			t.Errorf("%q: whole %q, cut %q", text, whole, cut)
		}
		told := "%output %0 " + escaped(text) + "\n"
		c := &control{src: pieces(told, one, other), w: io.Discard, pane: "%0"}
		if out, _ := io.ReadAll(c); string(out) != string(text) {
			t.Errorf("%q became %q", text, out)
		}
	})
}

// What is typed goes in hexadecimal, in commands that are not too long.
func TestControlTypes(t *testing.T) {
	var w bytes.Buffer
	c := &control{w: &w, pane: "%3"}
	if n, err := c.Write([]byte("a\x1b\xff\x00")); n != 4 || err != nil || w.String() != "send-keys -t %3 -H 61 1b ff 00\n" {
		t.Errorf("%d %v %q", n, err, w.String())
	}
	w.Reset()
	c.Write(make([]byte, 2*typedAtOnce+1))
	if got := strings.Count(w.String(), "\n"); got != 3 {
		t.Error(got)
	}
}

// A screen is drawn with its modes, and the other one behind it.
func TestRedraw(t *testing.T) {
	for _, c := range []struct {
		state, title string
		want         string
	}{
		{"%0 4 1 0 4294967295 4294967295 0 23 24 1 0 0 0 0 1 0 0 0 0 0", "", "\x1b[Hone\x1b[m\r\n\x1b[1mtwo\x1b[m\x1b[2;5H"},
		{"%0 4 7 1 2 3 5 20 24 0 1 1 1 1 0 0 1 0 0 1", "a\x1b\\b", "\x1b[Hbehind\x1b[m\x1b[4;3H\x1b[?1049h\x1b[Hone\x1b[m\r\n\x1b[1mtwo\x1b[m\x1b[6;21r" +
			"\x1b[4h\x1b[?1h\x1b=\x1b[?7l\x1b[?1002h\x1b[?1006h\x1b[?6h\x1b[3;5H\x1b[?25l\x1b]2;a\\b\x1b\\"},
	} {
		got, err := redraw(strings.Fields(c.state), []string{"one   ", "\x1b[1mtwo "}, []string{"behind"}, c.title)
		if err != nil || string(got) != c.want {
			t.Errorf("%s:\n%q\n%q %v", c.state, got, c.want, err)
		}
	}
	if _, err := redraw([]string{"%0"}, nil, nil, ""); err == nil {
		t.Error("half an answer is taken")
	}
}

// Which keeper it is to be.
func TestKeepers(t *testing.T) {
	all := []session.Keeper{session.KeptByTmux, session.KeptByDtach, session.KeptByScreen}
	has := facts{dir: "/d", tmux: "tmux 3.3a", dtach: true, screen: true, has: []string{"stty"}}
	with := func(change func(*facts)) facts { f := has; change(&f); return f }
	for i, c := range []struct {
		f    facts
		want session.Keeper
		all  []session.Keeper
		why  string
	}{
		{has, "", all, ""},
		{has, session.KeptByScreen, all[2:], ""},
		{has, session.KeptByNone, nil, "none was asked for"},
		{with(func(f *facts) { f.tmux = "tmux 2.8" }), "", all[1:], ""},
		{with(func(f *facts) { f.tmux = "tmux next-3.5" }), "", all, ""},
		{with(func(f *facts) { f.tmux = "tmux openbsd-7.4" }), "", all, ""},
		{with(func(f *facts) { f.tmux = "tmux 2.8" }), session.KeptByTmux, nil, "it has no tmux that will do"},
		{facts{dir: "/d", has: []string{"stty"}}, "", nil, "the host has none of tmux (3.0 or later), dtach and screen"},
		{with(func(f *facts) { f.leaving = true }), "", nil, "KillUserProcesses"},
		{with(func(f *facts) { f.dir = "" }), "", nil, "no directory"},
		{with(func(f *facts) { f.has = nil }), "", nil, "no stty"},
	} {
		if got, why := c.f.keepers(c.want); !reflect.DeepEqual(got, c.all) || !strings.Contains(why, c.why) || (why == "") != (c.why == "") {
			t.Errorf("%d: %v %q", i, got, why)
		}
	}
}

// Who has the terminal, seen in what hosts tell.
func TestFront(t *testing.T) {
	for name, c := range map[string]struct {
		lines string
		want  Foreground
	}{
		"idle":    {"process 10 1 10 34816 10 S 5\ndetail 10 anna raw -bash", Foreground{Group: 10, Shell: true, Raw: true}},
		"builtin": {"process 10 1 10 34816 10 S 5\ndetail 10 anna tty -bash", Foreground{Group: 10, Shell: true, Lines: true}},
		"command": {"process 10 1 10 34816 20 S 5\nprocess 20 10 20 34816 20 S 6\ndetail 20 anna tty sleep 5", Foreground{Group: 20, Processes: []command.Process{{PID: 20, User: "anna", Command: "sleep 5"}}}},
		"in the shell's group": {"process 10 1 10 34816 10 S 5\nprocess 20 10 10 34816 10 S 6\ndetail 20 anna tty sleep 5",
			Foreground{Group: 10, Processes: []command.Process{{PID: 20, User: "anna", Command: "sleep 5"}}}},
		"without job control, in the group of who runs it": {"process 10 9 8 34816 8 S 5\nprocess 9 8 8 34816 8 S 5\nprocess 8 1 8 34816 8 S 5\nprocess 20 10 8 34816 8 S 6\ndetail 8 anna tty /bin/sh hold\ndetail 9 anna tty sh\ndetail 10 anna tty dash\ndetail 20 anna tty sleep 5",
			Foreground{Group: 8, Processes: []command.Process{{PID: 20, User: "anna", Command: "sleep 5"}}}},
		"a helper of the shell": {"process 10 1 10 34816 10 S 5\nprocess 20 10 10 34816 10 S 6\ndetail 20 anna other gitstatusd", Foreground{Group: 10, Shell: true}},
		"ssh": {"process 10 1 10 34816 20 S 5\nprocess 20 10 20 34816 20 S 6\ndetail 20 anna raw ssh web2",
			Foreground{Group: 20, Processes: []command.Process{{PID: 20, User: "anna", Command: "ssh web2"}}, Nested: "other"}},
		"ssh with a command": {"process 10 1 10 34816 20 S 5\nprocess 20 10 20 34816 20 S 6\ndetail 20 anna tty ssh web2 make",
			Foreground{Group: 20, Processes: []command.Process{{PID: 20, User: "anna", Command: "ssh web2 make"}}}},
		"sudo on a terminal of its own": {"process 10 1 10 34816 20 S 5\nprocess 20 10 20 34816 20 S 6\ndetail 20 root - sudo -i\nprocess 21 20 21 34817 22 S 6\nprocess 22 21 22 34817 22 S 7\ndetail 22 root - -bash",
			Foreground{Group: 20, Processes: []command.Process{{PID: 20, User: "root", Command: "sudo -i"}}, Nested: "bash", NestedPID: 22}},
		"sudo that runs something": {"process 10 1 10 34816 20 S 5\nprocess 20 10 20 34816 20 S 6\ndetail 20 root - sudo make\nprocess 21 20 21 34817 21 S 6\ndetail 21 root - make",
			Foreground{Group: 20, Processes: []command.Process{{PID: 20, User: "root", Command: "sudo make"}}}},
		"another user's": {"process 10 1 10 34816 40 S 5\nprocess 30 10 30 34816 40 S 6\nprocess 40 30 40 34816 40 S 6\ndetail 40 otto raw -bash",
			Foreground{Group: 40, Processes: []command.Process{{PID: 40, User: "otto", Command: "-bash"}}, Nested: "other", NestedPID: 40}},
		"the innermost": {"process 10 1 10 34816 40 S 5\nprocess 30 10 30 34816 40 S 6\nprocess 40 30 40 34816 40 S 6\ndetail 40 anna tty zsh",
			Foreground{Group: 40, Processes: []command.Process{{PID: 40, User: "anna", Command: "zsh"}}, Nested: "zsh", NestedPID: 40}},
	} {
		found, ok := parseSurvey(strings.Split(c.lines+"\nsurveyed proc", "\n"))
		if !ok {
			t.Errorf("%s is not read", name)
			continue
		}
		if got, ok := found.front(10, "anna"); !ok || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

// A host may tell a user in another way than the one that has logged in.
func TestSameUser(t *testing.T) {
	for told, login := range map[string]string{"anna": "anna", "Anna": "anna", `CORP\anna`: "anna", "anna@corp": "anna", "": "x", "-": "x", "1000": "x", "longn+": "longname"} {
		if !sameUser(told, login) {
			t.Errorf("%q is not %q", told, login)
		}
	}
	for told, login := range map[string]string{"otto": "anna", "root": "anna", "an": "anna", "bob+": "anna"} {
		if sameUser(told, login) {
			t.Errorf("%q is %q", told, login)
		}
	}
}

func TestInteractive(t *testing.T) {
	for args, kind := range map[string]string{
		"-bash": "bash", "bash": "bash", "/bin/bash --login": "bash", "bash -i": "bash", "bash --rcfile /x/y -i": "bash", "-zsh": "zsh", "sh": "sh",
		"busybox sh": "ash", "busybox ash -l": "ash", "fish --init-command source x --login": "fish", "ksh93 -o vi": "ksh", "bash -o vi script": "",
		"bash script": "", "bash -c true": "", "sh -ec true": "", "busybox ls": "", "vim": "", "": "", "python3 -i": "", "sh - ": "sh",
	} {
		if got := interactive(args); got != kind {
			t.Errorf("%q: %q, want %q", args, got, kind)
		}
	}
}

func FuzzSurvey(f *testing.F) {
	f.Add("process 10 1 10 34816 20 S 5\nprocess 20 10 20 34816 20 S 6\ndetail 20 anna tty sleep 5\nsurveyed proc", int64(10))
	f.Add("process 10 20 10 t 20 S 5\nprocess 20 10 20 t 20 S 6\ndetail 20 a tty bash\nsurveyed ps", int64(10))
	f.Fuzz(func(t *testing.T, text string, shell int64) {
		found, ok := parseSurvey(strings.Split(text, "\n"))
		if !ok {
			return
		}
		front, ok := found.front(shell, "anna")
		if !ok {
			return
		}
		for _, p := range front.Processes {
			if p.PID == shell {
				t.Error("the shell is told as what runs in it")
			}
		}
		if front.NestedPID != 0 && front.NestedPID == int(shell) {
			t.Error("the shell is nested in itself")
		}
	})
}

func TestParseFacts(t *testing.T) {
	f, ok := parseFacts([]string{"dir relative", "dir /a\x07", "dir /home/a", "dir /b", "shell zsh /bin/zsh", "tmux tmux 3.4", "has stty", "unknown x", "probed", "dir /c"})
	if !ok || f.dir != "/home/a" || f.kind != "zsh" || f.path != "/bin/zsh" || f.tmux != "tmux 3.4" || len(f.has) != 1 {
		t.Errorf("%+v %v", f, ok)
	}
	if f, ok := parseFacts([]string{"shell emacs /bin/emacs"}); ok || f.kind != "" {
		t.Errorf("%+v %v", f, ok)
	}
}

func TestParseWho(t *testing.T) {
	if w, err := parseWho("12 12 11 b-o-o-t Mon Jan 1"); err != nil || w != (who{12, 12, 11, "b-o-o-t", "Mon Jan 1"}) {
		t.Errorf("%+v %v", w, err)
	}
	for _, bad := range []string{"", "1 1 1 b s", "x 1 1 b s", "12 1 1 b", "12 1 1  s", "12 1 1 b s\x07", "12 -1 1 b s"} {
		if w, err := parseWho(bad); err == nil {
			t.Errorf("%q: %+v", bad, w)
		}
	}
}
