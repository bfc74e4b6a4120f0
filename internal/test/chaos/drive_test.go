package chaos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

// patience is how much longer than its script a command may take before it
// counts as one that never ends.
const patience = 2 * time.Minute

// drive asks for one command and does to it all that is to be done, until all
// who watch it have seen its end.
func (h *harness) drive(ctx context.Context, r *Record) {
	rnd := rand.New(rand.NewPCG(r.Script.Seed, 4))
	ctx, cancel := context.WithTimeout(ctx, r.Script.ends()+r.Timeout+patience)
	defer cancel()
	defer func() { r.Over(h.now()) }()
	r.Begin(h.now())
	req := h.request(r, rnd)
	if !h.execute(ctx, r, req) {
		return
	}
	var acts sync.WaitGroup
	acts.Go(func() { h.watch(ctx, r, "watcher 1", [2]int64{}, 0) })
	for n := range rnd.IntN(3) {
		name := fmt.Sprintf("watcher %d", n+2)
		late := time.Duration(rnd.Int64N(int64(2 * time.Second)))
		slow := time.Duration(rnd.IntN(2)) * time.Duration(rnd.Int64N(int64(300*time.Millisecond)))
		share := rnd.Float64()
		acts.Go(func() { h.watchLater(ctx, r, name, late, share, slow) })
	}
	polls := rand.New(rand.NewPCG(r.Script.Seed, 5))
	acts.Go(func() { h.poll(ctx, r, polls) })
	if r.Cancel {
		delay := time.Duration(rnd.Float64() * rnd.Float64() * float64(8*time.Second) * r.Script.Pace)
		for n := range 1 + rnd.IntN(2) {
			acts.Go(func() { h.cancel(ctx, r, fmt.Sprintf("canceller %d", n+1), delay) })
		}
	}
	if r.Script.Kind == Fed {
		acts.Go(func() { h.feed(ctx, r) })
	}
	if rnd.IntN(4) == 0 {
		again := time.Duration(rnd.Int64N(int64(4 * time.Second)))
		acts.Go(func() {
			if pause(ctx, again) {
				h.execute(ctx, r, req)
			}
		})
	}
	acts.Wait()
}

// ends is when a script is over by itself, or should be ended from outside.
func (s Script) ends() time.Duration {
	if s.Kind == Endless {
		return 10 * time.Second
	}
	return s.Lasts()
}

func (h *harness) request(r *Record, rnd *rand.Rand) *telexecv1.ExecuteRequest {
	req := &telexecv1.ExecuteRequest{
		RequestId: fmt.Sprintf("chaos-%s-%d", h.run, r.Number),
		Host:      r.Host, Command: h.line(r),
		Env:    map[string]string{mark: h.run},
		Labels: map[string]string{"chaos": h.run},
		Wait:   durationpb.New([]time.Duration{0, 0, 100 * time.Millisecond, 3 * time.Second}[rnd.IntN(4)]),
		Output: &telexecv1.OutputOptions{Omit: true},
	}
	if testing.CoverMode() != "" {
		// Else the actor, which then counts too, would complain on stderr.
		req.Env["GOCOVERDIR"] = h.dir
	}
	if r.Attached {
		req.Durability = telexecv1.Durability_DURABILITY_ATTACHED
	}
	if r.Timeout > 0 {
		req.Timeout = durationpb.New(r.Timeout)
	}
	switch r.Script.Kind {
	case Given:
		req.Stdin = make([]byte, r.Script.Size(Stdout))
		r.Script.Content(Typed, 0, req.Stdin)
	case Fed:
		req.StdinOpen = true
	}
	return req
}

// again reports whether a call that failed is to be made again: the service was
// away, or says itself that it helps.
func again(err error) bool {
	st := status.Convert(err)
	told := false
	for _, d := range st.Details() {
		switch d.(type) {
		case *errdetails.RetryInfo:
			return true
		case *errdetails.ErrorInfo:
			told = true
		}
	}
	// Every error of the service has a reason; without one it is the connection.
	return !told && (st.Code() == codes.Unavailable || st.Code() == codes.Internal || st.Code() == codes.Canceled)
}

// retry makes a call until it is answered; the error is what ended that.
func retry[Req, Resp any](ctx context.Context, call func(context.Context, Req, ...grpc.CallOption) (Resp, error), req Req) (resp Resp, err error) {
	for {
		resp, err = call(ctx, req)
		if err == nil || ctx.Err() != nil || !again(err) || !pause(ctx, 50*time.Millisecond) {
			return resp, err
		}
	}
}

// execute asks for the command, also where it was asked for before, and reports
// whether there was an answer.
func (h *harness) execute(ctx context.Context, r *Record, req *telexecv1.ExecuteRequest) bool {
	asked := h.now()
	tries := 0
	resp, err := retry(ctx, func(ctx context.Context, req *telexecv1.ExecuteRequest, o ...grpc.CallOption) (*telexecv1.ExecuteResponse, error) {
		tries++
		asked = h.now()
		return h.commands.Execute(ctx, req, o...)
	}, req)
	if err != nil {
		r.Note(h.now(), "execute: %v", err)
		return false
	}
	r.Note(h.now(), "execute: %s after %d tries, replayed %t", resp.GetCommand().GetId(), tries, resp.GetReplayed())
	r.Answer(resp.GetCommand().GetId())
	r.See(h.sighting("execute", asked, resp.GetCommand()))
	return true
}

// watchLater watches from somewhere in the middle of what there is.
func (h *harness) watchLater(ctx context.Context, r *Record, name string, late time.Duration, share float64, slow time.Duration) {
	if !pause(ctx, late) {
		return
	}
	var from [2]int64
	if last, ok := r.Last(); ok && share > 0.4 {
		from = [2]int64{int64(float64(last.Size[Stdout]) * share), int64(float64(last.Size[Stderr]) * share)}
	}
	h.watch(ctx, r, name, from, slow)
}

