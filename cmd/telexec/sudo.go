package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"

	"golang.org/x/term"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

// sudoPasswordVariable holds the password for sudo where no file is named.
const sudoPasswordVariable = "TELEXEC_SUDO_PASSWORD"

// sudoRefused is the reason of a command that sudo has not let start.
const sudoRefused = "SUDO_REFUSED"

// sudo gives what the flags and the environment say about sudo; nil for none. The
// password comes from a file, from standard input or from the environment: never
// from the command line, which everybody on this machine can read.
func (c *runCmd) sudo(a *app) (*telexecv1.Sudo, error) {
	if !c.Sudo && c.SudoUser == "" {
		if c.SudoPasswordFile != "" {
			return nil, failure("--sudo-password-file is for a command that runs through sudo").
				withHint("Give --sudo, which means root, or --sudo-user USER")
		}
		return nil, nil
	}
	s := &telexecv1.Sudo{User: firstOf(c.SudoUser, "root")}
	switch c.SudoPasswordFile {
	case "":
		s.Password = a.env.Getenv(sudoPasswordVariable)
		return s, nil
	case "-":
		var err error
		if fd, ok := terminal(a.env.Stdin); ok {
			s.Password, err = a.askPassword(fd, string(c.Host))
		} else {
			s.Password, err = firstLine(a.env.Stdin)
		}
		if err != nil {
			return nil, err
		}
	default:
		b, err := os.ReadFile(c.SudoPasswordFile)
		if err != nil {
			return nil, failure("cannot read the password for sudo: %v", err)
		}
		s.Password = withoutLineEnd(string(b))
	}
	if s.GetPassword() == "" {
		return nil, failure("the password for sudo is empty").
			withHint("Leave --sudo-password-file out where sudo asks for none")
	}
	return s, nil
}

// mayAsk reports whether the command is to be tried once more with a password:
// sudo has not let it start without one, and somebody is there who may know it.
// With a request id of the user's it would be another request under the same id.
func (c *runCmd) mayAsk(a *app, req *telexecv1.ExecuteRequest, cmd *telexecv1.Command) (fd int, ok bool) {
	if cmd.GetFailure().GetReason() != sudoRefused || cmd.GetStartTime() != nil ||
		req.GetSudo().GetPassword() != "" || c.RequestID != "" || a.opts.JSON {
		return 0, false
	}
	return terminal(a.env.Stdin)
}

// askPassword asks on a terminal, which does not show what is typed.
func (a *app) askPassword(fd int, host string) (string, error) {
	// Raw before the question is there: who is quick would see what he types.
	before, err := term.MakeRaw(fd)
	if err != nil {
		return "", failure("cannot use the terminal: %v", err)
	}
	defer func() { _ = term.Restore(fd, before) }() // one that is gone needs none
	type answer struct {
		password string
		err      error
	}
	typed := make(chan answer, 1) // sent to once; nobody may be there to take it
	screen := struct {
		io.Reader
		io.Writer
	}{byteReader{a.env.Stdin}, a.env.Stderr}
	go func() {
		password, err := term.NewTerminal(screen, "").ReadPassword("telexec: password for sudo on " + printable(host) + ": ")
		typed <- answer{password, err}
	}()
	select {
	case t := <-typed:
		if t.err != nil { // also Ctrl-C and Ctrl-D, which are an end of input here
			_, _ = io.WriteString(a.env.Stderr, "\r\n")
			return "", &exitError{code: exitCancelled}
		}
		return t.password, nil
	case s := <-a.env.Signals:
		_, _ = io.WriteString(a.env.Stderr, "\r\n")
		return "", signalled(s)
	}
}

// byteReader gives a byte at a time, so that what is typed ahead is left for the
// command.
type byteReader struct{ r io.Reader }

func (b byteReader) Read(p []byte) (int, error) { return b.r.Read(p[:min(1, len(p))]) }

// passwordMost is where reading a password ends: the service takes fewer bytes.
const passwordMost = 4096

// firstLine reads the first line of r and not a byte more: what follows is for
// the command.
func firstLine(r io.Reader) (string, error) {
	if r == nil {
		return "", nil
	}
	var line []byte
	for one := make([]byte, 1); len(line) < passwordMost; {
		n, err := r.Read(one)
		line = append(line, one[:n]...)
		if bytes.HasSuffix(line, []byte("\n")) || errors.Is(err, io.EOF) {
			return withoutLineEnd(string(line)), nil
		}
		if err != nil {
			return "", failure("cannot read the password for sudo from standard input: %v", err)
		}
	}
	return "", failure("the first line of standard input is too long to be a password")
}

// withoutLineEnd takes off the one line end that an editor puts behind a text.
func withoutLineEnd(s string) string {
	return strings.TrimSuffix(strings.TrimSuffix(s, "\n"), "\r")
}
