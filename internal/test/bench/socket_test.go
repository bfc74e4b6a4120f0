package bench

import (
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"hash"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/test/testenv"
)

var (
	socketWatchers = flag.Int("bench.socket.watchers", 0, "watchers of one command")
	socketSeconds  = flag.Int("bench.socket.seconds", 10, "how long that prints 2 MB/s")
	socketIdle     = flag.Int("bench.socket.idle", 0, "watchers of a command that says nothing")
	socketSettle   = flag.Duration("bench.socket.settle", 15*time.Second, "how long they stand until they are measured")
	socketStalled  = flag.Int("bench.socket.stalled", 0, "watchers that do not read")
)

// stalledBytes is what the watchers could read that do not.
const stalledBytes = 50_000_000

// unlimited is a service for many sockets of one principal.
const unlimited = `
http: {max_sockets: 0, max_sockets_per_principal: 0}
rate_limits:
  principal: {start: 0, read: 0, list: 0, stream: 0, streams: 0}
  address: {start: 0, read: 0, list: 0, stream: 0}
`

// connectSocket connects in the wire format: to the output of a command from a byte of
// stdout on, or without an id to nothing.
func connectSocket(ctx context.Context, env *testenv.Env, id string, from int64) (*websocket.Conn, error) {
	path := "/v1/socket"
	if id != "" {
		path = fmt.Sprintf("/v1/commands/%s/stream?stdout_offset=%d", id, from)
	}
	conn, _, err := websocket.Dial(ctx, "ws://"+env.HTTPAddr+path, &websocket.DialOptions{
		HTTPHeader:   http.Header{"Authorization": {"Bearer " + env.Token.Reveal()}},
		Subprotocols: []string{"telexec.v1.proto"},
	})
	if err != nil {
		return nil, err
	}
	conn.SetReadLimit(1 << 20)
	return conn, nil
}

