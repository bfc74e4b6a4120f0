package socket

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/coder/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/telemetry"
)

// requestIDKey is the metadata by which the gRPC server is told the id of a call.
const requestIDKey = "x-request-id"

const (
	// maxCalls is how many requests of a socket may be under way, and maxSubscriptions
	// how many subscriptions it may have.
	maxCalls         = 32
	maxSubscriptions = 64
	// maxAnswers is how many answers may wait for a client to read; then nothing more is
	// read of it.
	maxAnswers = 64
)

// receive does what a message asks for. It waits only where too many answers wait.
// Calls live by ctx, subscriptions by watching.
func (k *socket) receive(ctx, watching context.Context, kind websocket.MessageType, data []byte) {
	if k.ends() {
		return
	}
	if k.terminal != nil {
		k.terminal.receive(kind, data)
		return
	}
	r, id, err := decodeRequest(k.binary, kind, data, k.set.o.Unmarshal)
	if broken, ok := errors.AsType[unreadable](err); ok {
		k.end(broken.code, "the message cannot be read", broken.why)
		return
	}
	if !k.owe() {
		return
	}
	if err != nil {
		k.fail(message{id: id, answers: true}, err)
		return
	}
	k.take(ctx, watching, r)
}

// owe counts one more answer to be written. It waits while there are too many, and
// gives false when the socket ends meanwhile.
func (k *socket) owe() bool {
	for {
		k.mu.Lock()
		ok, ends := k.pending < maxAnswers, k.ending != nil || k.wire.over()
		if ok && !ends {
			k.pending++
		}
		k.mu.Unlock()
		if ok || ends {
			return !ends
		}
		<-k.answered
	}
}

// take does what a request asks for.
func (k *socket) take(ctx, watching context.Context, r *telexecv1.SocketRequest) {
	id := r.GetId()
	if err := k.begin(r); err != nil {
		k.fail(message{id: id, answers: true}, err)
		return
	}
	commands, tasks := telexecv1.NewCommandServiceClient(k.set.o.Conn), telexecv1.NewTaskServiceClient(k.set.o.Conn)
	switch q := r.GetRequest().(type) {
	case *telexecv1.SocketRequest_SubscribeOutput:
		k.settle()
		k.subscribeOutput(watching, id, q.SubscribeOutput)
	case *telexecv1.SocketRequest_SubscribeEvents:
		k.settle()
		k.subscribeEvents(watching, id, q.SubscribeEvents)
	case *telexecv1.SocketRequest_SubscribeTask:
		k.settle()
		k.subscribeTask(watching, id, q.SubscribeTask)
	case *telexecv1.SocketRequest_Unsubscribe:
		k.unsubscribe(id, q.Unsubscribe.GetSubscription())
	case *telexecv1.SocketRequest_Execute:
		q.Execute.Wait = durationpb.New(0)
		if q.Execute.Output == nil {
			q.Execute.Output = &telexecv1.OutputOptions{}
		}
		q.Execute.Output.Omit = true // the subscription has all of it, and does not wait in memory
		k.tasks.Go(func() { k.execute(ctx, watching, id, q.Execute) })
	case *telexecv1.SocketRequest_Cancel:
		k.tasks.Go(func() {
			answer(ctx, k, id, commandResource(q.Cancel.GetCommandId()), q.Cancel, commands.Cancel, func(a *telexecv1.CancelResponse) (*telexecv1.SocketData, *telexecv1.Command) {
				return &telexecv1.SocketData{Data: &telexecv1.SocketData_Cancel{Cancel: a}}, a.GetCommand()
			})
		})
	case *telexecv1.SocketRequest_Signal:
		k.tasks.Go(func() {
			answer(ctx, k, id, commandResource(q.Signal.GetCommandId()), q.Signal, commands.Signal, func(a *telexecv1.SignalResponse) (*telexecv1.SocketData, *telexecv1.Command) {
				return &telexecv1.SocketData{Data: &telexecv1.SocketData_Signal{Signal: a}}, a.GetCommand()
			})
		})
	case *telexecv1.SocketRequest_Input:
		k.inOrder(q.Input.GetCommandId(), func() {
			answer(ctx, k, id, commandResource(q.Input.GetCommandId()), q.Input, commands.SendInput, func(a *telexecv1.SendInputResponse) (*telexecv1.SocketData, *telexecv1.Command) {
				return &telexecv1.SocketData{Data: &telexecv1.SocketData_Input{Input: a}}, nil
			})
		})
	case *telexecv1.SocketRequest_Decide:
		k.tasks.Go(func() {
			answer(ctx, k, id, taskResource(q.Decide.GetTaskId()), q.Decide, tasks.DecideTask, func(a *telexecv1.DecideTaskResponse) (*telexecv1.SocketData, *telexecv1.Command) {
				return &telexecv1.SocketData{Data: &telexecv1.SocketData_Decide{Decide: a}}, nil
			})
		})
	}
}

