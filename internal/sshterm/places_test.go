package sshterm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/completion"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/inventory"
	"github.com/telexec/telexec/internal/session"
	"github.com/telexec/telexec/internal/test/sshtest"
)

// The shell that was asked for is started, and recognised whatever it is called.
func TestAskedShell(t *testing.T) {
	m := machine(t, sshtest.OpenSSH, sshtest.Account{Name: "anna", Shell: "zsh"})
	if err := os.Symlink(strings.TrimSpace(m.Run("sh", "-c", "command -v bash")), m.Path("anna", "~/sh")); err != nil {
		t.Fatal(err)
	}
	terms := New(newDialer(t), Options{})
	for _, c := range []struct {
		shell, kind string
		marks       bool
	}{{"", "zsh", true}, {"fish", "fish", true}, {m.Home("anna") + "/sh", "bash", true}, {"yash", "yash", false}, {"tcsh", "csh", false}} {
		s := open(t, terms, Spec{Host: m.HostOf("web1", "anna"), Shell: c.shell, Keeper: session.KeptByNone, Term: "vt100"})
		if f := s.Facts(); f.Kind != c.kind || f.Marks != c.marks || !filepath.IsAbs(f.Path) {
			t.Errorf("%q: %+v", c.shell, f)
		}
		s.types("echo term=$TERM. && exit 3\r")
		s.sees("term=vt100.")
		if code := s.exited(); code != 3 {
			t.Errorf("%q: exit code %d", c.shell, code)
		}
	}
	if _, err := terms.Open(t.Context(), Spec{ID: newID(), Host: m.HostOf("web1", "anna"), Shell: "nosuchshell"}); reason(err) != fault.ReasonStartFailed {
		t.Error(err)
	}
}

