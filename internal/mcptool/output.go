package mcptool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

// maxLines is how many lines can be asked for; the budget ends most answers before.
const maxLines = 10_000

type outputArgs struct {
	CommandID string     `json:"command_id" jsonschema:"as execute_command gave it"`
	Stream    streamName `json:"stream,omitempty" jsonschema:"stdout or stderr; default: both, with offset and pattern stdout"`
	Offset    *int64     `json:"offset,omitempty" jsonschema:"a page of the stream from this byte on; next_offset of the answer is the next page"`
	HeadLines int        `json:"head_lines,omitempty" jsonschema:"only the first so many lines"`
	TailLines int        `json:"tail_lines,omitempty" jsonschema:"only the last so many lines"`
	Pattern   string     `json:"pattern,omitempty" jsonschema:"only the lines that match this regular expression (RE2; (?i) at its beginning ignores case), searched from offset on"`
	MaxBytes  int        `json:"max_bytes,omitempty" jsonschema:"show at most so many bytes of output, 256 to 262144; default 8192"`
	Format    format     `json:"format,omitempty" jsonschema:"text (default): without terminal control sequences; terminal: with them; base64: the exact bytes"`
}

// pageFacts is the answer of get_command_output.
type pageFacts struct {
	CommandID string `json:"command_id"`
	State     string `json:"state" jsonschema:"of the command, as in get_command_status"`
	Ended     bool   `json:"ended" jsonschema:"false: more output may come"`
	outputFacts
	Matches    []lineFacts `json:"matches,omitempty" jsonschema:"the lines that match the pattern"`
	SearchedTo *int64      `json:"searched_to,omitempty" jsonschema:"with pattern: the search went so far; go on from this offset"`
	More       bool        `json:"more,omitempty" jsonschema:"there is more: ask again with the next offset"`
}

// lineFacts is a line that matches.
type lineFacts struct {
	Offset int64  `json:"offset" jsonschema:"of the beginning of the line"`
	Line   string `json:"line"`
}

func (a *adapter) outputTools() []tool {
	return []tool{declare(a, declaration{
		name: "get_command_output", title: "Read the output of a command", toolset: observe, limit: longest,
		nature: nature{closedWorld: true},
		description: "Read any part of a command's output, within max_bytes (default 8192): a page from a byte offset, the first or last lines, or the lines that match a pattern; " +
			"without any of them the beginning and the end. Works while the command runs and after. The answer says what was left out and the offset to go on at. " +
			"Search with pattern before you page through much output.",
	}, a.getOutput)}
}

func (a *adapter) getOutput(ctx context.Context, _ *call, in outputArgs) (answer[pageFacts], error) {
	var none answer[pageFacts]
	in.MaxBytes, in.Format = budgetOr(in.MaxBytes, defaultBudget), in.Format.orText()
	if (in.HeadLines > 0 || in.TailLines > 0) && (in.Offset != nil || in.Pattern != "") || in.HeadLines > 0 && in.TailLines > 0 {
		return none, refuse("INVALID_ARGUMENT", "Leave out all but one of them", "head_lines, tail_lines, and offset or pattern exclude each other")
	}
	if in.Pattern != "" {
		return a.search(ctx, in)
	}
	req := &telexecv1.GetStatusRequest{CommandId: in.CommandID, Output: outputFor(in.MaxBytes)}
	if in.Offset != nil && in.Stream == "" {
		in.Stream = streamStdout
	}
	switch from := in.from(); {
	case from == nil:
	case in.Stream == streamStdout:
		req.Output.StdoutOffset = from
	case in.Stream == streamStderr:
		req.Output.StderrOffset = from
	default:
		req.Output.StdoutOffset, req.Output.StderrOffset = from, from
	}
	resp, err := a.status(ctx, req)
	if err != nil {
		return none, err
	}
	cmd := resp.GetCommand()
	out := pageFacts{CommandID: cmd.GetId(), State: stateName(cmd.GetState()), Ended: ended(cmd)}
	var shown []excerpt
	forStdout, forStderr := in.budgets(resp)
	if in.Stream != streamStderr {
		e := in.excerpt(streamStdout, resp.GetStdout(), forStdout)
		out.Stdout, out.StdoutInfo = e.text(), &e.info
		shown = append(shown, e)
	}
	if in.Stream != streamStdout {
		e := in.excerpt(streamStderr, resp.GetStderr(), forStderr)
		out.Stderr, out.StderrInfo = e.text(), &e.info
		shown = append(shown, e)
	}
	for _, e := range shown {
		out.More = out.More || e.info.NextOffset < e.info.Bytes && e.head+e.tail != ""
	}
	var text strings.Builder
	text.WriteString(facts(cmd).sentence())
	quote(&text, cmd.GetId(), shown...)
	return answer[pageFacts]{data: out, text: text.String()}, nil
}

