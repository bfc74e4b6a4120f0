package mcptool

import (
	"bytes"
	"iter"
	"math"
	"regexp"
	"strings"
)

const (
	// maxLine is where a line that does not end is cut, so that output without lines
	// costs no memory.
	maxLine = 16 << 10
	// overlap is how much of a piece of a line the next piece begins with, so that
	// nothing hides where it was cut.
	overlap = 1 << 10
	// maxMatch is how much of a line that matches is shown, around the match.
	maxMatch = 1 << 10
)

// lines cuts a stream into lines as its chunks come.
type lines struct {
	stream streamName
	next   int64  // offset behind the last byte that was added
	rest   []byte // the line that has not ended, or its last piece
	part   bool   // rest begins inside of its line
}

// piece is a line, or a piece of a long one.
type piece struct {
	raw    []byte // without the end of the line; valid until the next piece
	offset int64  // of its first byte
	part   bool   // it begins inside of the line, or the line goes on behind it
	open   bool   // the line has not ended; it may still go on
	seen   int    // so many bytes at its beginning were in the piece before
}

// add gives the lines that end in data. It must be ranged over to the end, or lines
// not be used any more.
func (l *lines) add(offset int64, data []byte) iter.Seq[piece] {
	return func(yield func(piece) bool) {
		l.next = offset + int64(len(data))
		at := offset - int64(len(l.rest))
		for len(data) > 0 {
			end, behind := bytes.IndexByte(data, '\n'), 1
			if room := maxLine - len(l.rest); end < 0 && len(data) >= room || end > room {
				end, behind = room, 0
			}
			if end < 0 {
				l.rest = append(l.rest, data...)
				return
			}
			p := piece{raw: append(l.rest, data[:end]...), offset: at, part: l.part || behind == 0}
			if l.part {
				p.seen = overlap
			}
			if !yield(p) {
				return
			}
			data = data[end+behind:]
			kept := 0
			if l.part = behind == 0; l.part {
				kept = overlap
			}
			at += int64(len(p.raw) - kept + behind)
			l.rest = append(l.rest[:0], p.raw[len(p.raw)-kept:]...)
		}
	}
}

// open gives the line that has not ended, or its last bytes where it is longer.
func (l *lines) open(last int) piece {
	skip := max(len(l.rest)-last, 0)
	p := piece{raw: l.rest[skip:], offset: l.next - int64(len(l.rest)-skip), part: l.part || skip > 0, open: true}
	if l.part {
		p.seen = max(overlap-skip, 0)
	}
	return p
}

// lineText is a line as people see it. A line that a progress bar overwrites is
// several.
func lineText(raw []byte) string {
	text, _ := formatText.show(bytes.TrimSuffix(raw, []byte("\r")), math.MaxInt, true)
	return text
}

// matching gives the lines of a piece that match a pattern: one, or of what a progress
// bar wrote those of its states that do. What was found in the piece before is not
// given again.
func (p piece) matching(pattern *regexp.Regexp, stream streamName) iter.Seq[matchFacts] {
	return func(yield func(matchFacts) bool) {
		text := lineText(p.raw)
		seen := 0
		if p.seen > 0 {
			seen = len(lineText(p.raw[:p.seen]))
		}
		at := 0 // of the line in text
		for line := range strings.SplitSeq(text, "\n") {
			for _, found := range pattern.FindAllStringIndex(line, maxFound) {
				if p.seen > 0 && at+found[1] <= seen {
					continue
				}
				from, to := window(line, found[0])
				skipped := 0
				if at+from > 0 {
					_, skipped = formatText.show(p.raw, at+from, true)
				}
				m := matchFacts{
					Stream: stream, Offset: p.offset + int64(skipped), Line: line[from:to],
					Part: p.part || from > 0 || to < len(line), Unfinished: p.open,
				}
				if !yield(m) {
					return
				}
				break
			}
			at += len(line) + 1
		}
	}
}

// maxFound is how many matches of a line are looked at for one that is new.
const maxFound = 100

// window is the part of a line that is shown for a match that begins at found: all of
// it, or what stands around the match.
func window(line string, found int) (from, to int) {
	if len(line) <= maxMatch {
		return 0, len(line)
	}
	from = min(max(found-maxMatch/4, 0), len(line)-maxMatch)
	return runeStart(line, from), runeStart(line, from+maxMatch)
}
