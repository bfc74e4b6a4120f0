package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// lastAnswers is how long calls under way may still be answered when no more can
// come. It is less than the 2 s after which clients end a server by force. A
// command goes on whether its answer was written or not.
const lastAnswers = time.Second

// maxOpen is how many calls may be under way at once: more than any agent makes.
const maxOpen = 256

// serveStdio serves MCP on in and out until in or ctx ends, which is no error.
// A client that cannot be written to is one.
func serveStdio(ctx context.Context, server *mcp.Server, in io.Reader, out io.Writer) error {
	conn, err := (&mcp.IOTransport{Reader: io.NopCloser(in), Writer: unclosed{out}}).Connect(ctx)
	if err != nil {
		return err
	}
	p := newPipe(conn)
	session, err := server.Connect(ctx, p, nil)
	if err != nil {
		return err
	}
	// To close it is, for the reader, the end of the input; answers can be written still.
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	ended := make(chan error, 1) // sent to once; nobody may wait for it any more
	go func() { ended <- session.Wait() }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	case <-p.noMore:
	}
	select {
	case err := <-ended:
		return err
	case <-time.After(2 * lastAnswers):
		return nil // a client that does not read its answers cannot keep the program
	}
}

// pipe is the SDK's connection over two streams, but for its end: the SDK drops
// the calls under way as soon as the input ends, so that
//
//	echo '{"jsonrpc":"2.0","id":1,"method":…}' | telexec-mcp
//
// would not answer. pipe holds the end of the input back until all calls are
// answered, or lastAnswers has passed.
type pipe struct {
	mcp.Connection

	mu   sync.Mutex
	open map[jsonrpc.ID]int // calls that were read and are not answered, by id: clients use one again at once

	// slots has an element for each open call, at most maxOpen: a client that does
	// not read its answers is not read any more either. Read fills it, Write empties it.
	slots chan struct{}

	// noMore is closed by Read, once, when the input has ended.
	noMore chan struct{}

	// idle is sent to when the last open call was answered. Its capacity of one
	// lets the writer go on where nobody waits; Read drains it.
	idle chan struct{}
}

func newPipe(conn mcp.Connection) *pipe {
	return &pipe{Connection: conn, open: make(map[jsonrpc.ID]int), slots: make(chan struct{}, maxOpen), noMore: make(chan struct{}), idle: make(chan struct{}, 1)}
}

// Connect makes the pipe its own transport: there is one connection, once.
func (p *pipe) Connect(context.Context) (mcp.Connection, error) { return p, nil }

// Read notes the calls that come.
func (p *pipe) Read(ctx context.Context) (jsonrpc.Message, error) {
	msg, err := p.Connection.Read(ctx)
	if err != nil {
		close(p.noMore) // the SDK reads no more behind an error
		p.settle()
		if !errors.Is(err, io.EOF) {
			err = failure("standard input is no MCP: %v", err).withHint("It takes messages from an agent's program, one per line; see telexec-mcp --help")
		}
		return nil, err
	}
	// A subscription is answered only by its end.
	if req, ok := msg.(*jsonrpc.Request); ok && req.IsCall() && req.Method != "subscriptions/listen" {
		select {
		case p.slots <- struct{}{}:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		p.mu.Lock()
		p.open[req.ID]++
		p.mu.Unlock()
	}
	return msg, nil
}

// Write notes the answers that go.
func (p *pipe) Write(ctx context.Context, msg jsonrpc.Message) error {
	err := p.Connection.Write(ctx, msg)
	if err != nil {
		err = fmt.Errorf("cannot write to standard output: %w", err)
	}
	if resp, ok := msg.(*jsonrpc.Response); ok {
		p.mu.Lock()
		if n := p.open[resp.ID]; n > 0 {
			if p.open[resp.ID]--; n == 1 {
				delete(p.open, resp.ID)
			}
			<-p.slots
		}
		if len(p.open) == 0 {
			select {
			case p.idle <- struct{}{}:
			default:
			}
		}
		p.mu.Unlock()
	}
	return err
}

// settle waits until no call is open, for at most lastAnswers.
func (p *pipe) settle() {
	timeout := time.After(lastAnswers)
	for {
		p.mu.Lock()
		done := len(p.open) == 0
		p.mu.Unlock()
		if done {
			return
		}
		select {
		case <-p.idle:
		case <-timeout:
			return
		}
	}
}

// unclosed is a writer whose Close does nothing: whoever opened standard output
// closes it, and answers are written until the program ends.
type unclosed struct{ io.Writer }

func (unclosed) Close() error { return nil }
