package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/test/testenv"
)

var (
	watchRuns = flag.Int("e2e.watches", 1000, "how many watchers of TestAWatcherMissesNothing are cut off again and again")
	watchSeed = flag.Uint64("e2e.seed", 0, "what its cuts come from; 0: the clock")
)

const (
	watchersOfATask = 50               // at once, each cut off in its own way
	tasksAtOnce     = 2                // that are watched
	watchLimit      = 90 * time.Second // for one watcher
)

// TestAWatcherMissesNothing: who watches a task over WebSockets that are cut off at random,
// at a byte or at a moment, in the handshake, in a frame or between two, and who goes on
// behind the last event that it has, is told every event once, in its order. That holds for
// each of the ways to watch a task, also where a watcher changes between them.
//
// It keeps the machine busy, so that it is not parallel: others measure.
func TestAWatcherMissesNothing(t *testing.T) {
	seed := *watchSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("-e2e.seed=%d (when the cuts of time come is up to the machine all the same)", seed)
	env := testenv.Start(t, testenv.WithConfig(`rate_limits:
  principal: {read: 0, stream: 0}
  address: {read: 0, stream: 0}
tasks: {max_running: 2}`)) // so that half of them wait at first
	var cuts atomic.Int64
	next, run := make(chan int), 0 // the numbers of the first watchers of each task
	var all sync.WaitGroup
	for range tasksAtOnce {
		all.Go(func() {
			for first := range next {
				watchOne(t, env, seed, first, min(watchersOfATask, *watchRuns-first), &cuts)
			}
		})
	}
	for ; run < *watchRuns && !t.Failed(); run += watchersOfATask {
		next <- run
	}
	close(next)
	all.Wait()
	t.Logf("%d watchers were cut off %d times", *watchRuns, cuts.Load())
	if !t.Failed() && cuts.Load() < int64(*watchRuns) {
		t.Errorf("%d watchers were cut off only %d times", *watchRuns, cuts.Load())
	}
}

// plots are the tasks that are watched: one that does what it should, on two hosts where
// there are, one that is taken back, and one that fails in the middle.
var plots = [][]*telexecv1.StepSpec{
	{{Command: "true"}, {Command: "echo one; echo two >&2"}},
	{{Command: "true", Undo: "echo back"}, {Command: "echo no; false", OnFailure: "undo"}},
	{{Command: "false", Retry: &telexecv1.Retry{Times: 1, Backoff: durationpb.New(10 * time.Millisecond)}}, {Command: "true"}},
	{{Command: "echo 10 %; echo 90 %", OnFailure: "continue"}, {Command: "true"}, {Command: "true"}},
}

// watchOne runs a task that several watch, and compares what they were told with what
// the service has of it afterwards.
func watchOne(t *testing.T, env *testenv.Env, seed uint64, first, watchers int, cuts *atomic.Int64) {
	ctx, stop := context.WithTimeout(t.Context(), watchLimit)
	defer stop()
	api := telexecv1.NewTaskServiceClient(env.Conn())
	label := fmt.Sprint(first)
	plan := &telexecv1.SubmitTaskRequest{Task: "watched", Labels: map[string]string{"watch": label}}
	for _, s := range plots[first/watchersOfATask%len(plots)] {
		s = proto.CloneOf(s)
		s.Hosts = users(env)
		plan.Steps = append(plan.Steps, s)
	}
	made, err := api.SubmitTask(ctx, plan)
	if err != nil {
		t.Error(err)
		return
	}
	id := made.GetTask().GetId()
	told := make([][]*telexecv1.TaskEvent, watchers) // by watcher
	ended, total := make(chan struct{}), int64(0)    // closed when total is known
	var watching sync.WaitGroup
	for i := range told {
		watching.Go(func() {
			w := &cutWatcher{
				env: env, task: id, label: label, cuts: cuts, random: rand.New(rand.NewPCG(seed, uint64(first+i))),
				over: func() int64 {
					select {
					case <-ended:
					case <-ctx.Done():
					}
					return total
				},
			}
			if err := w.watch(ctx); err != nil {
				t.Errorf("watcher %d of seed %d, behind event %d of %s: %v", first+i, seed, len(w.told), id, err)
			}
			told[i] = w.told
		})
	}
	got, err := api.GetTask(ctx, &telexecv1.GetTaskRequest{TaskId: id, Wait: durationpb.New(watchLimit), Until: telexecv1.TaskWait_TASK_WAIT_ENDED})
	if err != nil || got.GetTask().GetEndTime() == nil {
		t.Errorf("the task %s does not end: %v, %v", id, got, err)
	}
	total = got.GetTask().GetSequence()
	close(ended)
	watching.Wait()
	want, err := eventsOf(ctx, api, id)
	if err != nil || int64(len(want)) != total {
		t.Errorf("%s has %d events, and told %d: %v", id, total, len(want), err)
		return
	}
	for i := range told {
		if len(told[i]) != len(want) {
			t.Errorf("watcher %d of seed %d was told %d events of %d", first+i, seed, len(told[i]), len(want))
			continue
		}
		for j := range want {
			if !proto.Equal(told[i][j], want[j]) {
				t.Errorf("watcher %d of seed %d was told %v instead of %v", first+i, seed, told[i][j], want[j])
			}
		}
	}
}

