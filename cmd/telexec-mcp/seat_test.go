package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/test/testenv"
	"github.com/telexec/telexec/pkg/client"
)

// aliceOf gives a client of a service who may do everything, and is not the agent.
func aliceOf(t *testing.T, service *testenv.Env) *client.Client {
	c, err := client.Dial(client.Options{Server: service.GRPCAddr, Token: client.Token(service.Key("alice", "admin").Reveal())})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// seat is a person at the terminal of a session.
type seat struct {
	terminal *client.Terminal
	leave    func() // and wait until that is done

	mu      sync.Mutex
	seen    strings.Builder // output since the beginning
	news    chan struct{}   // closed, and made anew, when there is more or it is over
	runs    bool            // the service has told that a command runs
	present bool            // the service has said that she is there
	keys    string          // who has the keyboard, as the service says
	id      string          // her own Viewer.id
	over    error
}

// errGone is the end of a terminal: its session has ended.
var errGone = errors.New("the terminal is gone")

// seatTime is how long a person waits for something at the terminal.
const seatTime = 30 * time.Second

// sitDown attaches to a session, until leave.
func sitDown(c *client.Client, session string) (*seat, error) {
	ctx, cancel := context.WithCancel(context.Background())
	s := &seat{terminal: c.Attach(&telexecv1.AttachStart{Session: session, Role: telexecv1.ViewerRole_VIEWER_ROLE_WRITER, Label: "a screen"}), news: make(chan struct{})}
	var watching sync.WaitGroup
	watching.Go(func() {
		for event, err := range s.terminal.Events(ctx) {
			s.note(event, err)
		}
		s.note(nil, errGone)
	})
	s.leave = func() { cancel(); watching.Wait() }
	if err := s.until(func() bool { return s.present }); err != nil {
		s.leave()
		return nil, err
	}
	return s, nil
}

func (s *seat) note(event *telexecv1.AttachResponse, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen.Write(event.GetOutput().GetData())
	if a := event.GetAttached(); a != nil {
		s.present, s.id, s.keys = true, a.GetViewer(), a.GetSession().GetKeyboard()
	}
	if now := event.GetSession(); now != nil {
		s.keys = now.GetKeyboard()
	}
	if c := event.GetCommand().GetCommand(); c != nil {
		s.runs = c.GetEndTime() == nil
	}
	if s.over == nil {
		s.over = err
	}
	close(s.news)
	s.news = make(chan struct{})
}

// until waits for what is looked at with the lock held.
func (s *seat) until(enough func() bool) error {
	late := time.After(seatTime)
	for {
		s.mu.Lock()
		done, news, over, seen := enough(), s.news, s.over, s.seen.String()
		s.mu.Unlock()
		switch {
		case done:
			return nil
		case over != nil:
			return over
		}
		select {
		case <-news:
		case <-late:
			return fmt.Errorf("it has not happened at the terminal, which has shown %q", seen)
		}
	}
}

// sit sits a person down at the terminal of a session; she leaves at the end.
func (c *conversation) sit(args []string) (string, error) {
	if len(args) != 1 {
		return "", fmt.Errorf("usage: sit SESSION")
	}
	s, err := sitDown(c.alice, args[0])
	if err != nil {
		return "", err
	}
	c.getUp()
	c.seat = s
	return "", nil
}

func (c *conversation) getUp() {
	if c.seat != nil {
		c.seat.leave()
		c.seat = nil
	}
}

// types lets the person type, in the notation of Go's strings.
func (c *conversation) types(args []string) (string, error) {
	text, err := unquote(args)
	if err != nil {
		return "", err
	}
	return "", c.seat.terminal.Input(context.Background(), []byte(text))
}

// sees waits until the person has seen a text in the output, in the same notation.
func (c *conversation) sees(args []string) (string, error) {
	text, err := unquote(args)
	if err != nil {
		return "", err
	}
	return "", c.seat.until(func() bool { return strings.Contains(c.seat.seen.String(), text) })
}

// runs waits until the person is told that a command runs.
func (c *conversation) runs([]string) (string, error) {
	return "", c.seat.until(func() bool { return c.seat.runs })
}

// ends waits until the session of the terminal has ended.
func (c *conversation) ends([]string) (string, error) {
	if err := c.seat.until(func() bool { return false }); err != errGone {
		return "", err
	}
	return "", nil
}

func unquote(args []string) (string, error) {
	return strconv.Unquote(`"` + strings.Join(args, " ") + `"`)
}

// keyboard lets the person take the keyboard, or release it, and waits until she has.
func (c *conversation) keyboard(args []string) (string, error) {
	action, holder := telexecv1.KeyboardAction_KEYBOARD_ACTION_TAKE, c.seat.id
	if strings.Join(args, " ") == "release" {
		action, holder = telexecv1.KeyboardAction_KEYBOARD_ACTION_RELEASE, ""
	}
	if err := c.seat.terminal.Keyboard(context.Background(), action, ""); err != nil {
		return "", err
	}
	return "", c.seat.until(func() bool { return c.seat.keys == holder })
}
