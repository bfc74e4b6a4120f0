package api

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/session"
)

// AttachOptions says how to attach.
type AttachOptions struct {
	Role       session.Role  // empty: what the caller may be
	Size       *session.Size // of its window; nil: it has none
	From       *int64        // go on here where that can be; nil: the screen first
	Window     int           // bytes on their way; 0: what is usual
	Scrollback int           // lines with the screen; below 0: what is usual
	Label      string        // what the client calls itself
}

// Attachment is somebody who is attached.
type Attachment struct {
	ID   string // of the viewer
	Role session.Role
	Viewer
}

// Viewer is a terminal as one viewer has it. Next is for one goroutine; the others may
// be called at the same time.
type Viewer interface {
	// Next waits for what comes next; io.EOF behind TerminalEnded. After an error of ctx
	// it may be called again: nothing is lost.
	Next(ctx context.Context) (TerminalEvent, error)
	// Input types; KEYBOARD_TAKEN, TYPING_NOT_ALLOWED.
	Input(ctx context.Context, data []byte) error
	// Resize tells the size of the viewer's window.
	Resize(size session.Size)
	// Acknowledge says that the viewer has taken all output before the offset.
	Acknowledge(offset int64)
	// Keyboard takes, releases or hands over the keyboard; viewer is who gets it then.
	Keyboard(ctx context.Context, a KeyboardAction, viewer string) error
	// Close ends the attachment; Next then fails.
	Close()
}

// KeyboardAction is what a viewer does with the keyboard.
type KeyboardAction uint8

// The actions.
const (
	TakeKeyboard KeyboardAction = iota + 1
	ReleaseKeyboard
	HandOverKeyboard
)

// TerminalEventKind is what a TerminalEvent tells.
type TerminalEventKind uint8

// The kinds. The first event is TerminalAttached, the last is TerminalEnded.
const (
	TerminalAttached TerminalEventKind = iota // Session; Offset is where the output goes on, Resumed whether that is what was asked for
	TerminalScreen                            // Screen
	TerminalOutput                            // Data at Offset
	TerminalSession                           // Session has changed
	TerminalCommand                           // CommandID was begun at Offset, or has ended there: Over
	TerminalTyped                             // Typist has typed
	TerminalEnded                             // Session is over
)

// TerminalEvent is one thing that a viewer is told.
type TerminalEvent struct {
	Kind      TerminalEventKind
	Session   *session.Session
	Screen    *Picture
	Offset    int64
	Data      []byte
	CommandID string
	Over      bool // of TerminalCommand
	Typist    *session.Viewer
	Resumed   bool
}

// Picture is a screen as a terminal of its size can be given it.
type Picture struct {
	Offset   int64 // of the first byte of output behind it
	Data     []byte
	Size     session.Size
	Commands []CommandLine // that were begun in the lines of Data
}

// CommandLine is where a command was begun.
type CommandLine struct {
	ID   string
	Line int // 0 is the first of a Picture's data
}

// Refusals is told of what is refused while a call goes on; those of calls themselves
// the door tells.
type Refusals interface {
	// Tell tells of one. It does not fail, and waits only for a moment.
	Tell(ctx context.Context, e audit.Entry)
}

// endWithin is how long the end of a command may take to be stored once it has
// shown on the terminal.
const endWithin = 3 * time.Second

// startWithin is how long a call may take to say which session it is about.
const startWithin = 15 * time.Second

// Attach is of SessionService. Two goroutines have the stream: this one tells what
// happens, the other one does what the viewer asks for, and either ends both. What is
// told comes under a lock, since a refusal is told by the other one.
func (s *Sessions) Attach(stream grpc.BidiStreamingServer[telexecv1.AttachRequest, telexecv1.AttachResponse]) error {
	start, err := awaitStart(stream)
	if err != nil {
		return err
	}
	// What ends the call ends also the other goroutine, which may be in the middle of typing.
	ctx, end := context.WithCancelCause(stream.Context())
	defer end(nil)
	by := caller(ctx)
	one, err := s.shells.Get(ctx, by, start.GetSession())
	if err != nil {
		return err
	}
	// By its id: meanwhile another may have got the name.
	to, err := s.terminals.Attach(ctx, by, one.ID, attachOptionsFromProto(start))
	if err != nil {
		return err
	}
	v := &viewing{sessions: s, by: by, stream: stream, to: to, session: one.ID, host: one.Spec.Host, told: map[string]bool{}}
	defer v.fallSilent()
	defer v.ends.Wait()
	defer end(nil)
	defer to.Close()
	go func() {
		if err := v.listen(ctx); err != nil {
			end(err)
		}
	}()
	err = v.tellAll(ctx)
	cause := context.Cause(ctx)
	switch {
	case cause == nil || stream.Context().Err() != nil:
		return err
	case cause == errLeft:
		return nil
	}
	return cause // why the other one has ended it
}

// errLeft is the end of a call whose viewer has said all that it had to say.
var errLeft = errors.New("the viewer has left")

