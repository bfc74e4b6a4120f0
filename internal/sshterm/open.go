package sshterm

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/hostshell"
	"github.com/telexec/telexec/internal/session"
)

// place is where the files of a session are.
func place(f *facts, id string) string { return f.dir + "/sessions/" + id }

// openDirect starts the shell on a terminal of the connection.
func (t *Terms) openDirect(ctx context.Context, spec Spec, f *facts, reason string) (*Shell, error) {
	l := launchOf(f, spec, true)
	s := t.newShell(spec, f)
	s.facts.Keeper, s.facts.KeeperReason = session.KeptByNone, reason
	if f.dir == "" {
		// Nowhere to put anything: as at any login, on the shell's own request.
		return t.openBare(ctx, spec, reason)
	}
	s.dir = place(f, spec.ID)
	s.tells(l)
	if err := t.prepare(ctx, spec, s.dir, map[string]string{"start": startFile(spec, s, l, false)}, l.Files); err != nil {
		return nil, s.abandon(ctx, err)
	}
	if err := s.connect(ctx, "exec /bin/sh "+hostshell.Word(s.dir+"/start"), true); err != nil {
		return nil, err
	}
	p := &plainStream{src: s.source(), token: token(s.nonce)}
	if err := s.greet(ctx, p); err != nil {
		return nil, s.abandon(ctx, err)
	}
	p.token = nil // from here on every byte is the shell's
	s.stream = p
	return s, nil
}

// openKept starts the shell in a keeper, or takes up the one that it has at a place.
func (t *Terms) openKept(ctx context.Context, spec Spec, f *facts, keeper session.Keeper, at found) (*Shell, error) {
	l := launchOf(f, spec, keeper != session.KeptByScreen) // screen swallows marks
	s := t.newShell(spec, f)
	s.dir = at.dir
	s.facts.Keeper = keeper
	s.facts.Answers = keeper != session.KeptByDtach
	s.tells(l)
	files := map[string]string{"attach": attachFile(spec, s, keeper, "")}
	integration := map[string]string{}
	if !spec.Resume {
		files["start"] = startFile(spec, s, l, true)
		files["hold"] = "dir=" + quote(s.dir) + " keeper=" + string(keeper) + "\n" + script("hold.sh")
		switch keeper {
		case session.KeptByTmux:
			files["tmux.conf"] = tmuxConfig(spec)
		case session.KeptByScreen:
			files["screenrc"] = screenConfig(spec)
		}
		integration = l.Files
	} else if file, ok := l.Files[nestedFile]; ok {
		integration[nestedFile] = file
	}
	from := s.dir // where attach is
	err := t.prepare(ctx, spec, s.dir, files, integration)
	unwritable := fault.ReasonOf(err) == fault.ReasonNoSpace || fault.ReasonOf(err) == fault.ReasonStartFailed
	if own := at.place + "/sessions/" + spec.ID; unwritable && at.place != "" && own != s.dir {
		// There is no space, or it is mounted read-only. What keeps the shell works all the
		// same, and so do its other files, which are there.
		from = own
		err = t.prepare(ctx, spec, own, map[string]string{"attach": attachFile(spec, s, keeper, own)}, nil)
	}
	if err != nil {
		return nil, s.abandon(ctx, err)
	}
	if err := s.connect(ctx, "exec /bin/sh "+hostshell.Word(from+"/attach"), keeper != session.KeptByTmux); err != nil {
		return nil, err
	}
	p := &plainStream{src: s.source(), token: token(s.nonce)}
	if keeper == session.KeptByDtach {
		p.before = dtachEnd
	}
	if err := s.greet(ctx, p); err != nil {
		return nil, s.abandon(ctx, err)
	}
	if err := s.takeUp(ctx, p, keeper, spec); err != nil {
		return nil, s.abandon(ctx, s.passOver(ctx, err))
	}
	return s, nil
}

// passOver makes of an error that came behind the greeting one of the keeper, unless it
// is of the connection, or was there before: then there is no other one to be taken.
func (s *Shell) passOver(ctx context.Context, err error) error {
	f, told := err.(*fault.Error)
	if s.spec.Resume || ctx.Err() != nil || told && f.Reason != fault.ReasonStartFailed || hostshell.Lost(s.ses) {
		return err
	}
	why := err.Error()
	if told {
		why = f.Message
	}
	return keeperFailed("it cannot be attached to: " + strings.Map(visible, why))
}

