package terminal_test

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/completion"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/inventory"
	"github.com/telexec/telexec/internal/screen"
	"github.com/telexec/telexec/internal/session"
	"github.com/telexec/telexec/internal/terminal"
	"github.com/telexec/telexec/internal/test/testenv"
	"github.com/telexec/telexec/internal/test/tty"
)

// machine is a host of tests: real shells on real terminals of this machine, without SSH
// between. It keeps shells where it is told to, and its links can be broken.
type machine struct {
	t    testing.TB
	home string

	mu     sync.Mutex
	shells map[string]*console // by session
	away   bool                // it cannot be reached
	knows  bool                // what keeps a shell answers what programs ask
	opened int
	swept  int // shells of which nothing is kept any more
}

func newMachine(t testing.TB) *machine {
	m := &machine{t: t, home: t.TempDir(), shells: make(map[string]*console)}
	if err := os.WriteFile(filepath.Join(m.home, ".bash_profile"), []byte("PS1='me$ '\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, c := range m.all() {
			c.end()
		}
	})
	return m
}

func (m *machine) all() []*console {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Collect(maps.Values(m.shells))
}

func (m *machine) of(id string) *console {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.shells[id]
}

// reach says whether it can be reached; where it cannot, all links break.
func (m *machine) reach(yes bool) {
	m.mu.Lock()
	m.away = !yes
	m.mu.Unlock()
	if !yes {
		for _, c := range m.all() {
			c.breakLink()
		}
	}
}

// Lookup and List are terminal.Hosts: every name but "nowhere" is this machine.
func (m *machine) Lookup(name string) (inventory.Host, error) {
	if name == "nowhere" {
		return inventory.Host{}, fault.New(fault.NotFound, fault.ReasonUnknownHost, "no host nowhere")
	}
	return inventory.Host{Name: name}, nil
}

func (m *machine) List() []inventory.Host { return []inventory.Host{{Name: "web1"}} }

// Open is terminal.Shells. A shell "kind" is found in the PATH; one with a slash is a
// program that is no shell, a device.
func (m *machine) Open(ctx context.Context, s terminal.ShellSpec) (terminal.Shell, error) {
	m.mu.Lock()
	away := m.away
	m.mu.Unlock()
	if away || s.Host.Name == "unreachable" {
		return nil, fault.New(fault.Unavailable, fault.ReasonHostUnreachable, "no route to %s", s.Host.Name)
	}
	if s.Resume {
		c := m.of(s.ID)
		if c == nil || c.over() {
			return nil, fault.New(fault.Unavailable, fault.ReasonSessionGone, "the shell is not there any more")
		}
		return c.attach(true), nil
	}
	c, err := m.start(s)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	m.shells[s.ID] = c
	m.opened++
	m.mu.Unlock()
	link := c.attach(false)
	go c.keep() // not before: nobody would take its first prompt
	return link, nil
}

// console is a shell on a terminal, and what keeps it.
type console struct {
	m     *machine
	cmd   *exec.Cmd
	tty   *os.File
	facts terminal.Facts
	gone  chan struct{} // closed when the shell has ended and all it printed was given
	looks atomic.Int32  // how often it was looked who has the terminal

	mu     sync.Mutex
	screen *screen.Screen // what the keeper has seen
	link   *localLink     // nil: nobody is attached
	writes [][]byte
	held   *[][]byte // what is typed is on its way, and has not got here; nil: it gets here at once
	climb  func()    // called when a ladder gets here; nil: nothing
	frozen int       // so many attempts to end it get no answer
}

var names = map[string]string{"ash": "busybox", "ksh": "ksh93"}

