package sshexec

import (
	"context"
	"crypto/rand"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/hostshell"
)

// Times of a follower.
const (
	nearBy     = 5 * time.Millisecond  // a host that takes a request so soon is asked to wait for "go"
	goAfter    = 10 * time.Millisecond // then it comes: most short commands have ended by then
	wordsIn    = 2 * time.Second       // the last words come so soon behind the record
	partingIn  = 5 * time.Second       // how long cleaning up may take
	collectIn  = time.Hour             // how long an ended run's channel is kept for that
	maxRefusal = 1024                  // bytes of what sudo says that are told
)

// followed is what became of one attempt to follow.
type followed struct {
	through bool   // there is nothing more to do
	next    string // look at once again, in this mode
	err     error  // why it broke off; nil: the follower has ended
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
	mode  string
	nonce string

	said  chan saying                         // the readers send; never closed
	ended chan struct{}                       // closed when both readers are through
	stop  chan struct{}                       // closed by attempt: nobody takes anything any more
	turns [len(command.Streams)]chan struct{} // capacity 1: held while the stream's sink is at work
	near  atomic.Bool                         // the follower waits for "go"
	heard atomic.Int64                        // when something last came in, in ns since 1970
	busy  atomic.Int32                        // readers that are not waiting for the host

	// follow's own.
	greeted bool                       // the follower has spoken
	fresh   int                        // streams on which it has said that the run is new
	how     string                     // the end of the run, as it is known
	all     [len(command.Streams)]bool // of the stream has come
	told    chan struct{}              // closed when the script and all words so far are out
	asked   time.Time                  // when the follower was asked how the run is; zero: it has answered
	settled bool                       // the end is settled; what is left is to clean up
	goBy    <-chan time.Time           // when to have the follower begin
	wordsBy <-chan time.Time           // where the record says that it has ended
	leaveBy <-chan time.Time
	collect <-chan struct{}
}

// attempt follows the run over one channel until that or the run ends. When it
// returns, nothing that has come over that channel goes to the sink any more,
// unless ctx has ended.
func (d *durable) attempt(ctx context.Context, mode string) followed {
	if err := d.prepare(ctx, mode); err != nil {
		return followed{err: err}
	}
	ses, err := d.runner.dialer.Open(ctx, d.run.Host)
	if err != nil {
		return followed{err: err}
	}
	s := &session{
		d: d, ses: ses, mode: mode, nonce: rand.Text(),
		said: make(chan saying), ended: make(chan struct{}), stop: make(chan struct{}),
	}
	for i := range s.turns {
		s.turns[i] = make(chan struct{}, 1)
	}
	if d.key == "" {
		d.key = rand.Text()
	}
	d.report = nil // what was told of it comes again
	d.sent = true
	out := s.follow(ctx)
	close(s.stop)
	ses.Close()
	// The channel may stay for long if the host does not answer.
	for _, turn := range s.turns {
		select {
		case turn <- struct{}{}:
			<-turn
		case <-ctx.Done():
		}
	}
	return out
}

// prepare finds out what the host has, and brings the standard input there.
func (d *durable) prepare(ctx context.Context, mode string) (err error) {
	if d.facts == nil {
		if d.facts, err = d.runner.facts(ctx, d.run.Host); err != nil {
			return err
		}
	}
	if s := d.run.Spec.Sudo; mode == modeStart && s != nil && s.NeedsPassword && !d.facts.unseen() {
		return notDurable(d.run.Host, "its /bin/sh has no printf of its own, by which a password could be handed on unseen")
	}
	if mode != modeStart || d.uploaded || len(d.run.Spec.Stdin) == 0 {
		return nil
	}
	return d.bring(ctx)
}

// bring uploads the standard input.
func (d *durable) bring(ctx context.Context) error {
	err := d.runner.upload(ctx, d.run, d.facts)
	d.uploaded = err == nil
	return err
}

