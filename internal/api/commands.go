package api

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
)

// maxPageBytes ends a page early: gRPC clients take messages of 4 MiB unless told
// otherwise, and a command line may have 120 kB.
const maxPageBytes = 2 << 20

// Commands answers for CommandService.
type Commands struct {
	telexecv1.UnsafeCommandServiceServer // a new call of the proto does not compile until it is answered

	engine Engine
	output Output
	typing Typing
	shells Shells
	wait   time.Duration
}

// NewCommands makes the service. defaultWait is how long Execute waits for the
// end where the caller does not say.
func NewCommands(e Engine, o Output, t Typing, s Shells, defaultWait time.Duration) *Commands {
	return &Commands{engine: e, output: o, typing: t, shells: s, wait: defaultWait}
}

// Execute is of CommandService.
func (c *Commands) Execute(ctx context.Context, r *telexecv1.ExecuteRequest) (*telexecv1.ExecuteResponse, error) {
	spec, err := specFromProto(r)
	if err != nil {
		return nil, err
	}
	wait := c.wait
	if r.GetWait() != nil {
		wait = r.GetWait().AsDuration()
	}
	o := ExecuteOptions{RefuseBusy: r.GetIfBusy() == telexecv1.IfBusy_IF_BUSY_REFUSE}
	s, replayed, err := c.engine.Execute(ctx, caller(ctx), spec, o)
	if err != nil {
		return nil, err
	}
	// Whoever must approve it may take hours; whoever asked is told at once.
	waits := func(s Snapshot) bool { return s.State == command.AwaitingApproval }
	if s, err = c.await(ctx, s, wait, waits); err != nil {
		return nil, accepted(err, s.ID)
	}
	stdout, stderr, err := c.contents(ctx, s, r.GetOutput())
	if err != nil {
		return nil, accepted(err, s.ID)
	}
	return &telexecv1.ExecuteResponse{Command: commandToProto(s, time.Now()), Stdout: stdout, Stderr: stderr, Replayed: replayed}, nil
}

// accepted adds the id of the command to a failure that came after it was
// accepted, so that it can be asked for.
func accepted(err error, id string) error {
	e := *fault.From(err)
	facts := map[string]string{"command_id": id}
	for k, v := range e.Metadata {
		facts[k] = v
	}
	e.Metadata = facts
	return &e
}

// await waits until the command has ended or enough says so, at most as long as
// asked, and no longer than leaves time for the answer before the call's own
// deadline.
func (c *Commands) await(ctx context.Context, s Snapshot, asked time.Duration, enough func(Snapshot) bool) (Snapshot, error) {
	if s.Ended() || asked <= 0 || enough(s) {
		return s, nil
	}
	bounded, cancel := context.WithTimeout(ctx, waitWithin(ctx, asked))
	defer cancel()
	later, err := c.engine.Await(bounded, s.ID, enough)
	if err != nil {
		return s, err
	}
	// Whoever went away gets no answer; the command goes on.
	return later, ctx.Err()
}

// waitWithin shortens a wait so that the answer comes before the deadline of
// ctx: by 5 %, at least 250 ms, at most half of what is left.
func waitWithin(ctx context.Context, asked time.Duration) time.Duration {
	deadline, ok := ctx.Deadline()
	if !ok {
		return asked
	}
	left := time.Until(deadline)
	margin := min(max(left/20, 250*time.Millisecond), left/2)
	return min(asked, left-margin)
}

// GetStatus is of CommandService.
func (c *Commands) GetStatus(ctx context.Context, r *telexecv1.GetStatusRequest) (*telexecv1.GetStatusResponse, error) {
	s, noTask, err := c.asked(ctx, r)
	if err != nil {
		return nil, err
	}
	if noTask {
		return &telexecv1.GetStatusResponse{NoTask: true}, nil
	}
	if s, err = c.await(ctx, s, r.GetWait().AsDuration(), news(r)); err != nil {
		return nil, err
	}
	stdout, stderr, err := c.contents(ctx, s, r.GetOutput())
	if err != nil {
		return nil, err
	}
	return &telexecv1.GetStatusResponse{Command: commandToProto(s, time.Now()), Stdout: stdout, Stderr: stderr}, nil
}

