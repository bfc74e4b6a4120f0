package sshterm

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"

	"github.com/telexec/telexec/internal/completion"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/inventory"
	"github.com/telexec/telexec/internal/session"
	"github.com/telexec/telexec/internal/test/sshtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// dialer is a Dialer over as many plain connections as the channels need.
type dialer struct {
	mu   sync.Mutex
	up   map[string]*link // by account
	over bool
}

type link struct {
	client *ssh.Client
	lost   chan struct{}
	err    error // written before lost is closed
}

func newDialer(t testing.TB) *dialer {
	d := &dialer{up: make(map[string]*link)}
	t.Cleanup(func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.over = true
		for _, l := range d.up {
			l.client.Close()
			<-l.lost
		}
	})
	return d
}

func dial(host inventory.Host) (*link, error) {
	pem, err := os.ReadFile(host.IdentityFiles[0])
	if err != nil {
		return nil, err
	}
	signer, err := ssh.ParsePrivateKey(pem)
	if err != nil {
		return nil, err
	}
	client, err := ssh.Dial("tcp", host.Address, &ssh.ClientConfig{
		User: host.User, Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)},
		HostKeyCallback: ssh.InsecureIgnoreHostKey(), Timeout: 10 * time.Second,
		HostKeyAlgorithms: []string{ssh.KeyAlgoED25519}, // dropbear dies of one that it has not
	})
	if err != nil {
		return nil, err
	}
	l := &link{client: client, lost: make(chan struct{})}
	go func() { l.err = client.Wait(); close(l.lost) }()
	return l, nil
}

// OpenFirst is Open: nobody stands in line here.
func (d *dialer) OpenFirst(ctx context.Context, host inventory.Host) (Session, error) {
	return d.Open(ctx, host)
}

func (d *dialer) Open(_ context.Context, host inventory.Host) (Session, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.over {
		return Session{}, errors.New("the test is over")
	}
	l := d.up[host.User]
	if l != nil {
		select {
		case <-l.lost:
			l = nil
		default:
		}
	}
	if l == nil {
		var err error
		if l, err = dial(host); err != nil {
			return Session{}, err
		}
		if old := d.up[host.User]; old != nil {
			d.up[host.User+rand.Text()] = old // to be closed at the end
		}
		d.up[host.User] = l
	}
	ch, reqs, err := l.client.OpenChannel("session", nil)
	if err != nil {
		return Session{}, err
	}
	return Session{
		Channel: ch, Requests: reqs, Lost: l.lost, Err: func() error { return l.err }, Close: ch.Close,
		Alive: func(ctx context.Context) error {
			answered := make(chan error, 1)
			go func() {
				_, _, err := l.client.SendRequest("keepalive@openssh.com", true, nil)
				answered <- err
			}()
			select {
			case err := <-answered:
				return err
			case <-ctx.Done():
				return ctx.Err()
			}
		},
	}, nil
}

// shell is a Shell of which all that comes is kept, and taken apart.
type shell struct {
	*Shell
	t    testing.TB
	spec Spec

	mu     sync.Mutex
	text   strings.Builder
	events []completion.Event
	err    error
	grown  chan struct{} // closed and made anew when something comes
}

var ids struct {
	sync.Mutex
	n int
}

func newID() string {
	ids.Lock()
	defer ids.Unlock()
	ids.n++
	return fmt.Sprintf("T%d-%06d", os.Getpid(), ids.n)
}

// open opens a shell that is ended with the test.
func open(t testing.TB, terms *Terms, spec Spec) *shell {
	t.Helper()
	if spec.ID == "" {
		spec.ID = newID()
	}
	if spec.Nonce == "" {
		spec.Nonce = completion.NewNonce()
	}
	s, err := terms.Open(t.Context(), spec)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	return watch(t, s, spec)
}