// follow sends the script and takes what comes until there is something to say of it.
func (s *session) follow(ctx context.Context) followed {
	d := s.d
	go s.read()
	refused := make(chan error, 1) // the one answer to the exec request, if it says no
	script, sent := d.startScript(s.nonce, s.mode), make(chan struct{})
	s.told = sent // the follower may greet before all of the script is out
	go func() {
		defer close(sent)
		s.send(script, refused)
	}()
	var (
		done    = ctx.Done()
		limit   = d.runner.startTimeout(d.run.Host)
		greetBy = time.NewTimer(limit)
		ask     = time.NewTicker(d.runner.askAfter)
	)
	defer greetBy.Stop()
	defer ask.Stop()
	for {
		select {
		case m := <-s.said:
			if out, over := s.take(ctx, m); over {
				return out
			}
			if s.greeted {
				greetBy.Stop()
			}
		case <-s.ended:
			return s.over(ctx)
		case err := <-refused:
			if s.mode == modeStart {
				d.fail(fault.From(err))
				return followed{through: true}
			}
			return followed{err: err}
		case <-greetBy.C:
			return followed{err: fault.New(fault.Unavailable, fault.ReasonNoExitStatus,
				"%s did not answer within %v", d.run.Host.Name, limit)}
		case <-s.goBy:
			s.goBy = nil
			s.tell("go\n")
		case <-ask.C:
			if err := s.wonder(); err != nil {
				return followed{err: err}
			}
		case <-s.wordsBy: // they could not be written
			return followed{next: modeResume}
		case <-s.collect:
			s.collect, done = nil, nil
			keep := ""
			if d.again || d.first == modeRetry || d.first == modeVoid {
				keep = " keep"
			}
			s.tell("clean" + keep + "\n")
			s.leaveBy = time.After(partingIn)
		case <-s.leaveBy:
			return followed{through: true}
		case <-done:
			if s.settled && closed(d.collected) {
				done = nil
				continue
			}
			return followed{through: s.settled, err: context.Cause(ctx)}
		}
	}
}

// send has the host run the script. A host that is near is spared the work of
// following a command that ends at once; a far one would lose a round trip of
// output.
func (s *session) send(script string, refused chan<- error) {
	begin := time.Now()
	ok, err := s.ses.Channel.SendRequest("exec", true, ssh.Marshal(struct{ Command string }{"exec /bin/sh"}))
	if err != nil {
		return // the channel has ended, which follow sees
	}
	if !ok {
		refused <- fault.New(fault.FailedPrecondition, fault.ReasonExecRefused, "%s refuses to run commands", s.d.run.Host.Name)
		return
	}
	now := "now=yes\n"
	if time.Since(begin) < nearBy && s.d.run.From == (command.Sizes{}) {
		s.near.Store(true)
		now = "now=no\n"
	}
	io.WriteString(s.ses.Channel, now+script) // an error is the channel's end, too
}

