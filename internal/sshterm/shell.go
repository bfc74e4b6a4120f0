package sshterm

import (
	"context"
	"io"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/hostshell"
	"github.com/telexec/telexec/internal/session"
)

// Shell is a shell on a terminal of a host. One goroutine reads, one writes; the rest
// may be called at any time and concurrently.
type Shell struct {
	terms *Terms
	spec  Spec
	dir   string // of its files on the host; empty: there are none
	bare  bool   // there is no POSIX shell there: nothing is known of its processes
	nonce string // of what our scripts say on its channel
	facts Facts  // not changed after Open
	who   who    // so too; zero where the host does not tell

	alive  func() error // asks the host for a sign of life
	ses    Session
	stream stream
	said   []byte // what came before the greeting, cut

	letGo  chan struct{} // closed by Close
	letGo1 sync.Once
	over   chan struct{} // closed by requests when the host has closed the channel

	mu   sync.Mutex
	code *int // of the shell, as the host has told it
	told bool // the host has told that it has ended, whatever its code
}

// stream is what comes of a shell, and goes to it.
type stream interface {
	Read(p []byte) (int, error) // io.EOF: nothing comes any more
	// verdict is what our script has said last; empty: nothing.
	verdict() string
}

func (t *Terms) newShell(spec Spec, f *facts) *Shell {
	s := &Shell{terms: t, spec: spec, nonce: newNonce(), letGo: make(chan struct{}), over: make(chan struct{})}
	s.who.boot, s.who.start = "-", "-"
	s.facts.Kind, s.facts.Path = f.kind, f.path
	return s
}

// attachTo takes a channel.
func (s *Shell) attachTo(ctx context.Context, ses Session) {
	s.ses = ses
	s.alive = func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), aliveWithin)
		defer cancel()
		return ses.Alive(ctx)
	}
	go s.requests()
	go io.Copy(io.Discard, ses.Channel.Stderr())
}

// requests takes the host's requests until the channel ends.
func (s *Shell) requests() {
	defer close(s.over)
	for req := range s.ses.Requests {
		switch req.Type {
		case "exit-status":
			var m struct{ Code uint32 }
			if ssh.Unmarshal(req.Payload, &m) == nil {
				s.ended(new(int(m.Code)))
			}
		case "exit-signal": // it has no code
			s.ended(nil)
		}
		if req.WantReply {
			req.Reply(false, nil) // a dead channel is told by its end
		}
	}
}

// ended notes how what runs on the channel has ended; the first word counts. Of a shell
// that something keeps it is only our script, which speaks for itself.
func (s *Shell) ended(code *int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.told && !s.kept() {
		s.code, s.told = code, true
	}
}

// Facts gives what is known of it.
func (s *Shell) Facts() Facts { return s.facts }

// kept reports whether something keeps it.
func (s *Shell) kept() bool { return s.facts.Keeper != session.KeptByNone }

// Read gives what the shell prints. io.EOF: it has ended, and Exit tells how.
// CONNECTION_LOST: the connection is gone, or somebody else has taken the shell up; one
// that something keeps goes on. Whoever does not read slows the shell.
func (s *Shell) Read(p []byte) (int, error) {
	n, err := s.stream.Read(p)
	if err == nil || n > 0 {
		return n, nil
	}
	return 0, s.conclude()
}

// conclude tells what the end of the stream means.
func (s *Shell) conclude() error {
	select {
	case <-s.letGo:
		return s.lost("the service let go of the shell on %s")
	default:
	}
	if s.kept() {
		said, code := parseVerdict(s.stream.verdict())
		switch {
		case !said:
			hostshell.Lost(s.ses) // for its words
			return s.lost("the connection to the shell on %s was lost")
		default:
			s.mu.Lock()
			s.code, s.told = code, true
			s.mu.Unlock()
			return io.EOF
		}
	}
	// An exit status comes before the end of the channel, but behind that of the stream.
	timer := time.NewTimer(lastWords)
	defer timer.Stop()
	select {
	case <-s.over:
	case <-timer.C:
	}
	s.mu.Lock()
	told := s.told
	s.mu.Unlock()
	if told {
		return io.EOF
	}
	if s.alive() != nil {
		return s.lost("the connection to the shell on %s was lost")
	}
	return io.EOF // a host that tells no code
}

