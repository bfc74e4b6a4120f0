package main

import (
	"io"

	"golang.org/x/term"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

// terminal asks for a PTY like the terminal this runs on, and puts that into raw
// mode where input comes from it.
func (f *follower) terminal(env Env, req *telexecv1.ExecuteRequest) (restore func(), err error) {
	req.Pty = &telexecv1.Pty{Term: env.Getenv("TERM")}
	if fd, ok := terminal(env.Stdout); ok {
		if columns, rows, err := term.GetSize(fd); err == nil {
			req.Pty.Columns, req.Pty.Rows = uint32(columns), uint32(rows)
		}
	}
	fd, ok := terminal(f.input)
	if !ok {
		return func() {}, nil
	}
	before, err := term.MakeRaw(fd)
	if err != nil {
		return nil, failure("cannot use the terminal: %v", err)
	}
	f.out.raw = true
	f.leave = make(chan struct{})
	f.input = &escapeReader{r: f.input, leave: f.leave}
	return func() {
		f.out.raw = false
		_ = term.Restore(fd, before) // a terminal that is gone needs none
	}, nil
}

// escapeReader passes a raw terminal on and looks for "~." behind a new line,
// which leaves the command alone, as with ssh.
type escapeReader struct {
	r     io.Reader
	leave chan struct{} // closed by Read
	state int           // 0: behind a new line, 1: behind its ~, 2: elsewhere
	left  bool
}

func (e *escapeReader) Read(p []byte) (int, error) {
	if e.left {
		return 0, io.EOF
	}
	n, err := e.r.Read(p)
	for i := range n {
		switch c := p[i]; {
		case c == '\r' || c == '\n':
			e.state = 0
		case e.state == 0 && c == '~':
			e.state = 1
		case e.state == 1 && c == '.':
			e.left = true
			close(e.leave)
			return max(i-1, 0), io.EOF
		default:
			e.state = 2
		}
	}
	return n, err
}
