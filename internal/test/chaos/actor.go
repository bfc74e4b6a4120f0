package chaos

import (
	"context"
	"fmt"
	"io"
	"time"
)

// Play is the actor: it plays a script on the host, and gives the exit code to
// end with. What it prints comes from the same code that the harness compares
// it with. An error means that it could not write, or that its input was not
// what was sent; the exit code is then not the script's.
func Play(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) (code int, err error) {
	s, err := ParseScript(args)
	if err != nil {
		return 2, err
	}
	to := [...]io.Writer{Stdout: stdout, Stderr: stderr}
	at := [len(to)]int64{}
	buf := make([]byte, 64<<10)
	for _, step := range s.Steps() {
		if step.Stream == Typed {
			n, err := io.Copy(stdout, stdin)
			if err != nil {
				return 2, err
			}
			if n != step.Bytes {
				return 2, fmt.Errorf("read %d bytes of input, not %d", n, step.Bytes)
			}
			continue
		}
		for left := step.Bytes; left > 0; {
			part := buf[:min(int64(len(buf)), left)]
			s.Content(step.Stream, at[step.Stream], part)
			if _, err := to[step.Stream].Write(part); err != nil {
				return 2, err
			}
			at[step.Stream] += int64(len(part))
			left -= int64(len(part))
		}
		if step.Pause > 0 {
			select {
			case <-time.After(step.Pause):
			case <-ctx.Done():
				return 2, ctx.Err()
			}
		}
	}
	return s.Exit, nil
}