// takeUp makes sure that the keeper listens, and lets a new shell begin.
func (s *Shell) takeUp(ctx context.Context, p *plainStream, keeper session.Keeper, spec Spec) error {
	limit := s.terms.startTimeout(s.spec.Host)
	if !spec.Resume {
		limit = keeperTime(limit)
	}
	return s.within(ctx, limit, func() error {
		if keeper == session.KeptByTmux {
			c := newControl(s.ses.Channel, p)
			c.hidden = s.facts.Nested
			s.stream = c
			if spec.Resume {
				redraw, err := c.resume(spec.Size)
				s.facts.Redraw = redraw
				return err
			}
			return c.begin()
		}
		s.stream = p
		// Both clear the screen when they have their terminal, and not before; dtach does
		// nothing else before it attaches.
		if err := p.await(map[session.Keeper][]byte{session.KeptByDtach: dtachBegin, session.KeptByScreen: screenBegin}[keeper], keeper == session.KeptByDtach); err != nil {
			return err
		}
		if spec.Resume {
			return nil
		}
		_, err := s.ses.Channel.Write([]byte("\n"))
		return err
	})
}

// keeperTime is how long a keeper may take to start, and again to be attached to, where
// the shell may take start: it reads no files of the account, and there is another one
// to be tried.
func keeperTime(start time.Duration) time.Duration { return min(start/2, 6*time.Second) }

// What dtach and screen print around what comes of the shell.
var (
	dtachBegin  = []byte("\x1b[H\x1b[J")
	dtachEnd    = []byte("\x1b[999H\r\n[EOF - dtach terminating]\r\n\x1b[?25h")
	screenBegin = []byte("\x1b[H")
)

// openBare asks for the login shell as any terminal does, where there is no POSIX shell
// or nowhere to put anything.
func (t *Terms) openBare(ctx context.Context, spec Spec, why string) (*Shell, error) {
	switch {
	case spec.Keeper != "" && spec.Keeper != session.KeptByNone:
		return nil, noKeeper(spec, why)
	case spec.Resume:
		return nil, gone(spec)
	case spec.Shell != "":
		return nil, fault.New(fault.Unsupported, fault.ReasonNotSupported, "%s can only be given its login shell: %s", spec.Host.Name, why).
			WithHint("Leave the shell out")
	}
	s := t.newShell(spec, &facts{})
	s.bare = true
	s.facts.Keeper, s.facts.KeeperReason = session.KeptByNone, why
	if err := s.connect(ctx, "", true); err != nil {
		return nil, err
	}
	s.stream = &plainStream{src: s.source()}
	return s, nil
}

// prepare makes the directory of a session and its files, of which integration go to a
// directory of their own in it.
func (t *Terms) prepare(ctx context.Context, spec Spec, dir string, files, integration map[string]string) error {
	var b strings.Builder
	b.WriteString("dir=" + quote(dir) + "\n" + script("prepare.sh") + "files() {\n")
	all := maps.Clone(files)
	for name, content := range integration {
		all["shell/"+name] = strings.ReplaceAll(content, dirMark, dir+"/shell")
	}
	names := slices.Sorted(maps.Keys(all))
	// They are made anew, so that whoever runs an old one still does, and are there in any
	// case where there were some.
	end := "END" + rand.Text()
	for _, name := range names {
		fmt.Fprintf(&b, "cat >%[1]s <<'%[3]s' && mv -f %[1]s %[2]s || { rm -f %[1]s; return 1; }\n%[4]s\n%[3]s\n",
			quote(name+"_"), quote(name), end, strings.TrimSuffix(all[name], "\n"))
	}
	b.WriteString("}\nprepare\n")
	// A script that was sent is carried out: it is waited for a little, so that what it
	// makes is there to be removed.
	asking, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(partedIn, stop) })()
	lines, err := t.ask(asking, spec.Host, t.startTimeout(spec.Host), b.String())
	if ctx.Err() != nil {
		return fault.From(context.Cause(ctx))
	}
	if err != nil {
		return err
	}
	switch strings.Join(lines, "\n") {
	case "prepared":
		return nil
	case "nospace":
		return fault.New(fault.FailedPrecondition, fault.ReasonNoSpace, "there is no space on %s to start the shell", spec.Host.Name).
			WithHint("Free some in %s", dir)
	}
	t.forget(spec)
	return fault.New(fault.Unavailable, fault.ReasonStartFailed, "the directory for sessions on %s, %s, cannot be written any more", spec.Host.Name, dir).
		WithHint("Open it again: another place is looked for")
}

// dirMark stands for the directory of the files in a Launch.
const dirMark = "{dir}"

// tells fills in what the shell will tell of itself.
func (s *Shell) tells(l launch) {
	s.facts.Marks = l.marks
	// The line has the directory in double quotes.
	if l.nested != "" && !strings.ContainsAny(s.dir, "\"$`\\!") {
		s.facts.Nested = strings.ReplaceAll(l.nested, dirMark, s.dir+"/shell")
	}
}

