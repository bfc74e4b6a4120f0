package sshexec

import (
	"bytes"
	"strings"
)

// In the streams of a durable run, what is said to us stands between the output:
// marks, each the byte RS (0x1E), "telexec:", a nonce or key of 26 characters that
// nobody can guess, ": ", words, and a line end. The follower says some, with the
// nonce of the day; the run's own, with its key, lie in the spools.

const (
	markStart = 0x1e
	markName  = "telexec:"
	nonceSize = 26  // of rand.Text
	markMost  = 512 // bytes of a mark at most
)

// mark is one of them, without what is around its words.
type mark struct {
	key   string // who says it
	words string
}

// marks takes a stream apart. The zero value is ready.
type marks struct {
	held []byte // the beginning of what may become a mark
}

// next takes what a stream has brought, and calls data for the output in it and
// said for each mark, in their order. What may become a mark is held back until
// the next call. known tells whose marks are real; one of anybody else's is output.
func (m *marks) next(b []byte, known func(key string) bool, data func([]byte), said func(mark)) {
	if len(m.held) > 0 {
		b = append(m.held, b...)
		m.held = nil
	}
	from := 0 // of the output that data has not had
	for at := 0; ; {
		i := bytes.IndexByte(b[at:], markStart)
		if i < 0 {
			break
		}
		at += i
		got, size := parseMark(b[at:])
		switch {
		case size > 0 && known(got.key):
			if from < at {
				data(b[from:at])
			}
			said(got)
			at += size
			from = at
		case size == 0:
			m.held = bytes.Clone(b[at:])
			b = b[:at]
		default:
			at++
		}
	}
	if from < len(b) {
		data(b[from:])
	}
}

// flush gives data what is held back, where no mark can come any more. The
// beginning of one of the run's own, which a full disk has cut off, is no output.
func (m *marks) flush(key string, data func([]byte)) {
	const certain = 8 // characters of a key that nobody can guess
	part, named := bytes.CutPrefix(m.held, []byte(string(rune(markStart))+markName))
	part = part[:min(len(part), len(key))]
	if torn := named && len(part) >= certain && strings.HasPrefix(key, string(part)); len(m.held) > 0 && !torn {
		data(m.held)
	}
	m.held = nil
}

// parseMark reads the mark at the start of b. size is 0 where it may still become
// one, and below 0 where it is none.
func parseMark(b []byte) (got mark, size int) {
	const head = 1 + len(markName) + nonceSize + 2
	for i := 1; i < min(len(b), head); i++ {
		c := b[i]
		switch at := i - 1 - len(markName); {
		case at < 0:
			if c != markName[i-1] {
				return mark{}, -1
			}
		case at < nonceSize:
			if !(c >= 'A' && c <= 'Z' || c >= '0' && c <= '9') {
				return mark{}, -1
			}
		default:
			if c != ": "[at-nonceSize] {
				return mark{}, -1
			}
		}
	}
	end := bytes.IndexByte(b[:min(len(b), markMost)], '\n')
	if end < 0 {
		if len(b) >= markMost {
			return mark{}, -1
		}
		return mark{}, 0
	}
	key := string(b[1+len(markName) : head-2])
	return mark{key: key, words: strings.TrimRight(string(b[head:end]), " ")}, end + 1
}
