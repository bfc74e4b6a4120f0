package mcptool

import (
	"bytes"
	"iter"
	"math"
)

const (
	// maxLine is where a line that does not end is cut, so that output without lines
	// costs no memory.
	maxLine = 16 << 10
	// overlap is how much of a piece of a line the next piece begins with.
	overlap = 1 << 10
)

// lines cuts a stream into lines as its chunks come.
type lines struct {
	stream streamName
	next   int64  // offset behind the last byte that was added
	rest   []byte // the line that has not ended
}

// add gives the lines that end in data, each as text without control sequences
// and without its end. It must be ranged over to the end, or lines not be used
// any more.
func (l *lines) add(offset int64, data []byte) iter.Seq[matchFacts] {
	return func(yield func(matchFacts) bool) {
		at := offset - int64(len(l.rest))
		l.next = offset + int64(len(data))
		for len(data) > 0 {
			end, behind := bytes.IndexByte(data, '\n'), 1
			if room := maxLine - len(l.rest); end < 0 && len(data) >= room || end > room {
				end, behind = room, 0
			}
			if end < 0 {
				l.rest = append(l.rest, data...)
				return
			}
			line := data[:end]
			if len(l.rest) > 0 {
				line = append(l.rest, line...)
			}
			if !yield(matchFacts{Stream: l.stream, Offset: at, Line: lineText(line)}) {
				return
			}
			data = data[end+behind:]
			if behind == 0 { // what stands across the cut must be found as well
				at += int64(len(line) - overlap)
				l.rest = append(l.rest[:0], line[len(line)-overlap:]...)
				continue
			}
			at += int64(len(line) + 1)
			l.rest = l.rest[:0]
		}
	}
}

// unfinished gives the line that has not ended, for prompts and last lines; of a long
// one its end, for it is looked at with every chunk.
func (l *lines) unfinished() matchFacts {
	rest := l.rest[max(len(l.rest)-overlap, 0):]
	return matchFacts{Stream: l.stream, Offset: l.next - int64(len(rest)), Line: lineText(rest)}
}

// lineText is a line as people see it.
func lineText(line []byte) string {
	text, _ := formatText.show(bytes.TrimSuffix(line, []byte("\r")), math.MaxInt, true)
	return text
}