func watch(t testing.TB, s *Shell, spec Spec) *shell {
	w := &shell{Shell: s, t: t, spec: spec, grown: make(chan struct{})}
	read := make(chan struct{})
	go func() {
		defer close(read)
		parser := completion.NewParser(spec.Nonce)
		buf := make([]byte, 4096)
		for {
			n, err := s.Read(buf)
			w.mu.Lock()
			parser.Write(buf[:n], w.emit)
			if err != nil {
				parser.Flush(w.emit)
				w.err = err
			}
			close(w.grown)
			w.grown = make(chan struct{})
			w.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		ctx, stop := context.WithTimeout(context.WithoutCancel(t.Context()), 20*time.Second)
		defer stop()
		s.End(ctx) // a host that is gone by now has ended it
		s.Close()
		<-read
	})
	return w
}

func (w *shell) emit(s completion.Segment) {
	if s.Event != nil {
		w.events = append(w.events, *s.Event)
	} else {
		w.text.Write(s.Data)
	}
}

// await waits until ok, which sees what has come, and gives that.
func (w *shell) await(what string, ok func(text string, events []completion.Event, err error) bool) (string, []completion.Event, error) {
	w.t.Helper()
	limit := time.After(20 * time.Second)
	for {
		w.mu.Lock()
		text, events, err, grown := w.text.String(), w.events, w.err, w.grown
		w.mu.Unlock()
		if ok(text, events, err) {
			return text, events, err
		}
		if err != nil {
			w.t.Fatalf("%s does not come before the end (%v): %q %+v", what, err, text, events)
		}
		select {
		case <-grown:
		case <-limit:
			w.t.Fatalf("%s does not come: %q %+v", what, text, events)
		}
	}
}

func (w *shell) sees(part string) string {
	w.t.Helper()
	text, _, _ := w.await(fmt.Sprintf("%q", part), func(text string, _ []completion.Event, _ error) bool { return strings.Contains(text, part) })
	return text
}

// size gives how many events there are.
func (w *shell) marks() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.events)
}

// prompt waits for a mark that the shell reads, behind the first so many events.
func (w *shell) prompt(after int) {
	w.t.Helper()
	w.await("a prompt", func(_ string, events []completion.Event, _ error) bool {
		for _, e := range events[after:] {
			if e.Kind == completion.PromptEnd {
				return true
			}
		}
		return false
	})
}

// run types a line and waits until it has ended with a code, and the shell reads again.
func (w *shell) run(line string, code int) {
	w.t.Helper()
	from := w.marks()
	w.types(line + "\r")
	w.await(fmt.Sprintf("the end of %s with %d", line, code), func(_ string, events []completion.Event, _ error) bool {
		began, ended := false, false
		for _, e := range events[from:] {
			switch {
			case e.Kind == completion.CommandStart:
				began, ended = true, false
			case e.Kind == completion.CommandEnd:
				ended = e.Code == code
			case e.Kind == completion.PromptEnd && ended && (began || !w.starts()):
				return true
			}
		}
		return false
	})
}

// starts tells whether the shell marks where a command starts.
func (w *shell) starts() bool {
	switch w.Facts().Kind {
	case "bash", "zsh", "fish":
		return true
	}
	return false
}

func (w *shell) types(keys string) {
	w.t.Helper()
	if _, err := w.Write([]byte(keys)); err != nil {
		w.t.Fatal(err)
	}
}

// end waits for the end of the shell, and gives what Read has said.
func (w *shell) end() error {
	w.t.Helper()
	_, _, err := w.await("the end", func(_ string, _ []completion.Event, err error) bool { return err != nil })
	return err
}

// exited waits for the end and gives the code.
func (w *shell) exited() int {
	w.t.Helper()
	if err := w.end(); err != io.EOF {
		w.t.Fatalf("the end: %v", err)
	}
	if w.Exit() == nil {
		return -1
	}
	return *w.Exit()
}

func reason(err error) string { return fault.ReasonOf(err) }

var keepers = []session.Keeper{session.KeptByNone, session.KeptByTmux, session.KeptByDtach, session.KeptByScreen}

func machine(t testing.TB, flavour sshtest.Flavour, accounts ...sshtest.Account) *sshtest.Machine {
	t.Helper()
	return sshtest.StartMachine(t, sshtest.MachineOptions{Flavour: flavour, Accounts: accounts})
}