// asked gives the command that a request asks for, by its id or by its session.
func (c *Commands) asked(ctx context.Context, r *telexecv1.GetStatusRequest) (s Snapshot, noTask bool, err error) {
	if r.GetSession() != "" {
		return c.typing.Current(ctx, caller(ctx), r.GetSession())
	}
	s, err = c.engine.Get(ctx, caller(ctx), r.GetCommandId())
	return s, false, err
}

// news tells what a long-poll waits for: a newer version, bytes behind an
// offset, and without either only the end, which is always enough.
func news(r *telexecv1.GetStatusRequest) func(Snapshot) bool {
	o := r.GetOutput()
	return func(s Snapshot) bool {
		switch {
		case r.IfVersionGreaterThan != nil && s.Version > r.GetIfVersionGreaterThan():
			return true
		case o.GetOmit():
			return false
		case o != nil && o.StdoutOffset != nil && s.Size[command.Stdout] > o.GetStdoutOffset():
			return true
		case o != nil && o.StderrOffset != nil && s.Size[command.Stderr] > o.GetStderrOffset():
			return true
		}
		return false
	}
}

// Cancel is of CommandService.
func (c *Commands) Cancel(ctx context.Context, r *telexecv1.CancelRequest) (*telexecv1.CancelResponse, error) {
	grace := time.Duration(-1)
	if r.GetGrace() != nil {
		grace = r.GetGrace().AsDuration()
	}
	if r.GetSession() != "" {
		s, report, noTask, err := c.typing.CancelSession(ctx, caller(ctx), r.GetSession(), grace, r.GetReason())
		if err != nil {
			return nil, err
		}
		if noTask {
			return &telexecv1.CancelResponse{NoTask: true}, nil
		}
		return &telexecv1.CancelResponse{Command: commandToProto(s, time.Now()), Report: reportToProto(report)}, nil
	}
	s, report, err := c.engine.Cancel(ctx, caller(ctx), r.GetCommandId(), grace, r.GetReason())
	if err != nil {
		return nil, err
	}
	return &telexecv1.CancelResponse{Command: commandToProto(s, time.Now()), Report: reportToProto(report)}, nil
}

// Signal is of CommandService.
func (c *Commands) Signal(ctx context.Context, r *telexecv1.SignalRequest) (*telexecv1.SignalResponse, error) {
	name := r.GetSignal()
	if name == "" {
		name = "INT"
	}
	s, err := c.engine.Signal(ctx, caller(ctx), r.GetCommandId(), name)
	if err != nil {
		return nil, err
	}
	return &telexecv1.SignalResponse{Command: commandToProto(s, time.Now())}, nil
}

// SendInput is of CommandService.
func (c *Commands) SendInput(ctx context.Context, r *telexecv1.SendInputRequest) (*telexecv1.SendInputResponse, error) {
	total, err := c.engine.Input(ctx, caller(ctx), r.GetCommandId(), r.GetData(), r.GetEof())
	if err != nil {
		return nil, err
	}
	return &telexecv1.SendInputResponse{StdinBytes: total}, nil
}

// ListCommands is of CommandService.
func (c *Commands) ListCommands(ctx context.Context, r *telexecv1.ListCommandsRequest) (*telexecv1.ListCommandsResponse, error) {
	unpaged := proto.CloneOf(r)
	unpaged.PageSize, unpaged.PageToken = 0, ""
	cursor, err := pageCursor(unpaged, r.GetPageToken())
	if err != nil {
		return nil, err
	}
	f, none := filterFromProto(r)
	if none {
		return &telexecv1.ListCommandsResponse{}, nil
	}
	if r.GetSession() != "" { // ids are what commands are stored with: names come and go
		in, err := c.shells.Get(ctx, caller(ctx), r.GetSession())
		if err != nil {
			return nil, err
		}
		f.Session = in.ID
	}
	size := pageSize(r.GetPageSize())
	f.Before, f.Limit = cursor, size+1 // one more tells whether there is a next page
	list, err := c.engine.List(ctx, caller(ctx), f)
	if err != nil {
		return nil, err
	}
	page, bytes, now := &telexecv1.ListCommandsResponse{}, 0, time.Now()
	for i, s := range list {
		p := commandToProto(s, now)
		bytes += proto.Size(p)
		if i == size || i > 0 && bytes > maxPageBytes {
			page.NextPageToken = pageToken(unpaged, list[i-1].ID)
			break
		}
		page.Commands = append(page.Commands, p)
	}
	return page, nil
}
