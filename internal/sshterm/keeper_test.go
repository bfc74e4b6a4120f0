package sshterm

import (
	"crypto/md5"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/session"
	"github.com/telexec/telexec/internal/test/sshtest"
)

// What keeps a shell keeps it through a lost connection: the same one is found again,
// who has it last has it alone, and its end is told.
func TestKept(t *testing.T) {
	m := machine(t, sshtest.OpenSSH, sshtest.Account{Name: "anna", Shell: "bash"})
	terms := New(newDialer(t), Options{})
	for _, keeper := range keepers[1:] {
		t.Run(string(keeper), func(t *testing.T) {
			spec := Spec{Host: m.HostOf("web1", "anna"), Keeper: keeper}
			s := open(t, terms, spec)
			if f := s.Facts(); f.Marks != (keeper != session.KeptByScreen) || f.Answers != (keeper != session.KeptByDtach) || f.KeeperReason != "" {
				t.Errorf("%+v", f)
			}
			s.sees("$ ")
			s.types("V=kept; printf 'I am %s.\\n' $$\r")
			s.sees(fmt.Sprintf("I am %d.", s.Facts().PID))
			m.KillSessions()
			if err := s.end(); reason(err) != fault.ReasonConnectionLost {
				t.Fatalf("after the loss: %v", err)
			}

			spec = s.spec
			spec.Resume, spec.Size = true, session.Size{Columns: 77, Rows: 20}
			again := open(t, terms, spec)
			if again.Facts().PID != s.Facts().PID {
				t.Errorf("another shell: %d, was %d", again.Facts().PID, s.Facts().PID)
			}
			if redraw := string(again.Facts().Redraw); strings.Contains(redraw, "I am ") != (keeper == session.KeptByTmux) {
				t.Errorf("redraw: %q", redraw)
			}
			again.types("printf 'still %s %s.\\n' $V \"$(stty size)\"\r")
			again.sees("still kept 20 77.")

			third := open(t, terms, spec)
			if err := again.end(); reason(err) != fault.ReasonConnectionLost {
				t.Errorf("displaced: %v", err)
			}
			third.types("exit 9\r")
			if code := third.exited(); code != 9 {
				t.Error(code)
			}
			if _, err := terms.Open(t.Context(), spec); reason(err) != fault.ReasonSessionGone {
				t.Errorf("after its end: %v", err)
			}
			third.End(t.Context())
			if left := m.Leftovers(spec.ID); len(left) > 0 {
				t.Error(left)
			}
			if _, err := terms.Open(t.Context(), spec); reason(err) != fault.ReasonSessionGone {
				t.Errorf("after its removal: %v", err)
			}
		})
	}
}

// A shell that nothing keeps ends with its connection, and is not found again.
func TestNotKept(t *testing.T) {
	m := machine(t, sshtest.OpenSSH, sshtest.Account{Name: "anna", Shell: "bash"})
	terms := New(newDialer(t), Options{})
	s := open(t, terms, Spec{Host: m.HostOf("web1", "anna"), Keeper: session.KeptByNone})
	s.prompt(0)
	if f := s.Facts(); f.KeeperReason == "" {
		t.Errorf("%+v", f)
	}
	m.KillSessions()
	if err := s.end(); reason(err) != fault.ReasonConnectionLost {
		t.Fatalf("after the loss: %v", err)
	}
	spec := s.spec
	spec.Resume = true
	if _, err := terms.Open(t.Context(), spec); reason(err) != fault.ReasonSessionGone {
		t.Error(err)
	}
}

// A restart of the host is told as what it is; so is a keeper that was killed.
func TestKeeperGone(t *testing.T) {
	m := machine(t, sshtest.OpenSSH, sshtest.Account{Name: "anna", Shell: "bash"})
	terms := New(newDialer(t), Options{})
	killed := open(t, terms, Spec{Host: m.HostOf("web1", "anna"), Keeper: session.KeptByTmux})
	killed.prompt(0)
	m.Run("sh", "-c", "kill -9 $(cat /proc/$(cut -d' ' -f1 "+killed.dir+"/state)/stat | cut -d' ' -f4 | { read hold; cut -d' ' -f4 /proc/$hold/stat; })")
	if err := killed.end(); err != io.EOF || killed.Exit() != nil {
		t.Errorf("tmux was killed: %v, %v", err, killed.Exit())
	}

	s := open(t, terms, Spec{Host: m.HostOf("web1", "anna")})
	if s.Facts().Keeper != session.KeptByTmux {
		t.Errorf("the best is %s", s.Facts().Keeper)
	}
	s.prompt(0)
	m.Reboot()
	s.end()
	spec := s.spec
	spec.Resume = true
	if _, err := terms.Open(t.Context(), spec); reason(err) != fault.ReasonHostRebooted {
		t.Error(err)
	}
}

