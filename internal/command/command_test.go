package command_test

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/secret"
)

func TestNewSpec(t *testing.T) {
	for name, test := range map[string]struct {
		spec   command.Spec
		reason string // empty: accepted
		line   string
	}{
		"a line":            {command.Spec{Line: "echo $HOME"}, "", "echo $HOME"},
		"arguments":         {command.Spec{Argv: []string{"echo", "$HOME"}}, "", "echo '$HOME'"},
		"nothing":           {command.Spec{Host: "web1"}, fault.ReasonEmptyCommand, ""},
		"nothing but space": {command.Spec{Host: "web1", Line: " \t\n"}, fault.ReasonEmptyCommand, ""},
		"as long as may":    {command.Spec{Line: strings.Repeat("x", command.MaxLine)}, "", strings.Repeat("x", command.MaxLine)},
		"a byte too long":   {command.Spec{Line: strings.Repeat("x", command.MaxLine+1)}, fault.ReasonCommandTooLong, ""},
		"long once quoted": {command.Spec{Argv: []string{strings.Repeat("'", command.MaxLine/3)}},
			fault.ReasonCommandTooLong, ""},
		"long with its environment": {command.Spec{Line: "x", Env: map[string]string{"A": strings.Repeat("x", command.MaxLine)}},
			fault.ReasonCommandTooLong, ""},
		"a variable of the start script": {command.Spec{Line: "x", Env: map[string]string{"telexec_shell": "/tmp/sh"}},
			fault.ReasonInvalidRequest, ""},
		"long with its directory": {command.Spec{Line: strings.Repeat("x", command.MaxLine), WorkingDirectory: "/"},
			fault.ReasonCommandTooLong, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := command.NewSpec(test.spec)
			if fault.ReasonOf(err) != test.reason || err != nil && fault.KindOf(err) != fault.Invalid {
				t.Fatalf("got %v, want reason %q", err, test.reason)
			}
			if err != nil {
				if fault.From(err).Hint == "" {
					t.Error("the error does not say what to do")
				}
				return
			}
			c := command.Command{Spec: got}
			if c.CommandLine() != test.line {
				t.Errorf("command line %.80q, want %.80q", c.CommandLine(), test.line)
			}
		})
	}
}

func TestEnvNames(t *testing.T) {
	s := command.Spec{Env: map[string]string{"B": "2", "A": "1"}}
	if got := s.EnvNames(); !slices.Equal(got, []string{"A", "B"}) {
		t.Errorf("got %v", got)
	}
}

// Every field of a Spec but the request id makes it another request.
func TestContentHashCoversEveryField(t *testing.T) {
	base := command.Spec{Pty: &command.Pty{}, Sudo: &command.Sudo{}, Task: &command.TaskRef{}}
	same := base
	same.RequestID = "another"
	// A stored hash that a password is part of would let somebody guess it.
	same.Sudo = &command.Sudo{Password: secret.New("hush")}
	if !bytes.Equal(base.ContentHash(), same.ContentHash()) {
		t.Error("the request id or sudo's password changes the hash")
	}
	for field := range reflect.TypeFor[command.Spec]().Fields() {
		if field.Name == "RequestID" {
			continue
		}
		other := base
		set(t, reflect.ValueOf(&other).Elem().FieldByIndex(field.Index))
		if bytes.Equal(base.ContentHash(), other.ContentHash()) {
			t.Errorf("a change of %s does not change the hash", field.Name)
		}
	}
	for field := range reflect.TypeFor[command.Pty]().Fields() {
		other := base
		other.Pty = &command.Pty{}
		set(t, reflect.ValueOf(other.Pty).Elem().FieldByIndex(field.Index))
		if bytes.Equal(base.ContentHash(), other.ContentHash()) {
			t.Errorf("a change of Pty.%s does not change the hash", field.Name)
		}
	}
	for field := range reflect.TypeFor[command.Sudo]().Fields() {
		if field.Name == "Password" {
			continue
		}
		other := base
		other.Sudo = &command.Sudo{}
		set(t, reflect.ValueOf(other.Sudo).Elem().FieldByIndex(field.Index))
		if bytes.Equal(base.ContentHash(), other.ContentHash()) {
			t.Errorf("a change of Sudo.%s does not change the hash", field.Name)
		}
	}
	for field := range reflect.TypeFor[command.TaskRef]().Fields() {
		other := base
		other.Task = &command.TaskRef{}
		set(t, reflect.ValueOf(other.Task).Elem().FieldByIndex(field.Index))
		if bytes.Equal(base.ContentHash(), other.ContentHash()) {
			t.Errorf("a change of Task.%s does not change the hash", field.Name)
		}
	}
}

// set gives v another value than the zero one, whatever its type is.
func set(t *testing.T, v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString("x")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(7)
	case reflect.Uint32:
		v.SetUint(7)
	case reflect.Map:
		v.Set(reflect.ValueOf(map[string]string{"k": "v"}))
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
	case reflect.Pointer:
		v.SetZero()
	default:
		t.Fatalf("this test does not know how to set a %s", v.Type())
	}
}

// What was asked for before there were sessions has the hash it had: it is stored, and
// a repeated request is held against it.
func TestContentHashIsStable(t *testing.T) {
	for want, s := range map[string]command.Spec{
		"6798deb8": {Host: "web1", Line: "uname -a"},
		"1d4f157b": {Host: "web1", Argv: []string{"id"}, Env: map[string]string{"A": "1"}, Sudo: &command.Sudo{User: "root"},
			Redact: []secret.Text{secret.New("hush")}, Timeout: time.Minute},
	} {
		if got := fmt.Sprintf("%x", s.ContentHash()[:4]); got != want {
			t.Errorf("%+v has the hash %s, want %s", s, got, want)
		}
	}
}