const (
	lastWords   = time.Second     // how long the end of a channel may take behind that of its stream
	aliveWithin = 5 * time.Second // how long the host may take to give a sign of life
)

func (s *Shell) lost(format string) error {
	var cause error
	select {
	case <-s.ses.Lost:
		cause = s.ses.Err()
	default:
	}
	f := fault.Wrap(cause, fault.Unavailable, fault.ReasonConnectionLost, format, s.spec.Host.Name).WithOp("sshterm.read")
	if s.kept() {
		f.WithHint("%s keeps it; take it up again", keeperNames[s.facts.Keeper])
	}
	return f
}

// Write types. It may block for as long as the host takes nothing; the end of the
// connection ends that.
func (s *Shell) Write(p []byte) (int, error) {
	w := io.Writer(s.ses.Channel)
	if c, ok := s.stream.(*control); ok {
		w = c
	}
	n, err := w.Write(p)
	if err != nil {
		return n, s.lost("what was typed did not get to the shell on %s")
	}
	return n, nil
}

// Resize tells the shell's terminal that it has another size.
func (s *Shell) Resize(size session.Size) error {
	var err error
	if c, ok := s.stream.(*control); ok {
		err = c.resize(size)
	} else {
		_, err = s.ses.Channel.SendRequest("window-change", false, ssh.Marshal(struct{ Columns, Rows, Width, Height uint32 }{
			uint32(size.Columns), uint32(size.Rows), 0, 0,
		}))
	}
	if err != nil {
		return s.lost("the size did not get to the shell on %s")
	}
	return nil
}

// Exit gives the exit code of a shell that has ended; nil where the host told none.
func (s *Shell) Exit() *int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.code
}

// Close lets go of it without touching a shell that something keeps; any other one
// ends. Read and Write then return. It may be called twice.
func (s *Shell) Close() error {
	s.letGo1.Do(func() {
		close(s.letGo)
		if s.ses.Close != nil {
			s.ses.Close() // fails where the channel has ended: as wanted
		}
	})
	return nil
}

// source gives what comes on the channel.
func (s *Shell) source() *source {
	src := &source{pieces: make(chan []byte), back: make(chan []byte, 2), letGo: s.letGo}
	for range cap(src.back) {
		src.back <- make([]byte, readSize)
	}
	go src.pump(s.ses.Channel)
	return src
}

// source is a channel that is read by a goroutine of its own, so that Close ends a wait
// also where the connection says nothing any more. At most two buffers are read ahead,
// besides the window of the channel.
type source struct {
	pieces chan []byte   // from pump, which closes it at the end
	back   chan []byte   // buffers for it; has room for all of them
	letGo  chan struct{} // closed when nobody reads any more
	last   []byte        // the buffer of the last piece
}

// readSize is the most that is read at once: a packet of SSH.
const readSize = 32 << 10

func (s *source) pump(r io.Reader) {
	defer close(s.pieces)
	for {
		buf := <-s.back
		n, err := r.Read(buf[:readSize])
		if n > 0 {
			select {
			case s.pieces <- buf[:n]:
			case <-s.letGo:
				return
			}
		} else {
			s.back <- buf
		}
		if err != nil {
			return
		}
	}
}

// next gives bytes that are good until the next call.
func (s *source) next() ([]byte, error) {
	if s.last != nil {
		s.back <- s.last
		s.last = nil
	}
	select {
	case b, ok := <-s.pieces:
		if !ok {
			return nil, io.EOF
		}
		s.last = b[:cap(b)]
		return b, nil
	case <-s.letGo:
		return nil, io.EOF
	}
}