func (m *machine) start(s terminal.ShellSpec) (*console, error) {
	kind := cmp.Or(s.Shell, "bash")
	dir, err := os.MkdirTemp(m.home, "session")
	if err != nil {
		return nil, err
	}
	c := &console{m: m, gone: make(chan struct{}), screen: screen.New(s.Size.Columns, s.Size.Rows, 100)}
	argv := []string{kind}
	env := map[string]string{}
	if strings.Contains(kind, "/") {
		c.facts = terminal.Facts{}
	} else {
		file, err := exec.LookPath(cmp.Or(names[kind], kind))
		if err != nil {
			testenv.Missing(m.t, "no "+kind+"; make setup gets it")
		}
		launch, ok := completion.Integrate(kind, file, s.Nonce)
		if !ok {
			return nil, fmt.Errorf("no integration of %s", kind)
		}
		line, nested := completion.Nested(s.Nonce)
		launch.Files["nested"] = nested
		for name, content := range launch.Files {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
				return nil, err
			}
		}
		argv, env = launch.Argv, launch.Env
		c.facts = terminal.Facts{Kind: kind, Path: file, Marks: true, Nested: strings.ReplaceAll(line, "{dir}", dir)}
	}
	c.facts.Keeper, c.facts.KeeperReason = session.KeptByNone, "nothing keeps it"
	if s.Keeper == session.KeptByTmux {
		c.facts.Keeper, c.facts.KeeperReason, c.facts.Answers = session.KeptByTmux, "", m.knows
	}
	c.cmd = exec.Command(argv[0])
	c.cmd.Args = nil
	for _, a := range argv {
		c.cmd.Args = append(c.cmd.Args, strings.ReplaceAll(a, "{dir}", dir))
	}
	c.cmd.Dir = m.home
	c.cmd.Env = []string{"HOME=" + m.home, "PATH=" + os.Getenv("PATH"), "TERM=" + s.Term, "LANG=C.UTF-8", "USER=me", "PS1=me$ ", "fish_greeting="}
	for name, value := range env {
		c.cmd.Env = append(c.cmd.Env, name+"="+strings.ReplaceAll(value, "{dir}", dir))
	}
	if c.tty, err = tty.Start(c.cmd, s.Size.Columns, s.Size.Rows); err != nil {
		return nil, err
	}
	if c.facts.Marks {
		c.facts.PID = c.cmd.Process.Pid
	}
	return c, nil
}

// keep reads what the shell prints, for whoever is attached; what nobody takes is on the
// screen alone.
func (c *console) keep() {
	defer close(c.gone)
	for {
		b := make([]byte, 16<<10)
		n, err := c.tty.Read(b)
		if n > 0 {
			c.mu.Lock()
			if c.facts.Keeper != session.KeptByNone {
				_, _ = c.screen.Write(b[:n])
			}
			link := c.link
			c.mu.Unlock()
			if link != nil {
				select {
				case link.chunks <- b[:n]:
				case <-link.broken:
				}
			}
		}
		if err != nil {
			_ = c.cmd.Wait()
			return
		}
	}
}

func (c *console) over() bool {
	select {
	case <-c.gone:
		return true
	default:
		return false
	}
}

// attach links somebody to it, instead of whoever was.
func (c *console) attach(resume bool) *localLink {
	c.breakLink()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.link = &localLink{c: c, facts: c.facts, chunks: make(chan []byte), broken: make(chan struct{})}
	if resume {
		c.link.facts.Redraw = c.screen.Snapshot(0)
	}
	return c.link
}

// breakLink breaks the connection; a shell that nothing keeps ends with it.
func (c *console) breakLink() {
	c.mu.Lock()
	link := c.link
	c.link = nil
	c.mu.Unlock()
	if link == nil {
		return
	}
	link.cut()
	if c.facts.Keeper == session.KeptByNone {
		c.closeTTY()
	}
}

func (c *console) closeTTY() {
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.tty.Close()
}