// watch follows the output to the end, over as many connections as it takes. It
// waits so long behind each chunk, until the command has ended.
func (h *harness) watch(ctx context.Context, r *Record, name string, from [2]int64, slow time.Duration) {
	w := NewWatch(name, r.Script, from)
	w.Follow = true
	defer r.Watched(w)
	before := "" // what was noted last: a service that is away is noted once
	for {
		err := h.watchOnce(ctx, r, w, slow)
		if err == nil {
			return
		}
		if status.Code(err) == codes.OutOfRange && r.Attached {
			// The last bytes of an attached run went with the service that had not
			// stored them yet; there is nothing more to see.
			r.Note(h.now(), "%s: %v", name, err)
			w.Done = true
			return
		}
		if ctx.Err() != nil || !again(err) {
			w.Failed(err)
			return
		}
		if what := fmt.Sprintf("%s: cut off at %v: %v", name, w.Next, err); what != before {
			r.Note(h.now(), "%s", what)
			before = what
		}
		if !pause(ctx, 50*time.Millisecond) {
			return
		}
	}
}

var errCutShort = status.Error(codes.Unavailable, "the stream ended without an end")

func (h *harness) watchOnce(ctx context.Context, r *Record, w *Watch, slow time.Duration) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	asked, number := h.now(), int(h.streams.Add(1))
	stream, err := h.commands.StreamOutput(ctx, &telexecv1.StreamOutputRequest{
		CommandId: r.ID(), StdoutOffset: w.Next[Stdout], StderrOffset: w.Next[Stderr], Follow: w.Follow,
	})
	if err != nil {
		return err
	}
	see := func(c *telexecv1.Command) {
		s := h.sighting(w.By, asked, c)
		s.Stream = number
		r.See(s)
	}
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			if w.Done {
				return nil
			}
			return errCutShort
		}
		if err != nil {
			return err
		}
		switch {
		case m.GetChunk() != nil:
			w.Take(streamOf(m.GetChunk().GetStream()), m.GetChunk().GetOffset(), m.GetChunk().GetData())
			if last, _ := r.Last(); slow > 0 && !last.Ended && !pause(ctx, slow) {
				return ctx.Err()
			}
		case m.GetGap() != nil:
			w.Gap(streamOf(m.GetGap().GetStream()), m.GetGap().GetFrom(), m.GetGap().GetTo())
		case m.GetCommand() != nil:
			see(m.GetCommand())
		case m.GetEnded() != nil:
			see(m.GetEnded())
			w.Done = true
		}
	}
}

// poll looks at the command until it has ended, and twice after that: an end
// must stay what it is.
func (h *harness) poll(ctx context.Context, r *Record, rnd *rand.Rand) {
	for after := 0; after < 2; {
		req := &telexecv1.GetStatusRequest{CommandId: r.ID(), Output: &telexecv1.OutputOptions{Omit: true}}
		if rnd.IntN(2) == 0 {
			req.Wait = durationpb.New(time.Duration(rnd.Int64N(int64(time.Second))))
		}
		var asked time.Duration
		resp, err := retry(ctx, func(ctx context.Context, req *telexecv1.GetStatusRequest, o ...grpc.CallOption) (*telexecv1.GetStatusResponse, error) {
			asked = h.now()
			return h.commands.GetStatus(ctx, req, o...)
		}, req)
		if err != nil {
			r.Note(h.now(), "poll: %v", err)
			return
		}
		s := h.sighting("poll", asked, resp.GetCommand())
		r.See(s)
		if s.Ended {
			after++
		}
		if !pause(ctx, 100*time.Millisecond+time.Duration(rnd.Int64N(int64(time.Second)))) {
			return
		}
	}
}

// cancel cancels the command until it has ended.
func (h *harness) cancel(ctx context.Context, r *Record, name string, delay time.Duration) {
	for pause(ctx, delay) {
		asked := h.now()
		resp, err := retry(ctx, h.commands.Cancel, &telexecv1.CancelRequest{CommandId: r.ID(), Reason: name})
		if err != nil {
			r.Note(h.now(), "%s: %v", name, err)
			return
		}
		report := resp.GetReport()
		s := h.sighting(name, asked, resp.GetCommand())
		r.Note(h.now(), "%s (asked at %v): %v after %v: %s %s, left %v", name, asked.Round(time.Millisecond), report.GetOutcome(),
			report.GetDuration().AsDuration(), report.GetSignal(), report.GetMessage(), report.GetLeft())
		r.See(s)
		if s.Ended {
			return
		}
		delay = 300 * time.Millisecond
	}
}

// feed sends a command its input as a good client does, byte for byte, over all
// that happens to the service.
func (h *harness) feed(ctx context.Context, r *Record) {
	data := make([]byte, r.Script.Size(Stdout))
	r.Script.Content(Typed, 0, data)
	n, err := h.client.CopyInput(ctx, r.ID(), &pieces{ctx: ctx, r: bytes.NewReader(data)})
	if err != nil {
		r.Note(h.now(), "input: %v after %d of %d bytes", err, n, len(data))
		return
	}
	r.Note(h.now(), "input: all %d bytes taken", n)
}

// pieces reads a little at a time, so that input takes longer than a fault.
type pieces struct {
	ctx context.Context
	r   *bytes.Reader
}

func (p *pieces) Read(b []byte) (int, error) {
	most := max(1, p.r.Size()/8)
	if !pause(p.ctx, 200*time.Millisecond) {
		return 0, p.ctx.Err()
	}
	return p.r.Read(b[:min(int64(len(b)), most)])
}
