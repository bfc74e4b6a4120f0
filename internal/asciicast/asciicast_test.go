package asciicast_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/telexec/telexec/internal/asciicast"
)

// TestFormat: what is written, to the letter.
func TestFormat(t *testing.T) {
	var w asciicast.Writer
	p := asciicast.AppendHeader(nil, asciicast.Header{Width: 80, Height: 24, Time: time.Unix(1763769600, 0), Title: "deploy", Term: "xterm-256color"})
	p = w.AppendOutput(p, 251*time.Millisecond, []byte("$ \x1b[1mk\xc3"))
	p = w.AppendOutput(p, time.Second, []byte("\xb6ln\r\n"))
	p = w.AppendMarker(p, 1500*time.Millisecond, "make \"test\"")
	p = w.AppendOutput(p, 2*time.Second, []byte("\xff\xe8"))
	p = w.AppendResize(p, 3*time.Second, 120, 40)
	want := `{"version":2,"width":80,"height":24,"timestamp":1763769600,"title":"deploy","env":{"TERM":"xterm-256color"}}
[0.251000,"o","$ \u001b[1mk"]
[1.000000,"o","öln\r\n"]
[1.500000,"m","make \"test\""]
[2.000000,"x-telexec-bytes","/w=="]
[2.000000,"o","�"]
[3.000000,"x-telexec-bytes","6A=="]
[3.000000,"o","�"]
[3.000000,"r","120x40"]
`
	if string(p) != want {
		t.Errorf("%s", p)
	}
}

// TestReading: recordings of others, those that are being written, and what is none.
func TestReading(t *testing.T) {
	const head = `{"version": 2, "width": 100, "height": 30, "theme": {"fg": "#fff"}, "env": {"SHELL": "/bin/zsh"}}` + "\n"
	for name, test := range map[string]struct {
		in     string
		events int
		fails  string
	}{
		"of others":    {head + "[0.1, \"o\", \"a\"]\n\n[0.2,\"i\",\"b\"]\n[0.3,\"x\",{}]\n[0.3,\"m\",\"\"]\n", 2, ""},
		"cut off":      {head + "[0.1,\"o\",\"a\"]\n[0.2,\"o\",\"b", 1, ""},
		"nothing":      {"", 0, "empty"},
		"version 1":    {`{"version":1}` + "\n", 0, "no recording"},
		"no recording": {"hello\n", 0, "no recording"},
		"no event":     {head + "[1]\n", 0, "line 2"},
		"no time":      {head + `["a","o","x"]` + "\n", 0, "line 2"},
		"before":       {head + `[-1,"o","x"]` + "\n", 0, "line 2"},
		"no size":      {head + `[1,"r","80"]` + "\n", 0, "no size"},
		"no bytes":     {head + `[1,"x-telexec-bytes","!"]` + "\n", 0, "base64"},
		"endless":      {head + strings.Repeat("x", asciicast.MaxLine+1), 0, "longer"},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := asciicast.NewReader(strings.NewReader(test.in))
			n := 0
			for err == nil {
				if _, err = r.Next(); err == nil {
					n++
				}
			}
			if errors.Is(err, io.EOF) {
				err = nil
			}
			if n != test.events || (err == nil) != (test.fails == "") || err != nil && !strings.Contains(err.Error(), test.fails) {
				t.Errorf("%d events, %v", n, err)
			}
		})
	}
}

// TestForgedBytes: bytes that do not belong to the output behind them are not believed.
func TestForgedBytes(t *testing.T) {
	in := `{"version":2,"width":1,"height":1}` + "\n" + `[0,"x-telexec-bytes","bHM="]` + "\n" + `[0,"o","rm"]` + "\n"
	r, err := asciicast.NewReader(strings.NewReader(in))
	if err != nil {
		t.Fatal(err)
	}
	if e, err := r.Next(); err != nil || string(e.Data) != "rm" {
		t.Errorf("%q %v", e.Data, err)
	}
}

// FuzzRoundTrip: whatever the bytes and wherever they are cut, they come back exactly, each
// line is JSON, and times do not fall.
func FuzzRoundTrip(f *testing.F) {
	f.Add([]byte("k\xc3\xb6ln \xff\xe8\xa1"), uint8(2))
	f.Add([]byte("\xf0\x9f\x98\x80"), uint8(1))
	f.Add([]byte("\xf0\x9f\x98"), uint8(7))
	f.Fuzz(func(t *testing.T, data []byte, cut uint8) {
		var w asciicast.Writer
		p := asciicast.AppendHeader(nil, asciicast.Header{Width: 80, Height: 24})
		at := time.Duration(0)
		for rest := data; len(rest) > 0; at += time.Millisecond {
			n := min(int(cut)%9+1, len(rest))
			p = w.AppendOutput(p, at, rest[:n])
			rest = rest[n:]
		}
		p = w.AppendRest(p, at)
		for line := range bytes.Lines(p) {
			if !json.Valid(line) || !utf8.Valid(line) {
				t.Fatalf("%q", line)
			}
		}
		r, err := asciicast.NewReader(bytes.NewReader(p))
		if err != nil {
			t.Fatal(err)
		}
		var got []byte
		last := time.Duration(0)
		for {
			e, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil || e.At < last {
				t.Fatal(err, e.At)
			}
			last = e.At
			got = append(got, e.Data...)
		}
		if !bytes.Equal(got, data) {
			t.Errorf("%q, want %q", got, data)
		}
	})
}

// FuzzReader: whatever is read, it ends, and does not panic.
func FuzzReader(f *testing.F) {
	f.Add([]byte("{\"version\":2}\n[1e9,\"o\",\"x\"]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := asciicast.NewReader(bytes.NewReader(data))
		for err == nil {
			_, err = r.Next()
		}
	})
}