// dialSocket is connectSocket from the beginning, for the goroutine of the test.
func dialSocket(t testing.TB, env *testenv.Env, id string) *websocket.Conn {
	t.Helper()
	conn, err := connectSocket(t.Context(), env, id, 0)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// heard is what a watcher got.
type heard struct {
	sum     hash.Hash // of stdout
	bytes   int64
	ended   bool
	resumed int
	err     error
}

// hear reads until the command has ended or ctx has. between is done behind each message.
func (h *heard) hear(ctx context.Context, conn *websocket.Conn, between func(bytes int) error) {
	if h.sum == nil {
		h.sum = sha256.New()
	}
	for h.err = nil; !h.ended && h.err == nil; {
		var p []byte
		if _, p, h.err = conn.Read(ctx); h.err != nil {
			break
		}
		m := &telexecv1.SocketMessage{}
		if h.err = proto.Unmarshal(p, m); h.err != nil {
			break
		}
		if c := m.GetData().GetChunk(); c != nil && c.GetStream() == telexecv1.Stream_STREAM_STDOUT {
			if c.GetOffset() != h.bytes {
				h.err = fmt.Errorf("byte %d came instead of %d", c.GetOffset(), h.bytes)
			}
			h.bytes += int64(len(c.GetData()))
			h.sum.Write(c.GetData())
		}
		if e := m.GetData().GetError(); e != nil {
			h.err = errors.New(e.GetMessage())
		}
		h.ended = m.GetType() == "ended"
		if h.err == nil && between != nil {
			h.err = between(len(p))
		}
	}
}

const mib = 1 << 20

// run starts a command in the background and gives its id.
func run(t testing.TB, env *testenv.Env, line string) string {
	t.Helper()
	a, err := env.Commands().Execute(t.Context(), &telexecv1.ExecuteRequest{Host: env.Host, Command: line, Wait: durationpb.New(0)})
	if err != nil {
		t.Fatal(err)
	}
	return a.GetCommand().GetId()
}

// took waits for the end of a command and gives how long it ran.
func took(t testing.TB, env *testenv.Env, id string) time.Duration {
	t.Helper()
	for {
		a, err := env.Commands().GetStatus(t.Context(), &telexecv1.GetStatusRequest{CommandId: id, Wait: durationpb.New(time.Minute)})
		if err != nil {
			t.Fatal(err)
		}
		if c := a.GetCommand(); c.GetEndTime() != nil {
			return c.GetEndTime().AsTime().Sub(c.GetStartTime().AsTime())
		}
	}
}

// steady prints 2 MB/s.
func steady(seconds int) string {
	return fmt.Sprintf("i=0; while [ $i -lt %d ]; do head -c 200000 /dev/urandom; sleep 0.1; i=$((i+1)); done", 10*seconds)
}

// TestSockets measures WebSockets: many watchers of one command that prints a lot, with
// one that reads 1 KB/s beside them; many of one that says nothing; many that do not
// read.
func TestSockets(t *testing.T) {
	if *socketWatchers == 0 && *socketIdle == 0 && *socketStalled == 0 {
		t.Skip("make bench-socket says how many")
	}
	// Each has a service of its own, which holds nothing of the others.
	measure := func(name string, f func(*testing.T, *testenv.Env)) {
		t.Run(name, func(t *testing.T) { f(t, testenv.Start(t, testenv.WithConfig(unlimited))) })
	}
	if *socketWatchers > 0 {
		measure("watchers", manyWatchers)
	}
	if *socketIdle > 0 {
		measure("empty", func(t *testing.T, env *testenv.Env) { hold(t, env, *socketIdle, "", false) })
		measure("idle", func(t *testing.T, env *testenv.Env) { hold(t, env, *socketIdle, "sleep 3600", false) })
	}
	if *socketStalled > 0 {
		measure("stalled", func(t *testing.T, env *testenv.Env) {
			hold(t, env, *socketStalled, fmt.Sprintf("head -c %d /dev/urandom; sleep 3600", stalledBytes), true)
		})
	}
}

func manyWatchers(t *testing.T, env *testenv.Env) {
	alone := took(t, env, run(t, env, steady(*socketSeconds)))
	before := rss(t, env)
	id := run(t, env, "sleep 3; "+steady(*socketSeconds))
	all := make([]*heard, *socketWatchers)
	var readers sync.WaitGroup
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	for i := range all {
		conn := dialSocket(t, env, id)
		all[i] = &heard{}
		readers.Go(func() {
			defer func() { conn.CloseNow() }()
			for all[i].hear(ctx, conn, nil); !all[i].ended && ctx.Err() == nil; all[i].hear(ctx, conn, nil) {
				// The library gives its answer to a ping five seconds, which so many readers on few
				// cores may not have: a client goes on where it was.
				conn.CloseNow()
				again, err := connectSocket(ctx, env, id, all[i].bytes)
				if err != nil {
					all[i].err = err
					return
				}
				all[i].resumed++
				conn = again
			}
		})
	}
	conn := dialSocket(t, env, id)
	defer conn.CloseNow()
	unhurried, stop := context.WithCancel(ctx)
	slow := &heard{}
	var slowly sync.WaitGroup
	slowly.Go(func() {
		slow.hear(unhurried, conn, func(bytes int) error {
			select {
			case <-time.After(time.Duration(bytes) * time.Second / 1000):
				return nil
			case <-unhurried.Done():
				return io.EOF // it has read what it was to read
			}
		})
	})
	peak := before
	done := make(chan struct{}) // closed when all have read all
	go func() { readers.Wait(); close(done) }()
	begun := time.Now()
	for going := true; going; {
		select {
		case <-done:
			going = false
		case <-time.After(200 * time.Millisecond):
			peak = max(peak, rss(t, env))
		}
	}
	caught := time.Since(begun)
	with := took(t, env, id) - 3*time.Second
	stop()
	slowly.Wait()

	// What the store has is what they should have.
	want := sha256.New()
	out, err := env.Commands().StreamOutput(t.Context(), &telexecv1.StreamOutputRequest{CommandId: id})
	var size int64
	for err == nil {
		var m *telexecv1.StreamOutputResponse
		if m, err = out.Recv(); err == nil {
			size += int64(len(m.GetChunk().GetData()))
			want.Write(m.GetChunk().GetData())
		}
	}
	right, resumed := 0, 0
	for i, h := range all {
		resumed += h.resumed
		if h.err != nil || h.bytes != size || string(h.sum.Sum(nil)) != string(want.Sum(nil)) {
			t.Errorf("watcher %d has %d of %d bytes: %v", i, h.bytes, size, h.err)
			continue
		}
		right++
	}
	if !errors.Is(slow.err, io.EOF) && !errors.Is(slow.err, context.Canceled) {
		t.Errorf("the slow one has %d bytes: %v", slow.bytes, slow.err)
	}
	t.Logf("%d watchers of %.1f MB each: %d have every byte, %d times after a loss of the connection, the last %v after the beginning; %.0f MB/s in all",
		len(all), float64(size)/1e6, right, resumed, caught.Round(time.Millisecond), float64(size)*float64(len(all))/1e6/caught.Seconds())
	t.Logf("the one that reads 1 KB/s stayed, and has %d bytes", slow.bytes)
	t.Logf("the command took %v alone and %v with them", alone.Round(time.Millisecond), with.Round(time.Millisecond))
	t.Logf("telexecd: %.0f MiB before, at most %.0f MiB with them: %.0f KiB each", float64(before)/mib, float64(peak)/mib, float64(peak-before)/1024/float64(len(all)+1))
}

// openSockets is how many the service has by its own account.
func openSockets(t *testing.T, env *testenv.Env) int {
	t.Helper()
	resp := env.REST(t.Context(), http.MethodGet, "/metrics", "")
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	_, number, _ := strings.Cut(string(text), "\ntelexec_websockets ")
	number, _, _ = strings.Cut(number, "\n")
	open, err := strconv.Atoi(number)
	if err != nil {
		t.Fatal(err)
	}
	return open
}

// hold measures what telexecd has for sockets that only stand there: that watch a
// command, or without a line nothing.
func hold(t *testing.T, env *testenv.Env, n int, line string, stalled bool) {
	id := ""
	if line != "" {
		id = run(t, env, line)
	}
	defer func() {
		if id == "" {
			return
		}
		if _, err := env.Commands().Cancel(context.WithoutCancel(t.Context()), &telexecv1.CancelRequest{CommandId: id}); err != nil {
			t.Error(err)
		}
	}()
	stand := func() *websocket.Conn {
		conn := dialSocket(t, env, id)
		if id != "" {
			if _, _, err := conn.Read(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		return conn
	}
	defer stand().CloseNow() // warm
	if stalled {             // until the service has it all, and nobody else works
		for size := int64(0); size < stalledBytes; {
			a, err := env.Commands().GetStatus(t.Context(), &telexecv1.GetStatusRequest{CommandId: id})
			if err != nil {
				t.Fatal(err)
			}
			size = a.GetCommand().GetStdoutBytes()
		}
		<-time.After(3 * time.Second)
	}
	before := rss(t, env)
	peak := before
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	for i := range n {
		conn := stand()
		defer conn.CloseNow()
		if !stalled {
			go func() { (&heard{}).hear(ctx, conn, nil) }()
		}
		if i%50 == 0 {
			peak = max(peak, rss(t, env))
		}
	}
	// A service that does nothing collects its garbage every two minutes only, and with it
	// what goroutines needed of their stacks to begin with. So it has a little to do.
	settle := *socketSettle
	if stalled {
		settle = min(settle, time.Minute) // the service lets go of them after two
	}
	open := 0
	for begun := time.Now(); time.Since(begun) < settle; peak = max(peak, rss(t, env)) {
		open = openSockets(t, env)
	}
	after := rss(t, env)
	if open < n {
		t.Errorf("only %d of %d sockets stand", open, n)
	}
	t.Logf("%d sockets: telexecd has %.0f MiB instead of %.0f, %.1f KiB each; at most %.0f MiB",
		n, float64(after)/mib, float64(before)/mib, float64(after-before)/1024/float64(n), float64(peak)/mib)
}