// take takes a mark; over: follow is to return out.
func (s *session) take(ctx context.Context, m saying) (out followed, over bool) {
	d := s.d
	word, rest, _ := strings.Cut(m.words, " ")
	if m.key != s.nonce { // the run's own
		switch word {
		case "done":
			if s.how == "" { // else the follower has said it, and whether all is there
				s.how = rest
			}
			s.all[m.stream] = true
			s.settle()
		case "report":
			d.report = append(d.report, rest)
		}
		return followed{}, false
	}
	if word == "end" {
		s.all[m.stream] = true
		s.settle()
		return followed{}, false
	}
	if word == "new" {
		// What follows must not overtake the greeting on either stream.
		if s.fresh++; s.fresh == len(command.Streams) && s.near.Load() {
			s.goBy = time.After(goAfter)
		}
	}
	if m.stream != command.Stderr {
		return followed{}, false // it comes there, too
	}
	switch word {
	case "dir":
		d.mu.Lock()
		d.dir = rest
		d.mu.Unlock()
	case "new", "live", "final":
		s.greet(word, rest)
	case "run":
		if who, ok := parseRun(rest); ok {
			d.begun(who)
		}
	case "state":
		s.asked = time.Time{}
		switch {
		case s.settled || rest == "live":
		case rest == "gone":
			d.kept = false
			d.fail(removed(d.run.Host.Name))
			return followed{through: true}, true
		case s.wordsBy == nil:
			s.wordsBy = time.After(wordsIn)
		}
	case "cleaned":
		d.kept = false // and now the host ends the channel
	case "unsure":
		return followed{err: fault.New(fault.Unavailable, fault.ReasonConnectionLost,
			"the directory for runs on %s cannot be looked into now", d.run.Host.Name)}, true
	case "nodir":
		// It was removed since the host was asked what it has: once more, and it is
		// known whether there is another.
		if s.mode == modeStart && !d.fresh {
			d.fresh, d.sent, d.uploaded = true, false, false
			d.runner.forget(d.run.Host)
			d.facts = nil
			return followed{next: modeStart}, true
		}
		d.kept = false
		d.fail(d.unfound(word))
		return followed{through: true}, true
	case "noinput":
		err := d.bring(ctx)
		if fault.ReasonOf(err) == fault.ReasonNoSpace && s.mode == modeStart {
			d.fail(fault.From(err))
			return followed{through: true}, true
		}
		d.again = d.again || s.mode == modeStart
		if err != nil {
			return followed{err: fault.Wrap(err, fault.Unavailable, fault.ReasonNoExitStatus,
				"%s does not take the command's standard input; whether it runs there is not known", d.run.Host.Name)}, true
		}
		return followed{next: modeRetry}, true
	default:
		d.kept = false // or not ours
		d.fail(d.unfound(word))
		return followed{through: true}, true
	}
	return followed{}, false
}

