package main

import (
	"bytes"
	"io"
	"regexp"
	"strconv"
	"sync"

	"golang.org/x/term"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

// terminal asks for a PTY like the terminal this runs on. Where input comes from
// it, that becomes the command's keyboard when the command runs; end gives it back.
func (f *follower) terminal(env Env, req *telexecv1.ExecuteRequest) error {
	req.Pty = &telexecv1.Pty{Term: env.Getenv("TERM")}
	if fd, ok := terminal(env.Stdout); ok {
		if columns, rows, err := term.GetSize(fd); err == nil {
			req.Pty.Columns, req.Pty.Rows = uint32(columns), uint32(rows)
		}
	}
	fd, ok := terminal(f.input)
	if !ok {
		return nil
	}
	// Asked for now, so that one that cannot be had is told before anything starts.
	before, err := term.GetState(fd)
	if err != nil {
		return failure("cannot use the terminal: %v", err)
	}
	f.keys = &keyboard{fd: fd, before: before, r: f.input, out: f.out, leave: make(chan struct{})}
	if l, ok := env.Stderr.(*lockedWriter); ok && f.out.remarks {
		f.keys.screen = l
	}
	f.input = f.keys
	return nil
}

// keyboard is a terminal whose keys are a command's; nil is none. It is in raw mode only between
// begin and end: what the command cannot be sent yet must not be swallowed, above
// all not Ctrl-C, which is the way out while it waits.
//
// From raw mode on it passes the keys on and looks for "~." behind a new line,
// which leaves the command alone, as with ssh.
type keyboard struct {
	fd     int
	before *term.State
	r      io.Reader
	out    *printer
	screen *lockedWriter // standard error, where that is a terminal; else nil
	leave  chan struct{} // closed by Read

	mu    sync.Mutex // guards the mode of the terminal, and what follows
	raw   bool
	ended bool

	// Of Read.
	state int  // 0: behind a new line, 1: behind its ~, 2: elsewhere
	begun bool // what was typed ahead has been read
	left  bool
}

// begin puts the terminal into raw mode, unless it was given back. It may be called
// again, and from any goroutine.
func (k *keyboard) begin() {
	if k == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.raw || k.ended {
		return
	}
	k.screen.setRaw(true) // before: a return too many is not to be seen, one too few is
	if _, err := term.MakeRaw(k.fd); err != nil {
		k.screen.setRaw(false)
		k.out.tell("cannot use the terminal as the command's: %v", err)
		return
	}
	k.raw = true
}

// end gives the terminal back as it was, for good.
func (k *keyboard) end() {
	if k == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.raw {
		_ = term.Restore(k.fd, k.before) // a terminal that is gone needs none
		k.screen.setRaw(false)
	}
	k.raw, k.ended = false, true
}

// leaving gives what is closed when the user leaves the command alone.
func (k *keyboard) leaving() <-chan struct{} {
	if k == nil {
		return nil
	}
	return k.leave
}

// Read is called when the terminal is raw.
func (k *keyboard) Read(p []byte) (int, error) {
	if k.left {
		return 0, io.EOF
	}
	n, err := k.r.Read(p)
	if !k.begun && n > 0 {
		// A Ctrl-D that was typed ahead ended input of the ordinary terminal, which
		// keeps it as a NUL. It was no key of the command's.
		k.begun = true
		n = copy(p, bytes.ReplaceAll(p[:n], []byte{0}, nil))
	}
	for i := range n {
		switch c := p[i]; {
		case c == '\r' || c == '\n':
			k.state = 0
		case k.state == 0 && c == '~':
			k.state = 1
		case k.state == 1 && c == '.':
			k.left = true
			close(k.leave)
			return max(i-1, 0), io.EOF
		default:
			k.state = 2
		}
	}
	return n, err
}

var sizeForm = regexp.MustCompile(`^([0-9]{1,4})x([0-9]{1,4})$`)

// terminalSize gives the size that is asked for, else that of the terminal here; 0 for
// none.
func terminalSize(env Env, asked string) (columns, rows int, err error) {
	if asked != "" {
		m := sizeForm.FindStringSubmatch(asked)
		if m == nil {
			return 0, 0, failure("%q is no size", asked).withHint("Write columns x rows, as in 120x40")
		}
		columns, _ = strconv.Atoi(m[1])
		rows, _ = strconv.Atoi(m[2])
		if columns < 2 || columns > 1000 || rows < 2 || rows > 500 {
			return 0, 0, failure("%q is no size of a terminal", asked).withHint("It has 2 to 1000 columns and 2 to 500 rows")
		}
		return columns, rows, nil
	}
	if fd, ok := terminal(env.Stdout); ok {
		if columns, rows, err := term.GetSize(fd); err == nil && columns >= 2 && rows >= 2 {
			return min(columns, 1000), min(rows, 500), nil
		}
	}
	return 0, 0, nil
}
