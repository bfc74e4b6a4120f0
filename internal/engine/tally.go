package engine

import (
	"bytes"
	"context"
	"crypto/sha256"
	"hash"

	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/command"
)

// tally is what the audit gets of one stream: a digest of all of it, and its head
// and tail. It is fed what goes to the journal, in order. An owner that takes a
// command over reads what came before from the journal, at the end.
type tally struct {
	excerpt int
	hash    hash.Hash
	to      int64 // so far it was fed
	head    []byte
	tail    []byte // the last bytes behind head
}

func newTally(excerpt int) tally { return tally{excerpt: excerpt, hash: sha256.New()} }

// feed takes a chunk. Bytes that it has had before are passed over; a chunk behind
// a gap is, too: catchUp gets it from the journal.
func (t *tally) feed(c command.Chunk) {
	if c.Offset > t.to || c.End() <= t.to {
		return
	}
	data := c.Data[t.to-c.Offset:]
	t.to = c.End()
	t.hash.Write(data)
	if n := min(t.excerpt-len(t.head), len(data)); n > 0 {
		t.head = append(t.head, data[:n]...)
		data = data[n:]
	}
	switch {
	case len(data) >= t.excerpt:
		t.tail = append(t.tail[:0], data[len(data)-t.excerpt:]...)
	case len(data) > 0:
		if over := len(t.tail) + len(data) - t.excerpt; over > 0 {
			t.tail = t.tail[:copy(t.tail, t.tail[over:])]
		}
		t.tail = append(t.tail, data...)
	}
}

// catchUp feeds what the journal has up to an offset and the tally has not seen.
func (t *tally) catchUp(ctx context.Context, j Journal, id string, s command.Stream, to int64) error {
	for t.to < to {
		data, err := j.ReadOutput(ctx, id, s, t.to, watchRead)
		if err != nil {
			return err
		}
		if len(data) == 0 {
			return nil // told has no digest then
		}
		t.feed(command.Chunk{Stream: s, Offset: t.to, Data: data[:min(int64(len(data)), to-t.to)]})
	}
	return nil
}

// told gives what the audit gets of a stream of that size; nil for an empty one.
func (t *tally) told(size int64) *audit.Output {
	if size == 0 {
		return nil
	}
	o := &audit.Output{Size: size}
	if t.to == size {
		o.Digest = t.hash.Sum(nil)
		o.Head, o.Tail = bytes.Clone(t.head), bytes.Clone(t.tail)
	}
	return o
}