// end kills whatever is left of it.
func (c *console) end() {
	for _, pid := range c.members() {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	c.breakLink()
	c.closeTTY()
	<-c.gone
}

// members are the processes of its session.
func (c *console) members() []int {
	return processes(func(p stat) bool { return p.session == c.cmd.Process.Pid })
}

// runs reports whether another program than the shell has the terminal. A child that has
// it but is the shell's own program still would lose a signal with its exec.
func (c *console) runs() bool {
	shell, err := statOf(c.cmd.Process.Pid)
	if err != nil || shell.foreground == shell.group {
		return false
	}
	front, err := statOf(shell.foreground)
	return err == nil && front.name != shell.name
}

// localLink is the connection to a console: a terminal.Shell.
type localLink struct {
	c      *console
	facts  terminal.Facts
	chunks chan []byte
	rest   []byte
	broken chan struct{}
	once   sync.Once
}

func (k *localLink) cut() { k.once.Do(func() { close(k.broken) }) }

func (k *localLink) Facts() terminal.Facts { return k.facts }

func (k *localLink) Read(p []byte) (int, error) {
	if len(k.rest) == 0 {
		select {
		case k.rest = <-k.chunks:
		case <-k.broken:
			return 0, fault.New(fault.Unavailable, fault.ReasonConnectionLost, "the link is broken")
		case <-k.c.gone:
			select {
			case <-k.broken:
				return 0, fault.New(fault.Unavailable, fault.ReasonConnectionLost, "the link is broken")
			default:
				return 0, io.EOF
			}
		}
	}
	n := copy(p, k.rest)
	k.rest = k.rest[n:]
	return n, nil
}

func (k *localLink) Write(p []byte) (int, error) {
	select {
	case <-k.broken:
		return 0, fault.New(fault.Unavailable, fault.ReasonConnectionLost, "the link is broken")
	default:
	}
	k.c.mu.Lock()
	k.c.writes = append(k.c.writes, slices.Clone(p))
	held := k.c.held
	if held != nil {
		*held = append(*held, slices.Clone(p))
	}
	k.c.mu.Unlock()
	if held != nil {
		return len(p), nil
	}
	return k.c.tty.Write(p)
}

// delay keeps what is typed on its way; with false it is lost there.
func (c *console) delay(yes bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held = nil; yes {
		c.held = new([][]byte)
	}
}

func (k *localLink) Resize(s session.Size) error {
	k.c.mu.Lock()
	defer k.c.mu.Unlock()
	k.c.screen.Resize(s.Columns, s.Rows)
	return tty.Resize(k.c.tty, s.Columns, s.Rows)
}

func (k *localLink) Exit() *int {
	<-k.c.gone
	if code := k.c.cmd.ProcessState.ExitCode(); code >= 0 {
		return &code
	}
	return nil
}

func (k *localLink) Close() error {
	k.c.mu.Lock()
	mine := k.c.link == k
	k.c.mu.Unlock()
	if mine {
		k.c.breakLink()
	}
	k.cut()
	return nil
}

// typed gives what was written to it so far.
func (c *console) typed() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all strings.Builder
	for _, w := range c.writes {
		all.Write(w)
	}
	return all.String()
}

// stat is what /proc says of a process.
type stat struct {
	pid, group, session, foreground int
	state, name                     string
}

func statOf(pid int) (s stat, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return s, err
	}
	open, end := strings.IndexByte(string(text), '('), strings.LastIndexByte(string(text), ')')
	s.pid, s.name = pid, string(text[open+1:end])
	fields := strings.Fields(string(text[end+2:]))
	n := func(i int) int { v, _ := strconv.Atoi(fields[i]); return v }
	s.state, s.group, s.session, s.foreground = fields[0], n(2), n(3), n(5)
	return s, nil
}

// processes gives those that live and for which want is true.
func processes(want func(stat) bool) []int {
	entries, _ := os.ReadDir("/proc")
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if s, err := statOf(pid); err == nil && s.state != "Z" && want(s) {
			pids = append(pids, pid)
		}
	}
	return pids
}

func (k *localLink) Foreground(_ context.Context, shell int) (terminal.Foreground, error) {
	s, err := statOf(shell)
	if err != nil {
		return terminal.Foreground{}, fault.Wrap(err, fault.Unavailable, fault.ReasonSessionGone, "no shell %d", shell)
	}
	fg := terminal.Foreground{Group: s.foreground, Shell: s.foreground == s.group}
	k.c.looks.Add(1)
	if fg.Shell {
		if tty, err := os.Open(fmt.Sprintf("/proc/%d/fd/0", shell)); err == nil {
			defer tty.Close()
			stty := exec.Command("stty", "-a")
			stty.Stdin = tty
			modes, _ := stty.Output()
			fg.Raw = strings.Contains(string(modes), "-icanon")
			fg.Lines = !fg.Raw && len(modes) > 0
		}
		return fg, nil
	}
	for _, pid := range processes(func(p stat) bool { return p.group == s.foreground }) {
		p, err := statOf(pid)
		if err != nil {
			continue
		}
		fg.Processes = append(fg.Processes, command.Process{PID: int64(pid), Command: p.name})
		args, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if slices.Contains([]string{"bash", "zsh", "fish", "dash", "mksh", "sh"}, p.name) && interactive(string(args)) {
			fg.Nested, fg.NestedPID = p.name, pid
		}
		if p.name == "telexec-other" {
			fg.Nested, fg.NestedPID = "other", pid
		}
	}
	return fg, nil
}

