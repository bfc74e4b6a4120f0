package sshterm

import (
	"cmp"
	"context"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/hostshell"
)

// Foreground is who has a terminal.
type Foreground struct {
	Group     int
	Shell     bool // the shell itself: nothing runs
	Processes []command.Process
	// Nested is the kind of an interactive shell that waits in the foreground, "other"
	// for what has one elsewhere or cannot be known (ssh, docker); empty: none.
	Nested    string
	NestedPID int
	// Raw: the shell itself has the terminal, and takes keys as they are typed, as one
	// that edits lines does at its prompt and nowhere else.
	Raw bool
	// Lines: the same, but it is given whole lines, as what such a shell runs itself. Where
	// the host does not tell, neither is set.
	Lines bool
}

// The scripts that look and act, behind their values.
var (
	surveyScript = hostshell.Identity + script("foreground.sh") + "survey\n"
	ladderScript = hostshell.Identity + hostshell.Ladder + script("foreground.sh") + "climb_front\n"
	heldScript   = hostshell.Identity + hostshell.Ladder + script("foreground.sh") + "begin\n[ \"${front:-0}\" = \"$held\" ] || { say other; exit 0; }\nclimb_front\n"
	signalScript = hostshell.Identity + script("foreground.sh") + "signal_front\n"
	endScript    = hostshell.Identity + hostshell.Ladder + script("end.sh") + "end_session\n"
)

// Foreground tells who has the terminal of the shell with this pid, which is the
// session's own (0 means it as well), or one that was started in it, on whatever
// terminal. NOT_RUNNING: there is no such shell any more. NOT_SUPPORTED: the host
// cannot tell.
func (s *Shell) Foreground(ctx context.Context, shellPID int) (Foreground, error) {
	const op = "sshterm.foreground"
	if s.bare {
		return Foreground{}, blind(s.spec, "it has no shell").WithOp(op)
	}
	asked := cmp.Or(shellPID, s.facts.PID)
	lines, err := s.terms.ask(ctx, s.spec.Host, s.terms.opts.ControlTimeout, s.vars("asked", strconv.Itoa(asked))+surveyScript)
	if err != nil {
		return Foreground{}, err
	}
	switch strings.Join(lines, "\n") {
	case "gone", "rebooted":
		return Foreground{}, notRunning(s.spec).WithOp(op)
	case "surveyed none":
		return Foreground{}, blind(s.spec, "it has neither /proc nor ps").WithOp(op)
	}
	found, ok := parseSurvey(lines)
	if !ok {
		return Foreground{}, noAnswer(s.spec, lines).WithOp(op)
	}
	front, ok := found.front(int64(asked), s.spec.Host.User)
	if !ok {
		return Foreground{}, notRunning(s.spec).WithOp(op)
	}
	return front, nil
}

// Ladder ends what is in the foreground of that shell's terminal, with its descendants,
// by TERM and, when grace is over, KILL; never the shell. Without grace it is KILL at
// once. Where the shell itself has its terminal, and nothing else with it, that is
// ALREADY_ENDED. The report and errors are as of sshexec's Cancel.
func (s *Shell) Ladder(ctx context.Context, shellPID int, grace time.Duration) (command.CancelReport, error) {
	return s.ladder(ctx, shellPID, grace, ladderScript)
}

// LadderOn is Ladder where this group is in the foreground; where another one is, nothing
// is done, and that is ALREADY_ENDED.
func (s *Shell) LadderOn(ctx context.Context, shellPID, group int, grace time.Duration) (command.CancelReport, error) {
	return s.ladder(ctx, shellPID, grace, heldScript, "held", strconv.Itoa(group))
}

func (s *Shell) ladder(ctx context.Context, shellPID int, grace time.Duration, script string, vars ...string) (command.CancelReport, error) {
	if s.bare {
		return command.CancelReport{Outcome: command.Unproven, Message: noShell}, nil
	}
	return s.climb(ctx, grace, s.vars(append(vars,
		"asked", strconv.Itoa(cmp.Or(shellPID, s.facts.PID)), "grace_int", "0", "grace_term", hundredths(grace),
	)...)+script)
}

// endGrace is how long HUP and then TERM get when a session is ended.
const endGrace = time.Second