// Bytes come through tmux as they are, whatever they are, and no more are read of the
// shell than are read of us.
func TestBytes(t *testing.T) {
	m := machine(t, sshtest.OpenSSH, sshtest.Account{Name: "anna", Shell: "bash"})
	terms := New(newDialer(t), Options{})
	for _, keeper := range keepers[:3] {
		t.Run(string(keeper), func(t *testing.T) {
			s := open(t, terms, Spec{Host: m.HostOf("web1", "anna"), Keeper: keeper})
			s.prompt(0)
			var all strings.Builder
			var octal strings.Builder
			for c := 1; c < 256; c++ {
				if c != '\n' && c != 0x1b && c != 0x90 && c != 0x98 && c != 0x9b && c != 0x9d && c != 0x9e && c != 0x9f {
					all.WriteByte(byte(c))
					fmt.Fprintf(&octal, "\\%03o", c)
				}
			}
			s.run(`printf '<`+octal.String()+`\033[5m\033]133;A\007>'`, 0)
			s.sees("<" + all.String() + "\x1b[5m\x1b]133;A\a>")
			// Typed, it comes to the program as it is; longer than one command to tmux.
			var typed []byte
			for i := range 3000 {
				typed = append(typed, byte(i))
			}
			from := s.marks()
			s.types("stty raw -echo; printf re''ady; head -c 3000 | md5sum; stty sane\r")
			s.sees("ready")
			s.types(string(typed))
			s.sees(fmt.Sprintf("%x", md5.Sum(typed)))
			s.prompt(from)
		})
	}
}

// What nobody has come for in a month is removed, and nothing else, whatever the home is
// called, and whatever other host has it, too.
func TestForgotten(t *testing.T) {
	m := machine(t, sshtest.OpenSSH, sshtest.Account{Name: "anna", Shell: "bash"})
	home := m.Home("anna") + "/a home"
	m.Run("su", "-s", "/bin/sh", "anna", "-c", `mkdir -m 700 "`+home+`" && echo "export HOME=\"`+home+`\"" >~/.bashrc`)
	terms := New(newDialer(t), Options{})
	s := open(t, terms, Spec{Host: m.HostOf("web1", "anna"), Keeper: session.KeptByDtach})
	s.prompt(0)
	sessions := strings.TrimSuffix(s.dir, "/"+s.spec.ID)
	if !strings.HasPrefix(sessions, home) {
		t.Fatal(sessions)
	}
	m.Run("su", "-s", "/bin/sh", "anna", "-c", `cd "`+sessions+`" && mkdir OLD LATE SHARED EARLIER ../../../../../a && echo 999999999 1 1 - - | tee OLD/state >SHARED/state && echo elsewhere >SHARED/host && uname -n >OLD/host && echo $$ 1 1 another-boot 1 >EARLIER/state && uname -n >EARLIER/host && touch -d '40 days ago' OLD SHARED EARLIER '`+s.dir+`' ../../../../../a`)
	another := open(t, terms, Spec{Host: m.HostOf("web1", "anna"), Keeper: session.KeptByNone})
	another.prompt(0)
	if got := strings.Fields(m.Run("ls", sessions)); !slices.Equal(got, []string{"LATE", "SHARED", s.spec.ID, another.spec.ID}) {
		t.Errorf("there are %v", got)
	}
	m.Run("ls", "-d", m.Home("anna")+"/a")
}

// The path of a socket has at most a hundred bytes; that of a home has not.
func TestLongHome(t *testing.T) {
	m := machine(t, sshtest.OpenSSH, sshtest.Account{Name: "anna", Shell: "bash"})
	home := m.Home("anna") + "/" + strings.Repeat("long ", 20) + "'way'"
	m.Run("su", "-s", "/bin/sh", "anna", "-c", `mkdir -m 700 "`+home+`" && echo "export HOME=\"`+home+`\"" >~/.bashrc`)
	terms := New(newDialer(t), Options{})
	s := open(t, terms, Spec{Host: m.HostOf("web1", "anna")})
	if f := s.Facts(); f.Keeper != session.KeptByTmux || !strings.HasPrefix(s.dir, home) || f.Nested == "" {
		t.Errorf("%+v in %s", f, s.dir)
	}
	s.prompt(0)
	s.run("V=1", 0)
	m.KillSessions()
	s.end()
	spec := s.spec
	spec.Resume = true
	again := open(t, terms, spec)
	again.types("exit $((V + 1))\r")
	if code := again.exited(); code != 2 {
		t.Error(code)
	}
	again.End(t.Context())
	if left := m.Leftovers(spec.ID); len(left) > 0 {
		t.Error(left)
	}
}
