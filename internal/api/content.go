package api

import (
	"context"
	"unicode/utf8"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/output"
)

// defaultLimit is how many bytes of each stream an answer has where the caller
// does not say.
const defaultLimit = 64 << 10

// contents gives both streams of a command as the options ask; nil for both
// where they ask for none.
func (c *Commands) contents(ctx context.Context, s Snapshot, o *telexecv1.OutputOptions) (stdout, stderr *telexecv1.StreamContent, err error) {
	if o.GetOmit() {
		return nil, nil, nil
	}
	var offsets [len(command.Streams)]*int64
	if o != nil {
		offsets = [...]*int64{o.StdoutOffset, o.StderrOffset}
	}
	var contents [len(command.Streams)]*telexecv1.StreamContent
	for _, stream := range command.Streams {
		if contents[stream], err = c.content(ctx, s, stream, offsets[stream], o); err != nil {
			return nil, nil, err
		}
	}
	return contents[command.Stdout], contents[command.Stderr], nil
}

// content gives one stream: from the offset on in one run, or without an offset
// the whole of it, or where that is too much its beginning and its end.
func (c *Commands) content(ctx context.Context, s Snapshot, stream command.Stream, from *int64, o *telexecv1.OutputOptions) (*telexecv1.StreamContent, error) {
	limit := int64(o.GetLimitBytes())
	if limit == 0 {
		limit = defaultLimit
	}
	size := s.Size[stream]
	earliest := min(s.Earliest[stream], size)
	p := &telexecv1.StreamContent{Size: size, EarliestOffset: earliest, Offset: earliest}
	head, tail := min(limit, size-earliest), int64(0)
	switch {
	case from != nil && *from > size:
		if s.Ended() {
			return nil, fault.New(fault.OutOfRange, fault.ReasonOffsetBeyondEnd, "%s ended at offset %d; %d lies behind it", stream, size, *from).
				WithHint("Ask from next_offset of the answer before")
		}
		p.Offset, head = *from, 0
	case from != nil:
		p.Offset = max(*from, earliest)
		head = min(limit, size-p.Offset)
	case size-earliest > limit:
		tail = limit / 2
		head = limit - tail
	}
	var err error
	if p.Data, err = c.read(ctx, s.ID, stream, p.Offset, head); err != nil {
		return nil, err
	}
	p.NextOffset = p.Offset + int64(len(p.Data))
	if tail > 0 {
		p.TailOffset = size - tail
		if p.Tail, err = c.read(ctx, s.ID, stream, p.TailOffset, tail); err != nil {
			return nil, err
		}
		p.OmittedBytes = p.TailOffset - p.NextOffset
		p.NextOffset = p.TailOffset + int64(len(p.Tail))
	}
	p.Complete = s.Ended() && p.NextOffset == size
	if o.GetText() {
		addText(p)
	}
	return p, nil
}

// addText fills in the text of both parts. What is split at their ends is left
// out, unless the stream ends there; what is split at the start of the tail is
// left out too.
func addText(p *telexecv1.StreamContent) {
	var head output.Text
	p.Text = head.Next(p.GetData())
	p.NextTextOffset = p.GetNextOffset() - int64(head.Held())
	if p.GetTailOffset() == 0 {
		if p.GetComplete() {
			p.Text += head.End()
			p.NextTextOffset = p.GetNextOffset()
		}
		return
	}
	tail := p.GetTail()
	for n := 0; n < utf8.UTFMax-1 && len(tail) > 0 && !utf8.RuneStart(tail[0]); n++ {
		tail = tail[1:]
	}
	var text output.Text
	p.TailText = text.Next(tail)
	p.NextTextOffset = p.GetNextOffset() - int64(text.Held())
	if p.GetComplete() {
		p.TailText += text.End()
		p.NextTextOffset = p.GetNextOffset()
	}
}

// read gives n bytes from offset on, fewer only where retention or the end of
// the stream came in between.
func (c *Commands) read(ctx context.Context, id string, stream command.Stream, offset, n int64) ([]byte, error) {
	if n <= 0 {
		return nil, nil
	}
	var data []byte
	for int64(len(data)) < n {
		more, err := c.output.ReadOutput(ctx, id, stream, offset+int64(len(data)), int(n)-len(data))
		if err != nil {
			return nil, err
		}
		if len(more) == 0 {
			break
		}
		if data == nil && int64(len(more)) == n {
			return more, nil // the ordinary case, without a copy
		}
		data = append(data, more...)
	}
	return data, nil
}
