package sshexec

import (
	"context"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/inventory"
)

// A bare run is an attached one on a host without a POSIX shell, such as a network
// device or a restricted login, which its configuration says: the command line
// goes out as it is. Nothing is known there of a process, so that it is ended by
// SSH's own signal requests and the end of its channel, and nothing is proven.

// startBare starts a bare run.
func (r *Runner) startBare(ctx context.Context, id string, host inventory.Host, spec *command.Spec, sink Sink) (*attached, error) {
	if what := beyondBare(spec); what != "" {
		return nil, fault.New(fault.Unsupported, fault.ReasonNotSupported, "%s has no shell, which %s needs", host.Name, what).
			WithHint("Leave it out; or, if the host has a POSIX shell after all, leave shell out of its configuration").WithOp("sshexec.start")
	}
	ses, err := r.dialer.Open(ctx, host)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		ses.Close()
		return nil, err
	}
	p := newAttached(r, id, host, spec, ses, sink, "")
	p.bare = true
	p.run(context.WithoutCancel(ctx), spec.CommandLine(), "")
	if f := p.awaitStart(r.startTimeout(host)); f != nil {
		p.Close()
		return nil, f.With("host", host.Name)
	}
	return p, nil
}

// beyondBare names what a spec asks for that only a shell can do.
func beyondBare(spec *command.Spec) string {
	switch {
	case len(spec.Env) > 0:
		return "env"
	case spec.WorkingDirectory != "":
		return "working_directory"
	case spec.LoginShell:
		return "login_shell"
	case spec.Sudo != nil:
		return "sudo"
	}
	return ""
}

// signalBare sends SSH's signal request (RFC 4254, 6.9), which has no answer.
func (p *attached) signalBare(name string) error {
	_, err := p.ses.Channel.SendRequest("signal", false, ssh.Marshal(struct{ Name string }{name}))
	if err != nil {
		return fault.Wrap(err, fault.Unavailable, fault.ReasonSignalFailed, "the signal could not be sent to %s", p.host.Name).WithOp("sshexec.signal")
	}
	return nil
}

// cancelBare asks for the end with signals, then closes the channel.
func (p *attached) cancelBare(ctx context.Context, grace time.Duration) command.CancelReport {
	begin := time.Now()
	report := command.CancelReport{Outcome: command.Unproven, Message: "the host has no shell to show what is left"}
	for _, rung := range []struct {
		name string
		wait time.Duration
	}{{"INT", grace / 5}, {"TERM", grace - grace/5}, {"KILL", lastWords}} {
		if rung.wait <= 0 {
			continue
		}
		report.Signal = rung.name
		if p.signalBare(rung.name) != nil {
			break
		}
		waiting, stop := context.WithTimeout(ctx, rung.wait)
		select {
		case <-p.done:
		case <-waiting.Done():
		}
		stop()
		if closed(p.done) {
			break
		}
	}
	if !closed(p.done) {
		report.Message += "; its channel was closed"
		p.Close()
	}
	report.Duration = time.Since(begin)
	return report
}