// startFile gives the file that becomes the shell.
func startFile(spec Spec, s *Shell, l launch, kept bool) string {
	var b strings.Builder
	how := "no"
	if kept {
		how = "yes"
	}
	// We may take that long to be greeted, and again to let it go on.
	patience := 2*s.terms.startTimeout(spec.Host)/time.Second + 1
	fmt.Fprintf(&b, "nonce=%s dir=%s kept=%s patience=%d\n{\n%s", s.nonce, quote(s.dir), how, patience, script("start.sh"))
	fill := func(text string) string { return strings.ReplaceAll(text, dirMark, s.dir+"/shell") }
	if kept && s.facts.Keeper != session.KeptByScreen { // which has a type of its own
		fmt.Fprintf(&b, "export TERM=%s\n", quote(spec.Term))
	}
	for _, name := range slices.Sorted(maps.Keys(l.Env)) {
		fmt.Fprintf(&b, "export %s=%s\n", name, quote(fill(l.Env[name])))
	}
	argv := make([]string, len(l.Argv))
	for i, word := range l.Argv {
		argv[i] = fill(word)
	}
	// What the login shell is called is the account's; one that was asked for is not.
	fmt.Fprintf(&b, "export SHELL=%s\nunset dir\nexec %s\n}\n", quote(s.facts.Path), quote(argv...))
	return b.String()
}

// attachFile gives the file that starts a keeper and is its client. own is the directory
// that it removes at once; empty: none.
func attachFile(spec Spec, s *Shell, keeper session.Keeper, own string) string {
	mode := "new"
	if spec.Resume {
		mode = "resume"
	}
	return fmt.Sprintf("nonce=%s dir=%s keeper=%s mode=%s columns=%d rows=%d own=%s patience=%s\n", s.nonce, quote(s.dir), keeper, mode,
		spec.Size.Columns, spec.Size.Rows, quote(own), hundredths(keeperTime(s.terms.startTimeout(spec.Host)))) + script("attach.sh")
}

// connect opens a channel and has the host run exec on it, or, where that is empty, the
// login shell.
func (s *Shell) connect(ctx context.Context, exec string, pty bool) error {
	ses, err := s.terms.dialer.Open(ctx, s.spec.Host)
	if err != nil {
		return s.abandon(ctx, fault.From(err))
	}
	s.attachTo(ctx, ses)
	err = s.within(ctx, s.terms.startTimeout(s.spec.Host), func() error {
		if pty {
			ok, err := ses.Channel.SendRequest("pty-req", true, ssh.Marshal(ptyRequest{
				Term: s.spec.Term, Columns: uint32(s.spec.Size.Columns), Rows: uint32(s.spec.Size.Rows), Modes: ptyModes,
			}))
			if err != nil {
				return err
			}
			if !ok {
				return refused(s.spec, "a terminal")
			}
		}
		name, payload := "shell", []byte(nil)
		if exec != "" {
			name, payload = "exec", ssh.Marshal(struct{ Command string }{exec})
		}
		ok, err := ses.Channel.SendRequest(name, true, payload)
		if err == nil && !ok {
			return refused(s.spec, "a shell")
		}
		return err
	})
	if err != nil {
		return s.abandon(ctx, err)
	}
	return nil
}

func refused(spec Spec, what string) *fault.Error {
	return fault.New(fault.FailedPrecondition, fault.ReasonExecRefused, "%s does not give %s %s", spec.Host.Name, spec.Host.User, what).
		WithHint("Look at PermitTTY and ForceCommand of its SSH server, and at the options of the key in authorized_keys")
}

// ptyRequest is that of RFC 4254, 6.2; sizes in pixels are not known.
type ptyRequest struct {
	Term          string
	Columns, Rows uint32
	Width, Height uint32
	Modes         string
}

// ptyModes are the modes of the terminal, RFC 4254, 8: UTF-8 is erased as a whole
// (IUTF8, RFC 8160), and the speed is not that of a modem.
var ptyModes = string([]byte{42, 0, 0, 0, 1, 128, 0, 0, 0x96, 0, 129, 0, 0, 0x96, 0, 0})

// within runs f, which speaks with the host, and lets go of the channel where it takes
// longer than limit, or ctx ends.
func (s *Shell) within(ctx context.Context, limit time.Duration, f func() error) error {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	done := make(chan error, 1) // the one result of f
	go func() { done <- f() }()
	var why error
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		why = fault.From(context.Cause(ctx))
	case <-timer.C:
		why = fault.New(fault.Unavailable, fault.ReasonStartFailed, "%s did not start the shell within %v", s.spec.Host.Name, limit).
			WithHint("Look what its login files do: ssh %s@%s 'exec /bin/sh -c true'", s.spec.Host.User, s.spec.Host.Name)
	}
	s.Close()
	// Reads are over with that. A request that a host does not answer waits for the end of
	// the connection, and changes nothing here.
	timer.Reset(partedIn)
	select {
	case <-done:
	case <-timer.C:
	}
	return why
}

