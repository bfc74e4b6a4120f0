package sshconn

import (
	"context"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// lingering is how long a closed channel may take the place of another one when
// the server does not confirm that it is closed.
const lingering = time.Second

// Channel is an open session channel: the raw channel, and the connection below
// it. Read is the remote stdout and Stderr the remote stderr; both must be read,
// or discarded, else the server stops sending when the window (2 MiB) is full.
type Channel struct {
	ssh.Channel
	requests <-chan *ssh.Request
	conn     *conn
	once     sync.Once
	closeErr error
}

// Requests are those of the server: exit-status, exit-signal and others. They
// must be received until the channel is closed, or until Close; x/crypto/ssh
// holds up the whole connection for a channel whose requests nobody takes.
//
// When it is closed without an exit status, ask Alive whether the connection is
// to blame.
func (c *Channel) Requests() <-chan *ssh.Request { return c.requests }

// Done is closed when the connection is dead.
func (c *Channel) Done() <-chan struct{} { return c.conn.done }

// Err tells why the connection is dead: CONNECTION_LOST; nil while Done is open.
func (c *Channel) Err() error {
	if c.conn.live() {
		return nil
	}
	return clone(c.conn.lost)
}

// Alive asks the server for a sign of life and waits for it: nil when it came,
// Err when the connection is dead, ctx's error when there was no answer in time.
// It costs one round trip.
func (c *Channel) Alive(ctx context.Context) error {
	answered := make(chan error, 1) // one answer
	ok := c.conn.end.pool.spawn(func() {
		_, _, err := c.conn.ssh.SendRequest("keepalive@openssh.com", true, nil)
		answered <- err
	})
	if !ok {
		return closedFault(c.conn.end.host)
	}
	select {
	case err := <-answered:
		if err == nil {
			return nil
		}
		// The end is on its way: the connection says no more.
		<-c.conn.done
		return c.Err()
	case <-c.conn.done:
		return c.Err()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Close closes the channel and gives its place on the connection back, as soon
// as the server has closed it as well. It does not wait for that, and does not
// touch what runs on the host. It may be called twice.
func (c *Channel) Close() error {
	c.once.Do(func() {
		c.closeErr = c.Channel.Close()
		if c.drained() || !c.conn.end.pool.spawn(c.drain) {
			c.conn.release()
		}
	})
	return c.closeErr
}

// drained takes the requests that are there; true when the server has closed
// the channel, the usual case after a command has ended.
func (c *Channel) drained() bool {
	for {
		select {
		case r, ok := <-c.requests:
			if !ok {
				return true
			}
			r.Reply(false, nil)
		default:
			return false
		}
	}
}

// drain takes the requests until the server has closed the channel, and gives
// the place back then, or when the server takes its time.
func (c *Channel) drain() {
	timer := time.NewTimer(lingering)
	defer timer.Stop()
	held := true
	for {
		select {
		case r, ok := <-c.requests:
			if !ok {
				if held {
					c.conn.release()
				}
				return
			}
			r.Reply(false, nil)
		case <-timer.C:
			c.conn.end.mu.Lock()
			c.conn.drop()
			c.conn.end.mu.Unlock()
			held = false
		}
	}
}
