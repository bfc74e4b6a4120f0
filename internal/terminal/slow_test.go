package terminal_test

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/session"
	"github.com/telexec/telexec/internal/terminal"
)

// scripted are shells in memory that do as a script says, in the time of a bubble.
type scripted struct {
	facts  terminal.Facts
	script func(k *scriptedShell)
}

type scriptedShell struct {
	*timelessShell
	facts terminal.Facts
	nonce string
	keys  chan byte // typed; capacity more than any script reads
}

func (s scripted) Open(_ context.Context, spec terminal.ShellSpec) (terminal.Shell, error) {
	k := &scriptedShell{
		timelessShell: &timelessShell{out: make(chan []byte, 100), over: make(chan struct{})},
		facts:         s.facts, nonce: spec.Nonce, keys: make(chan byte, 10000),
	}
	go s.script(k)
	return k, nil
}

func (k *scriptedShell) Facts() terminal.Facts { return k.facts }

func (k *scriptedShell) Write(p []byte) (int, error) {
	for _, c := range p {
		k.keys <- c
	}
	return len(p), nil
}

func (k *scriptedShell) End(context.Context) (command.CancelReport, error) {
	return command.CancelReport{Outcome: command.Gone}, k.Close()
}

// prints prints text, in which <X> stands for the mark X.
func (k *scriptedShell) prints(text string) {
	text = strings.NewReplacer("<", "\x1b]133;", ">", ";p=10;k="+k.nonce+"\a").Replace(text)
	k.out <- []byte(text)
}

// prompts shows a prompt behind a command that has ended with a code.
func (k *scriptedShell) prompts(code int) {
	k.prints("<D;" + strconv.Itoa(code) + ";a>me$ <B>")
}

// line reads what was typed up to an Enter, or Ctrl-C; empty when the shell is over.
func (k *scriptedShell) line() string {
	var line []byte
	for {
		select {
		case c := <-k.keys:
			if line = append(line, c); c == '\r' || c == 3 {
				return string(line)
			}
		case <-k.over:
			return ""
		}
	}
}

var (
	likeBash   = terminal.Facts{Kind: "bash", Marks: true, PID: 10, Keeper: session.KeptByNone}
	likeDevice = terminal.Facts{Keeper: session.KeptByNone}
)

// scripts runs a session of a shell that does as a script says.
func scripts(t *testing.T, facts terminal.Facts, script func(k *scriptedShell), f func(t *testing.T, s *service, on session.Session)) {
	synctest.Test(t, func(t *testing.T) {
		m, st := newMachine(t), openStore(t, t.TempDir())
		set, err := terminal.New(terminal.Options{Shells: scripted{facts, script}, Journal: st, Hosts: m, Limits: usual})
		if err != nil {
			t.Fatal(err)
		}
		s := runSet(t, set, m, st)
		f(t, s, s.openSpec(session.Spec{Host: "web1"}))
		s.stop()
	})
}

// A line that gets to the host late is on its way until it is shown: the prompt that is on
// the screen, and one that is drawn anew, tell nothing of it.
func TestALineThatComesLate(t *testing.T) {
	for name, late := range map[string]struct {
		prompt string
		by     time.Duration
		redraw bool
	}{
		"by much": {"me$ ", 16500 * time.Millisecond, false}, "behind a redraw": {"me$ ", 800 * time.Millisecond, true},
		"behind a redraw in two rows": {"\r\nme$ ", 800 * time.Millisecond, true},
	} {
		t.Run(name, func(t *testing.T) {
			scripts(t, likeBash, func(k *scriptedShell) {
				prompt := "<D;7;a>" + late.prompt + "<B>"
				k.out <- []byte("\x1b]133;P;pid=10;shell=bash;level=1;starts=1;k=" + k.nonce + "\a")
				k.prints(prompt)
				line := k.line()
				if late.redraw {
					<-time.After(100 * time.Millisecond)
					k.prints("\r" + prompt)
				}
				<-time.After(late.by)
				k.prints(line + "\n<C>")
				<-time.After(2 * time.Second)
				k.prints("real\r\n<D;3;a>" + late.prompt + "<B>")
				k.line()
			}, func(t *testing.T, s *service, on session.Session) {
				if out := s.begin(on, "sleep 2; echo real; (exit 3)").ends("3", command.ByMark); out != "real\r\n" {
					t.Errorf("%q", out)
				}
			})
		})
	}
}

