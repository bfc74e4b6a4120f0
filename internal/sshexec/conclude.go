package sshexec

import (
	"fmt"
	"strings"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/hostshell"
)

// conclude settles the end from the host's words about it: "exit 0 o=17". In
// front of them stands "broken" where nobody was left to see that all the output
// has come.
func (d *durable) conclude(how string) {
	f := strings.Fields(how)
	incomplete := len(f) > 0 && f[0] == "broken"
	if incomplete {
		f = f[1:]
	}
	if len(f) == 0 {
		f = []string{"torn"}
	}
	host := d.run.Host.Name
	end := command.Ending{Truncation: truncation(f[1:])}
	var lost *fault.Error
	switch code, ok := 0, false; f[0] {
	case "exit":
		if len(f) > 1 {
			code, ok = small(f[1])
		}
		if ok {
			end.Exit.Code = &code
		} else {
			lost = lostFault(fault.ReasonNoExitStatus, "%s has no exit code of the command", host)
		}
	case "signal":
		end.Exit.Signal = "UNKNOWN"
		if len(f) > 1 {
			end.Exit.Signal = signalName(f[1])
		}
		end.Exit.CoreDumped = len(f) > 2 && f[2] == "core"
	case "unstarted":
		lost = d.unstarted(f[1:])
	case "rebooted":
		lost = lostFault(fault.ReasonHostRebooted, "%s was restarted while the command ran", host)
	case "killed":
		lost = lostFault(fault.ReasonSupervisorKilled, "what watched over the command on %s was killed, and how it ended is not known", host)
	default:
		lost = lostFault(fault.ReasonRunRemoved, "what %s kept of the command is damaged", host)
	}
	if lost != nil {
		if f[0] != "unstarted" && !closed(d.decided) {
			// What there is of it is removed when that is stored, and not before.
			d.begun(identity{boot: "-", start: "-"})
		}
		d.fail(lost)
		return
	}
	if !closed(d.decided) { // it was short, and nobody has told who it was
		d.begun(identity{boot: "-", start: "-"})
	}
	if len(d.report) > 0 {
		if r, err := hostshell.ParseReport(d.report); err == nil {
			end.TimedOut = &r
		}
	}
	d.mu.Lock()
	sinkErr := d.sinkErr
	d.mu.Unlock()
	d.ending = end
	switch {
	case sinkErr != nil:
		d.waitErr = d.incomplete(sinkErr, "its output could not be kept")
	case incomplete:
		d.waitErr = d.incomplete(nil, "not all of its output is there")
	}
	close(d.ended)
}

// unstarted words that the command itself has not begun.
func (d *durable) unstarted(why []string) *fault.Error {
	host := d.run.Host
	switch {
	case len(why) > 1 && why[0] == "directory":
		return badDirectory(host, d.run.Spec.WorkingDirectory, why[1] == "denied")
	case len(why) > 0 && why[0] == "sudo":
		f := fault.New(fault.FailedPrecondition, fault.ReasonSudoRefused, "sudo on %s did not let the command start", host.Name).
			WithHint("Check the password, and what sudo allows: ssh %s@%s sudo -l", host.User, host.Name)
		d.mu.Lock()
		said := strings.TrimSpace(d.said)
		d.mu.Unlock()
		if said != "" {
			f.Message += itSaid(said)
		}
		return f
	}
	return fault.New(fault.FailedPrecondition, fault.ReasonStartFailed, "%s could not start the command", host.Name).
		WithHint("Nothing of it ran; look whether the host is out of processes or memory, and run it again")
}

// itSaid quotes a host in a message, which is telexec's own otherwise: a reader,
// or a model, must see where the words of the host begin and end.
func itSaid(words string) string { return fmt.Sprintf("; it said: %q", words) }

func noSpace(host string) *fault.Error {
	return fault.New(fault.FailedPrecondition, fault.ReasonNoSpace, "there is no space on %s to start the command", host).
		WithHint("Nothing of it ran. Make room in the home directory of the login user there, or run it attached")
}

func removed(host string) *fault.Error {
	return lostFault(fault.ReasonRunRemoved, "%s has nothing of the command any more: its files were removed", host)
}

func lostFault(reason, format string, args ...any) *fault.Error {
	return fault.New(fault.Unavailable, reason, format, args...).
		WithHint("Look on the host what it has done before you run it again").WithOp("sshexec.wait")
}

func (d *durable) incomplete(cause error, why string) error {
	return fault.Wrap(cause, fault.Unavailable, fault.ReasonOutputIncomplete,
		"the command on %s has ended, but %s", d.run.Host.Name, why).
		WithHint("The exit is true. What it printed after the kept output is not known").WithOp("sshexec.wait")
}

// truncation reads o=N and e=N, the sizes of spools that could not take all.
func truncation(words []string) *command.Truncation {
	t := command.Truncation{Offset: command.Sizes{-1, -1}, Reason: "the host's disk was full, or the limit of its spool was reached"}
	cut := false
	for _, w := range words {
		name, value, _ := strings.Cut(w, "=")
		n, ok := hostshell.Number(value)
		if !ok {
			continue
		}
		switch name {
		case "o":
			t.Offset[command.Stdout], cut = n, true
		case "e":
			t.Offset[command.Stderr], cut = n, true
		}
	}
	if !cut {
		return nil
	}
	return &t
}

// small reads an exit code.
func small(s string) (int, bool) {
	n, ok := hostshell.Number(s)
	return int(n), ok && n <= 255
}