// awaitStart waits for the first request, but not for ever. When it gives up, the end of
// the call ends the wait, too.
func awaitStart(stream grpc.BidiStreamingServer[telexecv1.AttachRequest, telexecv1.AttachResponse]) (*telexecv1.AttachStart, error) {
	type first struct {
		r   *telexecv1.AttachRequest
		err error
	}
	came := make(chan first, 1)
	go func() {
		r, err := stream.Recv()
		came <- first{r, err}
	}()
	most := time.NewTimer(startWithin)
	defer most.Stop()
	select {
	case f := <-came:
		return attachStart(f.r, f.err)
	case <-most.C:
		return nil, fault.New(fault.DeadlineExceeded, fault.ReasonCallDeadline, "nothing was said for %s of the session that the call is about", startWithin).
			WithHint("Send start with a session first")
	}
}

// attachStart gives the first request, which is a start.
func attachStart(r *telexecv1.AttachRequest, err error) (*telexecv1.AttachStart, error) {
	switch {
	case errors.Is(err, io.EOF):
		return nil, invalid("start", "is missing", "the call ended before it said which session it is about").
			WithHint("Send start with a session first")
	case err != nil:
		return nil, err
	case r.GetStart() == nil:
		return nil, invalid("start", "must come first", "the first request says something else than start").
			WithHint("Send start with a session first")
	case r.GetStart().GetSession() == "":
		return nil, invalid("start.session", "is missing", "start names no session").
			WithHint("Give the name or the id of a session; ListSessions has them")
	}
	return r.GetStart(), nil
}

// viewing is one attachment of one call.
type viewing struct {
	sessions *Sessions
	by       access.Caller
	to       Attachment

	session, host string // of the session: its id, and where it is

	sending sync.Mutex // held while the stream sends
	silent  bool       // the call is about to be answered
	stream  grpc.BidiStreamingServer[telexecv1.AttachRequest, telexecv1.AttachResponse]

	ends sync.WaitGroup // of goroutines that wait for the end of a command

	told map[string]bool // reasons of refusals that the audit has; of listen
}

func (v *viewing) send(m *telexecv1.AttachResponse) error {
	v.sending.Lock()
	defer v.sending.Unlock()
	if v.silent {
		return io.EOF
	}
	m.Time = timestamppb.Now()
	return v.stream.Send(m)
}

// fallSilent sees to it that nothing is sent any more: not on a stream that is answered.
func (v *viewing) fallSilent() {
	v.sending.Lock()
	defer v.sending.Unlock()
	v.silent = true
}

// listen does what the viewer asks for. When the viewer has nothing more to say, and has
// typed or asked for something before, the call is over (errLeft): so who leaves knows
// that all of it was done, which who only cancels the call does not. One that has asked
// for nothing goes on looking (nil): what calls with a single request, such as grpcurl,
// closes its side at once. Else it returns why the call is over.
func (v *viewing) listen(ctx context.Context) error {
	for asked := false; ; {
		r, err := v.stream.Recv()
		if errors.Is(err, io.EOF) && asked {
			return errLeft
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		_, acknowledges := r.GetRequest().(*telexecv1.AttachRequest_Acknowledged)
		asked = asked || !acknowledges
		switch said := r.GetRequest().(type) {
		case *telexecv1.AttachRequest_Start:
			return invalid("start", "must come first, and once", "there was a start already").
				WithHint("Attach again, in a call of its own, to begin anew")
		case *telexecv1.AttachRequest_Input:
			err = v.to.Input(ctx, said.Input)
		case *telexecv1.AttachRequest_Resize:
			v.to.Resize(sizeFromProto(said.Resize))
		case *telexecv1.AttachRequest_Acknowledged:
			v.to.Acknowledge(said.Acknowledged)
		case *telexecv1.AttachRequest_Keyboard:
			err = v.to.Keyboard(ctx, keyboardActionFromProto(said.Keyboard.GetAction()), said.Keyboard.GetViewer())
		}
		if err == nil {
			continue
		}
		if ctx.Err() != nil {
			return nil // it is over anyway
		}
		if err := v.refuse(ctx, err); err != nil {
			return err
		}
	}
}

// refuse tells the viewer that something was not done; the call goes on. The audit is
// told once of each reason: somebody may keep a key pressed.
func (v *viewing) refuse(ctx context.Context, err error) error {
	f := fault.From(err)
	if access.RefusedByAccess(err) && !v.told[f.Reason] {
		v.told[f.Reason] = true
		v.sessions.refusals.Tell(ctx, audit.Entry{
			Kind: audit.Refused, Principal: v.by.Name, Origin: string(v.by.Origin), Address: v.by.Address, Call: v.by.Call,
			Method: "SessionService/Attach", Session: v.session, Host: v.host, Reason: f.Reason, Detail: f.Message,
		})
	}
	return v.send(&telexecv1.AttachResponse{Response: &telexecv1.AttachResponse_Refused{
		Refused: &telexecv1.Failure{Reason: f.Reason, Message: f.Message, Hint: f.Hint},
	}})
}

// tellAll tells what happens until the session has ended.
func (v *viewing) tellAll(ctx context.Context) error {
	for {
		ev, err := nextWithin(ctx, v.to.Next, defaultHeartbeat)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, errSilence):
			err = v.send(&telexecv1.AttachResponse{Response: &telexecv1.AttachResponse_Heartbeat{Heartbeat: &telexecv1.AttachHeartbeat{}}})
		case err == nil && ev.Kind == TerminalEnded:
			v.ends.Wait() // what ran in it has ended, too, and ended is the last word
			return v.tell(ctx, ev)
		case err == nil:
			err = v.tell(ctx, ev)
		}
		if err != nil {
			return err
		}
	}
}