// What is not even shown for long is taken to run, so that it can be cancelled; a prompt
// that is drawn anew then has no code for it.
func TestALineThatIsNeverShown(t *testing.T) {
	scripts(t, likeBash, func(k *scriptedShell) {
		k.out <- []byte("\x1b]133;P;pid=10;shell=bash;level=1;starts=1;k=" + k.nonce + "\a")
		k.prompts(7)
		k.line()
		k.line() // Ctrl-C
		k.prints("\r\n")
		k.prompts(7)
		k.line()
	}, func(t *testing.T, s *service, on session.Session) {
		j := s.begin(on, "true")
		if !s.busy(on) {
			t.Error("it has ended")
		}
		if report, err := j.Cancel(t.Context(), time.Second); err != nil || report.Outcome != command.Gone {
			t.Errorf("%+v, %v", report, err)
		}
		j.ends("none", command.ByPrompt)
	})
}

// A line of which the shell makes nothing ends, also behind one that somebody has typed
// ahead and the shell has come to late.
func TestACommentBehindALineThatWasTypedAhead(t *testing.T) {
	scripts(t, likeBash, func(k *scriptedShell) {
		k.out <- []byte("\x1b]133;P;pid=10;shell=bash;level=1;starts=1;k=" + k.nonce + "\a")
		k.prompts(0)
		k.prints(k.line() + "\n<C>")
		mine := k.line()
		k.prompts(0)
		comment := k.line()
		k.prints(mine + "\n<C;line=mine>")
		k.prompts(0)
		k.prints(comment + "\n")
		k.prompts(0)
		k.line()
	}, func(t *testing.T, s *service, on session.Session) {
		v := s.attach(ann, on, terminal.AttachOptions{})
		first := s.begin(on, "sleep 1")
		v.types("mine\r")
		first.ends("0", command.ByMark)
		s.begin(on, "# nothing").ends("0", command.ByMark)
		s.typedJob("mine").ends("0", command.ByMark)
	})
}

// A line that goes on where it was taken for a whole one is called off.
func TestALineThatGoesOn(t *testing.T) {
	scripts(t, likeBash, func(k *scriptedShell) {
		k.out <- []byte("\x1b]133;P;pid=10;shell=bash;level=1;starts=1;k=" + k.nonce + "\a")
		k.prompts(0)
		k.out <- []byte(k.line() + "\n> ")
		if k.line() != "\x03" {
			k.prints("\r\nthe next one goes on with it\r\n")
		}
		k.prints("^C\r\n")
		k.prompts(130)
		k.prints(k.line() + "\n<C>one\r\n")
		k.prompts(0)
		k.line()
	}, func(t *testing.T, s *service, on session.Session) {
		s.begin(on, "a[1").ends("none", command.ByPrompt)
		if out := s.begin(on, "echo one").ends("0", command.ByMark); out != "one\r\n" {
			t.Errorf("%q", out)
		}
	})
}

// A device that takes long to greet is open when it has.
func TestADeviceThatTakesLong(t *testing.T) {
	scripts(t, likeDevice, func(k *scriptedShell) {
		<-time.After(3500 * time.Millisecond)
		k.prints("switch# ")
		k.prints(k.line() + "\n")
		<-time.After(time.Second)
		k.prints("port 1 up\r\nswitch# ")
		k.line()
	}, func(t *testing.T, s *service, on session.Session) {
		if on.Completion != command.ByPrompt {
			t.Errorf("it is open by %q", on.Completion)
		}
		if out := s.begin(on, "show").ends("none", command.ByPrompt); !strings.HasPrefix(out, "port 1 up\r\n") {
			t.Errorf("%q", out)
		}
	})
}

// One that greets nobody is open after a while.
func TestADeviceThatGreetsNobody(t *testing.T) {
	scripts(t, likeDevice, func(k *scriptedShell) {
		k.line()
		k.prints("port 1 up\r\n")
		k.line()
	}, func(t *testing.T, s *service, on session.Session) {
		if out := s.begin(on, "show").ends("none", command.BySilence); !strings.Contains(out, "port 1 up\r\n") {
			t.Errorf("%q", out)
		}
	})
}

// Nothing is typed into login files, however long they take.
func TestLoginFilesThatTakeLong(t *testing.T) {
	for name, greeting := range map[string]string{"silent": "", "with a greeting": "Welcome\r\n"} {
		t.Run(name, func(t *testing.T) {
			scripts(t, likeBash, func(k *scriptedShell) {
				k.prints(greeting)
				<-time.After(26 * time.Second)
				if len(k.keys) > 0 {
					k.prints("something was typed\r\n")
				}
				k.out <- []byte("\x1b]133;P;pid=10;shell=bash;level=1;starts=1;k=" + k.nonce + "\a")
				k.prompts(0)
				k.prints(k.line() + "\n<C>real\r\n")
				k.prompts(3)
				k.line()
			}, func(t *testing.T, s *service, on session.Session) {
				v := s.attach(ann, on, terminal.AttachOptions{})
				if out := s.begin(on, "echo real; (exit 3)").ends("3", command.ByMark); out != "real\r\n" {
					t.Errorf("%q", out)
				}
				if strings.Contains(v.text(), "something") {
					t.Errorf("%q", v.text())
				}
			})
		})
	}
}
