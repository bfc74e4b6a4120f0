package mcptool

import (
	"bytes"
	"fmt"
	"math"
	"unicode/utf8"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

// The two streams, as tools name them.
type streamName string

const (
	streamStdout streamName = "stdout"
	streamStderr streamName = "stderr"
)

// Budgets are bytes of text. The largest keeps every message far below the 10 MiB
// at which clients close the connection: JSON may write a byte with six, and an
// answer shows output twice.
const (
	minBudget     = 256
	maxBudget     = 256 << 10
	defaultBudget = 8 << 10
	// statusBudget is for those who only ask how it goes, often many times.
	statusBudget = 2 << 10
)

// budgetOr gives what the caller asked for, or the default.
func budgetOr(asked, otherwise int) int {
	if asked == 0 {
		return otherwise
	}
	return min(max(asked, minBudget), maxBudget)
}

// share divides a budget between the streams by what each needs: each gets half,
// and what one does not need the other one may have.
func share(budget, stdout, stderr int) (forStdout, forStderr int) {
	half := budget / 2
	switch {
	case stderr <= half:
		return budget - stderr, stderr
	case stdout <= half:
		return stdout, budget - stdout
	}
	return half, half
}

// need is how much text the service gave of a stream, or more than any budget where
// it did not give all.
func (f format) need(c *telexecv1.StreamContent) int {
	if len(c.GetTail()) > 0 || c.GetSize() > c.GetOffset()+int64(len(c.GetData())) {
		return math.MaxInt
	}
	text, _ := f.show(c.GetData(), math.MaxInt, c.GetComplete())
	return len(text)
}

// excerpt is the part of a stream that is shown: a beginning and, behind a gap,
// an end.
type excerpt struct {
	stream     streamName
	head, tail string
	exact      bool // it is base64, in which no mark may stand
	paged      bool // it is a page: what is behind it is for the next one
	info       streamInfo
}

// streamInfo says which bytes of a stream are shown.
type streamInfo struct {
	Bytes         int64  `json:"bytes" jsonschema:"size of the stream so far"`
	Offset        int64  `json:"offset" jsonschema:"offset of the first byte shown"`
	OmittedOffset int64  `json:"omitted_offset,omitempty" jsonschema:"where what was left out in the middle begins: the offset to read it from"`
	OmittedBytes  int64  `json:"omitted_bytes,omitempty" jsonschema:"how many bytes were left out in the middle"`
	NextOffset    int64  `json:"next_offset" jsonschema:"where to go on reading: the offset behind the last byte shown"`
	Complete      bool   `json:"complete,omitempty" jsonschema:"no more bytes will ever come behind next_offset"`
	More          bool   `json:"more,omitempty" jsonschema:"there is more behind next_offset already"`
	Note          string `json:"note,omitempty" jsonschema:"what is not shown although it was asked for"`
	Removed       int64  `json:"removed_bytes,omitempty" jsonschema:"bytes at the beginning that are not stored any more"`
}

// excerptOf fits what the service gave of a stream into a budget: all of it, or
// its beginning and its end.
func excerptOf(name streamName, c *telexecv1.StreamContent, budget int, f format) excerpt {
	begin, data, tail := c.GetOffset(), c.GetData(), c.GetTail()
	e := excerpt{stream: name, exact: f == formatBase64, info: streamInfo{Bytes: c.GetSize(), Offset: begin, Removed: c.GetEarliestOffset()}}
	whole := len(tail) == 0
	if whole {
		final := c.GetComplete()
		text, used := f.show(data, math.MaxInt, final)
		if len(text) <= budget {
			e.head, e.info.NextOffset, e.info.Complete = text, begin+int64(used), final
			return e
		}
	}
	if e.exact { // a beginning and an end would be two texts
		var used int
		e.head, used = f.show(data, budget, false)
		e.leaveOut(begin+int64(used), c.GetSize())
		e.info.NextOffset = begin + int64(used)
		return e
	}
	var used, first int
	e.head, used = f.show(data, budget/2, false)
	rest, restAt := data[used:], begin+int64(used)
	if !whole {
		cut := cleanStart(tail)
		rest, restAt = tail[cut:], c.GetTailOffset()+int64(cut)
	}
	if !c.GetComplete() {
		rest = f.settled(rest)
	}
	e.tail, first = f.showEnd(rest, budget-len(e.head))
	e.leaveOut(begin+int64(used), restAt+int64(first))
	e.info.NextOffset, e.info.Complete = restAt+int64(len(rest)), c.GetComplete()
	return e
}

// leaveOut notes what is not shown.
func (e *excerpt) leaveOut(from, to int64) {
	e.info.OmittedOffset, e.info.OmittedBytes = from, to-from
}

// more reports whether there is more behind the excerpt, and a way to it.
func (e excerpt) more() bool {
	return e.info.NextOffset > e.info.Offset && e.info.NextOffset < e.info.Bytes
}

// cleanStart is where to begin in data that was cut anywhere: behind the first end
// of a line if one is near, since nothing tells whether it begins inside of a
// control sequence; at least not inside of a character.
func cleanStart(data []byte) int {
	if i := bytes.IndexByte(data[:len(data)/4], '\n'); i >= 0 {
		return i + 1
	}
	for i := range min(utf8.UTFMax, len(data)) {
		if utf8.RuneStart(data[i]) {
			return i
		}
	}
	return 0
}

// settled leaves out the beginning of a character or control sequence at the end of
// data that will go on.
func (f format) settled(data []byte) []byte {
	_, used := f.show(data, math.MaxInt, false)
	return data[:used]
}

// text is the excerpt in one piece, with a mark where something was left out.
func (e excerpt) text() string {
	if e.info.OmittedBytes == 0 || e.exact {
		return e.head + e.tail
	}
	return e.head + fmt.Sprintf("\n[… %d bytes left out, from offset %d on …]\n", e.info.OmittedBytes, e.info.OmittedOffset) + e.tail
}
