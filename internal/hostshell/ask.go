package hostshell

import (
	"context"
	"errors"
	"io"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/inventory"
)

// Session is an open session channel and what is to be known of its connection.
type Session struct {
	Channel  ssh.Channel
	Requests <-chan *ssh.Request // from the host; closed with the channel
	Lost     <-chan struct{}     // closed when the connection is dead
	Err      func() error        // why it is dead; called once Lost is closed
	Close    func() error        // closes the channel and gives its place back; may be called twice

	// Alive asks the host for a sign of life over the same connection: nil when it
	// came, else an error, at the latest when ctx ends. It costs a round trip.
	Alive func(ctx context.Context) error
}

// Opener gives a session channel on a working connection to a host.
type Opener func(ctx context.Context, host inventory.Host) (Session, error)

// maxAnswer is the most that is read of an answer.
const maxAnswer = 1 << 20

// partedIn is how long a host may take to close a channel of which all was read.
const partedIn = 100 * time.Millisecond

// lostWithin is how long the end of a channel may come before the news that its
// whole connection is dead.
const lostWithin = 500 * time.Millisecond

// Ask has the login shell of a host run exec with stdin, over a channel that open
// gives, and gives the lines of its output that Lines finds. Once sent, the script does
// not need us any more. Where the connection broke before it answered that is
// CONNECTION_LOST; SIGNAL_FAILED: it was refused, or did not answer before ctx ended.
//
// dropbear now and then closes a channel that it has just opened: then there is another.
func Ask(ctx context.Context, open Opener, host inventory.Host, nonce, exec string, stdin []byte) (lines []string, err error) {
	for range 3 {
		if lines, err = askOnce(ctx, open, host, nonce, exec, stdin); !errors.Is(err, errUnasked) || ctx.Err() != nil {
			break
		}
	}
	return lines, err
}

func askOnce(ctx context.Context, open Opener, host inventory.Host, nonce, exec string, stdin []byte) ([]string, error) {
	ses, err := open(ctx, host)
	if err != nil {
		return nil, err
	}
	type result struct {
		answer []byte
		err    error
	}
	results := make(chan result, 1) // the one result
	go func() {
		defer ses.Close()
		answer, err := converse(ses, exec, stdin)
		results <- result{answer, err}
	}()
	var res result
	select {
	case res = <-results:
	case <-ctx.Done():
		go ses.Close() // which may wait for a connection that takes nothing
		return nil, fault.Wrap(context.Cause(ctx), fault.DeadlineExceeded, fault.ReasonSignalFailed,
			"%s did not answer in time", host.Name).WithOp("hostshell.ask")
	}
	lines := Lines(nonce, string(res.answer))
	if res.err != nil || len(lines) == 0 {
		if Lost(ses) {
			return nil, fault.Wrap(errors.Join(ses.Err(), res.err), fault.Unavailable, fault.ReasonConnectionLost,
				"the connection to %s was lost before it answered", host.Name).WithOp("hostshell.ask")
		}
		if res.err != nil {
			return nil, fault.Wrap(res.err, fault.Unavailable, fault.ReasonSignalFailed,
				"%s refuses to run the script that signals", host.Name).WithOp("hostshell.ask")
		}
	}
	return lines, nil
}

// Lost reports whether the connection is dead, the news of which may come a
// little later than the end of its channels.
func Lost(ses Session) bool {
	timer := time.NewTimer(lostWithin)
	defer timer.Stop()
	select {
	case <-ses.Lost:
		return true
	case <-timer.C:
		return false
	}
}

// errUnasked is that of a channel which the host has closed without an answer to
// the exec request.
var errUnasked = errors.New("the host closed the channel before it ran anything")

// converse has the login shell run exec with stdin, and reads its output to the end.
func converse(ses Session, exec string, stdin []byte) ([]byte, error) {
	parted := UntilParted(ses)
	go io.Copy(io.Discard, ses.Channel.Stderr())
	ok, err := ses.Channel.SendRequest("exec", true, ssh.Marshal(struct{ Command string }{exec}))
	if errors.Is(err, io.EOF) {
		return nil, errUnasked
	}
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, errors.New("exec request refused")
	}
	// A script may answer without having read all of it.
	go func() {
		ses.Channel.Write(stdin)
		ses.Channel.CloseWrite()
	}()
	answer, err := io.ReadAll(io.LimitReader(ses.Channel, maxAnswer))
	parted()
	return answer, err
}

// Lines picks the lines that bear the nonce, and takes it off; login files
// may have talked before and between.
func Lines(nonce, answer string) []string {
	var lines []string
	for line := range strings.Lines(answer) {
		if _, said, ok := strings.Cut(line, "telexec:"+nonce+": "); ok && strings.HasSuffix(said, "\n") {
			lines = append(lines, said[:len(said)-1])
		}
	}
	return lines
}

// UntilParted takes the host's requests, and gives what waits, a moment, for the
// host to have closed the channel. Where both sides close at once, dropbear closes
// a descriptor of the channel that is opened next.
func UntilParted(ses Session) (wait func()) {
	parted := make(chan struct{})
	go func() {
		ssh.DiscardRequests(ses.Requests)
		close(parted)
	}()
	return func() {
		timer := time.NewTimer(partedIn)
		defer timer.Stop()
		select {
		case <-parted:
		case <-timer.C:
		}
	}
}
