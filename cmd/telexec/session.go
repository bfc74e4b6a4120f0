package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/durationpb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/pkg/client"
)

type sessionCmd struct {
	List   sessionListCmd   `cmd:"" name:"ls" aliases:"list" default:"withargs" help:"List the sessions that are open (the default)."`
	Open   sessionOpenCmd   `cmd:"" help:"Start a shell on a host that lasts."`
	Attach sessionAttachCmd `cmd:"" help:"Be at its terminal."`
	Run    sessionRunCmd    `cmd:"" help:"Run a command in it: live output, its exit code."`
	Show   sessionShowCmd   `cmd:"" help:"Show how it is, and who is there."`
	Screen sessionScreenCmd `cmd:"" help:"Print what is on its screen."`
	Keys   sessionKeysCmd   `cmd:"" help:"Type in it, and print the screen that follows."`

	Replay sessionReplayCmd `cmd:"" help:"Play its recording, or save it."`
	Close  sessionCloseCmd  `cmd:"" help:"End it and what runs in it."`
}

type sessionListCmd struct {
	All       bool   `short:"a" help:"Those that have ended, too."`
	Host      string `placeholder:"HOST" help:"Only those on this host."`
	Principal string `placeholder:"NAME" help:"Only those opened by this principal."`
	Limit     int    `default:"50" placeholder:"N" help:"At most so many (default ${default}; 0: all)."`
}

// Help is shown by session --help.
func (sessionListCmd) Help() string {
	return `A session is a shell on a host that lasts, on a terminal that people and agents share: what one types the others see.
The directory, variables and a sudo -i stay from one command to the next.

There are also

    telexec session open HOST            start one
    telexec session run NAME COMMAND     run a command in it
    telexec session attach NAME          be at its terminal
    telexec session screen NAME          print its screen; keys NAME KEY… types, and prints what follows
    telexec session show NAME            how it is, and who is there
    telexec session replay NAME          play its recording, or save it
    telexec session close NAME           end it and what runs in it

and telexec status, cancel, ps and history with --session NAME, for the commands in it. WHO is who is there, with an asterisk
the one who has the keyboard.

Examples:

    telexec session open web1 --name deploy
    telexec session run deploy 'cd /srv/app && git pull'
    telexec session run deploy make test
    telexec session attach deploy
    telexec session close deploy`
}

// Run lists sessions, newest first.
func (c *sessionListCmd) Run(ctx context.Context, a *app) error {
	if c.Limit < 0 {
		return failure("--limit cannot be below 0")
	}
	return a.session(ctx, func(ctx context.Context, cl *client.Client) error {
		var rows [][]cell
		n := 0
		for s, err := range cl.ListSessions(ctx, &telexecv1.ListSessionsRequest{PageSize: maxPage, Ended: c.All, Host: c.Host, Principal: c.Principal}) {
			if err != nil {
				return err
			}
			if n++; c.Limit > 0 && n > c.Limit {
				a.out.note("there are more: --limit 0 shows all")
				break
			}
			if a.opts.JSON {
				if err := a.out.line(s); err != nil {
					return err
				}
				continue
			}
			rows = append(rows, []cell{
				plainCell(s.GetName()), plainCell(s.GetHost()), sessionCell(s), plainCell(firstOf(s.GetShell(), "-")), plainCell(keeperText(s)),
				plainCell(whoText(s)), plainCell(firstOf(s.GetCurrentCommand(), "-")),
				plainCell(a.out.ago(s.GetCreateTime())), plainCell(a.out.ago(s.GetLastActivityTime())),
			})
		}
		if a.opts.JSON {
			return nil
		}
		return a.out.table([]string{"NAME", "HOST", "STATE", "SHELL", "KEEPER", "WHO", "RUNS", "OPENED", "ACTIVE"}, rows)
	})
}

// sessionCell is the state as it is shown: an end by its reason.
func sessionCell(s *telexecv1.Session) cell {
	switch s.GetState() {
	case telexecv1.SessionState_SESSION_STATE_OPEN:
		if s.GetConnection() == telexecv1.Connection_CONNECTION_RECONNECTING {
			return cell{"reconnecting", yellow}
		}
		return cell{"open", green}
	case telexecv1.SessionState_SESSION_STATE_ENDED:
		return cell{"ended: " + firstOf(s.GetEnd().GetReason(), "-"), grey}
	}
	return plainCell(enum(s.GetState().String(), "SESSION_STATE_"))
}