// End ends the shell and all that belongs to its session, and removes what the host
// keeps of it: HUP, as when a terminal goes, then TERM, then KILL. Report and error are
// as of sshexec's Cancel. It may be called again, and after the shell has ended: what it
// has left in the background is ended then, and its files go.
func (s *Shell) End(ctx context.Context) (command.CancelReport, error) { return s.end(ctx, false) }

// end is End; with client the keeper's client on the host is ended, too, which else ends
// when it has told what has become of the shell.
func (s *Shell) end(ctx context.Context, client bool) (command.CancelReport, error) {
	if s.bare {
		s.Close()
		return command.CancelReport{Outcome: command.Unproven, Message: noShell + "; its channel was closed"}, nil
	}
	report, err := s.climb(ctx, endGrace, s.vars(
		"dir", s.dir, "client", map[bool]string{true: "yes"}[client], "soft", "HUP", "grace_int", hundredths(endGrace*3/10), "grace_term", hundredths(endGrace*7/10),
	)+endScript)
	s.Close()
	return report, err
}

const noShell = "the host has no shell to show what is left"

func hundredths(d time.Duration) string {
	return strconv.FormatInt(int64(max(0, d)/(10*time.Millisecond)), 10)
}

// climb runs a ladder; once more where the connection broke before the answer.
func (s *Shell) climb(ctx context.Context, grace time.Duration, script string) (command.CancelReport, error) {
	begin := time.Now()
	lines, err := s.terms.ask(ctx, s.spec.Host, grace+s.terms.opts.ControlTimeout, script)
	if fault.ReasonOf(err) == fault.ReasonConnectionLost && ctx.Err() == nil {
		lines, err = s.terms.ask(ctx, s.spec.Host, grace+s.terms.opts.ControlTimeout, script)
	}
	var report command.CancelReport
	switch {
	case err != nil:
	case len(lines) == 1 && lines[0] == "gone":
		report = command.CancelReport{Outcome: command.AlreadyEnded, Message: "the shell has ended"}
	case len(lines) == 1 && lines[0] == "other":
		report = command.CancelReport{Outcome: command.AlreadyEnded, Message: "it has the terminal no more"}
	case len(lines) == 1 && lines[0] == "surveyed none":
		report = command.CancelReport{Outcome: command.Unproven, Message: "the host has neither /proc nor ps to show who has the terminal"}
	default:
		if report, err = hostshell.ParseReport(lines); err != nil {
			err = noAnswer(s.spec, lines).WithOp("sshterm.climb")
		}
	}
	if err != nil {
		report = command.CancelReport{Outcome: command.Unproven, Message: fault.From(err).Message}
	}
	report.Duration = time.Since(begin)
	return report, err
}

// Signal sends one signal, by name without SIG, to the foreground group of that shell's
// terminal. NOT_RUNNING: the shell itself has it. SIGNAL_FAILED: the host did not let us.
func (s *Shell) Signal(ctx context.Context, shellPID int, name string) error {
	const op = "sshterm.signal"
	if name == "" || len(name) > 16 || strings.Trim(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") != "" {
		return fault.New(fault.Invalid, fault.ReasonInvalidRequest, "%q is not the name of a signal", name).
			WithHint("Give a name without SIG, such as INT or TERM").WithOp(op)
	}
	if s.bare {
		return blind(s.spec, "it has no shell").WithOp(op)
	}
	lines, err := s.terms.ask(ctx, s.spec.Host, s.terms.opts.ControlTimeout, s.vars("asked", strconv.Itoa(cmp.Or(shellPID, s.facts.PID)), "signal", name)+signalScript)
	if err != nil {
		return err
	}
	switch strings.Join(lines, "\n") {
	case "sent":
		return nil
	case "gone", "rebooted", "idle":
		return notRunning(s.spec).WithOp(op)
	case "refused":
		return fault.New(fault.FailedPrecondition, fault.ReasonSignalFailed,
			"%s may not send %s to what runs in the session on %s, or there is no such signal there", s.spec.Host.User, name, s.spec.Host.Name).
			WithHint("If it runs as another user, allow sudo -n kill, or type Ctrl-C").WithOp(op)
	case "surveyed none":
		return blind(s.spec, "it has neither /proc nor ps").WithOp(op)
	}
	return noAnswer(s.spec, lines).WithOp(op)
}