// begin takes the id of a request, until finish or the end of the subscription that
// it makes.
func (k *socket) begin(r *telexecv1.SocketRequest) error {
	id := r.GetId()
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, busy := k.calls[id]; busy || k.subs[id] != nil {
		return invalid("a request or a subscription has the id already").WithHint("Choose another id, or wait until that one is over")
	}
	switch r.GetRequest().(type) {
	case *telexecv1.SocketRequest_Unsubscribe:
		return nil // answered at once
	case *telexecv1.SocketRequest_SubscribeOutput, *telexecv1.SocketRequest_SubscribeEvents, *telexecv1.SocketRequest_SubscribeTask, *telexecv1.SocketRequest_Execute:
		if len(k.subs) >= maxSubscriptions {
			return tooMany("the socket has %d subscriptions, and may have no more", maxSubscriptions).WithHint("End one, or open another socket")
		}
		k.subs[id] = &subscription{id: id, room: make(chan struct{}, 1)}
	}
	switch r.GetRequest().(type) {
	case *telexecv1.SocketRequest_SubscribeOutput, *telexecv1.SocketRequest_SubscribeEvents, *telexecv1.SocketRequest_SubscribeTask:
		return nil
	}
	if len(k.calls) >= maxCalls {
		delete(k.subs, id)
		return tooMany("%d requests of the socket are under way, and no more may be", maxCalls).WithHint("Wait for an answer")
	}
	k.calls[id] = struct{}{}
	return nil
}

// finish gives the id of a call back.
func (k *socket) finish(id string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.calls, id)
	k.busy = time.Now()
	notify(k.wake)
}

// outgoing is ctx for one call to the gRPC server, with an id of its own.
func (k *socket) outgoing(ctx context.Context) context.Context {
	md := k.said.Copy()
	md.Set(requestIDKey, telemetry.NewRequestID())
	return metadata.NewOutgoingContext(ctx, md)
}

// answer makes a call and tells what came of it.
func answer[Q, A proto.Message](ctx context.Context, k *socket, id, resource string, request Q, call func(context.Context, Q, ...grpc.CallOption) (A, error), say func(A) (*telexecv1.SocketData, *telexecv1.Command)) {
	defer k.finish(id)
	m := message{id: id, resource: resource, answers: true}
	a, err := call(k.outgoing(ctx), request)
	if err != nil {
		k.fail(m, err)
		return
	}
	var c *telexecv1.Command
	m.data, c = say(a)
	m.version = c.GetVersion()
	k.tell(m)
}

// execute starts a command, and subscribes to its output under the same id.
func (k *socket) execute(ctx, watching context.Context, id string, r *telexecv1.ExecuteRequest) {
	defer k.finish(id)
	a, err := telexecv1.NewCommandServiceClient(k.set.o.Conn).Execute(k.outgoing(ctx), r)
	if err != nil {
		k.mu.Lock()
		delete(k.subs, id)
		k.mu.Unlock()
		k.fail(message{id: id, answers: true}, err)
		return
	}
	k.tell(message{
		id: id, resource: commandResource(a.GetCommand().GetId()), version: a.GetCommand().GetVersion(), answers: true,
		data: &telexecv1.SocketData{Data: &telexecv1.SocketData_Execute{Execute: a}},
	})
	k.subscribeOutput(watching, id, &telexecv1.StreamOutputRequest{CommandId: a.GetCommand().GetId()})
}

// inOrder calls f when all before it for the same command are through.
func (k *socket) inOrder(command string, f func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	before, going := k.inputs[command]
	k.inputs[command] = append(before, f)
	if going {
		return
	}
	k.tasks.Go(func() {
		for {
			k.mu.Lock()
			waiting := k.inputs[command]
			if len(waiting) == 0 {
				delete(k.inputs, command)
				k.mu.Unlock()
				return
			}
			k.inputs[command] = waiting[1:]
			k.mu.Unlock()
			waiting[0]()
		}
	})
}

// commandResource names a command as SocketMessage.resource does.
func commandResource(id string) string { return resourceOf("commands/", id) }

// taskResource names a task likewise.
func taskResource(id string) string { return resourceOf("tasks/", id) }

func resourceOf(collection, id string) string {
	if id = strings.ToValidUTF8(id, "\ufffd"); id == "" || len(id) > maxID {
		return ""
	}
	return collection + id
}
