package main

import (
	"bytes"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"ls -la":                 "ls -la",
		"größe €":                "größe €",
		"a\nb\tc\rd":             `a\nb\tc\rd`,
		"\x1b]0;title\a":         `\x1b]0;title\a`,
		"\x9b31m":                `\x9b31m`,
		"\u202egpj.exe":          `\u202egpj.exe`,
		"\u200bzero":             `\u200bzero`,
		"broken \xff\xfe":        `broken \xff\xfe`,
		"del \x7f c1 \u0085 end": `del \x7f c1 \u0085 end`,
	} {
		if got := printable(in); got != want {
			t.Errorf("%q: got %s, want %s", in, got, want)
		}
	}
}

func FuzzPrintable(f *testing.F) {
	f.Add("a\x1b[2Jb\u202e\xff")
	f.Fuzz(func(t *testing.T, s string) {
		got := printable(s)
		if !utf8.ValidString(got) {
			t.Errorf("%q: not UTF-8", got)
		}
		for _, r := range got {
			if !unicode.IsPrint(r) {
				t.Errorf("%q: %U is left", s, r)
			}
		}
	})
}

func TestHumanDurations(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0:                                      "0 ms",
		42 * time.Millisecond:                  "42 ms",
		1400 * time.Millisecond:                "1.4 s",
		2 * time.Second:                        "2 s",
		200 * time.Second:                      "3 min 20 s",
		time.Hour:                              "1 h",
		25*time.Hour + time.Minute:             "25 h 1 min",
		75 * time.Hour:                         "3 days 3 h",
		59*time.Second + 999*time.Millisecond:  "59.9 s",
		time.Minute + 999*time.Millisecond:     "1 min",
		48*time.Hour - time.Nanosecond:         "47 h 59 min",
		365 * 24 * time.Hour:                   "365 days",
		9*time.Second + 990*time.Millisecond:   "9.9 s",
		999*time.Millisecond + time.Nanosecond: "999 ms",
	} {
		if got := humanDuration(d); got != want {
			t.Errorf("%v: got %q, want %q", d, got, want)
		}
	}
	if got := duration(nil); got != "-" {
		t.Errorf("unset: %q", got)
	}
}

func TestAgo(t *testing.T) {
	now := time.Date(2025, 3, 1, 12, 0, 0, 0, time.UTC)
	p := &printer{now: func() time.Time { return now }}
	for d, want := range map[time.Duration]string{
		-time.Second:     "just now",
		0:                "just now",
		30 * time.Second: "30 s ago",
		3 * time.Minute:  "3 min ago",
		47 * time.Hour:   "47 h ago",
		49 * time.Hour:   "2 days ago",
	} {
		if got := p.ago(timestamppb.New(now.Add(-d))); got != want {
			t.Errorf("%v: got %q, want %q", d, got, want)
		}
	}
	if p.ago(nil) != "-" || p.moment(nil) != "-" {
		t.Error("unset times are not -")
	}
}

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 9999: "9999 B", 10240: "10.0 KiB", 100 << 20: "100.0 MiB", 3 << 40: "3.0 TiB", 5000 << 40: "5000.0 TiB"} {
		if got := size(n); got != want {
			t.Errorf("%d: got %q, want %q", n, got, want)
		}
	}
}

func TestTable(t *testing.T) {
	var out bytes.Buffer
	p := &printer{stdout: &out}
	rows := func() [][]cell {
		return [][]cell{
			{{"1", ""}, {"größer", green}, {"echo a\nb", ""}},
			{{"22", ""}, {"x", ""}, {"a command line that is too long", ""}},
		}
	}
	if err := p.table([]string{"ID", "NAME", "LINE"}, rows()); err != nil {
		t.Fatal(err)
	}
	want := "ID  NAME    LINE\n1   größer  echo a\\nb\n22  x       a command line that is too long\n"
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
	// On a terminal of 24 columns, with colours.
	out.Reset()
	p.width, p.colour = 24, true
	_ = p.table([]string{"ID", "NAME", "LINE"}, rows())
	want = "\x1b[1mID\x1b[0m  \x1b[1mNAME\x1b[0m    \x1b[1mLINE\x1b[0m\n1   \x1b[32mgrößer\x1b[0m  echo a\\nb\n22  x       a command l…\n"
	if out.String() != want {
		t.Errorf("got\n%q\nwant\n%q", out.String(), want)
	}
}

func TestJSONHasOneForm(t *testing.T) {
	var out bytes.Buffer
	p := &printer{stdout: &out}
	cmd := &telexecv1.Command{Id: "X", ExitCode: new(int32), Duration: durationpb.New(time.Second)}
	for range 20 { // protojson puts in blanks at random, per build
		if err := p.line(cmd); err != nil {
			t.Fatal(err)
		}
	}
	if lines := strings.Split(strings.TrimSpace(out.String()), "\n"); len(lines) != 20 || !strings.Contains(lines[0], `"exitCode":0,"exitSignal":""`) {
		t.Errorf("got %s", out.String())
	}
	out.Reset()
	if err := p.document(cmd); err != nil || !strings.HasPrefix(out.String(), "{\n  \"name\": \"\",\n  \"id\": \"X\",\n") {
		t.Errorf("got %s, %v", out.String(), err)
	}
}

func TestRemarks(t *testing.T) {
	var errs bytes.Buffer
	screen := &lockedWriter{w: &errs}
	p := &printer{stderr: screen}
	p.note("nobody reads along")
	p.tell("a\nb")
	screen.setRaw(true)
	p.tell("raw")
	screen.setRaw(false)
	p.remarks = true
	p.note("somebody does")
	p.quiet = true
	p.tell("quiet")
	p.quiet, p.json = false, true
	p.note("json")
	if want := "telexec: a\n  b\ntelexec: raw\r\ntelexec: somebody does\n"; errs.String() != want {
		t.Errorf("got %q, want %q", errs.String(), want)
	}
}

func TestStateCells(t *testing.T) {
	three := int32(3)
	for want, cmd := range map[string]*telexecv1.Command{
		"running/32":      {State: telexecv1.CommandState_COMMAND_STATE_RUNNING},
		"cancelling/33":   {State: telexecv1.CommandState_COMMAND_STATE_RUNNING, Cancellation: &telexecv1.Cancellation{}},
		"reconnecting/33": {State: telexecv1.CommandState_COMMAND_STATE_RUNNING, Connection: telexecv1.Connection_CONNECTION_RECONNECTING},
		"queued/33":       {State: telexecv1.CommandState_COMMAND_STATE_QUEUED},
		"completed/":      {State: telexecv1.CommandState_COMMAND_STATE_COMPLETED},
		"completed/31":    {State: telexecv1.CommandState_COMMAND_STATE_COMPLETED, ExitCode: &three},
		"cancelled/90":    {State: telexecv1.CommandState_COMMAND_STATE_CANCELLED},
		"timed_out/31":    {State: telexecv1.CommandState_COMMAND_STATE_TIMED_OUT},
	} {
		c := stateCell(cmd)
		if got := c.text + "/" + c.colour; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