func notRunning(spec Spec) *fault.Error {
	return fault.New(fault.FailedPrecondition, fault.ReasonNotRunning, "nothing runs in that shell of the session on %s", spec.Host.Name).
		WithHint("Look at the screen of the session")
}

func blind(spec Spec, why string) *fault.Error {
	return fault.New(fault.Unsupported, fault.ReasonNotSupported, "%s cannot tell who has the terminal: %s", spec.Host.Name, why).
		WithHint("Look at the screen of the session")
}

func noAnswer(spec Spec, lines []string) *fault.Error {
	return fault.New(fault.Unavailable, fault.ReasonSignalFailed, "%s gave no answer that can be understood", spec.Host.Name).
		WithHint("Check that /bin/sh works there: ssh %s@%s 'exec /bin/sh -c true'", spec.Host.User, spec.Host.Name).
		With("answer", strconv.Quote(strings.Join(lines, "\n")))
}

// process is one of a survey.
type process struct {
	pid, parent, group int64
	tty                string // as the host names it
	front              int64  // the foreground group of its terminal; at most 0: there is none
	user, input        string // empty where nothing was told in detail
	args               string
}

// survey is what foreground.sh has seen.
type survey map[int64]process

// parseSurvey reads the answer of survey; ok is false where it is not whole.
func parseSurvey(lines []string) (found survey, ok bool) {
	found = make(survey)
	for _, line := range lines {
		word, rest, _ := strings.Cut(line, " ")
		switch word {
		case "process":
			f := strings.SplitN(rest, " ", 7)
			if len(f) != 7 {
				return nil, false
			}
			var n [3]int64
			for i := range n {
				v, ok := hostshell.Number(f[i])
				if !ok {
					return nil, false
				}
				n[i] = v
			}
			front, _ := hostshell.Number(f[4]) // -1 where there is none
			found[n[0]] = process{pid: n[0], parent: n[1], group: n[2], tty: f[3], front: front}
		case "detail":
			f := strings.SplitN(rest, " ", 4)
			if len(f) != 4 {
				return nil, false
			}
			pid, ok := hostshell.Number(f[0])
			p, seen := found[pid]
			if !ok || !seen {
				return nil, false
			}
			p.user, p.input, p.args = f[1], f[2], strings.TrimRight(f[3], " ")
			found[pid] = p
		case "surveyed":
			return found, true
		default:
			return nil, false
		}
	}
	return nil, false
}

// front tells who has the terminal of a shell; ok is false where that is not there. login
// is the user whose files the host has of the session.
func (s survey) front(shell int64, login string) (f Foreground, ok bool) {
	asked, ok := s[shell]
	if !ok {
		return f, false
	}
	f.Group = int(asked.front)
	f.Shell = asked.front == asked.group
	members := make(map[int64]bool)
	above := make(map[int64]bool) // whoever runs a shell without job control is in its group
	for p := asked; p.parent > 1 && !above[p.parent]; p = s[p.parent] {
		above[p.parent] = true
	}
	for _, p := range s.sorted() {
		if above[p.pid] || p.front <= 1 || p.group != asked.front || p.tty != asked.tty || p.pid == shell {
			continue
		}
		// In the shell's own group there are what $(…) runs, and jobs of a shell without
		// job control; also helpers that it talks to by pipes, which hold up nothing.
		if asked.front == asked.group && p.input == "other" {
			continue
		}
		f.Shell = false
		members[p.pid] = true
		f.Processes = append(f.Processes, command.Process{PID: p.pid, User: p.user, Command: p.args})
	}
	if f.Shell {
		f.Raw, f.Lines = asked.input == "raw", asked.input == "tty"
		return f, true
	}
	f.Nested, f.NestedPID = s.nested(shell, members, login)
	return f, true
}