// greet takes the follower's first words.
func (s *session) greet(word, rest string) {
	d := s.d
	s.greeted = true
	d.kept = true
	d.claimed = true
	d.linked()
	key, rest, _ := strings.Cut(rest, " ")
	if len(key) == nonceSize {
		d.key = key
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	switch word {
	case "new":
		d.dir = d.facts.dirs[0]
		d.came = 0
		if d.run.Spec.StdinOpen {
			d.came = int64(len(d.run.Spec.Stdin))
		}
	case "live":
		if n, ok := hostshell.Number(rest); ok {
			d.came = max(d.came, n) // the answer to an Input may have overtaken it
		}
	case "final":
		s.how = rest
	}
}

// settle settles the end when both streams are through.
func (s *session) settle() {
	d := s.d
	if s.settled || slices.Contains(s.all[:], false) {
		return
	}
	s.settled, s.goBy, s.wordsBy = true, nil, nil
	d.conclude(s.how)
	s.collect = d.collected
	if d.startErr != nil { // nobody will say Collected
		d.Collected()
	}
	s.leaveBy = time.After(collectIn)
}

// over says what it means that the channel has ended.
func (s *session) over(ctx context.Context) followed {
	d := s.d
	if s.settled {
		return followed{through: true}
	}
	asking, cancel := context.WithTimeout(ctx, aliveWithin)
	defer cancel()
	if s.ses.Alive(asking) != nil {
		if hostshell.Lost(s.ses) {
			return followed{err: s.ses.Err()}
		}
		return followed{}
	}
	if s.greeted || closed(d.decided) {
		return followed{}
	}
	// The shell has ended at once, or was killed on the way. Once more tells; and
	// if not, whether the host still has one.
	if d.mute++; d.mute > 1 {
		d.runner.forget(d.run.Host)
		d.facts = nil
		return followed{}
	}
	if s.mode == modeStart {
		d.again = true
		return followed{next: modeRetry}
	}
	return followed{next: s.mode}
}

// wonder asks the follower how the run is, where nothing has come for long; an
// error says that it has not answered.
func (s *session) wonder() error {
	r := s.d.runner
	silent := time.Since(time.Unix(0, s.heard.Load()))
	switch {
	case s.settled || !s.greeted || s.busy.Load() > 0:
	case !s.asked.IsZero() && time.Since(s.asked) > 2*r.askAfter && silent > 2*r.askAfter:
		return fault.New(fault.Unavailable, fault.ReasonConnectionLost, "what follows the command on %s does not answer", s.d.run.Host.Name)
	case s.asked.IsZero() && silent >= r.askAfter:
		s.asked = time.Now()
		s.tell("state\n")
	}
	return nil
}

// tell says something to the follower behind all that was said before, without
// waiting for a dead connection. Two writes at once would mix their packets.
func (s *session) tell(words string) {
	before, done := s.told, make(chan struct{})
	s.told = done
	go func() {
		defer close(done)
		<-before
		_, _ = io.WriteString(s.ses.Channel, words) // a connection that broke is noticed by who reads
	}()
}

// unfound words the answer of a host that has nothing to follow.
func (d *durable) unfound(word string) *fault.Error {
	host := d.run.Host
	switch word {
	case "never":
		return fault.New(fault.FailedPrecondition, fault.ReasonNeverStarted, "the command has not started on %s and never will", host.Name)
	case "none", "gone":
		return removed(host.Name)
	case "superseded":
		return superseded(host)
	case "nospace":
		return noSpace(host.Name)
	case "nodir":
		d.runner.forget(host)
		return notDurable(host, "its directory for runs cannot be written any more")
	}
	return fault.New(fault.Internal, fault.ReasonInternal, "%s gave an answer that cannot be understood", host.Name).With("answer", strconv.Quote(word))
}

// read reads both streams to their end.
func (s *session) read() {
	defer close(s.ended)
	parted := hostshell.UntilParted(s.ses)
	defer parted()
	s.heard.Store(time.Now().UnixNano())
	var readers sync.WaitGroup
	readers.Go(func() { s.carry(command.Stdout, s.ses.Channel) })
	readers.Go(func() { s.carry(command.Stderr, s.ses.Channel.Stderr()) })
	readers.Wait()
}

// carry reads one stream to its end: output to the sink, marks to follow. What
// comes before the follower speaks is the login files' talk.
//
// The follower's own marks are taken out first: one that it says while the spool
// is being sent may stand anywhere, also in the middle of a mark of the run.
func (s *session) carry(stream command.Stream, r io.Reader) {
	var (
		buf       readBuffer
		own, runs marks
		greeted   bool
		key       string
	)
	defer buf.release()
	ours := func(k string) bool { return k == s.nonce }
	theirs := func(k string) bool { return k == key }
	data := func(b []byte) { s.deliver(stream, b) }
	said := func(m mark) {
		if m.key == s.nonce && m.words == "end" {
			runs.flush(key, data)
		}
		if word, rest, _ := strings.Cut(m.words, " "); !greeted && m.key == s.nonce {
			switch word {
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
	output := func(b []byte) {
		if greeted {
			runs.next(b, theirs, data, said)
		}
	}
	for {
		n, err := r.Read(buf.space())
		if n > 0 {
			s.busy.Add(1)
			s.heard.Store(time.Now().UnixNano())
			own.next(buf.data[:n], ours, output, said)
			s.heard.Store(time.Now().UnixNano())
			s.busy.Add(-1)
			buf.took(n)
		}
		if err != nil {
			return
		}
	}
}

// deliver gives output to the sink, unless another session has taken over.
func (s *session) deliver(stream command.Stream, b []byte) {
	d := s.d
	turn := s.turns[stream]
	turn <- struct{}{}
	defer func() { <-turn }()
	if closed(s.stop) {
		return
	}
	d.mu.Lock()
	if stream == command.Stderr && !closed(d.decided) { // sudo explains itself
		d.said += string(b[:min(len(b), max(0, maxRefusal-len(d.said)))])
	}
	refused := d.refused[stream]
	d.mu.Unlock()
	if refused {
		return // read on, for the marks
	}
	err := d.run.Output(stream, b)
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil {
		d.refused[stream], d.sinkErr = true, err
		return
	}
	d.got[stream] += int64(len(b))
}

// parseRun reads what a record of a running command says of it.
func parseRun(words string) (identity, bool) {
	f := strings.Fields(words)
	if len(f) < 5 {
		return identity{}, false
	}
	pid, ok1 := hostshell.Number(f[1])
	group, ok2 := hostshell.Number(f[2])
	ses, ok3 := hostshell.Number(f[3])
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
