package terminal

import (
	"context"
	"strings"
	"sync"
	"unicode"

	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/output"
	"github.com/telexec/telexec/internal/session"
)

// keysMost is how many bytes may wait to be typed before who types has to wait. What is
// more at once waits until nothing else does.
const keysMost = 256 << 10

// answersMost is how many bytes may wait to be typed before what the terminal answers to
// programs is dropped: one that asks and does not read gets no more.
const answersMost = 16 << 10

// interrupt is what Ctrl-C sends.
const interrupt = 0x03

// keys is what waits to be typed, so that the owner never waits for a program that does
// not read.
type keys struct {
	kick chan struct{} // has an element when there is something; capacity 1
	bell output.Bell   // rung when there is room again

	mu   sync.Mutex
	buf  []byte
	size *session.Size // nil: it has not changed
	shut bool          // nothing is typed any more
}

func newKeys() *keys { return &keys{kick: make(chan struct{}, 1)} }

// put adds what is to be typed; false where there is no room. What must be typed has
// room always.
func (k *keys) put(data []byte, must bool) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !must && !k.fits(len(data)) {
		return false
	}
	k.buf = append(k.buf, data...)
	k.signal()
	return true
}

// fits reports whether n bytes more may wait. Its caller holds mu.
func (k *keys) fits(n int) bool { return len(k.buf) == 0 || len(k.buf)+n <= keysMost }

// answer adds what the terminal answers to a program; false where that is dropped.
func (k *keys) answer(data []byte) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.buf)+len(data) > answersMost {
		return false
	}
	k.buf = append(k.buf, data...)
	k.signal()
	return true
}

// forget drops what was not typed yet, as a terminal does at Ctrl-C.
func (k *keys) forget() {
	k.mu.Lock()
	k.buf = nil
	k.mu.Unlock()
	k.bell.Ring()
}

// wait waits until there is room for n bytes, or may be, or there never will be.
func (k *keys) wait(ctx context.Context, n int, over <-chan struct{}) error {
	rung := k.bell.Rung()
	k.mu.Lock()
	full := !k.shut && !k.fits(n)
	k.mu.Unlock()
	if !full {
		return nil
	}
	select {
	case <-rung:
	case <-over:
	case <-ctx.Done():
		return fault.From(context.Cause(ctx))
	}
	return nil
}

// close lets go of who waits for room. What waits to be typed is not typed any more.
func (k *keys) close() {
	k.mu.Lock()
	k.shut = true
	k.mu.Unlock()
	k.bell.Ring()
}

// resize changes the size of the terminal.
func (k *keys) resize(size session.Size) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.size = &size
	k.signal()
}

func (k *keys) signal() {
	select {
	case k.kick <- struct{}{}:
	default:
	}
}

// run types until quit is closed or the shell takes no more. A size goes first: who
// types has seen it.
func (k *keys) run(sh Shell, quit <-chan struct{}) {
	for {
		k.mu.Lock()
		data, size := k.buf, k.size
		k.buf, k.size = nil, nil
		k.mu.Unlock()
		if size != nil {
			_ = sh.Resize(*size) // a terminal of another size still works
		}
		if len(data) > 0 {
			k.bell.Ring()
			if _, err := sh.Write(data); err != nil {
				return // the reader tells why
			}
		}
		if size != nil || len(data) > 0 {
			continue
		}
		select {
		case <-k.kick:
		case <-quit:
			return
		}
	}
}

// plainText gives text from a host as it may be shown: valid, without control
// characters, at most n bytes.
func plainText(s string, n int) string {
	s = strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || unicode.IsControl(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, ""))
	for len(s) > n {
		cut := n
		for cut > 0 && s[cut]&0xc0 == 0x80 {
			cut--
		}
		s = s[:cut]
	}
	return s
}