// nested gives the shell that waits for what is typed, of those that came of members:
// the innermost, since each hands the terminal on. One of a user who may not read what
// makes it tell marks is "other".
func (s survey) nested(shell int64, members map[int64]bool, login string) (kind string, pid int) {
	depth := -1
	for _, p := range s.sorted() {
		if p.front <= 1 || p.group != p.front || p.pid == shell {
			continue
		}
		from, steps := p, 0
		for !members[from.pid] && steps <= len(s) {
			from = s[from.parent] // of none there is a zero process, which is no member
			steps++
		}
		if steps > len(s) || steps <= depth {
			continue
		}
		if k := interactive(p.args); k != "" && p.group == p.pid && p.input != "other" && !s.busy(p) {
			if kind, pid, depth = k, int(p.pid), steps; p.user != "root" && !sameUser(p.user, login) {
				kind = "other"
			}
		}
	}
	if kind != "" {
		return kind, pid
	}
	for m := range members {
		p := s[m]
		switch name := program(p.args); {
		case behindSSH[name] && p.input == "raw", behindSudo[name] && !s.parent(m):
			return "other", 0
		}
	}
	return "", 0
}

// sameUser compares a user of a survey with the one who has logged in, each perhaps with
// its domain. What is not known, or told as a number, may be anybody.
func sameUser(told, login string) bool {
	bare := func(name string) string {
		name, _, _ = strings.Cut(name[strings.LastIndexByte(name, '\\')+1:], "@")
		return strings.ToLower(name)
	}
	begins, cut := strings.CutSuffix(told, "+") // a long one is cut off
	return strings.Trim(told, "0123456789-") == "" || bare(told) == bare(login) || cut && strings.HasPrefix(bare(login), bare(begins))
}

// busy reports whether a process shares its group with one that it has started.
func (s survey) busy(p process) bool {
	for _, other := range s {
		if other.group == p.group && other.parent == p.pid && other.input != "other" {
			return true
		}
	}
	return false
}

// parent reports whether a process has one that it has started.
func (s survey) parent(pid int64) bool {
	for _, p := range s {
		if p.parent == pid {
			return true
		}
	}
	return false
}

// sorted gives the processes in the order of their pids.
func (s survey) sorted() []process {
	all := make([]process, 0, len(s))
	for _, p := range s {
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b process) int { return cmp.Compare(a.pid, b.pid) })
	return all
}

// behindSSH are the programs behind which there may be a shell that this host does not
// show, where they take the keys as they are typed.
var behindSSH = map[string]bool{
	"ssh": true, "slogin": true, "mosh-client": true, "telnet": true, "docker": true, "podman": true, "nerdctl": true, "kubectl": true,
	"oc": true, "lxc": true, "incus": true, "machinectl": true, "virsh": true,
}

// behindSudo are those that start one as another user, whose processes may be hidden.
var behindSudo = map[string]bool{"su": true, "sudo": true, "doas": true}

// program gives the name of what a command line runs.
func program(args string) string {
	name, _, _ := strings.Cut(args, " ")
	return path.Base(strings.TrimPrefix(name, "-"))
}

// interactive gives the kind of a shell that reads what is typed; empty for a script, a
// line of -c, and what is no shell.
func interactive(args string) string {
	words := strings.Fields(args)
	if len(words) == 0 {
		return ""
	}
	kind := shellKinds[program(args)]
	if kind == "" {
		return ""
	}
	rest := words[1:]
	if program(args) == "busybox" {
		if len(rest) == 0 || shellKinds[rest[0]] == "" {
			return ""
		}
		rest = rest[1:]
	}
	for i := 0; i < len(rest); i++ {
		switch w := rest[i]; {
		case w == "-" || w == "--":
		case w == "--rcfile" || w == "--init-file" || w == "--init-command" || w == "-C" || w == "-o" || w == "+o" || w == "-O" || w == "+O":
			// What fish is to begin with has blanks in it, and nothing comes behind it.
			if strings.HasPrefix(w, "--init-c") || w == "-C" && kind == "fish" {
				return kind
			}
			i++
		case strings.HasPrefix(w, "--"):
		case strings.HasPrefix(w, "-"):
			if strings.Contains(w, "c") {
				return ""
			}
		case strings.HasPrefix(w, "+"):
		default:
			return ""
		}
	}
	return kind
}

// shellKinds are the shells by the names of their programs.
var shellKinds = map[string]string{
	"bash": "bash", "rbash": "bash", "zsh": "zsh", "fish": "fish", "dash": "dash", "ash": "ash", "busybox": "ash", "sh": "sh",
	"ksh": "ksh", "ksh93": "ksh", "mksh": "mksh", "lksh": "mksh", "yash": "yash", "csh": "csh", "tcsh": "csh",
}
