package loopback

import (
	"context"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"

	"golang.org/x/crypto/ssh"

	"github.com/telexec/telexec/internal/test/tty"
)

// ptyRequest is RFC 4254, section 6.2.
type ptyRequest struct {
	Term          string
	Columns, Rows uint32
	Width, Height uint32 // in pixels
	Modes         string // of the line discipline; they are left as they are
}

// terminal is a command on a terminal.
type terminal struct {
	cmd  *exec.Cmd
	file *os.File
}

// startOn runs a command line on a terminal.
func startOn(asked *ptyRequest, command, home string) (t *terminal, err error) {
	t = &terminal{cmd: login(command, home)}
	t.cmd.Env = append(t.cmd.Env, "TERM="+asked.Term)
	t.file, err = tty.Start(t.cmd, int(asked.Columns), int(asked.Rows))
	return t, err
}

// resize heeds the window changes among the requests, until their end, which is that of
// the channel and hangs the terminal up.
func (t *terminal) resize(requests <-chan *ssh.Request) {
	for r := range requests {
		var size struct{ Columns, Rows, Width, Height uint32 }
		ok := r.Type == "window-change" && ssh.Unmarshal(r.Payload, &size) == nil && tty.Resize(t.file, int(size.Columns), int(size.Rows)) == nil
		if r.WantReply {
			r.Reply(ok, nil)
		}
	}
	t.file.Close()
}

// serve sends what is printed and the end of the command, and returns when both have been
// sent or the client is gone. The end of ctx kills the command.
func (t *terminal) serve(ctx context.Context, channel ssh.Channel, running *sync.WaitGroup) {
	defer t.file.Close()
	defer context.AfterFunc(ctx, func() {
		syscall.Kill(-t.cmd.Process.Pid, syscall.SIGKILL)
		t.file.Close()
	})()
	running.Go(func() { io.Copy(t.file, channel) })
	io.Copy(channel, t.file) // until all that have it open are gone, or it is closed
	t.file.Close()
	t.cmd.Wait()
	tellEnd(channel, t.cmd.ProcessState.Sys().(syscall.WaitStatus))
}
