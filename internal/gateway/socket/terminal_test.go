package socket

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

// full is a stream that takes nothing until it is told to.
type full struct {
	grpc.BidiStreamingClient[telexecv1.AttachRequest, telexecv1.AttachResponse]
	take chan struct{}
}

func (s full) Send(*telexecv1.AttachRequest) error {
	<-s.take
	return nil
}

// A client that has typed more than the programs read is not taken for dead: it may
// have answered, and nobody has read it.
func TestWhoHasTypedAheadIsNotDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newSocket(New(Options{}), Visit{Terminal: "build"})
		k.binary, k.terminal.started = true, true
		stream := full{take: make(chan struct{})}
		k.terminal.stream = stream
		typed, err := proto.Marshal(&telexecv1.AttachRequest{Request: &telexecv1.AttachRequest_Input{Input: []byte("x")}})
		if err != nil {
			t.Fatal(err)
		}
		k.heard = time.Now()
		k.asking, k.pinged = true, time.Now().Add(pingEvery)
		go k.terminal.receive(websocket.MessageBinary, typed)
		<-time.After(time.Hour)
		if _, dead := k.look(t.Context()); dead {
			t.Error("dead, while nothing was read of it")
		}
		close(stream.take)
		synctest.Wait()
		if _, dead := k.look(t.Context()); dead {
			t.Error("dead, before its answer could be read")
		}
		<-time.After(laggingWithin)
		if _, dead := k.look(t.Context()); !dead {
			t.Error("not dead, although it has not answered")
		}
	})
}
