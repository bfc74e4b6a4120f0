package sshterm

import (
	"context"

	"github.com/telexec/telexec/internal/fault"
)

// Sweep removes the files of a shell that has ended by itself. What it has left running
// in the background goes on, as it does behind any login.
func (s *Shell) Sweep(ctx context.Context) error {
	if s.dir == "" {
		return nil
	}
	lines, err := s.terms.ask(ctx, s.spec.Host, s.terms.opts.ControlTimeout, "dir="+quote(s.dir)+"\n"+script("sweep.sh"))
	if err == nil && (len(lines) != 1 || lines[0] != "swept") {
		err = fault.New(fault.Unavailable, fault.ReasonSignalFailed, "the files of a session on %s are still there", s.spec.Host.Name).
			WithHint("Remove %s there", s.dir).WithOp("sshterm.sweep")
	}
	return err
}
