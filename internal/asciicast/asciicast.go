// Package asciicast writes and reads recordings of terminals in the format asciicast
// v2 (https://docs.asciinema.org/manual/asciicast/v2/): one line of JSON with what
// does not change, then one for each event, [seconds, kind, data].
//
//	{"version":2,"width":80,"height":24,"timestamp":1763769600,…}
//	[0.251,"o","$ "]          output
//	[1.003,"r","120x40"]      another size
//	[2.500,"m","make test"]   marker
//
// The data is JSON, so that it can hold text alone. Output that is not valid UTF-8 is
// kept all the same: an event of kind "x-telexec-bytes" stands before it with the
// exact bytes in base64, which players pass over, and the "o" behind it has U+FFFD
// where they are not text. A character that is split between two pieces of output is
// not torn: its beginning is held until its end comes.
//
// A Writer appends lines to what its caller keeps; a Reader gives events with the exact
// bytes. Neither does I/O of its own but to read.
package asciicast

import (
	"encoding/base64"
	"encoding/json"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// The kinds of events. Those of others are passed over.
const (
	Output = "o"
	Resize = "r"
	Marker = "m"

	exact = "x-telexec-bytes"
)

// Header is what does not change.
type Header struct {
	Width, Height int
	Time          time.Time // of the beginning; zero: not known
	Title         string
	Term, Shell   string // the variables TERM and SHELL; may be empty
}

type header struct {
	Version   int               `json:"version"`
	Width     int               `json:"width"`
	Height    int               `json:"height"`
	Timestamp int64             `json:"timestamp,omitempty"`
	Title     string            `json:"title,omitempty"`
	Env       map[string]string `json:"env,omitempty"`
}

// Writer makes the lines of one recording, whose times are from its beginning on and
// should not fall. The zero Writer is ready to use; it is for one goroutine.
type Writer struct {
	held []byte // the beginning of a character
}

// AppendHeader appends the first line.
func AppendHeader(to []byte, h Header) []byte {
	line := header{Version: 2, Width: h.Width, Height: h.Height, Title: strings.ToValidUTF8(h.Title, "\ufffd")}
	if !h.Time.IsZero() {
		line.Timestamp = h.Time.Unix()
	}
	for name, value := range map[string]string{"TERM": h.Term, "SHELL": h.Shell} {
		if value != "" {
			if line.Env == nil {
				line.Env = make(map[string]string)
			}
			line.Env[name] = strings.ToValidUTF8(value, "\ufffd")
		}
	}
	p, _ := json.Marshal(line) // numbers and strings
	return append(append(to, p...), '\n')
}

// AppendOutput appends output that came at a time. It may keep up to three bytes of it
// until more comes.
func (w *Writer) AppendOutput(to []byte, at time.Duration, p []byte) []byte {
	if len(w.held) > 0 {
		p = append(w.held, p...)
		w.held = nil
	}
	whole := len(p) - begun(p)
	if whole < len(p) {
		w.held = append([]byte(nil), p[whole:]...)
	}
	return appendOutput(to, at, p[:whole])
}

// AppendRest appends what was kept: no more output comes, or not soon.
func (w *Writer) AppendRest(to []byte, at time.Duration) []byte {
	p := w.held
	w.held = nil
	return appendOutput(to, at, p)
}

// AppendResize appends that the terminal has another size. What was kept comes before.
func (w *Writer) AppendResize(to []byte, at time.Duration, width, height int) []byte {
	return appendEvent(w.AppendRest(to, at), at, Resize, strconv.Itoa(width)+"x"+strconv.Itoa(height))
}

// AppendMarker appends a marker. What was kept comes before.
func (w *Writer) AppendMarker(to []byte, at time.Duration, label string) []byte {
	return appendEvent(w.AppendRest(to, at), at, Marker, strings.ToValidUTF8(label, "\ufffd"))
}

func appendOutput(to []byte, at time.Duration, p []byte) []byte {
	if len(p) == 0 {
		return to
	}
	text := string(p)
	if !utf8.Valid(p) {
		to = appendEvent(to, at, exact, base64.StdEncoding.EncodeToString(p))
		text = readable(p)
	}
	return appendEvent(to, at, Output, text)
}

// readable gives p with each byte that is not text as U+FFFD.
func readable(p []byte) string {
	var b strings.Builder
	for len(p) > 0 {
		r, n := utf8.DecodeRune(p)
		b.WriteRune(r)
		p = p[n:]
	}
	return b.String()
}

// appendEvent appends a line. text is valid UTF-8.
func appendEvent(to []byte, at time.Duration, kind, text string) []byte {
	to = append(to, '[')
	to = strconv.AppendFloat(to, max(at, 0).Seconds(), 'f', 6, 64)
	to = append(to, `,"`...)
	to = append(to, kind...)
	to = append(to, `",`...)
	p, _ := json.Marshal(text)
	to = append(to, p...)
	return append(to, "]\n"...)
}

// begun gives how many bytes at the end of p are the beginning of a character.
func begun(p []byte) int {
	for n := 1; n <= min(3, len(p)); n++ {
		c := p[len(p)-n]
		switch {
		case c < 0x80:
			return 0
		case utf8.RuneStart(c):
			if utf8.FullRune(p[len(p)-n:]) {
				return 0
			}
			return n
		}
	}
	return 0
}
