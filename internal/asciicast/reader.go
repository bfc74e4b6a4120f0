package asciicast

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"
)

// MaxLine is how long a line may be that is read.
const MaxLine = 8 << 20

// Event is one thing that happened.
type Event struct {
	At            time.Duration // from the beginning
	Kind          string        // Output, Resize or Marker
	Data          []byte        // of Output: the exact bytes
	Width, Height int           // of Resize
	Label         string        // of Marker
}

// Reader reads a recording. It is for one goroutine.
type Reader struct {
	Header Header

	lines *bufio.Reader
	line  int
	at    time.Duration // of the last event
}

// NewReader reads the first line.
func NewReader(r io.Reader) (*Reader, error) {
	n := &Reader{lines: bufio.NewReaderSize(r, 64<<10)}
	p, err := n.next()
	if errors.Is(err, io.EOF) {
		return nil, errors.New("asciicast: the recording is empty")
	}
	if err != nil {
		return nil, err
	}
	var h header
	if err := json.Unmarshal(p, &h); err != nil || h.Version != 2 {
		return nil, errors.New("asciicast: this is no recording in the format asciicast v2")
	}
	n.Header = Header{Width: h.Width, Height: h.Height, Title: h.Title, Term: h.Env["TERM"], Shell: h.Env["SHELL"]}
	if h.Timestamp != 0 {
		n.Header.Time = time.Unix(h.Timestamp, 0).UTC()
	}
	return n, nil
}

// Next gives the next event, and io.EOF behind the last. A last line that is cut off,
// as of a recording that is still being written, is not there. Times do not fall.
func (r *Reader) Next() (Event, error) {
	var bytes []byte // of the output that follows
	for {
		p, err := r.next()
		if err != nil {
			return Event{}, err
		}
		e, err := parse(p)
		if err != nil {
			return Event{}, fmt.Errorf("asciicast: line %d: %w", r.line, err)
		}
		r.at = max(r.at, e.At)
		e.At = r.at
		switch e.Kind {
		case exact:
			bytes = e.Data
			continue
		case Output:
			if bytes != nil && readable(bytes) == string(e.Data) {
				e.Data = bytes
			}
			return e, nil
		case Resize, Marker:
			return e, nil
		}
	}
}

// next gives the next whole line that is not empty.
func (r *Reader) next() ([]byte, error) {
	for {
		var line []byte
		for {
			part, err := r.lines.ReadSlice('\n')
			if len(line)+len(part) > MaxLine {
				return nil, fmt.Errorf("asciicast: line %d is longer than %d bytes", r.line+1, MaxLine)
			}
			if line = append(line, part...); err == nil {
				break
			}
			if !errors.Is(err, bufio.ErrBufferFull) {
				return nil, err // io.EOF: the line is cut off, or there is none
			}
		}
		r.line++
		if line = bytes.TrimSpace(line); len(line) > 0 {
			return line, nil
		}
	}
}

func parse(line []byte) (Event, error) {
	var fields []json.RawMessage
	if err := json.Unmarshal(line, &fields); err != nil || len(fields) < 3 {
		return Event{}, errors.New("this is no event")
	}
	var seconds float64
	var e Event
	var text string
	if json.Unmarshal(fields[0], &seconds) != nil || seconds < 0 || seconds > math.MaxInt32 || json.Unmarshal(fields[1], &e.Kind) != nil {
		return Event{}, errors.New("this is no event")
	}
	e.At = time.Duration(math.Round(seconds*1e6)) * time.Microsecond
	switch e.Kind {
	case Output, Resize, Marker, exact:
		if json.Unmarshal(fields[2], &text) != nil {
			return Event{}, errors.New("the event has no text")
		}
	}
	switch e.Kind {
	case Output:
		e.Data = []byte(text)
	case Marker:
		e.Label = text
	case Resize:
		width, height, ok := strings.Cut(text, "x")
		w, err := strconv.ParseUint(width, 10, 16)
		h, err2 := strconv.ParseUint(height, 10, 16)
		if !ok || err != nil || err2 != nil || w == 0 || h == 0 {
			return Event{}, fmt.Errorf("%q is no size", text)
		}
		e.Width, e.Height = int(w), int(h)
	case exact:
		var err error
		if e.Data, err = base64.StdEncoding.DecodeString(text); err != nil {
			return Event{}, errors.New("the bytes are no base64")
		}
		if e.Data == nil {
			e.Data = []byte{}
		}
	}
	return e, nil
}