// partedIn is how long what speaks with a host may take to see that it is over.
const partedIn = time.Second

// sweepTimeout is how long it may take to end what may have started after all.
const sweepTimeout = 5 * time.Second

// abandon lets go of a shell that could not be had, and says why. What may have started
// of it is ended, and its files go; a shell that was there before stays.
func (s *Shell) abandon(ctx context.Context, err error) error {
	defer func() {
		s.Close()
		if s.dir != "" && !s.spec.Resume {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), sweepTimeout)
			defer cancel()
			s.end(ctx, true) // a host that cannot be asked is left as it is
		}
	}()
	switch err.(type) {
	case *fault.Error, keeperFailed:
		return err
	}
	if ctx.Err() != nil {
		return fault.From(context.Cause(ctx))
	}
	if hostshell.Lost(s.ses) {
		return fault.Wrap(s.ses.Err(), fault.Unavailable, fault.ReasonConnectionLost, "the connection to %s was lost while the shell was being started", s.spec.Host.Name)
	}
	said := strings.TrimSpace(string(s.said))
	f := fault.Wrap(err, fault.FailedPrecondition, fault.ReasonStartFailed, "%s did not start the shell", s.spec.Host.Name).
		WithHint("Check that the account has a POSIX shell and no forced command: ssh %s@%s 'exec /bin/sh -c true'", s.spec.Host.User, s.spec.Host.Name)
	if said != "" {
		f.Message += "; it said: " + strings.ToValidUTF8(strings.Map(visible, said), "")
	}
	return f
}

// visible drops control characters from what is shown of a host's words.
func visible(r rune) rune {
	switch {
	case r == '\n' || r == '\t':
		return ' '
	case r < ' ' || r == 0x7f:
		return -1
	}
	return r
}

// greet reads until the host has told that the shell is there, and who it is. What
// stands before is the talk of login files.
func (s *Shell) greet(ctx context.Context, p *plainStream) error {
	return s.within(ctx, s.terms.startTimeout(s.spec.Host), func() error {
		words, err := p.first(func(talk []byte) {
			s.said = append(s.said, talk[:min(len(talk), maxSaid-len(s.said))]...)
		})
		if err != nil {
			return err
		}
		verb, rest, _ := strings.Cut(words, " ")
		switch verb {
		case "started":
			if s.who, err = parseWho(rest); err != nil {
				return err
			}
			s.facts.PID = int(s.who.pid)
			return nil
		case "failed":
			return keeperFailed(strings.TrimSpace(strings.Map(visible, rest)))
		case "refused":
			return refused(s.spec, "a terminal")
		case "rebooted":
			return fault.New(fault.NotFound, fault.ReasonHostRebooted, "%s was restarted, and the shell of the session with it", s.spec.Host.Name).
				WithHint("Open a new session")
		case "exit", "gone":
			f := gone(s.spec)
			if _, code := parseVerdict(words); code != nil {
				f.With("exit_code", strconv.Itoa(*code))
			}
			return f
		}
		return fmt.Errorf("the host said %q in place of a greeting", words)
	})
}

// maxSaid is how much of what a host says about a failed start is told.
const maxSaid = 1024

// who is what tells the shell apart from every other process.
type who struct {
	pid, group, session int64
	boot, start         string
}

func parseWho(words string) (who, error) {
	f := strings.SplitN(words, " ", 5)
	bad := fmt.Errorf("%q does not tell who the shell is", words)
	if len(f) != 5 || !hostshell.Printable(words) || f[3] == "" || f[4] == "" {
		return who{}, bad
	}
	var n [3]int64
	for i := range n {
		v, ok := hostshell.Number(f[i])
		if !ok {
			return who{}, bad
		}
		n[i] = v
	}
	if n[0] <= 1 {
		return who{}, bad
	}
	return who{n[0], n[1], n[2], f[3], f[4]}, nil
}

// vars gives what identity.sh needs, as assignments.
func (s *Shell) vars(more ...string) string {
	n := func(v int64) string { return strconv.FormatInt(v, 10) }
	pairs := append([]string{
		"id", s.spec.ID, "pid", n(s.who.pid), "group", "0", "session", n(s.who.session), "boot", s.who.boot, "start", s.who.start,
		"proc", s.terms.proc, "run", "", "password", "", "through", "",
	}, more...)
	var b bytes.Buffer
	for i := 0; i < len(pairs); i += 2 {
		b.WriteString(pairs[i] + "=" + quote(pairs[i+1]) + "\n")
	}
	return b.String()
}