func keeperText(s *telexecv1.Session) string {
	switch s.GetKeeper() {
	case telexecv1.Keeper_KEEPER_UNSPECIFIED, telexecv1.Keeper_KEEPER_NONE:
		return "-"
	}
	return enum(s.GetKeeper().String(), "KEEPER_")
}

// whoText names the viewers, the one with the keyboard with an asterisk.
func whoText(s *telexecv1.Session) string {
	var names []string
	for _, v := range s.GetViewers() {
		name := v.GetActor().GetPrincipal()
		if v.GetId() == s.GetKeyboard() {
			name += "*"
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return firstOf(strings.Join(names, " "), "-")
}

type sessionRunCmd struct {
	Detach     bool              `short:"d" help:"Do not wait: print the command's id and leave."`
	IfBusy     string            `enum:"wait,refuse" default:"wait" placeholder:"WHAT" help:"While another command runs there: wait for its end, or refuse (wait, refuse; default ${default})."`
	Timeout    time.Duration     `placeholder:"TIME" help:"End the command when it has run so long; exit code 124."`
	Priority   int32             `placeholder:"N" help:"Higher goes first among those that wait, -100 to 100."`
	Label      map[string]string `placeholder:"KEY=VALUE" mapsep:"none" help:"Label to find the command by. May be repeated."`
	RedactFile string            `placeholder:"FILE" type:"path" help:"File with values to mask in the output, one per line."`
	RequestID  string            `placeholder:"ID" help:"Run once however often it is asked for with this id (default: a new one each time)."`
	ActionType string            `placeholder:"TYPE" help:"The kind of action, for policies."`

	Session hostWord `arg:"" passthrough:"partial" help:"Name or id of the session."`
	Command []string `arg:"" help:"One argument is a line for the shell; several are a program and its arguments, quoted for it."`
}

// Help is shown by session run --help.
func (sessionRunCmd) Help() string {
	return `The command is typed in the session, where whoever is there sees it. One runs at a time. What it leaves behind
stays: the directory, variables, a virtual environment, the shell of a sudo -i. It has no standard input of its own: what
it asks is answered at the terminal, with telexec session attach or keys.

The output is the command's own, byte for byte, as its terminal has it. Where the shell does not tell the ends of
commands (a device, a nested ssh), it is all that was shown until the end, the prompt that follows included.

Examples:

    telexec session run deploy 'cd /srv/app && . venv/bin/activate'
    telexec session run deploy ./manage.py migrate
    telexec session run --if-busy refuse deploy systemctl restart app

Ctrl-C interrupts the command; a second one cancels it and tells what came of it; a third leaves it alone.
` + exitCodesHelp + `
Where a shell tells no exit codes, as on a network device, and the end was recognised by a prompt or by silence: 125.`
}

// Run starts the command and follows it.
func (c *sessionRunCmd) Run(ctx context.Context, a *app) error {
	if err := named(string(c.Session)); err != nil {
		return err
	}
	line, argv, err := commandWords(string(c.Session), c.Command)
	if e, ok := errors.AsType[*exitError](err); ok {
		return e.withHint("telexec session run --help has examples")
	}
	if line == "" {
		words := make([]string, len(argv))
		for i, w := range argv {
			words[i] = shellWord(w)
		}
		line = strings.Join(words, " ")
	}
	req := &telexecv1.ExecuteRequest{
		RequestId: c.RequestID, Session: string(c.Session), Command: line, Wait: durationpb.New(0),
		IfBusy:   telexecv1.IfBusy(telexecv1.IfBusy_value["IF_BUSY_"+enumName(c.IfBusy)]),
		Priority: c.Priority, Labels: c.Label, ActionType: c.ActionType,
		Output: &telexecv1.OutputOptions{Omit: true},
	}
	if c.Timeout != 0 {
		req.Timeout = durationpb.New(c.Timeout)
	}
	if err := (&runCmd{RedactFile: c.RedactFile}).secrets(a.env, req); err != nil {
		return err
	}
	f := &follower{app: a, gate: gate{out: a.out}}
	f.client, err = a.dial(singleCall)
	if err != nil {
		return err
	}
	defer f.client.Close()
	cmd, err := f.start(ctx, req)
	if err != nil {
		return err
	}
	if c.Detach {
		return f.detach(cmd)
	}
	if waits(a.env.Stdin) {
		a.out.tell("what comes on standard input is not typed into a session: telexec session keys types, telexec run sends it to a command")
	}
	return f.follow(ctx, cmd)
}

// waits reports whether there is something to read in a pipe or a file, and reads nothing.
func waits(r io.Reader) bool {
	f, ok := r.(*os.File)
	if _, isTerminal := terminal(r); !ok || isTerminal {
		return false
	}
	info, err := f.Stat()
	switch {
	case err != nil:
		return false
	case info.Mode().IsRegular():
		at, err := f.Seek(0, io.SeekCurrent)
		return err == nil && at < info.Size()
	case info.Mode()&os.ModeNamedPipe == 0:
		return false // of a device, such as /dev/null, nobody expects it
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return false
	}
	there := false
	_ = raw.Control(func(fd uintptr) { // which fails where it is closed
		polled := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(polled, 0)
		there = n > 0 && err == nil && polled[0].Revents&unix.POLLIN != 0
	})
	return there
}

type sessionShowCmd struct {
	Session string `arg:"" help:"Name or id of the session."`
}

// Run shows a session.
func (c *sessionShowCmd) Run(ctx context.Context, a *app) error {
	if err := named(c.Session); err != nil {
		return err
	}
	return a.session(ctx, func(ctx context.Context, cl *client.Client) error {
		s, err := cl.GetSession(ctx, c.Session)
		if err != nil {
			return err
		}
		return a.showSession(s)
	})
}

func (a *app) showSession(s *telexecv1.Session) error {
	if a.opts.JSON {
		return a.out.document(s)
	}
	f := facts{}
	f.add("Session", s.GetName())
	f.add("Id", s.GetId())
	state := sessionCell(s)
	f.paint("State", state.text, state.colour)
	if end := s.GetEnd(); end != nil {
		f.lines("Why", failureText(end), "")
		f.lines("", end.GetHint(), "")
	}
	if s.ExitCode != nil {
		f.add("Exit code", strconv.Itoa(int(s.GetExitCode())))
	}
	f.add("Host", s.GetHost())
	f.add("Shell", s.GetShell())
	f.add("Ends are told by", enum(s.GetCompletion().String(), "COMPLETION_"))
	f.add("Kept by", because(keeperText(s), s.GetKeeperReason()))
	f.add("Size", fmt.Sprintf("%dx%d", s.GetColumns(), s.GetRows()))
	f.add("Title", s.GetTitle())
	f.add("Labels", labelText(s.GetLabels()))
	f.add("Opened by", actor(s.GetCreatedBy()))
	f.add("Opened", a.out.moment(s.GetCreateTime()))
	if s.GetEndTime() != nil {
		f.add("Ended", a.out.moment(s.GetEndTime()))
	}
	if s.GetLastActivityTime() != nil {
		f.add("Last activity", a.out.moment(s.GetLastActivityTime()))
	}
	if s.GetIdleTimeout() != nil {
		f.add("Closed when idle", "for "+humanDuration(s.GetIdleTimeout().AsDuration()))
	}
	if s.GetExpireTime() != nil && s.GetEndTime() == nil {
		f.add("Closed at", a.out.moment(s.GetExpireTime()))
	}
	f.add("Runs", s.GetCurrentCommand())
	for i, v := range s.GetViewers() {
		key := ""
		if i == 0 {
			key = "Who is there"
		}
		f.add(key, viewerText(v, s.GetKeyboard()))
	}
	if s.GetRecorded() {
		recording := "telexec session replay " + s.GetName()
		if s.RecordingTruncatedOffset != nil {
			recording += "; it ends at " + size(s.GetRecordingTruncatedOffset())
		}
		f.add("Recording", recording)
	}
	return a.out.columns(f.rows)
}

// viewerText is "anna via web (Firefox), writer, has the keyboard".
func viewerText(v *telexecv1.Viewer, keyboard string) string {
	s := actor(v.GetActor())
	if v.GetLabel() != "" {
		s += " (" + v.GetLabel() + ")"
	}
	s += ", " + enum(v.GetRole().String(), "VIEWER_ROLE_")
	if v.GetId() == keyboard {
		s += ", has the keyboard"
	}
	return s
}

type sessionScreenCmd struct {
	Lines int32 `placeholder:"N" help:"So many lines of scrollback before it, at most 10000."`

	Session string `arg:"" help:"Name or id of the session."`
}

// Run prints the screen.
func (c *sessionScreenCmd) Run(ctx context.Context, a *app) error {
	if err := errors.Join(named(c.Session), linesFit(c.Lines)); err != nil {
		return err
	}
	return a.session(ctx, func(ctx context.Context, cl *client.Client) error {
		screen, err := cl.ReadScreen(ctx, &telexecv1.ReadScreenRequest{Session: c.Session, ScrollbackLines: c.Lines})
		if err != nil {
			return err
		}
		return a.printScreen(screen)
	})
}

func (a *app) printScreen(screen *telexecv1.ReadScreenResponse) error {
	if a.opts.JSON {
		return a.out.document(screen)
	}
	lines := screen.GetLines()
	for len(lines) > 0 && lines[len(lines)-1] == "" { // below the last that was written
		lines = lines[:len(lines)-1]
	}
	for _, l := range lines {
		if _, err := io.WriteString(a.out.stdout, printable(l)+"\n"); err != nil {
			return err
		}
	}
	return nil
}

type sessionCloseCmd struct {
	Reason string `allowempty:"" placeholder:"TEXT" help:"Why; shown to whoever is there, and kept."`

	Session []string `arg:"" help:"Names or ids of the sessions."`
}

// Help is shown by session close --help.
func (sessionCloseCmd) Help() string {
	return `Ends the shell and what runs in it, and tells what proves it. Harmless when the session has ended before.
Exit code 1: something is left, or the host cannot be asked.

Examples:

    telexec session close deploy --reason 'deployed'`
}

// Run closes sessions, one after the other.
func (c *sessionCloseCmd) Run(ctx context.Context, a *app) error {
	return a.session(ctx, func(ctx context.Context, cl *client.Client) error {
		code := 0
		for _, name := range c.Session {
			resp, err := cl.CloseSession(ctx, &telexecv1.CloseSessionRequest{Session: name, Reason: c.Reason})
			if err != nil {
				if len(c.Session) == 1 || ctx.Err() != nil {
					return err
				}
				code = a.report(err)
				continue
			}
			switch {
			case a.opts.JSON && len(c.Session) > 1:
				err = a.out.line(resp)
			case a.opts.JSON:
				err = a.out.document(resp)
			default:
				err = a.out.columns(closedRows(resp))
			}
			if err != nil {
				return err
			}
			if r := resp.GetReport(); r != nil && !cancelDone(r) && code == 0 {
				code = exitNo
			}
		}
		if code != 0 {
			return &exitError{code: code}
		}
		return nil
	})
}

func closedRows(resp *telexecv1.CloseSessionResponse) [][]cell {
	s := resp.GetSession()
	text := sessionCell(s).text
	if r := resp.GetReport(); r != nil {
		text += "; " + cancelText(r)
	}
	rows := [][]cell{{plainCell(s.GetName()), plainCell(text)}}
	for _, p := range resp.GetReport().GetLeft() {
		rows = append(rows, []cell{{"left", red}, plainCell(processText(p))})
	}
	return rows
}

// What the service takes, told here in the words of the flags.
const (
	mostLines  = 10_000
	mostSettle = 5 * time.Second
	leastIdle  = time.Minute
	mostIdle   = 365 * 24 * time.Hour
)

// named refuses the name of a session that is empty.
func named(session string) error {
	if session != "" {
		return nil
	}
	return failure("the name of the session is empty").withHint("Is a variable not set, or has a $(…) failed?")
}

// linesFit refuses what --lines cannot be.
func linesFit(lines int32) error {
	if lines >= 0 && lines <= mostLines {
		return nil
	}
	return failure("--lines is from 0 to %d", mostLines)
}
