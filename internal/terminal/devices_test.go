package terminal_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/session"
	"github.com/telexec/telexec/internal/terminal"
)

// device writes a program that is no shell, as what a switch has.
func device(t *testing.T, m *machine, script string) string {
	t.Helper()
	file := filepath.Join(m.home, "device")
	if err := os.WriteFile(file, []byte("#!/bin/bash\n"+script), 0o700); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestADeviceWithAPrompt(t *testing.T) {
	s := start(t)
	on := s.open(device(t, s.machine, `
echo "Welcome to the switch"
trap 'echo; prompt="switch> "' INT
prompt="switch> "
while true; do
  printf %s "$prompt"
  read -r line || exit 2
  case $line in
  show) printf 'port 1 up\nport 2 50%%\nport 3 #\n' ;;
  slow) for i in 1 2 3 4; do echo "$i"; sleep 0.1; done ;;
  configure) prompt="switch(config)# " ;;
  wait) sleep 1000 ;;
  esac
done
`))
	if on.Completion != command.ByPrompt || on.Shell != "" {
		t.Errorf("%+v", on)
	}
	for _, tc := range []struct{ line, out string }{
		{"show", "port 1 up\r\nport 2 50%\r\nport 3 #\r\nswitch> "},
		{"slow", "1\r\n2\r\n3\r\n4\r\nswitch> "},
		{"nothing", "switch> "},
		{"configure", "switch(config)# "},
		{"show", "port 1 up\r\nport 2 50%\r\nport 3 #\r\nswitch(config)# "},
	} {
		if out := s.run(on, tc.line).ends("none", command.ByPrompt); out != tc.out {
			t.Errorf("%q printed %q, want %q", tc.line, out, tc.out)
		}
	}
	v := s.attach(ann, on, terminal.AttachOptions{})
	for _, key := range "shox\x7fw\r" {
		v.types(string(key))
	}
	if out := s.typedJob("show").ends("none", command.ByPrompt); !strings.HasPrefix(out, "port 1 up\r\n") {
		t.Errorf("%q", out)
	}
	j := s.begin(on, "wait")
	s.poll("that it waits", func() bool { return len(s.machine.of(on.ID).members()) > 1 })
	if report, err := j.Cancel(t.Context(), time.Second); err != nil || report.Outcome != command.Gone {
		t.Errorf("%+v, %v", report, err)
	}
	j.ends("none", command.ByPrompt)
	v.sees("[CANCELLED]")
	s.run(on, "show").ends("none", command.ByPrompt)
}

// Where nothing looks like a prompt, silence tells.
func TestADeviceWithoutAPrompt(t *testing.T) {
	s := start(t)
	on := s.open(device(t, s.machine, `
stty -echo
echo ready
while read -r line; do
  case $line in
  show) echo "one"; sleep 1; echo "two" ;;
  esac
done
`))
	if on.Completion != command.BySilence {
		t.Errorf("%+v", on)
	}
	began := time.Now()
	if out := s.run(on, "show").ends("none", command.BySilence); out != "one\r\ntwo\r\n" {
		t.Errorf("%q", out)
	}
	if took := time.Since(began); took < 3*time.Second {
		t.Errorf("it ended after %v", took)
	}
}

func TestNestedShells(t *testing.T) {
	s := start(t)
	on := s.open("bash")
	v := s.attach(ann, on, terminal.AttachOptions{})
	for _, inner := range []string{"bash --norc", "zsh -f", "dash", "exec bash --norc"} {
		t.Run(inner, func(t *testing.T) {
			s := s.with(t)
			name := strings.Fields(strings.TrimPrefix(inner, "exec "))[0]
			end, err := s.begin(on, inner).wait()
			if err != nil || end.Code != nil || end.Completion != command.ByPrompt {
				t.Errorf("%+v, %v", end, err)
			}
			if out := s.run(on, "echo $0; (exit 4)").ends("4", command.ByMark); !strings.Contains(out, name) {
				t.Errorf("%q", out)
			}
			if out := s.run(on, "cd /usr; pwd").ends("0", command.ByMark); out != "/usr\r\n" {
				t.Errorf("%q", out)
			}
		})
	}
	v.await("nothing of it is seen", func() bool { return !strings.Contains(v.out.String(), "nested") })
}

// Where the marks are in the prompt, who sets it anew takes them away; they come back.
// What waits for an answer behind what looks like a prompt is given none.
func TestPromptSetAnew(t *testing.T) {
	s := start(t)
	on := s.open("dash")
	v := s.attach(ann, on, terminal.AttachOptions{})
	end, err := s.begin(on, "PS1='new$ '").wait()
	if err != nil || end.Code != nil || end.Completion != command.ByPrompt {
		t.Errorf("%+v, %v", end, err)
	}
	if out := s.run(on, "echo on; (exit 4)").ends("4", command.ByMark); out != "on\r\n" {
		t.Errorf("%q", out)
	}
	v.types("PS1='typed$ '\r")
	s.typedJob("PS1='typed$ '").ends("none", command.ByPrompt)
	c := s.machine.of(on.ID)
	looks := c.looks.Load()
	asks := s.begin(on, `printf 'answer$ '; read -r a; echo "got $a"`)
	s.poll("that it was looked who asks", func() bool { return c.looks.Load() > looks })
	v.types("mine\r")
	if out := asks.ends("0", command.ByMark); !strings.HasSuffix(out, "got mine\r\n") {
		t.Errorf("%q", out)
	}
}

// Login files that put another shell in the place of the login shell.
func TestLoginFilesThatExec(t *testing.T) {
	for _, line := range []string{"exec zsh -f", "zsh -f", "exec fish --no-config"} {
		t.Run(line, func(t *testing.T) {
			s := start(t)
			if err := os.WriteFile(filepath.Join(s.machine.home, ".bash_profile"), []byte(line+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			on := s.open("bash")
			if on.Completion != command.ByMark {
				t.Errorf("%+v", on)
			}
			if out := s.run(on, "echo on; sh -c 'exit 4'").ends("4", command.ByMark); out != "on\r\n" {
				t.Errorf("%q", out)
			}
		})
	}
}

// A shell behind something whose processes cannot be seen.
func TestAShellBehindAnother(t *testing.T) {
	s := start(t)
	on := s.open("bash")
	file := filepath.Join(s.machine.home, "telexec-other")
	script := `while printf 'far$ ' && read -r line; do case $line in exit) exit 5 ;; esac; eval "$line"; done`
	if err := os.WriteFile(file, []byte("#!/bin/bash\n"+script), 0o700); err != nil {
		t.Fatal(err)
	}
	s.begin(on, file).ends("none", command.ByPrompt)
	if one := s.get(on); one.Completion != command.ByPrompt {
		t.Errorf("%+v", one)
	}
	if out := s.run(on, "echo far away").ends("none", command.ByPrompt); out != "far away\r\nfar$ " {
		t.Errorf("%q", out)
	}
	s.run(on, "exit").ends("5", command.ByMark)
	s.poll("that marks tell again", func() bool { return s.get(on).Completion == command.ByMark })
	if out := s.run(on, "echo near").ends("0", command.ByMark); out != "near\r\n" {
		t.Errorf("%q", out)
	}
}

func TestKeys(t *testing.T) {
	s := start(t)
	on := s.open("bash")
	text, settled, err := s.Keys(t.Context(), ann, on.ID, []session.Key{{Text: "echo twx"}, {Name: "Backspace"}, {Text: "o"}, {Name: "Home"}, {Text: "true; "}, {Name: "Enter"}}, 200*time.Millisecond, 10)
	if err != nil || !settled || !strings.Contains(strings.Join(text.Lines, "\n"), "me$ true; echo two\ntwo\nme$") || text.Session.ID != on.ID {
		t.Errorf("%+v, %v, %v", text, settled, err)
	}
	s.typedJob("true; echo two").ends("0", command.ByMark)
	_, settled, err = s.Keys(t.Context(), ann, on.ID, []session.Key{{Text: "less /etc/passwd\r"}}, 300*time.Millisecond, 0)
	if err != nil || !settled {
		t.Error(err)
	}
	text, _, err = s.Keys(t.Context(), ann, on.ID, []session.Key{{Name: "Down"}}, 100*time.Millisecond, 0)
	if err != nil || !text.Alternate {
		t.Errorf("%+v, %v", text, err)
	}
	s.poll("that it has scrolled", func() bool { return strings.Contains(s.machine.of(on.ID).typed(), "\x1bOB") })
	_, _, err = s.Keys(t.Context(), ann, on.ID, []session.Key{{Name: "q"}}, 100*time.Millisecond, 0)
	if err != nil {
		t.Error(err)
	}
	_, _, err = s.Keys(t.Context(), ann, on.ID, []session.Key{{Name: "Nope"}}, 0, 0)
	wants(t, err, fault.ReasonInvalidRequest)
	_, _, err = s.Keys(t.Context(), eve, on.ID, []session.Key{{Name: "q"}}, 0, 0)
	wants(t, err, fault.ReasonRoleMissing)
	v := s.attach(adm, on, terminal.AttachOptions{})
	if err := v.Keyboard(t.Context(), terminal.TakeKeyboard, ""); err != nil {
		t.Fatal(err)
	}
	_, _, err = s.Keys(t.Context(), ann, on.ID, []session.Key{{Name: "q"}}, 0, 0)
	wants(t, err, fault.ReasonKeyboardTaken)
	if _, _, err = s.Keys(t.Context(), adm, on.ID, []session.Key{{Name: "Ctrl+L"}}, 0, 0); err != nil {
		t.Error(err)
	}
}