// from is where the service should begin; nil for beginning and end.
func (in *outputArgs) from() *int64 {
	if in.HeadLines > 0 {
		return new(int64(0))
	}
	return in.Offset
}

// budgets gives each stream its part: all of it to the only one that is asked for.
func (in *outputArgs) budgets(resp *telexecv1.GetStatusResponse) (forStdout, forStderr int) {
	if in.Stream != "" {
		return in.MaxBytes, in.MaxBytes
	}
	return share(in.MaxBytes, resp.GetStdout().GetSize(), resp.GetStderr().GetSize())
}

// excerpt takes from a stream what was asked for.
func (in *outputArgs) excerpt(name streamName, c *telexecv1.StreamContent, budget int) excerpt {
	switch {
	case in.TailLines > 0:
		return in.lastLines(name, c, budget)
	case in.HeadLines > 0:
		return page(name, c, firstLines(c.GetData(), in.HeadLines), budget, in.Format)
	case in.Offset != nil:
		return page(name, c, c.GetData(), budget, in.Format)
	}
	return excerptOf(name, c, budget, in.Format)
}

// page shows data, which begins where c does.
func page(name streamName, c *telexecv1.StreamContent, data []byte, budget int, f format) excerpt {
	final := c.GetComplete() && len(data) == len(c.GetData())
	text, used := f.show(data, budget, final)
	return excerpt{stream: name, head: text, info: streamInfo{
		Bytes: c.GetSize(), Offset: c.GetOffset(), Removed: c.GetEarliestOffset(),
		NextOffset: c.GetOffset() + int64(used), Complete: final && used == len(data),
	}}
}

// firstLines cuts data behind its first n lines.
func firstLines(data []byte, n int) []byte {
	end := 0
	for ; n > 0; n-- {
		i := bytes.IndexByte(data[end:], '\n')
		if i < 0 {
			return data
		}
		end += i + 1
	}
	return data[:end]
}

// lastLines shows the last lines of a stream.
func (in *outputArgs) lastLines(name streamName, c *telexecv1.StreamContent, budget int) excerpt {
	data, at := c.GetData(), c.GetOffset()
	if len(c.GetTail()) > 0 {
		data, at = c.GetTail(), c.GetTailOffset()
	}
	if !c.GetComplete() {
		data = wholeRunes(data)
	}
	begin := len(bytes.TrimSuffix(data, []byte("\n")))
	for n := in.TailLines; n > 0 && begin > 0; n-- {
		begin = bytes.LastIndexByte(data[:begin], '\n')
		if begin < 0 {
			begin = 0
		} else if n == 1 {
			begin++
		}
	}
	text, first := in.Format.showEnd(data[begin:], budget)
	return excerpt{stream: name, head: text, info: streamInfo{
		Bytes: c.GetSize(), Offset: at + int64(begin+first), Removed: c.GetEarliestOffset(),
		NextOffset: at + int64(len(data)), Complete: c.GetComplete(),
	}}
}

// searchTime is how long a search goes on before it answers with what it has.
const searchTime = 30 * time.Second

