package sshexec

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/inventory"
	"github.com/telexec/telexec/internal/test/sshtest"
)

func TestMain(m *testing.M) {
	// These tests wait for their hosts more than they work.
	if err := flag.Set("test.parallel", "5"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		// Starts that came too late leave files that nobody collects.
		files, _ := filepath.Glob(fmt.Sprintf("/var/tmp/telexec-*/T%d-*", os.Getpid()))
		for _, f := range files {
			os.Remove(f)
		}
		os.Exit(code)
	}))
}

// dialer is a Dialer over as many plain connections as the channels need.
type dialer struct {
	t    testing.TB
	mu   sync.Mutex
	up   []*link
	over bool // the test is: nothing is dialed any more
}

type link struct {
	client *ssh.Client
	lost   chan struct{}
	err    error // written before lost is closed
}

func newDialer(t testing.TB) *dialer {
	d := &dialer{t: t}
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

func (d *dialer) dial(host inventory.Host) (*link, error) {
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

func (d *dialer) Open(ctx context.Context, host inventory.Host) (Session, error) {
	type result struct {
		ses Session
		err error
	}
	opened := make(chan result, 1)
	go func() {
		ses, err := d.open(host)
		if err == nil && ctx.Err() != nil {
			ses.Close()
			go ssh.DiscardRequests(ses.Requests)
		}
		opened <- result{ses, err}
	}()
	select {
	case r := <-opened:
		return r.ses, r.err
	case <-ctx.Done():
		return Session{}, fault.From(ctx.Err())
	}
}

func (d *dialer) open(host inventory.Host) (Session, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, l := range d.up {
		if closed(l.lost) {
			continue
		}
		if ch, reqs, err := l.client.OpenChannel("session", nil); err == nil {
			return l.session(ch, reqs), nil
		}
	}
	if d.over {
		return Session{}, errors.New("the test is over")
	}
	l, err := d.dial(host)
	if err != nil {
		return Session{}, err
	}
	d.up = append(d.up, l)
	ch, reqs, err := l.client.OpenChannel("session", nil)
	if err != nil {
		return Session{}, err
	}
	return l.session(ch, reqs), nil
}

func (l *link) session(ch ssh.Channel, reqs <-chan *ssh.Request) Session {
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
	}
}

// host is a server with a Runner on it.
type host struct {
	t      testing.TB
	server *sshtest.Server
	inv    inventory.Host
	runner *Runner
}

func start(t testing.TB, opt sshtest.Options) *host {
	t.Helper()
	// What root's login files here do is not for these tests.
	opt.ExtraConfig = append(opt.ExtraConfig, "SetEnv HOME=/nonexistent")
	h := &host{t: t, server: sshtest.Start(t, opt)}
	h.inv = h.server.Host("web1")
	h.runner = New(newDialer(t), Options{StartTimeout: time.Minute})
	return h
}

// eachUser runs a test as root and as a plain user, or as the only one there is.
func eachUser(t *testing.T, f func(t *testing.T, h *host)) {
	users := []string{sshtest.PlainUser(t)}
	if os.Geteuid() == 0 {
		users = append(users, "root")
	}
	for _, user := range users {
		t.Run(user, func(t *testing.T) {
			t.Parallel()
			f(t, start(t, sshtest.Options{User: user}))
		})
	}
}

// output collects what a command prints.
type output struct {
	mu      sync.Mutex
	streams [2]bytes.Buffer
	grown   chan struct{} // closed and made anew when something comes
}

func newOutput() *output { return &output{grown: make(chan struct{})} }

func (o *output) sink(s command.Stream, data []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.streams[s].Write(data)
	close(o.grown)
	o.grown = make(chan struct{})
	return nil
}

func (o *output) text(s command.Stream) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.streams[s].String()
}

// await waits until stdout satisfies ok.
func (o *output) await(t testing.TB, ok func(stdout string) bool) string {
	t.Helper()
	limit := time.After(20 * time.Second)
	for {
		o.mu.Lock()
		text, grown := o.streams[command.Stdout].String(), o.grown
		o.mu.Unlock()
		if ok(text) {
			return text
		}
		select {
		case <-grown:
		case <-limit:
			t.Fatalf("the output does not come; so far %q, stderr %q", text, o.text(command.Stderr))
		}
	}
}

func has(part string) func(string) bool {
	return func(s string) bool { return strings.Contains(s, part) }
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

// run is a command that was started.
type run struct {
	*attached
	*output
	id string
}

func (h *host) start(spec command.Spec) run {
	h.t.Helper()
	r := run{output: newOutput(), id: newID()}
	p, err := h.runner.startAttached(h.t.Context(), r.id, h.inv, &spec, r.output.sink)
	if err != nil {
		h.t.Fatalf("start of %q: %v", spec.CommandLine(), err)
	}
	r.attached = p
	return r
}

// line runs a line to its end.
func (h *host) line(spec command.Spec) (stdout, stderr string, exit command.Ending) {
	h.t.Helper()
	r := h.start(spec)
	exit, err := r.Wait()
	if err != nil {
		h.t.Fatalf("%q: %v", spec.CommandLine(), err)
	}
	return r.text(command.Stdout), r.text(command.Stderr), exit
}

func code(e command.Ending) string {
	if e.Code != nil {
		return strconv.Itoa(*e.Code)
	}
	return "signal " + e.Signal
}

// carriers lists the living processes whose environment has the marker of id, or
// that are told in pids.
func carriers(t testing.TB, id string) []string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil || !bytes.Contains(b, []byte("TELEXEC_ID="+id+"\x00")) {
			continue
		}
		pid := filepath.Base(filepath.Dir(f))
		if alive(pid) {
			found = append(found, pid)
		}
	}
	return found
}

// alive reports whether a pid is a process and no zombie.
func alive(pid string) bool {
	b, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(b[bytes.LastIndexByte(b, ')'):]), " ")
	return rest[0] != 'Z' && rest[0] != 'X'
}

// eventually waits for a condition on the host that nothing tells us of.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(20 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatal("waited in vain until " + what)
		}
	}
}

var errSink = errors.New("the store is full")

// h0 is a host that is not there.
var h0 = inventory.Host{Name: "none", Address: "127.0.0.1:1"}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }
