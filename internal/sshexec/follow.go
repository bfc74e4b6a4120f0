package sshexec

import (
	"context"
	"crypto/rand"
	"io"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
)

// headSize is the length of the header in the spool of standard error: the mark
// of 160 bytes of words, padded.
const headSize = 1 + len(markName) + nonceSize + 2 + 160 + 1

// Times of a follower.
const (
	askAfter   = 10 * time.Second // of silence the follower is asked how the run is
	answerIn   = 20 * time.Second // and it has to answer
	wordsIn    = 2 * time.Second  // the last words come so soon behind the record
	partingIn  = 5 * time.Second  // how long cleaning up may take
	collectIn  = time.Hour        // how long an ended run's channel is kept for that
	maxRefusal = 1024             // bytes of what sudo says that are told
)

// followed is what became of one attempt to follow.
type followed struct {
	through bool  // there is nothing more to do
	again   bool  // look at once, another way
	err     error // why it broke off; nil: the follower has ended
}

// saying is a mark, and the stream it came on.
type saying struct {
	mark
	stream command.Stream
}

// session is one follower on one channel.
type session struct {
	d     *durable
	ses   Session
	nonce string

	said  chan saying   // the readers send; never closed
	ended chan struct{} // closed when both readers are through
	stop  chan struct{} // closed by follow when nobody takes what is said any more

	heard   atomic.Int64 // when something last came in, in ns since 1970
	working atomic.Int32 // readers that are not waiting for the host
}

// attempt follows the run over one channel until that or the run ends.
func (d *durable) attempt(ctx context.Context, mode string) followed {
	ses, err := d.runner.dialer.Open(ctx, d.run.Host)
	if err != nil {
		return followed{err: err}
	}
	s := &session{
		d: d, ses: ses, nonce: rand.Text(),
		said: make(chan saying), ended: make(chan struct{}), stop: make(chan struct{}),
	}
	if d.key == "" {
		d.key = rand.Text()
	}
	d.sent = true
	out := s.follow(ctx, mode)
	close(s.stop)
	s.ses.Close()
	return out
}

// follow sends the script and takes what comes until there is something to say of it.
func (s *session) follow(ctx context.Context, mode string) followed {
	d := s.d
	script := d.startScript(s.nonce, mode)
	go ssh.DiscardRequests(s.ses.Requests)
	go s.read()
	refused := make(chan error, 1) // the one answer to the exec request, if it says no
	go func() {
		ok, err := s.ses.Channel.SendRequest("exec", true, ssh.Marshal(struct{ Command string }{"exec /bin/sh"}))
		if err == nil && !ok {
			refused <- fault.New(fault.FailedPrecondition, fault.ReasonExecRefused, "%s refuses to run commands", d.run.Host.Name)
			return
		}
		if err == nil {
			io.WriteString(s.ses.Channel, script)
		}
	}()
	var (
		greeted bool                       // the follower has spoken
		how     string                     // the end of the run, as it is known
		through [len(command.Streams)]bool // all of the stream has come
		fixed   bool                       // the run is through; its rest is sent and no more
		settled bool                       // the end is settled; what is left is to clean up
		done    <-chan struct{}            = ctx.Done()
		collect <-chan struct{}
		greetBy = time.NewTimer(d.runner.startTimeout(d.run.Host))
		ask     = time.NewTicker(askAfter)
		wordsBy <-chan time.Time // where the record says that it has ended
		leaveBy <-chan time.Time
		asked   time.Time
	)
	defer greetBy.Stop()
	defer ask.Stop()
	settle := func() {
		if !settled && through[command.Stdout] && through[command.Stderr] {
			settled = true
			d.conclude(how)
			collect = d.collected
			if d.startErr != nil { // nobody will say Collected
				d.Collected()
			}
			leaveBy = time.After(collectIn)
		}
	}
	for {
		select {
		case m := <-s.said:
			own := m.key == s.nonce
			word, rest, _ := strings.Cut(m.words, " ")
			switch {
			case own && !greeted && m.stream == command.Stderr:
				switch word {
				case "dir":
					d.mu.Lock()
					d.dir = rest
					d.mu.Unlock()
					continue
				case "new", "live", "final", "gone":
				default:
					d.fail(d.unfound(word))
					return followed{through: true}
				}
				greeted = true
				greetBy.Stop()
				d.linked()
				var over bool
				if how, over = s.greeting(word, rest); over {
					return followed{through: true}
				}
				fixed = word == "final"
			case own && word == "end":
				through[m.stream] = fixed
				settle()
			case own && word == "state" && m.stream == command.Stderr:
				asked = time.Time{}
				switch {
				case rest == "gone":
					d.fail(removed(d.run.Host.Name))
					return followed{through: true}
				case rest != "live" && wordsBy == nil && !settled:
					wordsBy = time.After(wordsIn)
				}
			case own:
			case word == "done":
				how = rest
				through[m.stream] = true
				settle()
			case word == "report":
				d.report = append(d.report, rest)
			case word == "run" && m.stream == command.Stderr:
				if who, ok := parseRun(rest); ok {
					d.begun(who)
				}
			case word == "refused" && m.stream == command.Stderr:
				d.refusal = rest
			}
		case <-s.ended:
			if settled {
				return followed{through: true}
			}
			if !greeted && mode == modeStart && s.orderly(ctx) {
				// Who could not greet has started nothing.
				d.runner.forget(d.run.Host)
				d.fail(fault.New(fault.FailedPrecondition, fault.ReasonStartFailed, "%s did not start the command: its shell ended at once", d.run.Host.Name).
					WithHint("Look what its login files do: ssh %s@%s 'exec /bin/sh -c true'", d.run.Host.User, d.run.Host.Name))
				return followed{through: true}
			}
			return followed{err: d.lost(s.ses)}
		case err := <-refused:
			if mode == modeStart {
				d.fail(fault.From(err))
				return followed{through: true}
			}
			return followed{err: err}
		case <-greetBy.C:
			return followed{err: fault.New(fault.Unavailable, fault.ReasonNoExitStatus,
				"%s did not answer within %v", d.run.Host.Name, d.runner.startTimeout(d.run.Host))}
		case <-ask.C:
			silent := time.Since(time.Unix(0, s.heard.Load()))
			switch {
			case settled || !greeted || s.working.Load() > 0:
			case !asked.IsZero() && time.Since(asked) > answerIn && silent > answerIn:
				return followed{err: fault.New(fault.Unavailable, fault.ReasonConnectionLost, "what follows the command on %s does not answer", d.run.Host.Name)}
			case asked.IsZero() && silent >= askAfter:
				asked = time.Now()
				s.tell("state\n")
			}
		case <-wordsBy:
			// The last words could not be written.
			return followed{again: true}
		case <-collect:
			collect, done = nil, nil
			keep := ""
			if d.again {
				keep = " keep"
			}
			d.kept = false
			s.tell("clean" + keep + "\n")
			leaveBy = time.After(partingIn)
		case <-leaveBy:
			return followed{through: true}
		case <-done:
			if settled && closed(d.collected) {
				done = nil
				continue
			}
			return followed{through: settled, err: context.Cause(ctx)}
		}
	}
}

// orderly reports whether the channel has ended on a connection that lives.
func (s *session) orderly(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, aliveWithin)
	defer cancel()
	return s.ses.Alive(ctx) == nil
}

// tell says something to the follower, without waiting for a dead connection.
func (s *session) tell(words string) {
	go io.WriteString(s.ses.Channel, words)
}

// greeting takes the follower's first words. over: there is nothing to follow.
func (s *session) greeting(word, rest string) (how string, over bool) {
	d := s.d
	key, rest, _ := strings.Cut(rest, " ")
	d.mu.Lock()
	if len(key) == nonceSize {
		d.key = key
	}
	d.mu.Unlock()
	switch word {
	case "new":
		d.mu.Lock()
		d.dir = d.facts.dirs[0]
		d.came = 0
		if d.run.Spec.StdinOpen {
			d.came = int64(len(d.run.Spec.Stdin))
		}
		d.mu.Unlock()
	case "live":
		came, head, _ := strings.Cut(rest, " ")
		if n, ok := number(came); ok {
			d.mu.Lock()
			d.came = n
			d.mu.Unlock()
		}
		if verb, words, _ := strings.Cut(strings.TrimSpace(head), " "); verb == "run" {
			if who, ok := parseRun(words); ok {
				d.begun(who)
			}
		}
	case "final":
		return rest, false
	case "gone":
		d.fail(removed(d.run.Host.Name))
		return "", true
	}
	return "", false
}

// unfound words the answer of a host that has nothing to follow.
func (d *durable) unfound(word string) *fault.Error {
	host := d.run.Host
	switch word {
	case "never":
		return fault.New(fault.FailedPrecondition, fault.ReasonNeverStarted, "the command has not started on %s and never will", host.Name)
	case "none":
		return removed(host.Name)
	case "superseded":
		return fault.New(fault.Aborted, fault.ReasonSuperseded, "another owner has the command on %s by now", host.Name)
	case "nospace":
		return noSpace(host.Name)
	case "nodir":
		d.runner.forget(host)
		return notDurable(host, "its directory for runs cannot be written any more")
	}
	return fault.New(fault.Internal, fault.ReasonInternal, "%s gave an answer that cannot be understood", host.Name).With("answer", strconv.Quote(word))
}

func removed(host string) *fault.Error {
	return lostFault(fault.ReasonRunRemoved, "%s has nothing of the command any more: its files were removed", host)
}

// lost is why the connection is dead; nil where it is not.
func (d *durable) lost(ses Session) error {
	if lost(ses) {
		return ses.Err()
	}
	return nil
}

// read reads both streams to their end.
func (s *session) read() {
	defer close(s.ended)
	s.heard.Store(time.Now().UnixNano())
	var readers sync.WaitGroup
	readers.Go(func() { s.carry(command.Stdout, s.ses.Channel) })
	readers.Go(func() { s.carry(command.Stderr, s.ses.Channel.Stderr()) })
	readers.Wait()
}

// carry reads one stream to its end: output to the sink, marks to follow. What
// comes before the follower speaks is the login files' talk.
func (s *session) carry(stream command.Stream, r io.Reader) {
	d := s.d
	var (
		buf     readBuffer
		taker   marks
		greeted bool
		key     string
	)
	defer buf.release()
	known := func(k string) bool { return k == s.nonce || greeted && k == key }
	data := func(b []byte) error {
		if !greeted {
			return nil
		}
		return d.deliver(stream, b)
	}
	said := func(m mark) {
		if m.key == s.nonce && !greeted {
			switch word, rest, _ := strings.Cut(m.words, " "); word {
			case "new", "live", "final":
				greeted = true
				key, _, _ = strings.Cut(rest, " ")
			}
		}
		select {
		case s.said <- saying{mark: m, stream: stream}:
		case <-s.stop:
		}
	}
	for {
		n, err := r.Read(buf.space())
		if n > 0 {
			s.working.Add(1)
			s.heard.Store(time.Now().UnixNano())
			if taker.next(buf.data[:n], known, data, said) != nil {
				data = func([]byte) error { return nil } // read on, for the marks
			}
			s.heard.Store(time.Now().UnixNano())
			s.working.Add(-1)
			buf.took(n)
		}
		if err != nil {
			return
		}
	}
}

// deliver gives output to the sink.
func (d *durable) deliver(stream command.Stream, b []byte) error {
	if len(b) == 0 {
		return nil
	}
	if !closed(d.decided) && stream == command.Stderr { // sudo explains itself
		d.mu.Lock()
		d.last += string(b[:min(len(b), max(0, maxRefusal-len(d.last)))])
		d.mu.Unlock()
	}
	err := d.run.Output(stream, b)
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil {
		d.sinkErr = err
		return err
	}
	d.got[stream] += int64(len(b))
	return nil
}

// parseRun reads what a record of a running command says of it.
func parseRun(words string) (identity, bool) {
	f := strings.Fields(words)
	if len(f) != 5 {
		return identity{}, false
	}
	pid, ok1 := number(f[1])
	group, ok2 := number(f[2])
	ses, ok3 := number(f[3])
	if !ok1 || !ok2 || !ok3 || pid <= 1 {
		return identity{}, false
	}
	who := identity{pid: pid, boot: f[0], start: strings.ReplaceAll(f[4], "_", " ")}
	if group == pid {
		who.group = pid
	}
	if ses == pid {
		who.session = pid
	}
	return who, true
}
