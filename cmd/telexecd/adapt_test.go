package main

import (
	"testing"

	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/sshconn"
	"github.com/telexec/telexec/internal/sshexec"
	"github.com/telexec/telexec/internal/test/sshtest"
)

// TestAFailureIsToldUntilTheNextSuccess: the contract says that last_failure is
// unset when the last attempt worked.
func TestAFailureIsToldUntilTheNextSuccess(t *testing.T) {
	server := sshtest.Start(t, sshtest.Options{})
	pool := sshconn.New(sshconn.Options{})
	defer pool.Close()
	host, l := server.Host("web1"), links{pool, sshexec.New(dialer{pool}, sshexec.Options{})}
	server.Stop()
	if _, err := l.Check(t.Context(), host); err == nil {
		t.Fatal("a stopped server answers")
	}
	if link := l.Link("web1"); link.LastFailure == nil || link.LastFailure.Reason != fault.ReasonConnectionRefused || link.LastFailed.IsZero() {
		t.Errorf("after a failure: %+v", link)
	}
	server.Restart()
	if _, err := l.Check(t.Context(), host); err != nil {
		t.Fatal(err)
	}
	if link := l.Link("web1"); link.LastFailure != nil || !link.LastFailed.IsZero() || link.LastConnected.IsZero() {
		t.Errorf("after a success: %+v", link)
	}
}
