package sshconn

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"strings"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/inventory"
)

// errLimit is the cause of a context that ended at the host's ConnectTimeout, to
// tell it from the caller's own deadline.
var errLimit = errors.New("the host's connect timeout")

// left reports whether ctx ended for a reason of the caller's: the host had time left.
func left(ctx context.Context) bool {
	return ctx.Err() != nil && !errors.Is(context.Cause(ctx), errLimit)
}

// outOfTime reports whether a failure says only that time was over.
func outOfTime(err error) bool {
	switch fault.From(err).Reason {
	case fault.ReasonConnectTimeout, fault.ReasonCallDeadline, fault.ReasonCallCancelled:
		return true
	}
	return false
}

// errDropped marks a connection that the server closed before the key exchange,
// as sshd does above MaxStartups: the one failure that is tried again at once.
var errDropped = errors.New("dropped before the key exchange")

// subject names a host in messages.
func subject(host inventory.Host) string {
	if host.Name == "" || host.Name == host.Address {
		return host.Address
	}
	return fmt.Sprintf("%s (%s)", host.Name, host.Address)
}

// aboutHost adds the facts about the host that every error of this room has.
func aboutHost(e *fault.Error, host inventory.Host) *fault.Error {
	return e.With("host", host.Name).With("address", host.Address).WithOp("sshconn")
}

// clone makes a copy that its receiver may add to: waiters share an answer, but
// not the memory.
func clone(e *fault.Error) *fault.Error {
	c := *e
	c.Metadata = maps.Clone(e.Metadata)
	return &c
}

// final reports whether trying again cannot help before somebody changes
// something: a wrong credential, a wrong host key, no common algorithm.
func final(e *fault.Error) bool { return e.Kind == fault.FailedPrecondition }

// dropped reports whether the server turned the connection away unseen.
func dropped(e *fault.Error) bool { return errors.Is(e, errDropped) }

// dialFault tells why no TCP connection came about.
func dialFault(err error, host inventory.Host, limit time.Duration) *fault.Error {
	var e *fault.Error
	if dns, ok := errors.AsType[*net.DNSError](err); ok && !dns.IsTimeout {
		e = fault.Wrap(err, fault.Unavailable, fault.ReasonHostUnreachable, "the name of %s is not known: %s", subject(host), dns.Err).
			WithHint("Check the address in the configuration, and the DNS of the machine on which the service runs")
	} else if errors.Is(err, syscall.ECONNREFUSED) {
		e = fault.Wrap(err, fault.Unavailable, fault.ReasonConnectionRefused, "%s refuses the connection: nothing listens on the port", subject(host)).
			WithHint("Check that sshd runs on the host and that the port is right")
	} else if netErr, ok := errors.AsType[net.Error](err); ok && netErr.Timeout() {
		e = timeoutFault(err, host, limit, "there is no answer from its network")
	} else {
		e = fault.Wrap(err, fault.Unavailable, fault.ReasonHostUnreachable, "%s cannot be reached: %s", subject(host), rootText(err)).
			WithHint("Check the address, the route and the firewall between the service and the host")
	}
	return aboutHost(e, host)
}

// timeoutFault tells that the host did not answer in time; where says how far it came.
func timeoutFault(err error, host inventory.Host, limit time.Duration, where string) *fault.Error {
	return aboutHost(fault.Wrap(err, fault.Unavailable, fault.ReasonConnectTimeout,
		"%s did not let us in within %s: %s", subject(host), limit, where).
		WithHint("Check that the host is up and not overloaded, and the firewall on the way; connect_timeout sets the limit"), host)
}

// rootText is the innermost text of a network error, without addresses.
func rootText(err error) string {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err.Error()
		}
		err = inner
	}
}

// attempt is what is known about a handshake when it fails.
type attempt struct {
	host  inventory.Host
	limit time.Duration
	link  *link
	key   *hostKeyCheck
	auth  *credentials
}

// fault tells why the handshake failed. ctx is the one it ran under.
func (a attempt) fault(ctx context.Context, err error) *fault.Error {
	if a.key.refusal != nil {
		return a.key.refusal
	}
	if errors.Is(context.Cause(ctx), errLimit) {
		where := "it takes connections, but says nothing"
		switch {
		case a.key.shown != nil:
			where = "the login did not end"
		case len(a.link.head()) > 0:
			where = "the key exchange did not end"
		}
		return timeoutFault(err, a.host, a.limit, where)
	}
	if ctx.Err() != nil {
		return aboutHost(fault.From(ctx.Err()), a.host)
	}
	if e, ok := errors.AsType[*ssh.AlgorithmNegotiationError](err); ok {
		return aboutHost(fault.Wrap(err, fault.FailedPrecondition, fault.ReasonHandshakeFailed,
			"%s and we have no algorithm in common for the %s: it offers %s, we take %s", subject(a.host), e.What,
			strings.Join(e.RequestedAlgorithms, ", "), strings.Join(e.SupportedAlgorithms, ", ")).
			WithHint("Update the SSH server, or let it offer a current algorithm"), a.host)
	}
	if a.key.shown == nil {
		return a.beforeKey(err)
	}
	if broken(err) {
		return aboutHost(fault.Wrap(err, fault.Unavailable, fault.ReasonHandshakeFailed,
			"%s closed the connection during the login", subject(a.host)).
			WithHint("The log of sshd on the host says why"), a.host)
	}
	return a.auth.fault(err, a.host)
}

