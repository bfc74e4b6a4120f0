package sshterm

import (
	"context"
	"crypto/rand"
	"embed"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/hostshell"
	"github.com/telexec/telexec/internal/inventory"
	"github.com/telexec/telexec/internal/session"
)

//go:embed remote/*.sh
var remote embed.FS

func script(name string) string { return hostshell.Script(remote, "remote/"+name) }

// facts is what an account on a host has for terminals.
type facts struct {
	dir        string // where directories of sessions may be made; empty: nowhere
	kind, path string // of the shell; both empty: there is none such
	tmux       string // what it says of itself; empty: there is none
	dtach      bool
	screen     bool
	leaving    bool // what a login has started is ended when it leaves
	has        []string
	bare       string // why there is no POSIX shell; empty: there is one
}

// known is what is known of an account and a shell, and until when.
type known struct {
	turn  chan struct{} // capacity 1: held by who looks or changes
	facts *facts
	until time.Time
}

// How long an answer of an account holds; a refusal may be mended at any time.
const (
	factsHold = 10 * time.Minute
	bareHold  = time.Minute
)

// facts gives what an account has, asking it where that is not known.
func (t *Terms) facts(ctx context.Context, host inventory.Host, want string) (*facts, error) {
	v, _ := t.accounts.LoadOrStore(account(host)+"\x00"+want, &known{turn: make(chan struct{}, 1)})
	k := v.(*known)
	select {
	case k.turn <- struct{}{}:
		defer func() { <-k.turn }()
	case <-ctx.Done():
		return nil, fault.From(context.Cause(ctx))
	}
	if time.Now().Before(k.until) {
		return k.facts, nil
	}
	t.forgetOld()
	f, err := t.probe(ctx, host, want)
	if err != nil {
		return nil, err
	}
	k.facts, k.until = f, time.Now().Add(factsHold)
	if f.bare != "" || f.kind == "" {
		k.until = time.Now().Add(bareHold)
	}
	return f, nil
}

// forgetOld drops what does not hold any more: whoever opens sessions says what shells
// are asked for, and there are endless names.
func (t *Terms) forgetOld() {
	now := time.Now()
	t.accounts.Range(func(name, v any) bool {
		k := v.(*known)
		select {
		case k.turn <- struct{}{}: // nobody looks
			if now.After(k.until) {
				t.accounts.Delete(name)
			}
			<-k.turn
		default:
		}
		return true
	})
}

// forget has an account asked anew.
func (t *Terms) forget(spec Spec) { t.accounts.Delete(account(spec.Host) + "\x00" + spec.Shell) }

// account tells an account apart. The same address behind other jump hosts is
// another machine.
func account(host inventory.Host) string {
	name := host.User + "@" + host.Address
	for _, hop := range host.Via {
		name += " via " + hop.User + "@" + hop.Address
	}
	return name
}

var probeScript = hostshell.Places + script("probe.sh") + "probe\n"

func (t *Terms) probe(ctx context.Context, host inventory.Host, want string) (*facts, error) {
	lines, err := t.ask(ctx, host, t.startTimeout(host), "want="+quote(want)+"\n"+probeScript)
	refused := fault.ReasonOf(err) == fault.ReasonSignalFailed && fault.KindOf(err) != fault.DeadlineExceeded
	if err != nil && !refused {
		return nil, err
	}
	f, ok := parseFacts(lines)
	switch {
	case len(lines) == 0:
		return &facts{bare: "the host runs no /bin/sh for this login"}, nil
	case !ok:
		return nil, fault.New(fault.Unavailable, fault.ReasonStartFailed, "%s could not tell what it has; nothing was started", host.Name).
			WithHint("Look whether it is out of processes or memory, and open it again").WithOp("sshterm.probe")
	}
	return &f, nil
}

