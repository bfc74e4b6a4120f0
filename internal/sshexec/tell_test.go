package sshexec

import (
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"
)

// slowChannel takes words one after the other, and notes who comes in between.
type slowChannel struct {
	ssh.Channel
	writing sync.Mutex
	t       *testing.T
	words   chan string // one for each write; the test reads
}

func (c *slowChannel) Write(p []byte) (int, error) {
	if !c.writing.TryLock() {
		c.t.Error("two write at once")
		return 0, nil
	}
	defer c.writing.Unlock()
	c.words <- string(p)
	return len(p), nil
}

// TestTell: what the follower is told comes in order and never two at once, for the
// channel would mix their packets.
func TestTell(t *testing.T) {
	c := &slowChannel{t: t, words: make(chan string)}
	script := make(chan struct{}) // as if it were being sent
	s := &session{ses: Session{Channel: c}, told: script}
	want := []string{"go\n", "state\n", "clean\n", "state\n"}
	for _, words := range want {
		s.tell(words)
	}
	close(script)
	var got []string
	for range want {
		got = append(got, <-c.words)
	}
	if strings.Join(got, "") != strings.Join(want, "") {
		t.Errorf("%q", got)
	}
	<-s.told
}
