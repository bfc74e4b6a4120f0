package sshterm

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/telexec/telexec/internal/completion"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/inventory"
	"github.com/telexec/telexec/internal/session"
	"github.com/telexec/telexec/internal/test/sshtest"
)

// install puts one into an account, before others of its name.
func install(t *testing.T, m *sshtest.Machine, account, name, script string) {
	t.Helper()
	dir := m.Path(account, "~/programs")
	err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(dir+"/"+name, []byte("#!/bin/sh\n"+script+"\n"), 0o755),
		os.WriteFile(m.Path(account, "~/.bashrc"), []byte("PATH=~/programs:$PATH\n"), 0o644))
	if err != nil {
		t.Fatal(err)
	}
}

// A keeper that starts the shell and cannot be attached to, or hangs, or talks without
// end, is passed over for the next one, and nothing is left of it.
func TestKeeperPassedOver(t *testing.T) {
	const attach = `case "$1" in -V) echo tmux 3.4; exit ;; esac
case " $* " in *" -C "*) DO ;; esac
exec /usr/bin/tmux "$@"`
	programs := map[string]string{
		"exits":     strings.Replace(attach, "DO", "exit 1", 1),
		"garbage":   strings.Replace(attach, "DO", "exec head -c 3000000 /dev/urandom", 1),
		"hangs":     strings.Replace(attach, "DO", "exec sleep 331", 1),
		"floods":    strings.Replace(attach, "DO", "exec yes", 1),
		"lies":      strings.Replace(attach, "DO", `printf '%%session-changed $0 t\n%%begin 1 1 1\ntelexec-asked %%0;kill-server\n%%end 1 1 1\n'; exec sleep 331`, 1),
		"newhangs":  "case $1 in -V) echo tmux 3.4 ;; *) exec sleep 331 ;; esac",
		"newfloods": "case $1 in -V) echo tmux 3.4 ;; *) exec yes >&2 ;; esac",
	}
	var accounts []sshtest.Account
	for name := range programs {
		accounts = append(accounts, sshtest.Account{Name: name, Shell: "bash"})
	}
	m := machine(t, sshtest.OpenSSH, accounts...)
	d := newDialer(t)
	t.Run("all", func(t *testing.T) {
		for name, script := range programs {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				install(t, m, name, "tmux", script)
				terms := New(d, Options{StartTimeout: 6 * time.Second})
				begin := time.Now()
				s, err := terms.Open(t.Context(), Spec{ID: newID(), Host: m.HostOf("web1", name), Nonce: completion.NewNonce()})
				if err != nil {
					t.Fatal(err)
				}
				w := watch(t, s, Spec{Nonce: s.spec.Nonce})
				if f := s.Facts(); f.Keeper != session.KeptByDtach || f.KeeperReason != "" {
					t.Errorf("%+v", f)
				}
				if took := time.Since(begin); took > 15*time.Second {
					t.Errorf("it took %v", took)
				}
				w.prompt(0)
				w.run("sh -c 'exit 4'", 4)
				s.End(t.Context())
				if left := m.Leftovers(s.spec.ID); len(left) > 0 {
					t.Errorf("left: %q", left)
				}
			})
		}
	})
	if left := m.Running("sleep\x00331"); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
	_, err := New(d, Options{}).Open(t.Context(), Spec{ID: newID(), Host: m.HostOf("web1", "exits"), Keeper: session.KeptByTmux})
	if reason(err) != fault.ReasonNoKeeper {
		t.Error(err)
	}
}

// Nor does a program that hangs or floods when it is asked who it is keep anything from
// being opened.
func TestProbeHangs(t *testing.T) {
	m := machine(t, sshtest.OpenSSH, sshtest.Account{Name: "hangs", Shell: "bash"}, sshtest.Account{Name: "floods", Shell: "bash"}, sshtest.Account{Name: "says", Shell: "bash"})
	d := newDialer(t)
	for name, script := range map[string]string{"hangs": "exec sleep 332", "floods": "exec yes tmux 3.4", "says": "echo tmux 3.4; sleep 332; true"} {
		t.Run(name, func(t *testing.T) {
			install(t, m, name, "tmux", "case $1 in -V) "+script+" ;; esac; exec /usr/bin/tmux \"$@\"")
			s := open(t, New(d, Options{}), Spec{Host: m.HostOf("web1", name)})
			if want := map[string]session.Keeper{"hangs": session.KeptByDtach}[name]; want != "" && s.Facts().Keeper != want {
				t.Errorf("%+v", s.Facts())
			}
			s.prompt(0)
			s.run("true", 0)
		})
	}
	eventually(t, "nothing is left", func() bool { return len(m.Running("sleep\x00332")) == 0 && len(m.Running("yes")) == 0 })
}