// search gives the lines that match.
func (a *adapter) search(ctx context.Context, in outputArgs) (answer[pageFacts], error) {
	var none answer[pageFacts]
	pattern, err := compile(in.Pattern)
	if err != nil {
		return none, err
	}
	if in.Stream == "" {
		in.Stream = streamStdout
	}
	resp, err := a.status(ctx, &telexecv1.GetStatusRequest{CommandId: in.CommandID, Output: &telexecv1.OutputOptions{Omit: true}})
	if err != nil {
		return none, err
	}
	cmd := resp.GetCommand()
	found, err := a.grep(ctx, &in, pattern)
	if err != nil {
		return none, err
	}
	size := cmd.GetStdoutBytes()
	if in.Stream == streamStderr {
		size = cmd.GetStderrBytes()
	}
	out := pageFacts{
		CommandID: cmd.GetId(), State: stateName(cmd.GetState()), Ended: ended(cmd),
		Matches: found.lines, SearchedTo: &found.to, More: found.to < size,
	}
	var text strings.Builder
	text.WriteString(facts(cmd).sentence())
	fmt.Fprintf(&text, "\n%s in the bytes %d to %d of %d of %s.", count(len(found.lines), "matching line"), found.from, found.to, size, in.Stream)
	if out.More {
		fmt.Fprintf(&text, " There is more: go on with offset %d.", found.to)
	}
	if len(found.lines) > 0 {
		var list strings.Builder
		for _, l := range found.lines {
			fmt.Fprintf(&list, "%d: %s\n", l.Offset, l.Line)
		}
		quoteText(&text, "offset: line of "+string(in.Stream), list.String())
	}
	return answer[pageFacts]{data: out, text: text.String()}, nil
}

// found is what a search has brought.
type found struct {
	lines    []lineFacts
	from, to int64 // the bytes that were searched
}

// errSearched ends a search for its time.
var errSearched = errors.New("searched long enough")

// grep reads a stream from the offset on until the budget or the time is used up,
// or all there is has been read.
func (a *adapter) grep(ctx context.Context, in *outputArgs, pattern *regexp.Regexp) (found, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, searchTime, errSearched)
	defer cancel()
	req := &telexecv1.StreamOutputRequest{CommandId: in.CommandID, Streams: []telexecv1.Stream{telexecv1.Stream_STREAM_STDOUT}}
	f := found{from: orElse(in.Offset, 0)}
	req.StdoutOffset = f.from
	if in.Stream == streamStderr {
		req.Streams[0], req.StdoutOffset, req.StderrOffset = telexecv1.Stream_STREAM_STDERR, 0, f.from
	}
	l := lines{stream: in.Stream, next: f.from}
	budget := in.MaxBytes
	for event, err := range a.client.StreamOutput(ctx, req) {
		switch {
		case err != nil && context.Cause(ctx) == errSearched:
			f.to = l.next - int64(len(l.rest))
			return f, nil
		case err != nil:
			return f, err
		case event.GetGap() != nil:
			l = lines{stream: in.Stream, next: event.GetGap().GetTo()}
			f.from = max(f.from, l.next)
		case event.GetChunk() != nil:
			for m := range l.add(event.GetChunk().GetOffset(), event.GetChunk().GetData()) {
				if pattern.MatchString(m.Line) && !f.take(m, &budget) {
					f.to = m.Offset
					return f, nil
				}
			}
		}
	}
	f.to = l.next
	if m := l.unfinished(); m.Line != "" && pattern.MatchString(m.Line) && !f.take(m, &budget) {
		f.to = m.Offset
	}
	return f, nil
}

// lineOverhead is what a line costs besides its text: its offset.
const lineOverhead = 12

// take adds a line if the budget has room for it. A line that alone is more than
// the budget is cut.
func (f *found) take(m matchFacts, budget *int) bool {
	line := cut(m.Line, maxLine)
	if len(f.lines) == 0 {
		line = cut(line, *budget-lineOverhead-len("…"))
	}
	cost := len(line) + lineOverhead
	if cost > *budget {
		return false
	}
	*budget -= cost
	f.lines = append(f.lines, lineFacts{m.Offset, line})
	return true
}