func (v *viewing) tell(ctx context.Context, ev TerminalEvent) error {
	m := &telexecv1.AttachResponse{}
	switch ev.Kind {
	case TerminalAttached:
		m.Response = &telexecv1.AttachResponse_Attached{Attached: &telexecv1.Attached{
			Viewer: v.to.ID, Role: roleToProto(v.to.Role), Session: v.sessions.toProto(v.by, *ev.Session), Resumed: ev.Resumed, Offset: ev.Offset,
		}}
	case TerminalScreen:
		return v.tellScreen(ev.Screen)
	case TerminalOutput:
		return v.tellOutput(ev.Offset, ev.Data)
	case TerminalSession:
		m.Response = &telexecv1.AttachResponse_Session{Session: v.sessions.toProto(v.by, *ev.Session)}
	case TerminalCommand:
		return v.tellCommand(ctx, ev)
	case TerminalTyped:
		m.Response = &telexecv1.AttachResponse_Typed{Typed: &telexecv1.Typed{Viewer: ev.Typist.ID, Actor: actorToProto(ev.Typist.Actor)}}
	case TerminalEnded:
		m.Response = &telexecv1.AttachResponse_Ended{Ended: v.sessions.toProto(v.by, *ev.Session)}
	}
	return v.send(m)
}

// tellScreen tells a screen, in messages of at most maxPart bytes; an empty one is a
// message, too.
func (v *viewing) tellScreen(p *Picture) error {
	data, continued := p.Data, false
	for {
		part := data[:min(len(data), maxPart)]
		data = data[len(part):]
		screen := &telexecv1.Screen{
			Offset: p.Offset, Data: part, Columns: int32(p.Size.Columns), Rows: int32(p.Size.Rows), Continued: continued,
		}
		if !continued {
			screen.Commands = commandLinesToProto(p.Commands)
		}
		if err := v.send(&telexecv1.AttachResponse{Response: &telexecv1.AttachResponse_Screen{Screen: screen}}); err != nil || len(data) == 0 {
			return err
		}
		continued = true
	}
}

// tellOutput tells a run of output, in messages of at most maxPart bytes.
func (v *viewing) tellOutput(offset int64, data []byte) error {
	for part := range slices.Chunk(data, maxPart) {
		if err := v.send(&telexecv1.AttachResponse{Response: &telexecv1.AttachResponse_Output{
			Output: &telexecv1.TerminalOutput{Offset: offset, Data: part},
		}}); err != nil {
			return err
		}
		offset += int64(len(part))
	}
	return nil
}

// tellCommand tells of a command that was begun, or has ended, at a place of the
// output. That a command has ended shows on the terminal a moment before it is stored
// how: it is then told a moment later, while the output goes on.
func (v *viewing) tellCommand(ctx context.Context, ev TerminalEvent) error {
	s, err := v.sessions.engine.Get(ctx, v.by, ev.CommandID)
	switch kind := fault.KindOf(err); {
	case err == nil:
	case ctx.Err() != nil:
		return ctx.Err()
	case kind == fault.NotFound, kind == fault.PermissionDenied: // it has gone, or is not for this caller
		return nil
	default:
		return err
	}
	if ev.Over && !s.Ended() {
		v.ends.Go(func() { v.tellEnd(ctx, ev) })
		return nil
	}
	return v.sendCommand(s, ev.Offset)
}

// tellEnd waits until the end of a command is stored, and tells it. One that is not
// stored in time is not told here: it is no end yet.
func (v *viewing) tellEnd(ctx context.Context, ev TerminalEvent) {
	bounded, cancel := context.WithTimeout(ctx, endWithin)
	defer cancel()
	s, err := v.sessions.engine.Await(bounded, ev.CommandID, func(Snapshot) bool { return false })
	if err == nil && ctx.Err() == nil && s.Ended() {
		// Where it fails the call is over, and the other goroutine notices.
		_ = v.sendCommand(s, ev.Offset)
	}
}

func (v *viewing) sendCommand(s Snapshot, offset int64) error {
	return v.send(&telexecv1.AttachResponse{Response: &telexecv1.AttachResponse_Command{
		Command: &telexecv1.SessionCommand{Command: commandToProto(s, time.Now()), Offset: offset},
	}})
}