// told is a control of what a tmux says.
func told(t *testing.T, says ...[]byte) *control {
	src := &source{pieces: make(chan []byte), back: make(chan []byte, 2), letGo: make(chan struct{})}
	for range cap(src.back) {
		src.back <- make([]byte, readSize)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(src.pieces)
		for _, b := range says {
			buf := <-src.back
			select {
			case src.pieces <- buf[:copy(buf[:cap(buf)], b)]:
			case <-src.letGo:
				return
			}
		}
	}()
	t.Cleanup(func() { close(src.letGo); <-done })
	return &control{src: src, w: io.Discard}
}

// What a tmux says while it is asked how its screen is, is not kept without limit.
func TestResumeFlood(t *testing.T) {
	const begun = "%session-changed $0 t\n%begin 1 1 1\n" + asked + " %0 0 0 0 0 0 0 23 24 1 0 0 0 0 1 0 0 0 0 0\n%end 1 1 1\n%begin 2 2 1\n"
	flood := func(head string, b byte, bytesOf int) [][]byte {
		return append([][]byte{[]byte(head)}, slices.Repeat([][]byte{bytes.Repeat([]byte{b}, readSize)}, bytesOf/readSize)...)
	}
	c := told(t, flood(begun+"%end 2 2 1\n%begin 3 3 1\n%end 3 3 1\n%output %0 ", 'x', 4*maxAhead)...)
	if _, err := c.resume(session.DefaultSize); err == nil || len(c.ready) > maxAhead+readSize {
		t.Errorf("%d bytes of output are kept, %v", len(c.ready), err)
	}
	c = told(t, flood(begun, '\n', 1<<20)...)
	if _, err := c.resume(session.DefaultSize); err == nil || len(c.answer) > maxScreen/perLine {
		t.Errorf("%d lines are kept, %v", len(c.answer), err)
	}
}

// leaver is a dialer of which one channel is left in the middle: when the script has been
// sent on it, or what is to be run.
type leaver struct {
	*dialer
	channels int // up to it
	leave    context.CancelFunc
}

func (d *leaver) OpenFirst(ctx context.Context, host inventory.Host) (Session, error) {
	return d.Open(ctx, host)
}

func (d *leaver) Open(ctx context.Context, host inventory.Host) (Session, error) {
	ses, err := d.dialer.Open(ctx, host)
	if d.channels--; d.channels == 0 && err == nil {
		ses.Channel = left{ses.Channel, d.leave}
	}
	return ses, err
}

type left struct {
	ssh.Channel
	leave context.CancelFunc
}

func (l left) SendRequest(name string, wantReply bool, payload []byte) (bool, error) {
	ok, err := l.Channel.SendRequest(name, wantReply, payload)
	if name == "exec" && strings.Contains(string(payload), "sessions/") {
		l.leave()
	}
	return ok, err
}

func (l left) CloseWrite() error {
	defer l.leave()
	return l.Channel.CloseWrite()
}

// Whoever goes away while a shell is being opened leaves nothing on the host.
func TestOpenLeft(t *testing.T) {
	m := machine(t, sshtest.OpenSSH, sshtest.Account{Name: "anna", Shell: "bash"})
	for _, keeper := range keepers {
		for channel, name := range []string{"the files", "the shell"} {
			t.Run(string(keeper)+", "+name, func(t *testing.T) {
				t.Parallel()
				ctx, leave := context.WithCancel(t.Context())
				d := &leaver{dialer: newDialer(t), leave: leave}
				terms := New(d, Options{})
				if _, err := terms.facts(ctx, m.HostOf("web1", "anna"), ""); err != nil {
					t.Fatal(err)
				}
				d.channels = channel + 1
				spec := Spec{ID: newID(), Host: m.HostOf("web1", "anna"), Keeper: keeper, Nonce: completion.NewNonce()}
				if _, err := terms.Open(ctx, spec); err == nil {
					t.Fatal("it was opened")
				}
				eventually(t, "nothing is left", func() bool { return len(m.Leftovers(spec.ID)) == 0 })
			})
		}
	}
}
