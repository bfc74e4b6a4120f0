package hostshell

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/telexec/telexec/internal/command"
)

// ParseReport reads the answer of ladder.sh; nothing but exactly one is taken.
func ParseReport(lines []string) (command.CancelReport, error) {
	bad := errors.New("not an answer of the ladder")
	if len(lines) == 1 && lines[0] == "rebooted" {
		return command.CancelReport{Outcome: command.AlreadyEnded, Message: "the host was restarted after the command had started"}, nil
	}
	if len(lines) == 0 {
		return command.CancelReport{}, bad
	}
	var r command.CancelReport
	open := false
	for _, line := range lines[:len(lines)-1] {
		if line == "open" {
			open = true
			continue
		}
		f := strings.SplitN(line, " ", 5)
		if len(f) != 5 || f[0] != "left" || f[2] == "" || !Printable(line) || len(line) > 1024 {
			return command.CancelReport{}, bad
		}
		pid, ok := Number(f[1])
		why, known := whyLeft[f[3]]
		if !ok || !known {
			return command.CancelReport{}, bad
		}
		what := strings.TrimRight(f[4], " ")
		r.Left = append(r.Left, command.Process{PID: pid, User: f[2], Command: what[:min(len(what), 256)], Why: why})
	}
	f := strings.Split(lines[len(lines)-1], " ")
	if len(f) != 5 || f[0] != "done" {
		return command.CancelReport{}, bad
	}
	ended, ok1 := Number(f[2])
	left, ok2 := Number(f[3])
	if !ok1 || !ok2 || left < int64(len(r.Left)) || len(r.Left) < int(min(left, maxLeft)) {
		return command.CancelReport{}, bad
	}
	switch f[1] {
	case "HUP", "INT", "TERM", "KILL":
		r.Signal = f[1]
	case "none":
	default:
		return command.CancelReport{}, bad
	}
	r.Ended = int(ended)
	switch {
	case f[4] == "none":
		r.Outcome = command.Unproven
		r.Message = "the host has neither /proc nor ps to show what is left"
	case left > 0:
		r.Outcome = command.Left
		r.Message = fmt.Sprintf("%d of %d processes could not be ended", left, left+ended)
	case f[4] == "own":
		r.Outcome = command.Unproven
		r.Message = "no process of the login user's is left of it"
	case r.Signal == "":
		r.Outcome = command.AlreadyEnded
		r.Message = "there was no process of it any more"
	default:
		r.Outcome = command.Gone
		r.Message = fmt.Sprintf("%s ended %s", r.Signal, processes(ended))
	}
	if open && (r.Outcome == command.Gone || r.Outcome == command.AlreadyEnded) {
		r.Outcome = command.Unproven
		r.Message += "; but something that cannot be seen still has its output open, which is not waited for"
	}
	switch f[4] {
	case "proc", "none":
	case "own":
		r.Message += "; the host shows no processes of others, which it may have started (sudo)"
	case "ps":
		r.Message += "; without /proc a process that left the group and lost its parent is not seen"
	default:
		return command.CancelReport{}, bad
	}
	return r, nil
}

// maxLeft is how many processes the ladder describes.
const maxLeft = 50

var whyLeft = map[string]string{
	"survived":        "it outlived KILL",
	"forbidden":       "the login user may not signal it",
	"uninterruptible": "it waits in the kernel and cannot be interrupted",
}

func processes(n int64) string {
	if n == 1 {
		return "1 process"
	}
	return strconv.FormatInt(n, 10) + " processes"
}

// Number reads a decimal number of digits alone.
func Number(s string) (int64, bool) {
	if s == "" || len(s) > 18 || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil
}

// Printable reports whether s is of printable ASCII alone.
func Printable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}