// ask runs a script over a channel of its own and gives the lines of its answer. The
// limit is for the shell: how long reaching the host may take is the dialer's.
func (t *Terms) ask(ctx context.Context, host inventory.Host, limit time.Duration, script string) ([]string, error) {
	asking, stop := context.WithCancel(ctx)
	defer stop()
	open := func(ctx context.Context, host inventory.Host) (Session, error) {
		ses, err := t.dialer.OpenFirst(ctx, host)
		if err == nil {
			timer := time.AfterFunc(limit, stop)
			context.AfterFunc(asking, func() { timer.Stop() })
		}
		return ses, err
	}
	nonce := rand.Text()
	return hostshell.Ask(asking, open, host, nonce, "exec /bin/sh", []byte("nonce="+nonce+"\n"+script))
}

// maxDir is the length of a directory that can be used.
const maxDir = 1024

// parseFacts reads the answer of probe.sh; ok is false where it is not whole.
func parseFacts(lines []string) (f facts, ok bool) {
	for _, line := range lines {
		word, value, _ := strings.Cut(line, " ")
		switch word {
		case "dir":
			if f.dir == "" && pathForm(value) {
				f.dir = value
			}
		case "shell":
			kind, path, _ := strings.Cut(value, " ")
			if kinds[kind] && pathForm(path) {
				f.kind, f.path = kind, path
			}
		case "tmux":
			f.tmux = value
		case "dtach":
			f.dtach = true
		case "screen":
			f.screen = true
		case "leaving":
			f.leaving = true
		case "has":
			f.has = append(f.has, value)
		case "probed":
			return f, true
		}
	}
	return f, false
}

// kinds are the shells that are told apart.
var kinds = map[string]bool{"bash": true, "zsh": true, "fish": true, "dash": true, "ash": true, "ksh": true, "mksh": true, "yash": true, "csh": true, "sh": true}

// pathForm reports whether s is an absolute path that can be told to a shell in a line.
func pathForm(s string) bool {
	return strings.HasPrefix(s, "/") && len(s) <= maxDir && !strings.ContainsFunc(s, unicode.IsControl)
}

// keeperNames has every keeper that may be asked for, as people call it.
var keeperNames = map[session.Keeper]string{
	"": "tmux, dtach or screen", session.KeptByNone: "nothing",
	session.KeptByTmux: "tmux", session.KeptByDtach: "dtach", session.KeptByScreen: "screen",
}

// keepers gives the keepers that an account has, the best first, of which want is one
// where it is not empty; reason tells why there is none.
func (f *facts) keepers(want session.Keeper) (all []session.Keeper, reason string) {
	switch {
	case want == session.KeptByNone:
		return nil, "none was asked for"
	case f.leaving:
		return nil, "the host ends whatever a login has started when it leaves (KillUserProcesses of systemd-logind, and the account does not linger)"
	case f.dir == "":
		return nil, "there is no directory there that the login user can write and that is its own"
	case !slices.Contains(f.has, "stty"):
		return nil, "the host has no stty"
	}
	if tmuxFits(f.tmux) {
		all = append(all, session.KeptByTmux)
	}
	if f.dtach {
		all = append(all, session.KeptByDtach)
	}
	if f.screen {
		all = append(all, session.KeptByScreen)
	}
	if want != "" {
		if !slices.Contains(all, want) {
			return nil, "it has no " + keeperNames[want] + " that will do"
		}
		return []session.Keeper{want}, ""
	}
	if len(all) == 0 {
		return nil, "the host has none of tmux (3.0 or later), dtach and screen"
	}
	return all, ""
}

// tmuxFits reports whether a tmux is new enough: send-keys -H came with 3.0. It calls
// itself "tmux 3.3a", "tmux next-3.5" or "tmux openbsd-7.4".
func tmuxFits(version string) bool {
	v, ok := strings.CutPrefix(version, "tmux ")
	if !ok {
		return false
	}
	if rest, ok := strings.CutPrefix(v, "openbsd-"); ok {
		return major(rest) >= 7 // OpenBSD 6.7 has 3.0
	}
	return major(strings.TrimPrefix(v, "next-")) >= 3
}

func major(version string) int {
	digits, _, _ := strings.Cut(version, ".")
	n, _ := strconv.Atoi(digits) // what is no number is no version that we know
	return n
}