// interactive reports whether a shell with these arguments, ended by NULs, has no script.
func interactive(args string) bool {
	for _, arg := range strings.Split(strings.TrimRight(args, "\x00"), "\x00")[1:] {
		if !strings.HasPrefix(arg, "-") || arg == "-c" {
			return false
		}
	}
	return true
}

func (k *localLink) Ladder(ctx context.Context, shell int, grace time.Duration) (command.CancelReport, error) {
	return k.LadderOn(ctx, shell, 0, grace)
}

func (k *localLink) LadderOn(ctx context.Context, shell, group int, grace time.Duration) (command.CancelReport, error) {
	k.c.mu.Lock()
	climb := k.c.climb
	k.c.mu.Unlock()
	if climb != nil {
		climb()
	}
	s, err := statOf(shell)
	if err != nil {
		return command.CancelReport{}, err
	}
	if s.foreground == s.group || group != 0 && s.foreground != group {
		return command.CancelReport{Outcome: command.AlreadyEnded}, nil
	}
	members := func() []int {
		return processes(func(p stat) bool { return p.group == s.foreground })
	}
	report := command.CancelReport{Outcome: command.Gone, Ended: len(members())}
	for _, step := range []struct {
		name string
		sig  syscall.Signal
		wait time.Duration
	}{{"TERM", syscall.SIGTERM, grace}, {"KILL", syscall.SIGKILL, 5 * time.Second}} {
		if len(members()) == 0 {
			return report, nil
		}
		report.Signal = step.name
		_ = syscall.Kill(-s.foreground, step.sig)
		until(ctx, step.wait, func() bool { return len(members()) == 0 })
	}
	if len(members()) > 0 {
		report.Outcome = command.Left
	}
	return report, nil
}

func (k *localLink) Signal(_ context.Context, shell int, name string) error {
	s, err := statOf(shell)
	if err != nil {
		return err
	}
	return syscall.Kill(-s.foreground, map[string]syscall.Signal{"TERM": syscall.SIGTERM, "USR1": syscall.SIGUSR1}[name])
}

func (k *localLink) End(ctx context.Context) (command.CancelReport, error) {
	select {
	case <-k.broken:
		return command.CancelReport{}, fault.New(fault.Unavailable, fault.ReasonConnectionLost, "the link is broken")
	default:
	}
	k.c.mu.Lock()
	k.c.frozen--
	frozen := k.c.frozen >= 0
	k.c.mu.Unlock()
	if frozen {
		return command.CancelReport{}, fault.New(fault.Unavailable, fault.ReasonHostUnreachable, "the host does not answer")
	}
	report := command.CancelReport{Outcome: command.Gone, Ended: len(k.c.members())}
	for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGKILL} {
		for _, pid := range k.c.members() {
			_ = syscall.Kill(pid, sig)
		}
		until(ctx, 300*time.Millisecond, func() bool { return len(k.c.members()) == 0 })
	}
	return report, nil
}

func (k *localLink) Sweep(context.Context) error {
	k.c.m.mu.Lock()
	defer k.c.m.mu.Unlock()
	k.c.m.swept++
	return nil
}

// until looks at a condition until it is true, for so long at most.
func until(ctx context.Context, most time.Duration, met func() bool) bool {
	deadline := time.NewTimer(most)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !met() {
		select {
		case <-tick.C:
		case <-deadline.C:
			return met()
		case <-ctx.Done():
			return false
		}
	}
	return met()
}
