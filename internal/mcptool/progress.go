package mcptool

import (
	"context"
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

const (
	// reportEvery is how often progress is told: often enough for people to see
	// that it lives.
	reportEvery = time.Second
	// lastLineBytes is how much of a stream is asked for to find its last line.
	lastLineBytes = 1 << 10
	// maxMessage is how much of a line is told.
	maxMessage = 200
)

// progressReport tells a client how a wait goes: the percentage and the label that
// the service has recognised in the output, else its last line.
type progressReport struct {
	session *mcp.ServerSession
	token   any
	began   time.Time
	told    time.Time // when the client was last told
	value   float64   // the last progress told; it must grow
}

// progress is where to report to, or nil where the client has not asked for it.
func (c *call) progress() *progressReport {
	token := c.request.Params.GetProgressToken()
	if token == nil {
		return nil
	}
	return &progressReport{session: c.request.Session, token: token, began: time.Now()}
}

// tell reports where a command is, at most every reportEvery.
func (p *progressReport) tell(ctx context.Context, resp *telexecv1.GetStatusResponse) {
	line := lastLine(resp.GetStdout())
	if line == "" {
		line = lastLine(resp.GetStderr())
	}
	if line == "" {
		line = stateName(resp.GetCommand().GetState())
	}
	p.send(ctx, line, resp.GetCommand().GetProgress())
}

// tellLine reports what was read of a command: its last line of output, if there is
// one, and its progress, nil where it tells none.
func (p *progressReport) tellLine(ctx context.Context, line string, seen *telexecv1.Progress) {
	if line == "" {
		line = "no output yet"
	}
	p.send(ctx, line, seen)
}

// send tells the client. Progress must grow with every notification: without a
// percentage it is a fraction that grows with time, so that whatever percentage
// comes later is more.
func (p *progressReport) send(ctx context.Context, line string, seen *telexecv1.Progress) {
	if time.Since(p.told) < reportEvery-reportEvery/10 {
		return
	}
	p.told = time.Now()
	if label := labelOf(seen); label != "" {
		line = label
	}
	params := &mcp.ProgressNotificationParams{ProgressToken: p.token, Message: cut(line, maxMessage)}
	value := time.Since(p.began).Seconds() / 1e4
	if seen != nil {
		value, params.Total = seen.GetPercent(), 100
	}
	p.value = max(value, math.Nextafter(p.value, math.Inf(1)))
	params.Progress = p.value
	_ = p.session.NotifyProgress(ctx, params) // a client that does not listen misses nothing else
}

// labelOf is what is being done, as text for people and models.
func labelOf(p *telexecv1.Progress) string {
	text, _ := formatText.show([]byte(p.GetLabel()), math.MaxInt, true)
	return strings.TrimSpace(text)
}

// lastLine is the last line of a stream with something in it.
func lastLine(c *telexecv1.StreamContent) string {
	data := c.GetTail()
	if len(data) == 0 {
		data = c.GetData()
	}
	text, _ := formatText.show(data, math.MaxInt, true)
	return lastOf(text)
}

// lastOf is the last line of a text that is not blank.
func lastOf(text string) string {
	text = strings.TrimSpace(text)
	return strings.TrimSpace(text[strings.LastIndexByte(text, '\n')+1:])
}

// cut shortens a text for a line of its own.
func cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return s[:runeStart(s, most)] + "…"
}

// runeStart is the last place up to at where a character begins, or the end of s.
func runeStart(s string, at int) int {
	for at > 0 && at < len(s) && !utf8.RuneStart(s[at]) {
		at--
	}
	return at
}