// beforeKey tells why the handshake failed before a host key was shown.
func (a attempt) beforeKey(err error) *fault.Error {
	said := a.link.head()
	foreign := said != "" && !strings.HasPrefix(said, "SSH-") && !strings.HasPrefix(said, "Exceeded MaxStartups") &&
		!strings.Contains(said, "\nSSH-")
	if foreign {
		return aboutHost(fault.Wrap(err, fault.FailedPrecondition, fault.ReasonHandshakeFailed,
			"%s does not speak SSH: it says %q", subject(a.host), said).
			WithHint("Check the address and the port"), a.host)
	}
	if broken(err) {
		return aboutHost(fault.Wrap(errors.Join(errDropped, err), fault.Unavailable, fault.ReasonHandshakeFailed,
			"%s closes connections before the key exchange", subject(a.host)).
			WithHint("Too many logins at once (MaxStartups), a ban of this address, or a firewall: the log of sshd on the host says which"), a.host)
	}
	return aboutHost(fault.Wrap(err, fault.Unavailable, fault.ReasonHandshakeFailed,
		"the SSH handshake with %s failed: %s", subject(a.host), rootText(err)).
		WithHint("The log of sshd on the host says why"), a.host)
}

// broken reports whether the other side went away.
func broken(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) ||
		errors.Is(err, syscall.EPIPE) || errors.Is(err, net.ErrClosed) || errors.Is(err, io.ErrClosedPipe)
}

// jumpFault tells that the way to host ends at a hop. A failure of a hop before
// that one keeps its own name.
func jumpFault(cause *fault.Error, hop, host inventory.Host) *fault.Error {
	name, reason := hop.Name, cause.Reason
	if cause.Reason == fault.ReasonJumpFailed {
		name, reason = cause.Metadata["jump"], cause.Metadata["jump_reason"]
	}
	e := fault.Wrap(cause, cause.Kind, fault.ReasonJumpFailed, "%s cannot be reached, its jump host %s failed: %s",
		subject(host), name, strings.TrimPrefix(cause.Message, jumpPrefix(cause)))
	e.Hint = cause.Hint
	for k, v := range cause.Metadata {
		e.With(k, v)
	}
	return aboutHost(e, host).With("jump", name).With("jump_reason", reason)
}

// jumpPrefix is the part of a message that jumpFault would say twice.
func jumpPrefix(e *fault.Error) string {
	if e.Reason != fault.ReasonJumpFailed {
		return ""
	}
	if i := strings.Index(e.Message, " failed: "); i >= 0 {
		return e.Message[:i+len(" failed: ")]
	}
	return ""
}

// forwardFault tells that a hop is there but does not lead on.
func forwardFault(err error, hop, host inventory.Host) *fault.Error {
	e := fault.Wrap(err, fault.Unavailable, fault.ReasonHostUnreachable, "it cannot reach %s", host.Address).
		WithHint("Check the address as the jump host sees it, and that its sshd allows AllowTcpForwarding and PermitOpen")
	if refused, ok := errors.AsType[*ssh.OpenChannelError](err); ok {
		switch {
		case refused.Reason == ssh.Prohibited:
			e.Reason, e.Kind = fault.ReasonChannelRefused, fault.FailedPrecondition
			e.Message = "it does not forward to " + host.Address
		case strings.Contains(strings.ToLower(refused.Message), "refused"):
			e.Reason = fault.ReasonConnectionRefused
			e.Message = fmt.Sprintf("it says that %s refuses the connection", host.Address)
		default:
			e.Message = fmt.Sprintf("it cannot reach %s: %q", host.Address, refused.Message)
		}
	}
	return jumpFault(e, hop, host)
}

// channelFault tells that a new connection opens no session.
func channelFault(err *ssh.OpenChannelError, host inventory.Host) *fault.Error {
	return aboutHost(fault.Wrap(err, fault.Unavailable, fault.ReasonChannelRefused,
		"%s lets us in, but opens no session: %q", subject(host), err.Message).
		WithHint("Check MaxSessions in the sshd_config of the host, and its log"), host)
}

// lostFault tells that a live connection broke.
func lostFault(err error, host inventory.Host) *fault.Error {
	why := "the host or the network closed it"
	switch {
	case errors.Is(err, errSilent):
		why = "the host did not answer any more"
	case errors.Is(err, errClosing):
		why = "the service is shutting down"
	case err != nil && strings.HasPrefix(err.Error(), "ssh: disconnect"):
		why = fmt.Sprintf("the host ended it: %q", strings.TrimPrefix(err.Error(), "ssh: disconnect, "))
	}
	return aboutHost(fault.Wrap(err, fault.Unavailable, fault.ReasonConnectionLost,
		"the connection to %s was lost: %s", subject(host), why).
		WithHint("Check that the host is up; its sshd may have been restarted"), host)
}
