package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/telexec/telexec/internal/secret"
)

const (
	startLimit = 30 * time.Second
	stopLimit  = 20 * time.Second
)

// service is a telexecd that runs as a child.
type service struct {
	grpc, http string // addresses
	token      secret.Text
	tokenFile  string

	cmd    *exec.Cmd
	log    logBuffer
	exited chan error // gets the result of Wait; one, buffered
}

// startService starts telexecd with a configuration for one host, and returns
// when it is ready. Its log is kept and shown on stderr only when something goes
// wrong.
func startService(ctx context.Context, bin, dir, host string, stderr io.Writer) (*service, error) {
	config, data := filepath.Join(dir, "telexec.yaml"), filepath.Join(dir, "data")
	if err := os.WriteFile(config, []byte("ssh_config: none\nhosts:\n"+host), 0o600); err != nil {
		return nil, err
	}
	s := &service{
		cmd: exec.Command(filepath.Join(bin, "telexecd"),
			"--config", config, "--data-dir", data, "--grpc-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0"),
		exited:    make(chan error, 1),
		tokenFile: filepath.Join(data, "admin.token"),
	}
	// In a group of its own: Ctrl-C is for the demo, which then stops it.
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	s.cmd.Env = withoutOurs(os.Environ())
	s.cmd.Stderr = &s.log
	stdout, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting telexecd: %w", err)
	}
	ready := make(chan error, 1)
	go func() {
		ready <- s.readReady(stdout)
		s.exited <- s.cmd.Wait()
	}()
	ctx, cancel := context.WithTimeoutCause(ctx, startLimit, fmt.Errorf("telexecd is not ready after %v", startLimit))
	defer cancel()
	select {
	case err = <-ready:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if err == nil {
		var token []byte
		token, err = os.ReadFile(s.tokenFile)
		s.token = secret.New(strings.TrimSpace(string(token)))
	}
	if err != nil {
		return nil, errors.Join(err, s.stop(true, stderr))
	}
	return s, nil
}

// withoutOurs leaves out the settings of a telexec that the user may have.
func withoutOurs(env []string) (kept []string) {
	for _, v := range env {
		if !strings.HasPrefix(v, "TELEXEC_") {
			kept = append(kept, v)
		}
	}
	return kept
}

// readReady waits for the line "telexecd ready grpc=ADDR http=ADDR", takes the
// addresses, and reads on to the end so that telexecd never blocks.
func (s *service) readReady(stdout io.Reader) error {
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		return fmt.Errorf("telexecd ended before it was ready: %w", err)
	}
	for _, word := range strings.Fields(line) {
		switch key, value, _ := strings.Cut(word, "="); key {
		case "grpc":
			s.grpc = value
		case "http":
			s.http = value
		}
	}
	if s.grpc == "" || s.http == "" {
		return fmt.Errorf("telexecd says %q, want its addresses", strings.TrimSpace(line))
	}
	return nil
}

// stop asks telexecd to end and waits for it. With failed its log is shown.
func (s *service) stop(failed bool, stderr io.Writer) error {
	_ = s.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	var err error
	select {
	case err = <-s.exited:
		if err != nil {
			err = fmt.Errorf("telexecd: %w", err)
		}
	case <-time.After(stopLimit):
		_ = s.cmd.Process.Kill()
		<-s.exited
		err = fmt.Errorf("telexecd did not stop within %v and was killed", stopLimit)
	}
	if failed || err != nil {
		fmt.Fprintf(stderr, "telexecd's log:\n%s", s.log.String())
	}
	return err
}

// kill ends telexecd with SIGKILL, as a crash would.
func (s *service) kill() {
	_ = s.cmd.Process.Kill()
	<-s.exited
}

// logBuffer keeps what is written to it.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
