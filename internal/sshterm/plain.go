package sshterm

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"strconv"
	"strings"
)

// newNonce gives what begins the words of our scripts, which nobody can guess.
func newNonce() string { return rand.Text() }

// token is what a line of our scripts begins with. The control character keeps a key
// that is echoed from being held back as a possible beginning of it.
func token(nonce string) []byte { return []byte("\x1etelexec:" + nonce + ": ") }

// maxWords is the most that a line of our scripts has.
const maxWords = 2048

// maxTalk is the most that login files may print before.
const maxTalk = 1 << 20

// plainStream is the bytes of a terminal as they come, with lines of our scripts at its
// beginning and end.
type plainStream struct {
	src    *source
	token  []byte // nil: no line of ours comes any more
	before []byte // what the keeper prints in front of the last line of ours; may be empty

	ready []byte // output that Read has not given yet; of the source, or our own
	held  []byte // what may become a line of ours
	words string // the last line of ours; nothing comes behind it
}

// first reads to the first line of ours, and gives what stands before it to talk.
func (p *plainStream) first(talk func([]byte)) (string, error) {
	for talked := 0; ; {
		b, err := p.src.next()
		if err != nil {
			return "", err
		}
		rest := p.split(b)
		talk(p.ready)
		if talked += len(p.ready); talked > maxTalk {
			return "", errors.New("too much was said before")
		}
		p.ready = nil
		if p.words != "" {
			words := p.words
			p.words = ""
			p.ready = bytes.Clone(rest)
			return words, nil
		}
	}
}

// await reads until sign has come; with exact nothing may come before it, and it is
// dropped. What else has come Read gives.
func (p *plainStream) await(sign []byte, exact bool) error {
	got := p.ready
	for !bytes.Contains(got, sign) {
		if len(got) > maxTalk {
			return errors.New("too much was said before")
		}
		if exact && !bytes.HasPrefix(sign, got) {
			break
		}
		b, err := p.src.next()
		if err != nil {
			return err
		}
		p.split(b)
		if p.words != "" {
			return errors.New("it ended at once: " + string(got) + p.words)
		}
		got = append(got[:len(got):len(got)], p.ready...)
	}
	if exact {
		got = bytes.TrimPrefix(got, sign)
	}
	p.ready = got
	return nil
}

// Read gives output.
func (p *plainStream) Read(out []byte) (int, error) {
	for len(p.ready) == 0 {
		if p.words != "" {
			return 0, io.EOF
		}
		b, err := p.src.next()
		if err != nil {
			if len(p.held) == 0 {
				return 0, err
			}
			p.ready, p.held = p.held, nil
			break
		}
		p.split(b)
	}
	n := copy(out, p.ready)
	p.ready = p.ready[n:]
	return n, nil
}

func (p *plainStream) verdict() string { return p.words }

// split takes what has come apart: into ready, what is held back, and the words of a
// line of ours, behind which is rest.
func (p *plainStream) split(b []byte) (rest []byte) {
	if len(p.held) > 0 {
		b = append(p.held, b...)
		p.held = nil
	}
	p.ready = b
	if p.token == nil {
		return nil
	}
	for at := 0; ; at++ {
		i := bytes.IndexByte(b[at:], p.token[0])
		if len(p.before) > 0 {
			if j := bytes.IndexByte(b[at:], p.before[0]); j >= 0 && (i < 0 || j < i) {
				i = j
			}
		}
		if i < 0 {
			return nil
		}
		at += i
		head, may := p.head(b[at:])
		if !may {
			continue
		}
		if head > 0 {
			line, behind, ended := bytes.Cut(b[at+head:], []byte("\n"))
			if len(line) > maxWords {
				continue
			}
			if ended {
				p.ready, p.words = b[:at], strings.TrimSuffix(string(line), "\r")
				return behind
			}
		}
		p.ready, p.held = b[:at], bytes.Clone(b[at:])
		return nil
	}
}

// head gives the size of what stands before the words of a line of ours at the start of
// b; 0 and may where it may become one.
func (p *plainStream) head(b []byte) (size int, may bool) {
	for _, sign := range [][]byte{p.token, append(p.before[:len(p.before):len(p.before)], p.token...)} {
		if bytes.HasPrefix(b, sign) {
			return len(sign), true
		}
		may = may || bytes.HasPrefix(sign, b)
	}
	return 0, may
}

// parseVerdict reads what attach.sh says last: whether the shell has ended, and how.
func parseVerdict(words string) (ended bool, code *int) {
	verb, rest, _ := strings.Cut(words, " ")
	switch verb {
	case "exit":
		// ksh and yash give more than 255 for a signal: then there is no code.
		if n, err := strconv.Atoi(rest); err == nil && n >= 0 && n <= 255 {
			code = &n
		}
		return true, code
	case "gone", "rebooted":
		return true, nil
	}
	return false, nil
}