// eventsOf gives all events of a task that has ended.
func eventsOf(ctx context.Context, api telexecv1.TaskServiceClient, id string) (all []*telexecv1.TaskEvent, err error) {
	stream, err := api.WatchTask(ctx, &telexecv1.WatchTaskRequest{TaskId: id})
	for err == nil {
		var m *telexecv1.WatchTaskResponse
		if m, err = stream.Recv(); m.GetEvent() != nil {
			all = append(all, m.GetEvent())
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return all, err
}

// cutWatcher watches one task to its end. It is for one goroutine.
type cutWatcher struct {
	env         *testenv.Env
	task, label string
	random      *rand.Rand
	cuts        *atomic.Int64
	over        func() int64 // waits for the end of the task, and gives the number of its last event
	told        []*telexecv1.TaskEvent
}

// errCut is the end of a connection that was cut off.
var errCut = errors.New("cut off")

// watch connects again and again, each time behind the last event, until the task is over.
func (w *cutWatcher) watch(ctx context.Context) error {
	for left := 1 + w.random.IntN(4); ; left-- {
		err := w.connect(ctx, left > 0)
		if !errors.Is(err, errCut) {
			return err
		}
		w.cuts.Add(1)
	}
}

// connect watches over one connection, in one of the ways that there are. errCut, where
// it was cut off before the end.
func (w *cutWatcher) connect(ctx context.Context, cut bool) error {
	byBytes, left, within := w.random.IntN(2) == 0, 1+w.random.IntN(8000), time.Duration(w.random.Int64N(int64(60*time.Millisecond)))
	dialer := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
		switch {
		case err != nil || !cut:
			return conn, err
		case byBytes:
			return &cutConn{conn, left}, nil
		}
		time.AfterFunc(within, func() { conn.Close() })
		return conn, nil
	}}
	after := len(w.told)
	path, request, name := "", "", ""
	switch w.random.IntN(3) {
	case 0:
		path, name = fmt.Sprintf("/api/agent/%s/updates?after=%d", w.task, after), "updates"
	case 1:
		path, name = "/v1/socket", "mine"
		request = fmt.Sprintf(`{"id":"mine","subscribeTask":{"taskId":%q,"after":"%d"}}`, w.task, after)
	case 2:
		path, name = "/v1/events?"+url.Values{"labels[watch]": {w.label}, "taskSequences[" + w.task + "]": {fmt.Sprint(after)}}.Encode(), "events"
	}
	o := &websocket.DialOptions{HTTPClient: &http.Client{Transport: dialer}, HTTPHeader: http.Header{"Authorization": {"Bearer " + w.env.Token.Reveal()}}}
	if w.random.IntN(2) == 0 {
		o.CompressionMode = websocket.CompressionNoContextTakeover
	}
	if w.random.IntN(2) == 0 && request == "" {
		o.Subprotocols = []string{"telexec.v1.proto"}
	}
	failed := func(err error) error {
		if cut && ctx.Err() == nil {
			return errCut
		}
		return err
	}
	conn, resp, err := websocket.Dial(ctx, "ws://"+w.env.HTTPAddr+path, o)
	if err != nil {
		if resp != nil && resp.StatusCode != http.StatusSwitchingProtocols {
			return fmt.Errorf("%s: HTTP %d", path, resp.StatusCode)
		}
		return failed(err)
	}
	defer conn.CloseNow()
	conn.SetReadLimit(1 << 20)
	if request != "" {
		if err := conn.Write(ctx, websocket.MessageText, []byte(request)); err != nil {
			return failed(err)
		}
	}
	for told := 0; ; {
		kind, p, err := conn.Read(ctx)
		if err != nil {
			return failed(err)
		}
		m := &telexecv1.SocketMessage{}
		if kind == websocket.MessageBinary {
			err = proto.Unmarshal(p, m)
		} else {
			err = protojson.Unmarshal(p, m)
		}
		if err != nil {
			return err
		}
		if m.GetId() != name {
			return fmt.Errorf("of nobody: %v", m)
		}
		switch {
		case m.GetData().GetError() != nil, m.GetData().GetUnsubscribed() != nil:
			return fmt.Errorf("on %s: %v", path, m)
		case m.GetData().GetTaskEvent() != nil:
			e := m.GetData().GetTaskEvent()
			if w.told = append(w.told, e); e.GetTaskId() != w.task || e.GetSequence() != int64(len(w.told)) {
				return fmt.Errorf("on %s, instead of event %d: %v", path, len(w.told), m)
			}
		case m.GetData().GetTask() != nil && name != "events":
			if told++; told == 2 {
				return nil
			}
		}
		if name != "events" {
			if m.GetSequence() != int64(len(w.told)) || m.GetResource() != "tasks/"+w.task {
				return fmt.Errorf("on %s, behind event %d: %v", path, len(w.told), m)
			}
			continue
		}
		// There nothing but the events tells that it is over.
		if (m.GetData().GetTaskEvent() != nil || m.GetData().GetSynced() != nil) && w.isAllTold() {
			return nil
		}
	}
}

// isAllTold reports whether there is nothing more to be told: on this connection, or on
// one before.
func (w *cutWatcher) isAllTold() bool {
	n := len(w.told)
	return n > 0 && isOver(w.told[n-1].GetState()) && int64(n) == w.over()
}

// isOver reports whether a task in this state has ended.
func isOver(s telexecv1.TaskState) bool { return s >= telexecv1.TaskState_TASK_STATE_COMPLETED }

// cutConn is a connection of which so many bytes arrive.
type cutConn struct {
	net.Conn
	left int
}

func (c *cutConn) Read(p []byte) (int, error) {
	if c.left == 0 {
		c.Conn.Close()
		return 0, net.ErrClosed // not EOF, which the client library takes for the end of a compressed message
	}
	n, err := c.Conn.Read(p[:min(len(p), c.left)])
	c.left -= n
	return n, err
}
