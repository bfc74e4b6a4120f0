package mcptool

import (
	"bytes"
	"iter"
	"math"
)

// maxLine is where a line that does not end is cut, so that output without lines
// costs no memory.
const maxLine = 16 << 10

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
				l.rest = l.rest[:0]
			}
			if !yield(matchFacts{l.stream, at, lineText(line)}) {
				return
			}
			at += int64(len(line) + behind)
			data = data[end+behind:]
		}
	}
}

// unfinished gives the line that has not ended, for prompts and last lines.
func (l *lines) unfinished() matchFacts {
	return matchFacts{l.stream, l.next - int64(len(l.rest)), lineText(l.rest)}
}

// lineText is a line as people see it.
func lineText(line []byte) string {
	text, _ := formatText.show(bytes.TrimSuffix(line, []byte("\r")), math.MaxInt, true)
	return text
}
