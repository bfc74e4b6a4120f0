package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/pkg/client"
)

// The exit codes of telexec. Those of "run" are otherwise the command's own.
const (
	exitNo        = 1   // the answer is no: not gone, host not reachable, refused by a rule, audit broken
	exitApproval  = 3   // of "policy": the command would wait for approval
	exitTimeout   = 124 // the command was ended for its timeout
	exitFailure   = 125 // telexec or its service failed, or the command never ran to an end
	exitCancelled = 130 // the command was cancelled, or Ctrl-C left it alone
	exitSignal    = 128 // plus the number of the signal
)

// exitCodesHelp is part of --help.
const exitCodesHelp = `
Exit codes: the command's own; 128+n when signal n ended it; 124 when its --timeout did; 130 when it was
cancelled; 125 when telexec itself failed, the command was refused or could not start, or its outcome is not known.`

// exitError ends the program with a code, and with a message unless it is empty.
type exitError struct {
	code    int
	message string
	hint    string
}

func (e *exitError) Error() string { return e.message }

// failure is an error of telexec's own.
func failure(format string, args ...any) *exitError {
	return &exitError{code: exitFailure, message: fmt.Sprintf(format, args...)}
}

func (e *exitError) withHint(format string, args ...any) *exitError {
	e.hint = fmt.Sprintf(format, args...)
	return e
}

// usageError is what the parser said.
func usageError(err error) *exitError {
	if e, ok := errors.AsType[*emptyFlag](err); ok {
		return failure("%v", e).withHint("Is a variable not set, or has a $(…) failed? Where none is wanted, leave the flag out")
	}
	if e, ok := errors.AsType[*kong.ParseError](err); ok && e.Context != nil {
		if node := e.Context.Selected(); node != nil {
			if word, ok := strings.CutPrefix(err.Error(), "unexpected argument "); ok && pathOf(node) == "telexec hosts list" {
				return failure("%v", err).withHint("telexec hosts show %s tells about one host, telexec hosts check %[1]s connects to it", word)
			} else if ok && pathOf(node) == "telexec session ls" {
				return failure("%v", err).withHint("telexec session show %s tells about one session, telexec session attach %[1]s is at its terminal", word)
			}
			return unread(err.Error()).withHint("%s --help explains it", pathOf(node))
		}
	}
	return failure("%v", err).withHint("telexec --help lists the commands, telexec COMMAND --help explains one")
}

// What the parser says of values, in its own words.
var (
	noValue   = regexp.MustCompile(`^(--[a-z-]+): expected .* value but got "EOL"`)
	flagValue = regexp.MustCompile(`^(--[a-z-]+): expected .* value but got ("-.*") \((?:short|long) flag\)`)
	noTime    = regexp.MustCompile(`^(--[a-z-]+): expected duration but got (".*"): `)
	noNumber  = regexp.MustCompile(`^(--[a-z-]+): expected a valid .* (?:int|uint|float) but got (".*")`)
)

// unread says what the parser could not read.
func unread(said string) *exitError {
	if m := noValue.FindStringSubmatch(said); m != nil {
		return failure("%s needs a value", m[1])
	}
	if m := flagValue.FindStringSubmatch(said); m != nil {
		return failure("%s needs a value, and %s is another flag; where it is the value, an equals sign goes before it", m[1], m[2])
	}
	if m := noTime.FindStringSubmatch(said); m != nil {
		return failure("%s: %s is no length of time; write it as in 90s, 5m or 1h30m", m[1], m[2])
	}
	if m := noNumber.FindStringSubmatch(said); m != nil {
		return failure("%s: %s is no number that it can be", m[1], m[2])
	}
	return failure("%s", said)
}

// signalled is the end by a signal to telexec itself.
func signalled(s os.Signal) *exitError {
	n, ok := s.(syscall.Signal)
	if !ok {
		n = syscall.SIGINT
	}
	return &exitError{code: exitSignal + int(n)}
}

