package sshconn

import (
	"context"
	"errors"
	"net"
	"strconv"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/cpu"

	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/inventory"
)

// clientVersion is what we call ourselves; RFC 4253, section 4.2.
const clientVersion = "SSH-2.0-telexec"

// hasAES tells whether AES-GCM runs in hardware, where it is about twice as fast
// as chacha20-poly1305; without it, it is much slower.
var hasAES = cpu.X86.HasAES && cpu.X86.HasPCLMULQDQ || cpu.ARM64.HasAES && cpu.ARM64.HasPMULL || cpu.S390X.HasAESGCM

// algorithms is the choice of ciphers and of everything else that has no known
// weakness in x/crypto/ssh.
func algorithms(aes bool) ssh.Config {
	gcm := []string{ssh.CipherAES128GCM, ssh.CipherAES256GCM}
	ctr := []string{ssh.CipherAES128CTR, ssh.CipherAES192CTR, ssh.CipherAES256CTR}
	ciphers := append(gcm, ssh.CipherChaCha20Poly1305)
	if !aes {
		ciphers = append([]string{ssh.CipherChaCha20Poly1305}, gcm...)
	}
	safe := ssh.SupportedAlgorithms()
	return ssh.Config{Ciphers: append(ciphers, ctr...), KeyExchanges: safe.KeyExchanges, MACs: safe.MACs}
}

// dial makes a connection to e's host: TCP or the jump host, handshake, login,
// all within ctx. The connection is not yet in e's list.
func (e *endpoint) dial(ctx context.Context) (*conn, error) {
	limit := connectLimit(e.host)
	auth, err := gather(ctx, e.host, &e.keys)
	if err != nil {
		return nil, err
	}
	defer auth.Close()
	key, err := newHostKeyCheck(e.host)
	if err != nil {
		return nil, err
	}
	started := time.Now()
	stream, parent, err := e.connect(ctx, limit)
	if err != nil {
		return nil, err
	}
	wire := newLink(stream)
	// The handshake knows no context: closing the stream ends it.
	stop := context.AfterFunc(ctx, func() { stream.Close() })
	raw, channels, requests, err := ssh.NewClientConn(wire, e.host.Address, &ssh.ClientConfig{
		Config:            algorithms(hasAES),
		User:              e.host.User,
		Auth:              auth.methods(),
		AuthCallback:      auth.watch,
		HostKeyCallback:   key.check,
		HostKeyAlgorithms: key.known.algorithms(key.name),
		ClientVersion:     clientVersion,
	})
	if !stop() && err == nil {
		raw.Close()
		err = context.Cause(ctx)
	}
	if err != nil {
		stream.Close()
		if parent != nil {
			parent.leave()
		}
		return nil, attempt{host: e.host, limit: limit, link: wire, key: key, auth: auth}.fault(ctx, err)
	}
	c := &conn{
		end:         e,
		ssh:         raw,
		link:        wire,
		parent:      parent,
		fingerprint: ssh.FingerprintSHA256(plainKey(key.shown)),
		done:        make(chan struct{}),
		idleSince:   time.Now(),
	}
	if !c.start(channels, requests) {
		stream.Close()
		if parent != nil {
			parent.leave()
		}
		return nil, closedFault(e.host)
	}
	e.pool.log.Debug("connected", "host", e.host.Name, "address", e.host.Address,
		"server", string(raw.ServerVersion()), "took", time.Since(started))
	return c, nil
}

// connect gives the stream to the host, and the connection to the last jump host
// that carries it, if any; the caller gives that one back with leave.
func (e *endpoint) connect(ctx context.Context, limit time.Duration) (net.Conn, *conn, error) {
	if e.via == nil {
		var dialer net.Dialer
		stream, err := dialer.DialContext(ctx, "tcp", e.host.Address)
		if err != nil {
			if left(ctx) {
				return nil, nil, aboutHost(fault.From(ctx.Err()), e.host)
			}
			return nil, nil, dialFault(err, e.host, limit)
		}
		return stream, nil, nil
	}
	type way struct {
		stream net.Conn
		parent *conn
	}
	w, err := overtake(ctx, e.pool, func(ctx context.Context, slow func()) (way, error) {
		stream, parent, err := e.through(ctx, limit, slow)
		return way{stream, parent}, err
	}, func(w way) {
		w.stream.Close()
		w.parent.leave()
	})
	return w.stream, w.parent, err
}

// through gives a stream through the last jump host, on one connection to it
// after the other, until one carries it or the host behind is not reached.
func (e *endpoint) through(ctx context.Context, limit time.Duration, slow func()) (net.Conn, *conn, error) {
	hop := e.via.host
	payload, err := directTCPIP(e.host.Address)
	if err != nil {
		return nil, nil, forwardFault(err, hop, e.host)
	}
	me := newWaiter(stream, time.Now())
	for {
		parent, err := e.via.acquire(ctx, me)
		if err != nil && left(ctx) {
			return nil, nil, aboutHost(fault.From(ctx.Err()), e.host)
		}
		if err != nil {
			return nil, nil, jumpFault(fault.From(err), hop, e.host)
		}
		channel, requests, err := parent.openChannel(ctx, request{kind: "direct-tcpip", payload: payload, slow: slow})
		if err == nil {
			e.via.opened(parent)
			return newForwarded(channel, requests, parent, e.host.Address), parent, nil
		}
		_, late := errors.AsType[errLate](err)
		_, refused := errors.AsType[*ssh.OpenChannelError](err)
		if late || refused {
			parent.leave()
		}
		switch {
		case late && left(ctx):
			return nil, nil, aboutHost(fault.From(ctx.Err()), e.host)
		case late:
			return nil, nil, jumpFault(timeoutFault(err, e.host, limit, "its jump host does not get there"), hop, e.host)
		case refused:
			return nil, nil, forwardFault(err, hop, e.host)
		}
		if f := e.via.broke(parent, stream, err); f != nil {
			return nil, nil, jumpFault(f, hop, e.host)
		}
	}
}

// directTCPIP asks for a stream to address; RFC 4254, section 7.2.
func directTCPIP(address string) ([]byte, error) {
	host, portText, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return nil, err
	}
	return ssh.Marshal(struct {
		Host       string
		Port       uint32
		OriginHost string
		OriginPort uint32
	}{host, uint32(port), "127.0.0.1", 0}), nil
}

// connectLimit is how long a host may take for each step, and how long it may
// make no progress.
func connectLimit(host inventory.Host) time.Duration {
	if host.ConnectTimeout <= 0 {
		return defaultConnectTimeout
	}
	return host.ConnectTimeout
}
