package client

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

type eventSink = grpc.ServerStreamingServer[telexecv1.WatchEventsResponse]

const (
	isRunning   = telexecv1.CommandState_COMMAND_STATE_RUNNING
	isCompleted = telexecv1.CommandState_COMMAND_STATE_COMPLETED
)

func changed(sequence int64, id string, version int64, state telexecv1.CommandState) *telexecv1.WatchEventsResponse {
	return &telexecv1.WatchEventsResponse{Sequence: sequence, Event: &telexecv1.WatchEventsResponse_Command{
		Command: &telexecv1.Command{Id: id, Version: version, State: state},
	}}
}

func synced(sequence int64) *telexecv1.WatchEventsResponse {
	return &telexecv1.WatchEventsResponse{Sequence: sequence, Event: &telexecv1.WatchEventsResponse_Synced{Synced: &telexecv1.Synced{}}}
}

func heartbeat(sequence int64) *telexecv1.WatchEventsResponse {
	return &telexecv1.WatchEventsResponse{Sequence: sequence, Event: &telexecv1.WatchEventsResponse_Heartbeat{Heartbeat: &telexecv1.EventHeartbeat{}}}
}

// happens reads events until an error, or until there are most, in short.
func happens(ctx context.Context, c *Client, req *telexecv1.WatchEventsRequest, most int) (told []string, err error) {
	for event, err := range c.Events(ctx, req) {
		switch {
		case err != nil:
			return told, err
		case event.GetCommand() != nil:
			told = append(told, fmt.Sprintf("%s v%d", event.GetCommand().GetId(), event.GetCommand().GetVersion()))
		case event.GetSynced() != nil:
			told = append(told, "synced")
		default:
			told = append(told, "heartbeat")
		}
		if len(told) == most {
			break
		}
	}
	return told, nil
}

// The connection breaks, the service stops and falls silent: the client comes back
// behind what it has, and tells nothing twice that it has told.
func TestEventsResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		var asked []string
		p.events = func(n int, req *telexecv1.WatchEventsRequest, s eventSink) error {
			asked = append(asked, fmt.Sprint(req.After != nil, " ", req.GetAfter(), " ", req.GetHost()))
			say := func(events ...*telexecv1.WatchEventsResponse) {
				for _, e := range events {
					if err := s.Send(e); err != nil {
						t.Error(err)
					}
				}
			}
			switch n {
			case 1:
				say(changed(4, "a", 3, isRunning), synced(4), changed(4, "b", 2, isRunning))
				return dropped
			case 2: // a has not changed, b has; heartbeats raise the number too
				say(changed(4, "a", 3, isRunning), changed(4, "b", 3, isRunning), synced(4), heartbeat(7))
				return refusal(codes.Unavailable, &errdetails.ErrorInfo{Domain: domain, Reason: "DRAINING"}, retryIn(time.Second))
			case 3: // silence
				say(changed(8, "a", 5, isCompleted), changed(8, "b", 3, isRunning), synced(8))
				<-s.Context().Done()
				return s.Context().Err()
			}
			say(changed(8, "b", 3, isRunning), synced(8), changed(9, "b", 4, isCompleted))
			<-s.Context().Done()
			return s.Context().Err()
		}
		c := p.dial(t, Options{})
		told, err := happens(t.Context(), c, &telexecv1.WatchEventsRequest{Host: "h"}, 7)
		want := []string{"a v3", "synced", "b v2", "b v3", "heartbeat", "a v5", "b v4"}
		if err != nil || !slices.Equal(told, want) {
			t.Errorf("told %v, %v", told, err)
		}
		if want := []string{"false 0 h", "true 4 h", "true 7 h", "true 8 h"}; !slices.Equal(asked, want) {
			t.Errorf("asked %v", asked)
		}
		c.Close()
		synctest.Wait()
	})
}

// A place in a queue is news of the same version; told again behind a loss it is not.
func TestEventsTellPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		at := func(position int32) *telexecv1.WatchEventsResponse {
			e := changed(4, "a", 1, telexecv1.CommandState_COMMAND_STATE_QUEUED)
			e.GetCommand().Queue = &telexecv1.Queue{Position: position}
			return e
		}
		p.events = func(n int, req *telexecv1.WatchEventsRequest, s eventSink) error {
			tells := []*telexecv1.WatchEventsResponse{at(3), at(2)}
			if n > 1 {
				tells = []*telexecv1.WatchEventsResponse{at(2), at(1), changed(5, "a", 2, isCompleted)}
			}
			for _, e := range tells {
				if err := s.Send(e); err != nil {
					t.Error(err)
				}
			}
			return dropped
		}
		c := p.dial(t, Options{})
		var places []int32
		for event, err := range c.Events(t.Context(), &telexecv1.WatchEventsRequest{}) {
			if err != nil {
				t.Fatal(err)
			}
			if places = append(places, event.GetCommand().GetQueue().GetPosition()); event.GetSequence() == 5 {
				break
			}
		}
		if want := []int32{3, 2, 1, 0}; !slices.Equal(places, want) {
			t.Errorf("told of the places %v, want %v", places, want)
		}
		c.Close()
		synctest.Wait()
	})
}

func TestEventsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		p.events = func(n int, req *telexecv1.WatchEventsRequest, s eventSink) error {
			return refusal(codes.OutOfRange, &errdetails.ErrorInfo{Domain: domain, Reason: "EVENTS_UNKNOWN"})
		}
		c := p.dial(t, Options{ResumeFor: 5 * time.Second})
		_, err := happens(t.Context(), c, &telexecv1.WatchEventsRequest{After: new(int64(99))}, 1)
		if e, ok := asError(err); !ok || e.Reason != "EVENTS_UNKNOWN" || p.count("WatchEvents") != 1 {
			t.Errorf("%v after %d calls", err, p.count("WatchEvents"))
		}
		p.events = func(n int, req *telexecv1.WatchEventsRequest, s eventSink) error { return dropped }
		start := time.Now()
		if _, err = happens(t.Context(), c, &telexecv1.WatchEventsRequest{}, 1); err == nil || time.Since(start) > 6*time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		p.events = func(n int, req *telexecv1.WatchEventsRequest, s eventSink) error {
			<-s.Context().Done()
			return s.Context().Err()
		}
		if _, err = happens(ctx, c, &telexecv1.WatchEventsRequest{}, 1); err == nil {
			t.Error("the end of the context is no error")
		}
		c.Close()
		synctest.Wait()
	})
}