// report says what went wrong and gives the exit code.
func (a *app) report(err error) int {
	if err == nil {
		return 0
	}
	if errors.Is(err, syscall.EPIPE) {
		return exitSignal + int(syscall.SIGPIPE) // as if the signal had done it
	}
	if e, ok := errors.AsType[*exitError](err); ok {
		if e.message != "" {
			a.out.problem(problem{Message: e.message, Hint: e.hint})
		}
		return e.code
	}
	if e, ok := errors.AsType[*client.Error](err); ok {
		p := problem{Code: e.Code.String(), Reason: e.Reason, Message: e.Message, Hint: e.Hint, Metadata: e.Metadata}
		if hint, ok := hints[e.Reason]; ok && e.Metadata["in_doubt"] == "" {
			p.Hint = firstOf(a.hints[e.Reason], hint)
		}
		switch {
		case e.Reason == "INVALID_REQUEST" && len(e.Fields) > 0:
			p.Hint = firstOf(a.path, "telexec") + " --help tells what may be given" // the details are in the message
		case e.Reason == "EMPTY_COMMAND":
			p.Hint = firstOf(a.path, "telexec run") + " --help has examples"
		case e.Reason == "UNKNOWN_COMMAND":
			p.Hint = strings.TrimPrefix(e.Hint+". ", ". ") + "telexec history lists the commands"
		}
		for _, f := range e.Fields {
			p.Fields = append(p.Fields, field{f.Path, f.Message})
		}
		a.out.problem(p)
		return exitFailure
	}
	a.out.problem(problem{Message: err.Error()})
	return exitFailure
}

// hints are for this program's users, where the service's own speak of the API.
var hints = map[string]string{
	"NO_CREDENTIALS":  "Give the token with TELEXEC_TOKEN or --token-file; the first start of telexecd writes one to admin.token in its data directory",
	"BAD_CREDENTIALS": "Check TELEXEC_TOKEN, --token and --token-file; the administrator's is in admin.token in the data directory of telexecd",
	"TOKEN_EXPIRED":   "Ask an admin for a new one (telexec token create), and give it with TELEXEC_TOKEN or --token-file",
	"TOKEN_REVOKED":   "Ask an admin for a new one (telexec token create), and give it with TELEXEC_TOKEN or --token-file",
	"STDIN_CLOSED":    "A command that is to take input later is started with telexec run -d -i",
	"REQUEST_CHANGED": "Look at it again with telexec approvals show, then decide",

	"SESSION_EXISTS":     "Take another --name, give --reuse to have that one, or close it first with telexec session close",
	"UNKNOWN_SESSION":    "telexec session lists those that are open, with --all those that have ended",
	"SESSION_ENDED":      "telexec session show tells why; telexec session open starts another",
	"SESSION_BUSY":       "Without --if-busy refuse it waits; telexec cancel --session ends what runs there",
	"KEYBOARD_TAKEN":     "telexec session attach --take takes the keyboard",
	"NO_KEEPER":          "Leave --keeper out to have the best that the host has",
	"TYPING_NOT_ALLOWED": "telexec session run runs a command there, and telexec session attach --observe looks on",

	"UNKNOWN_TASK":    "telexec task ls lists the tasks",
	"TASK_NOT_ENDED":  "telexec task watch shows how it goes; telexec task cancel ends it",
	"NOTHING_TO_UNDO": "telexec task get shows what it has done, and what was undone",

	"ALREADY_DECIDED":  "telexec approvals show tells what was decided, telexec status what came of it",
	"UNKNOWN_APPROVAL": "telexec approvals lists what waits, with --all what has waited",
	"UNKNOWN_TOKEN":    "telexec token list lists the keys",
	"TOKEN_NAME_TAKEN": "Take another name, or revoke that one first with telexec token revoke",
}

// problem is an error as it is shown.
type problem struct {
	Code     string            `json:"code,omitempty"`
	Reason   string            `json:"reason,omitempty"`
	Message  string            `json:"message"`
	Hint     string            `json:"hint,omitempty"`
	Fields   []field           `json:"fields,omitempty"`
	Metadata map[string]string `json:"metadata,omitempty"`
}

type field struct {
	Field   string `json:"field"`
	Message string `json:"message"`
}

// problem prints to standard error.
func (p *printer) problem(pr problem) {
	if p.json {
		b, _ := json.Marshal(map[string]problem{"error": pr}) // strings only: cannot fail
		fmt.Fprintf(p.stderr, "%s\n", b)
		return
	}
	var b strings.Builder
	fmt.Fprintf(&b, "telexec: %s\n", indented(pr.Message))
	for _, f := range pr.Fields {
		if !strings.Contains(pr.Message, f.Message) {
			fmt.Fprintf(&b, "  %s: %s\n", printable(f.Field), printable(f.Message))
		}
	}
	if pr.Hint != "" {
		fmt.Fprintf(&b, "  %s\n", indented(pr.Hint))
	}
	p.printErr(b.String())
}