// What stands where does count: the same bytes spread otherwise are another
// request, and the order of a map is not part of it.
func TestContentHashBorders(t *testing.T) {
	different := []command.Spec{
		{Argv: []string{"a", "b"}}, {Argv: []string{"ab"}}, {Argv: []string{"a b"}}, {Line: "a b"}, {Argv: []string{"", "ab"}},
		{Host: "a", Line: "b"}, {Host: "ab"},
		{Env: map[string]string{"a": "b"}}, {Labels: map[string]string{"a": "b"}}, {Env: map[string]string{"a": "", "b": ""}}, {Env: map[string]string{"ab": ""}},
		{Sudo: &command.Sudo{}}, {Sudo: &command.Sudo{User: "root"}}, {Sudo: &command.Sudo{NeedsPassword: true}},
		{Session: "build"}, {SessionID: "build"}, {Session: "bui", SessionID: "ld"}, {Typed: 1}, {Session: "build", Typed: 1},
		{Sudo: &command.Sudo{User: "build"}, Redact: make([]secret.Text, 1)}, {Host: "build"},
	}
	seen := map[string]int{}
	for i, s := range different {
		h := string(s.ContentHash())
		if was, ok := seen[h]; ok {
			t.Errorf("%+v and %+v have one hash", different[was], s)
		}
		seen[h] = i
	}
	one := command.Spec{Env: map[string]string{"a": "1", "b": "2", "c": "3"}}
	for range 20 {
		two := command.Spec{Env: map[string]string{"c": "3", "b": "2", "a": "1"}}
		if !bytes.Equal(one.ContentHash(), two.ContentHash()) {
			t.Fatal("the order of a map changes the hash")
		}
	}
}

func TestCommandQuestions(t *testing.T) {
	start := time.Date(2026, 1, 15, 9, 30, 0, 0, time.UTC)
	now := start.Add(time.Minute)
	for name, test := range map[string]struct {
		c         command.Command
		ended     bool
		duration  time.Duration
		stdinOpen bool
	}{
		"queued":                   {command.Command{State: command.Queued}, false, 0, false},
		"running":                  {command.Command{State: command.Running, StartTime: start}, false, time.Minute, false},
		"ended":                    {command.Command{State: command.Completed, StartTime: start, EndTime: start.Add(time.Second)}, true, time.Second, false},
		"a clock that went back":   {command.Command{State: command.Failed, StartTime: start, EndTime: start.Add(-time.Second)}, true, 0, false},
		"running, stdin open":      {command.Command{State: command.Running, StartTime: now, Spec: command.Spec{StdinOpen: true}}, false, 0, true},
		"running on a terminal":    {command.Command{State: command.Running, StartTime: now, Spec: command.Spec{Pty: &command.Pty{}}}, false, 0, true},
		"running, stdin closed":    {command.Command{State: command.Running, StartTime: now, StdinClosed: true, Spec: command.Spec{StdinOpen: true}}, false, 0, false},
		"ended with stdin open":    {command.Command{State: command.Lost, StartTime: now, EndTime: now, Spec: command.Spec{StdinOpen: true}}, true, 0, false},
		"ended before it was born": {command.Command{State: command.Expired, EndTime: now}, true, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			if test.c.Ended() != test.ended || test.c.Duration(now) != test.duration || test.c.StdinOpen() != test.stdinOpen {
				t.Errorf("ended %v, duration %v, stdin open %v", test.c.Ended(), test.c.Duration(now), test.c.StdinOpen())
			}
		})
	}
}

func TestStreamsAndChunks(t *testing.T) {
	var names []string
	for _, s := range command.Streams {
		names = append(names, s.String())
	}
	if !slices.Equal(names, []string{"stdout", "stderr"}) {
		t.Errorf("streams are %v", names)
	}
	if end := (command.Chunk{Offset: 5, Data: []byte("abc")}).End(); end != 8 {
		t.Errorf("the chunk ends at %d, want 8", end)
	}
}

func TestGraceLeft(t *testing.T) {
	asked := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	const half = command.DefaultGrace
	for name, test := range map[string]struct {
		first, later time.Duration // the later one is asked for after ten seconds; below 0: none is
		at, want     time.Duration // after the first
	}{
		"all":                    {time.Minute, -1, 0, time.Minute},
		"some":                   {time.Minute, -1, 5 * time.Second, 55 * time.Second},
		"none but the least":     {time.Minute, -1, time.Hour, half},
		"less than the least":    {time.Millisecond, -1, time.Hour, time.Millisecond},
		"at once":                {0, -1, 0, 0},
		"at once, late":          {0, -1, time.Hour, 0},
		"the clock was put back": {time.Minute, -1, -time.Hour, time.Minute},
		"shorter":                {time.Minute, 20 * time.Second, 12 * time.Second, 18 * time.Second},
		"longer":                 {0, time.Minute, 15 * time.Second, 55 * time.Second},
		"at once after all":      {time.Hour, 0, 10 * time.Second, 0},
	} {
		t.Run(name, func(t *testing.T) {
			n := command.Cancellation{Time: asked, Grace: test.first}
			if test.later >= 0 {
				n = n.Within(test.later, asked.Add(10*time.Second))
			}
			if got := n.GraceLeft(asked.Add(test.at)); got != test.want {
				t.Errorf("%s is left, want %s", got, test.want)
			}
		})
	}
}
