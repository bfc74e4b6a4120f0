package loopback

import (
	"context"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"

	"golang.org/x/crypto/ssh"
)

// process is a command with our ends of its three pipes.
type process struct {
	cmd            *exec.Cmd
	stdin          *os.File
	stdout, stderr *os.File
}

// login gives a command line as a login runs it, in a home directory, or that of this
// program.
func login(command, home string) *exec.Cmd {
	cmd := exec.Command("/bin/sh", "-c", command)
	cmd.Dir = home
	if home == "" {
		cmd.Dir, _ = os.UserHomeDir()
	}
	// A login's environment, not the one of this program.
	for _, name := range []string{"HOME", "USER", "LOGNAME", "PATH", "SHELL", "LANG", "TMPDIR"} {
		if v, ok := os.LookupEnv(name); ok {
			cmd.Env = append(cmd.Env, name+"="+v)
		}
	}
	if home != "" {
		cmd.Env = append(cmd.Env, "HOME="+home) // the last one counts
	}
	return cmd
}

// start runs a command line in a new session.
func start(command, home string) (*process, error) {
	cmd := login(command, home)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	// Plain pipes instead of exec's own: its Wait would hold back the exit status
	// until every process that inherited them has closed them.
	var theirs, ours [3]*os.File
	closeAll := func(files [3]*os.File) {
		for _, f := range files {
			if f != nil {
				f.Close()
			}
		}
	}
	for i := range theirs {
		r, w, err := os.Pipe()
		if err != nil {
			closeAll(theirs)
			closeAll(ours)
			return nil, err
		}
		if i == 0 {
			theirs[i], ours[i] = r, w
		} else {
			theirs[i], ours[i] = w, r
		}
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = theirs[0], theirs[1], theirs[2]
	err := cmd.Start()
	closeAll(theirs)
	if err != nil {
		closeAll(ours)
		return nil, err
	}
	return &process{cmd: cmd, stdin: ours[0], stdout: ours[1], stderr: ours[2]}, nil
}

// serve sends the output and the end of the command, and returns when both have
// been sent. The end of ctx kills the command. As with sshd, output that a child
// in the background holds open keeps the channel open.
func (p *process) serve(ctx context.Context, channel ssh.Channel) {
	stop := context.AfterFunc(ctx, func() {
		syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		p.stdin.Close()
		p.stdout.Close()
		p.stderr.Close()
	})
	defer stop()
	var output sync.WaitGroup
	// When the client has gone the pipe is closed: the command gets SIGPIPE if it
	// writes on, and is left alone if it does not.
	output.Go(func() { io.Copy(channel, p.stdout); p.stdout.Close() })
	output.Go(func() { io.Copy(channel.Stderr(), p.stderr); p.stderr.Close() })
	p.cmd.Wait()
	tellEnd(channel, p.cmd.ProcessState.Sys().(syscall.WaitStatus))
	output.Wait()
	p.stdin.Close()
}

// signalNames are those of RFC 4254, section 6.10.
var signalNames = map[syscall.Signal]string{
	syscall.SIGABRT: "ABRT", syscall.SIGALRM: "ALRM", syscall.SIGFPE: "FPE", syscall.SIGHUP: "HUP",
	syscall.SIGILL: "ILL", syscall.SIGINT: "INT", syscall.SIGKILL: "KILL", syscall.SIGPIPE: "PIPE",
	syscall.SIGQUIT: "QUIT", syscall.SIGSEGV: "SEGV", syscall.SIGTERM: "TERM",
	syscall.SIGUSR1: "USR1", syscall.SIGUSR2: "USR2",
}

// tellEnd sends exit-status or exit-signal.
func tellEnd(channel ssh.Channel, status syscall.WaitStatus) {
	if !status.Signaled() {
		channel.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{uint32(status.ExitStatus())}))
		return
	}
	name, ok := signalNames[status.Signal()]
	if !ok {
		name = "SIG@openssh.com" // what sshd says of all others
	}
	channel.SendRequest("exit-signal", false, ssh.Marshal(struct {
		Signal     string
		CoreDumped bool
		Message    string
		Language   string
	}{name, status.CoreDump(), "", ""}))
}