// outcome gives the error with which "run" ends for a command that has ended;
// nil for exit code 0.
func outcome(cmd *telexecv1.Command) *exitError {
	what := fmt.Sprintf("%s: command %s", firstOf(cmd.GetSession(), cmd.GetHost()), cmd.GetId())
	switch cmd.GetState() {
	case telexecv1.CommandState_COMMAND_STATE_COMPLETED:
		switch {
		case cmd.ExitCode == nil:
			return failure("%s has ended, but its exit code is not known%s", what, recognised[cmd.GetCompletion()])
		case cmd.GetExitCode() != 0:
			return &exitError{code: int(cmd.GetExitCode())}
		}
		return nil
	case telexecv1.CommandState_COMMAND_STATE_CANCELLED:
		message := what + " was cancelled"
		if by := cmd.GetCancellation().GetBy().GetPrincipal(); by != "" {
			message += " by " + by
		}
		if reason := cmd.GetCancellation().GetReason(); reason != "" {
			message += ": " + reason
		}
		return &exitError{code: exitCancelled, message: message}
	case telexecv1.CommandState_COMMAND_STATE_TIMED_OUT:
		message := what + " took longer than its timeout and was ended"
		if cmd.GetTimeout() != nil {
			message += " after " + humanDuration(cmd.GetTimeout().AsDuration())
		}
		return &exitError{code: exitTimeout, message: message}
	}
	e := failure("%s %s", what, endings[cmd.GetState()])
	if f := cmd.GetFailure(); f != nil {
		e.message = failureText(f)
		if !names(f.GetMessage(), cmd.GetHost()) {
			e.message = cmd.GetHost() + ": " + e.message
		}
		e.hint = f.GetHint()
	}
	if cmd.GetExitSignal() != "" {
		e.code = exitSignal + int(signalNumbers[cmd.GetExitSignal()])
	}
	return e
}

// failureText is "what happened [REASON]", where the former may have lines.
func failureText(f *telexecv1.Failure) string {
	return fmt.Sprintf("%s [%s]", strings.TrimSpace(f.GetMessage()), f.GetReason())
}

// names reports whether a message names a host, so that it need not be told
// again.
func names(message, host string) bool {
	return regexp.MustCompile(`(^|[^\w.-])` + regexp.QuoteMeta(host) + `($|[^\w-])`).MatchString(message)
}

// recognised says how the end of a command was seen where there is no exit code to see.
var recognised = map[telexecv1.Completion]string{
	telexecv1.Completion_COMPLETION_PROMPT:  ": its end was recognised by a prompt",
	telexecv1.Completion_COMPLETION_SILENCE: ": its output has fallen silent, and it may yet go on",
}

// endings say what a state means where the service gives no failure.
var endings = map[telexecv1.CommandState]string{
	telexecv1.CommandState_COMMAND_STATE_FAILED:   "could not run",
	telexecv1.CommandState_COMMAND_STATE_REJECTED: "was refused",
	telexecv1.CommandState_COMMAND_STATE_EXPIRED:  "waited too long and never started",
	telexecv1.CommandState_COMMAND_STATE_LOST:     "is lost: its outcome is not known",
}

// signalNumbers are those of Linux, which is where most hosts are. A signal that
// is not among them counts as 0.
var signalNumbers = map[string]syscall.Signal{
	"HUP": 1, "INT": 2, "QUIT": 3, "ILL": 4, "TRAP": 5, "ABRT": 6, "BUS": 7, "FPE": 8, "KILL": 9, "USR1": 10,
	"SEGV": 11, "USR2": 12, "PIPE": 13, "ALRM": 14, "TERM": 15, "STKFLT": 16, "CHLD": 17, "CONT": 18, "STOP": 19,
	"TSTP": 20, "TTIN": 21, "TTOU": 22, "URG": 23, "XCPU": 24, "XFSZ": 25, "VTALRM": 26, "PROF": 27, "WINCH": 28,
	"IO": 29, "PWR": 30, "SYS": 31,
}
