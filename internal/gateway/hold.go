package gateway

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/telexec/telexec/internal/access"
)

// A connection costs whoever makes it nothing, and the service a goroutine with its
// buffers. So nobody holds one by sending a body that does not come, or by not
// reading what was asked for:
//
//	headers  10 s
//	body     10 s until somebody wants it; then 60 s, or 4 s for the form of a login,
//	         and what is late is counted for its sender
//	call     as long as it waits
//	answer   2 s for what is left of the body; then 30 s for each part, but a stream
//	         may be read as slowly as its reader likes
//
// net/http knows limits for whole requests and answers alone, which would cut off
// waits and streams; and it reads the rest of a body that nobody wanted before it
// answers, without any limit of time.

const (
	// unreadTimeout is for a body until somebody reads it, or answers without.
	unreadTimeout = 10 * time.Second
	// leftTimeout is for what is left of it then. It is there already where a client
	// sends all before it reads.
	leftTimeout = 2 * time.Second
	// answerTimeout is for each part of an answer to be taken.
	answerTimeout = 30 * time.Second
	answerPart    = 64 << 10
	// frameTimeout is the same for HTTP/2, where a connection that nobody reads would
	// outlive its requests. Streams share it, so that it is longer.
	frameTimeout = 5 * time.Minute
)

// bounded sees to it that no request holds its connection.
func bounded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := &reply{ResponseWriter: w, control: http.NewResponseController(w)}
		if r.Body != nil && r.Body != http.NoBody {
			// net/http looks at what kind of body its own request has, so that is left alone.
			r = r.WithContext(r.Context())
			answer.body = &incoming{ReadCloser: r.Body}
			r.Body = answer.body
			// Without deadlines (a recorder in a test) there is nobody to wait for.
			_ = answer.control.SetReadDeadline(time.Now().Add(unreadTimeout))
		}
		next.ServeHTTP(answer, r)
		answer.begin()
	})
}

// incoming is a body that knows whether it was read to its end.
type incoming struct {
	io.ReadCloser
	ended bool
}

func (b *incoming) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.ended = b.ended || err != nil
	return n, err
}

// reply is an answer that its reader cannot hold up. It is for the goroutine of
// its request.
type reply struct {
	http.ResponseWriter
	control *http.ResponseController
	body    *incoming // nil: the request has none
	begun   bool
	streams bool
}

// begin is called before net/http reads what is left of the body. Where nothing is
// left no deadline is set: net/http is waiting then for the client to go away, and
// would take its end for that.
func (a *reply) begin() {
	if a.begun {
		return
	}
	a.begun = true
	if a.body != nil && !a.body.ended {
		_ = a.control.SetReadDeadline(time.Now().Add(leftTimeout))
	}
	if a.streams = a.Header().Get("Content-Type") == streamType; !a.streams {
		_ = a.control.SetWriteDeadline(time.Now().Add(answerTimeout)) // net/http takes it back for the next one
	}
}

// WriteHeader is of http.ResponseWriter.
func (a *reply) WriteHeader(status int) {
	if status >= http.StatusOK { // those before are not the answer
		a.begin()
	}
	a.ResponseWriter.WriteHeader(status)
}

// Write is of http.ResponseWriter.
func (a *reply) Write(p []byte) (written int, err error) {
	a.begin()
	for !a.streams && len(p)-written > answerPart {
		n, err := a.ResponseWriter.Write(p[written : written+answerPart])
		if written += n; err != nil {
			return written, err
		}
		_ = a.control.SetWriteDeadline(time.Now().Add(answerTimeout))
	}
	n, err := a.ResponseWriter.Write(p[written:])
	return written + n, err
}

// Hijack is for WebSockets, which have limits of time of their own once net/http has
// written the answer to the handshake.
func (a *reply) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	a.begun = true
	_ = a.control.SetWriteDeadline(time.Now().Add(answerTimeout))
	return a.control.Hijack()
}

// Unwrap is for http.ResponseController.
func (a *reply) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// take reads the whole of a body, which has to be there in time. A body that is late is
// counted by count until it is there; where that fails nobody waits for it, and its
// error is given.
func take(w http.ResponseWriter, r *http.Request, most int64, within time.Duration, count func() (release func(), err error)) ([]byte, error) {
	if r.Body == nil || r.Body == http.NoBody {
		return nil, nil
	}
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(within))
	late := &access.Lateness{Count: count, GiveUp: func(error) { _ = control.SetReadDeadline(time.Now()) }}
	timer := time.AfterFunc(access.LateAfter, late.Begin)
	body := http.MaxBytesReader(w, r.Body, most)
	if r.ContentLength >= 0 {
		most = min(most, r.ContentLength)
	}
	text, err := readWhole(body, most)
	timer.Stop()
	if refused := late.End(); refused != nil {
		if r.ProtoMajor == 1 { // the end of the reading may have been the connection's
			w.Header().Set("Connection", "close")
		}
		return nil, refused
	}
	if err != nil {
		return nil, err
	}
	_ = control.SetReadDeadline(time.Time{})
	return text, nil
}

// readWhole reads all that there is, which is most bytes at most. There is memory for
// them step by step: who says that much will come has to send some of it before.
func readWhole(r io.Reader, most int64) ([]byte, error) {
	const first, factor = 4 << 10, 8
	most++ // one more, in which the end shows
	text := make([]byte, 0, min(first, most))
	for {
		n, err := r.Read(text[len(text):cap(text)])
		text = text[:len(text)+n]
		if err == io.EOF {
			return text, nil
		}
		if err != nil {
			return nil, err
		}
		if len(text) == cap(text) {
			more := make([]byte, len(text), max(min(factor*int64(cap(text)), most), int64(cap(text))+1))
			copy(more, text)
			text = more
		}
	}
}