// What is no shell by its name is started where it was asked for, and not before that: it
// may do anything.
func TestAProgramIsNotRunToTellWhatItIs(t *testing.T) {
	m := machine(t, sshtest.OpenSSH, sshtest.Account{Name: "anna", Shell: "bash"})
	ran := m.Path("anna", "~/ran")
	const program = "#!/bin/sh\necho \"run: $*\" >>~/ran\n"
	for _, name := range []string{"~/program", "~/sh"} {
		if err := os.WriteFile(m.Path("anna", name), []byte(program), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	terms := New(newDialer(t), Options{})
	for _, name := range []string{"/program", "/sh", "/../anna/sh"} {
		f, err := terms.facts(t.Context(), m.HostOf("web1", "anna"), m.Home("anna")+name)
		if err != nil || f.kind != "sh" && f.kind != "" {
			t.Errorf("%s: %+v, %v", name, f, err)
		}
	}
	if said, err := os.ReadFile(ran); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it was run: %q, %v", said, err)
	}
}

// BusyBox alone is enough for everything but a keeper.
func TestBusyBox(t *testing.T) {
	m := machine(t, sshtest.BusyBox, sshtest.Account{Name: "anna"})
	terms := New(newDialer(t), Options{})
	s := open(t, terms, Spec{Host: m.HostOf("web1", "anna"), Size: session.Size{Columns: 99, Rows: 30}})
	if f := s.Facts(); f.Kind != "ash" || !f.Marks || f.Keeper != session.KeptByNone || !strings.Contains(f.KeeperReason, "none of tmux") {
		t.Errorf("%+v", f)
	}
	s.prompt(0)
	s.run("stty size", 0)
	s.sees("30 99")
	from := s.marks()
	s.types("sleep 220 | cat\r")
	s.until(0, "a pipeline", func(f Foreground) bool { return running(f, "sleep 220", "cat") })
	if r, err := s.Ladder(t.Context(), 0, time.Second); err != nil || r.Outcome != command.Gone || r.Signal != "TERM" {
		t.Errorf("%+v %v", r, err)
	}
	s.prompt(from)
	if r, err := s.End(t.Context()); err != nil || r.Outcome != command.Gone {
		t.Errorf("%+v %v", r, err)
	}
	if left := m.Leftovers(s.spec.ID); len(left) > 0 {
		t.Error(left)
	}
	_, err := terms.Open(t.Context(), Spec{ID: newID(), Host: m.HostOf("web1", "anna"), Keeper: session.KeptByTmux})
	if reason(err) != fault.ReasonNoKeeper {
		t.Error(err)
	}
}

// Where there is no POSIX shell there is the terminal, and nothing is known of it.
func TestNoShell(t *testing.T) {
	srv := sshtest.Start(t, sshtest.Options{User: sshtest.PlainUser(t), ExtraConfig: []string{
		`ForceCommand /bin/sh -c 'printf "switch> "; read line; echo "no such command: $line"; exit 4'`,
	}})
	terms := New(newDialer(t), Options{StartTimeout: 10 * time.Second})
	told := srv.Host("switch")
	told.NoShell = true
	for name, h := range map[string]Spec{"told": {Host: told}, "found out": {Host: srv.Host("switch")}} {
		t.Run(name, func(t *testing.T) {
			s := open(t, terms, h)
			if f := s.Facts(); f.Kind != "" || f.Marks || f.Keeper != session.KeptByNone || f.KeeperReason == "" || f.PID != 0 {
				t.Errorf("%+v", f)
			}
			s.sees("switch> ")
			if _, err := s.Foreground(t.Context(), 0); reason(err) != fault.ReasonNotSupported {
				t.Error(err)
			}
			if r, err := s.Ladder(t.Context(), 0, time.Second); err != nil || r.Outcome != command.Unproven {
				t.Errorf("%+v %v", r, err)
			}
			s.types("show\r")
			s.sees("no such command: show\r\n")
			if code := s.exited(); code != 4 {
				t.Error(code)
			}
		})
	}
	_, err := terms.Open(t.Context(), Spec{ID: newID(), Host: told, Keeper: session.KeptByTmux})
	if reason(err) != fault.ReasonNoKeeper {
		t.Error(err)
	}
	_, err = terms.Open(t.Context(), Spec{ID: newID(), Host: told, Shell: "bash"})
	if reason(err) != fault.ReasonNotSupported {
		t.Error(err)
	}
}

// A server that gives no terminal is told as such.
func TestNoTerminal(t *testing.T) {
	srv := sshtest.Start(t, sshtest.Options{User: sshtest.PlainUser(t), ExtraConfig: []string{"PermitTTY no"}})
	terms := New(newDialer(t), Options{})
	id := newID()
	_, err := terms.Open(t.Context(), Spec{ID: id, Host: srv.Host("web1"), Keeper: session.KeptByNone, Nonce: completion.NewNonce()})
	if reason(err) != fault.ReasonExecRefused {
		t.Error(err)
	}
	if left := srv.Leftovers(id); len(left) > 0 {
		t.Error(left)
	}
}

// A host that ends at logout whatever a login has started has no keeper; and where the
// best keeper does not start, there is the next one.
func TestLeaving(t *testing.T) {
	const dir = "/tmp/telexec-programs"
	m := sshtest.StartMachine(t, sshtest.MachineOptions{
		Accounts:    []sshtest.Account{{Name: "anna"}, {Name: "stays"}},
		ExtraConfig: []string{"SetEnv PATH=" + dir + ":/usr/local/bin:/usr/bin:/bin"},
	})
	// In the place of systemd's own, which needs a systemd, and of a tmux without locales.
	m.Run("sh", "-c", "mkdir -p "+dir+" && mount -t tmpfs tmpfs "+dir+" && cd "+dir+` && cat >loginctl <<'END' && cat >tmux <<'END2' && chmod a+rx . *
#!/bin/sh
case "$*" in
"show-user -p KillUserProcesses") echo KillUserProcesses=yes ;;
"show-user -p KillExcludeUsers") echo KillExcludeUsers=root ;;
"show-user anna -p Linger") echo Linger=no ;;
"show-user stays -p Linger") echo Linger=yes ;;
*) exit 1 ;;
esac
END
#!/bin/sh
[ "$*" = -V ] && exec echo "tmux 3.4"
setsid sleep 299 </dev/null >/dev/null 2>&1 &
echo "tmux: need UTF-8 locale (LC_CTYPE) but have ANSI_X3.4-1968" >&2
exit 1
END2`)
	t.Cleanup(func() { os.Remove(dir) })
	terms := New(newDialer(t), Options{})
	s := open(t, terms, Spec{Host: m.HostOf("web1", "anna")})
	if f := s.Facts(); f.Keeper != session.KeptByNone || !strings.Contains(f.KeeperReason, "KillUserProcesses") {
		t.Errorf("%+v", f)
	}
	s = open(t, terms, Spec{Host: m.HostOf("web1", "stays")})
	if f := s.Facts(); f.Keeper != session.KeptByDtach || f.KeeperReason != "" {
		t.Errorf("%+v", f)
	}
	_, err := terms.Open(t.Context(), Spec{ID: newID(), Host: m.HostOf("web1", "stays"), Keeper: session.KeptByTmux})
	if reason(err) != fault.ReasonNoKeeper || !strings.Contains(err.Error(), "need UTF-8 locale") {
		t.Error(err)
	}
	if left := m.Running("sleep\x00299"); len(left) > 0 {
		t.Errorf("left by a keeper that did not start: %v", left)
	}
}

// What cannot be told to a host is refused before anything is sent.
func TestRefused(t *testing.T) {
	for _, spec := range []Spec{
		{}, {ID: "a b"}, {ID: "A", Shell: "-x"}, {ID: "A", Shell: "a;b"}, {ID: "A", Term: "a b"}, {ID: "A", Size: session.Size{Columns: -1, Rows: 2}},
		{ID: "A", Nonce: "a'b"}, {ID: "A", Keeper: "NOHUP"},
	} {
		if _, err := New(nil, Options{}).Open(t.Context(), spec); reason(err) != fault.ReasonInvalidRequest {
			t.Errorf("%+v: %v", spec, err)
		}
	}
}

// Whoever does not read slows the shell, and Close ends every wait.
func TestUnread(t *testing.T) {
	m := machine(t, sshtest.OpenSSH, sshtest.Account{Name: "anna", Shell: "bash"})
	terms := New(newDialer(t), Options{})
	for _, keeper := range keepers[:3] {
		s, err := terms.Open(t.Context(), Spec{ID: newID(), Host: m.HostOf("web1", "anna"), Keeper: keeper, Nonce: completion.NewNonce()})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Write([]byte("yes\r")); err != nil {
			t.Fatal(err)
		}
		// It waits in its write when all that is between us is full.
		var pid int
		eventually(t, "yes runs", func() bool {
			if all := m.Running("yes"); len(all) == 1 {
				pid, _ = strconv.Atoi(strings.Fields(all[0])[1])
			}
			return pid > 0
		})
		waits, looks := 0, 0
		eventually(t, "yes waits", func() bool {
			if waits++; !asleep(pid) {
				waits = 0
			}
			// tmux 3.3 goes on reading where less is stuck than lets it write on (512 bytes, of
			// the 8192 that it writes at once): then a little is read, and more is stuck.
			if looks++; looks%400 == 0 {
				t.Logf("%s: yes goes on", keeper)
				if _, err := io.ReadFull(s, make([]byte, 3000)); err != nil {
					t.Fatal(err)
				}
			}
			return waits == 40 // looks, 5 ms apart
		})
		read := make(chan error)
		go func() {
			_, err := io.Copy(io.Discard, s)
			read <- err
		}()
		begin := time.Now()
		if _, err := s.Write([]byte("\x03")); err != nil {
			t.Fatal(err)
		}
		eventually(t, string(keeper)+" yes is interrupted", func() bool { return !alive(pid) })
		if took := time.Since(begin); took > 2*time.Second {
			t.Errorf("%s: yes was interrupted after %v", keeper, took)
		}
		s.Close()
		if err := <-read; reason(err) != fault.ReasonConnectionLost {
			t.Errorf("%s: %v", keeper, err)
		}
		if _, err := s.End(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// asleep reports whether a process waits for something.
func asleep(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && strings.Contains(string(stat), ") S ")
}

// A shell that a keeper has started, and that nobody comes for, ends by itself.
func TestNobodyComes(t *testing.T) {
	m := machine(t, sshtest.OpenSSH, sshtest.Account{Name: "anna", Shell: "bash"})
	terms := New(newDialer(t), Options{})
	spec := Spec{ID: newID(), Host: m.HostOf("web1", "anna"), Keeper: session.KeptByTmux, Nonce: completion.NewNonce(), Term: "xterm", Size: session.DefaultSize}
	f, err := terms.facts(t.Context(), spec.Host, "")
	if err != nil {
		t.Fatal(err)
	}
	// As when the service dies while it opens a session.
	s := terms.newShell(spec, f)
	s.dir, s.facts.Keeper = place(f, spec.ID), spec.Keeper
	l := launchOf(f, spec, true)
	terms.opts.StartTimeout = time.Second // it waits for somewhat longer than twice that
	files := map[string]string{
		"attach": attachFile(spec, s, spec.Keeper, ""), "start": startFile(spec, s, l, true),
		"hold": "dir=" + quote(s.dir) + "\n" + script("hold.sh"), "tmux.conf": tmuxConfig(spec),
	}
	terms.opts.StartTimeout = 0
	if err := terms.prepare(t.Context(), spec, s.dir, files, l.Files); err != nil {
		t.Fatal(err)
	}
	if err := s.connect(t.Context(), "exec /bin/sh "+s.dir+"/attach", false); err != nil {
		t.Fatal(err)
	}
	if err := s.greet(t.Context(), &plainStream{src: s.source(), token: token(s.nonce)}); err != nil {
		t.Fatal(err)
	}
	s.Close()
	eventually(t, "what waits has ended", func() bool { return !alive(s.Facts().PID) })
	// A tmux that is left by a client in the middle of attaching may stay, with nothing in it.
	if _, err := s.End(t.Context()); err != nil {
		t.Error(err)
	}
	if left := m.Leftovers(spec.ID); len(left) > 0 {
		t.Error(left)
	}
}

// What somebody has put in the place of a directory of ours is not used.
func TestPlaceTaken(t *testing.T) {
	m := machine(t, sshtest.OpenSSH, sshtest.Account{Name: "anna", Shell: "dash"}, sshtest.Account{Name: "eve"})
	// Nothing can be written at home, so that it is in a directory of all.
	m.Run("sh", "-c", "mount -t tmpfs -o mode=1777 tmpfs /var/tmp; chown root ~anna; chmod 755 ~anna")
	terms := New(newDialer(t), Options{})
	spec := Spec{Host: m.HostOf("web1", "anna"), Keeper: session.KeptByNone}
	s := open(t, terms, spec)
	if !strings.HasPrefix(s.dir, "/var/tmp/telexec-") {
		t.Fatalf("it is in %s", s.dir)
	}
	s.run("true", 0)
	s.End(t.Context())
	base := strings.TrimSuffix(s.dir, "/sessions/"+s.spec.ID)
	for _, how := range []string{
		"mkdir -p BASE/sessions && chmod 777 BASE BASE/sessions",
		"ln -s /tmp/x BASE", "mkdir -m 777 BASE && ln -s /dev/shm BASE/sessions", ": >BASE",
	} {
		m.Run("sh", "-c", strings.ReplaceAll("rm -rf BASE && su -s /bin/sh eve -c '"+how+"'", "BASE", base))
		_, err := terms.Open(t.Context(), Spec{ID: newID(), Host: spec.Host, Keeper: session.KeptByNone, Nonce: completion.NewNonce()})
		if reason(err) != fault.ReasonStartFailed || !strings.Contains(err.Error(), "cannot be written") {
			t.Errorf("%s: %v", how, err)
		}
		if found := m.Run("sh", "-c", "find -H "+base+" /dev/shm -user anna"); found != "" {
			t.Errorf("%s: files in the place of somebody else: %s", how, found)
		}
		f, err := terms.facts(t.Context(), spec.Host, "") // it was forgotten
		if err != nil || f.dir == "" || strings.HasPrefix(f.dir, base) {
			t.Errorf("%s: it would be in %q, %v", how, f.dir, err)
		}
		m.Run("rm", "-rf", base)
		terms.forget(spec)
		if f, err = terms.facts(t.Context(), spec.Host, ""); err != nil || f.dir != base { // made anew, and remembered
			t.Fatalf("%+v, %v", f, err)
		}
	}
}

// stopping is a dialer whose host stops when it has given the channel of a shell.
type stopping struct {
	*dialer
	m      *sshtest.Machine
	paused chan struct{} // closed when it has stopped
}

func (d stopping) Open(ctx context.Context, host inventory.Host) (Session, error) {
	ses, err := d.dialer.Open(ctx, host)
	d.m.Pause()
	close(d.paused)
	return ses, err
}

func (d stopping) OpenFirst(ctx context.Context, host inventory.Host) (Session, error) {
	select {
	case <-d.paused:
		return Session{}, errors.New("the host does not answer")
	default:
	}
	return d.dialer.OpenFirst(ctx, host)
}

// A host that stops answering does not keep Open longer than a start may take.
func TestHostStops(t *testing.T) {
	m := machine(t, sshtest.OpenSSH, sshtest.Account{Name: "anna"})
	defer m.Resume()
	terms := New(stopping{newDialer(t), m, make(chan struct{})}, Options{StartTimeout: 3 * time.Second})
	begin := time.Now()
	_, err := terms.Open(t.Context(), Spec{ID: newID(), Host: m.HostOf("web1", "anna"), Keeper: session.KeptByNone})
	if reason(err) != fault.ReasonStartFailed || time.Since(begin) > 15*time.Second {
		t.Errorf("after %v: %v", time.Since(begin), err)
	}
}

// What an account has is not remembered for every name that anybody has asked for.
func TestForgetOld(t *testing.T) {
	terms := New(nil, Options{})
	now := time.Now()
	for name, k := range map[string]*known{
		"old":    {turn: make(chan struct{}, 1), until: now.Add(-time.Second)},
		"new":    {turn: make(chan struct{}, 1), until: now.Add(time.Minute)},
		"in use": {turn: make(chan struct{}, 1)},
	} {
		terms.accounts.Store(name, k)
		if name == "in use" {
			k.turn <- struct{}{}
		}
	}
	terms.forgetOld()
	var left []string
	terms.accounts.Range(func(name, _ any) bool { left = append(left, name.(string)); return true })
	if slices.Sort(left); !slices.Equal(left, []string{"in use", "new"}) {
		t.Error(left)
	}
}
