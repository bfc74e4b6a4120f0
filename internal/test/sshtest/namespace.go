package sshtest

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// holder is a process that keeps the namespaces of a machine. The servers come
// and go in them; with the holder goes all that was mounted there and, where the
// pids are its own, every process.
type holder struct {
	pid      int // as this machine counts
	pidSpace bool
	netSpace bool
	cmd      *exec.Cmd
	stdin    io.Closer // its end is the holder's
}

// newHolder makes namespaces and furnishes them with the commands of setup, which
// sh runs in them. It skips the test where the machine has none to give.
func newHolder(t testing.TB, setup string, pids, network bool) *holder {
	t.Helper()
	for _, program := range []string{"unshare", "nsenter", "mount"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("no %s here, which machines of namespaces need", program)
		}
	}
	args := []string{"--mount", "--propagation", "private"}
	if network {
		args = append(args, "--net")
	}
	if pids {
		// The holder is their init. It must take in orphans: with SIGCHLD ignored
		// the kernel does that.
		args = append(args, "--pid", "--fork", "--kill-child")
	}
	// A container may be root and may not do this.
	probe := append(args[:len(args):len(args)], "mount", "--bind", "/etc/passwd", "/etc/passwd")
	if out, err := exec.Command("unshare", probe...).CombinedOutput(); err != nil {
		t.Skipf("this machine makes no namespaces: unshare %s: %v: %s", strings.Join(probe, " "), err, out)
	}
	// cat ends with its input, which is ours: the holder does not outlive a test
	// binary that was killed.
	cmd := exec.Command("unshare", append(args, "sh", "-ec", setup+"echo ready\nexec env --ignore-signal=CHLD cat")...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var problem strings.Builder
	cmd.Stderr = &problem
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil || line != "ready\n" {
		stdin.Close()
		cmd.Wait()
		t.Fatalf("the namespaces of a machine: %q, %v: %s", line, err, problem.String())
	}
	h := &holder{pid: cmd.Process.Pid, pidSpace: pids, netSpace: network, cmd: cmd, stdin: stdin}
	if pids {
		for _, p := range descendants(h.pid) {
			h.pid = p.pid
			break
		}
	}
	return h
}

// enter gives the beginning of a command line that runs in the namespaces.
func (h *holder) enter() []string {
	args := []string{"nsenter", "--target", strconv.Itoa(h.pid), "--mount"}
	if h.netSpace {
		args = append(args, "--net")
	}
	if h.pidSpace {
		args = append(args, "--pid")
	}
	return append(args, "--")
}

func (h *holder) end() {
	h.stdin.Close()
	if h.pidSpace {
		// The end of its init ends a pid namespace.
		syscall.Kill(h.pid, syscall.SIGKILL)
	}
	h.cmd.Wait()
}

// NextPID makes the next process of a machine with pids of its own have this pid,
// which must be free. Anything that starts in between takes it away, so the
// machine should be quiet.
func (m *Machine) NextPID(pid int) {
	m.t.Helper()
	if !m.opt.OwnPIDs {
		m.t.Fatal("the machine has no pids of its own")
	}
	// The file shows the namespace of who writes to it.
	m.Run("sh", "-c", "echo "+strconv.Itoa(pid-1)+" >/proc/sys/kernel/ns_last_pid")
}

// processes lists what runs in the machine, the servers too, and no zombies: they
// have no namespaces any more. Machines are told apart by their mounts.
func (m *Machine) processes() []process {
	if m.holder == nil {
		return nil
	}
	mounts, err := os.Readlink("/proc/" + strconv.Itoa(m.holder.pid) + "/ns/mnt")
	if err != nil {
		return nil
	}
	var all []process
	for p := range everyProcess() {
		ns, err := os.Readlink("/proc/" + strconv.Itoa(p.pid) + "/ns/mnt")
		if err == nil && ns == mounts && p.pid != m.holder.pid && p.pid != m.holder.cmd.Process.Pid {
			all = append(all, p)
		}
	}
	return all
}
