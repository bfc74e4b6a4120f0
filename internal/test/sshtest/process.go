package sshtest

import (
	"bytes"
	"iter"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// process is one process, told apart from a later one with the same pid by its
// start time (field 22 of /proc/PID/stat, see proc(5)).
type process struct {
	pid, parent int
	name        string
	state       string // one letter of proc(5)
	start       string
}

func readProcess(pid int) (process, bool) {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return process{}, false
	}
	// The name stands in parentheses and may hold anything, also parentheses.
	open, end := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
	if open < 0 || end < open {
		return process{}, false
	}
	fields := strings.Fields(string(stat[end+1:]))
	if len(fields) < 20 {
		return process{}, false
	}
	parent, _ := strconv.Atoi(fields[1])
	return process{pid: pid, parent: parent, name: string(stat[open+1 : end]), state: fields[0], start: fields[19]}, true
}

// signal sends sig unless the pid belongs to another process by now.
func (p process) signal(sig syscall.Signal) {
	if now, ok := readProcess(p.pid); ok && now.start == p.start {
		syscall.Kill(p.pid, sig)
	}
}

// isServer tells an SSH server and its helpers (sshd-session, sshd-auth) from the
// commands.
func (p process) isServer() bool {
	return strings.HasPrefix(p.name, "sshd") || strings.HasPrefix(p.name, "dropbear")
}

// everyProcess gives the processes that there are.
func everyProcess() iter.Seq[process] {
	return func(yield func(process) bool) {
		entries, err := os.ReadDir("/proc")
		if err != nil {
			return
		}
		for _, e := range entries {
			n, err := strconv.Atoi(e.Name())
			if err != nil {
				continue
			}
			if p, ok := readProcess(n); ok && !yield(p) {
				return
			}
		}
	}
}

// descendants lists the children of pid and theirs, parents first.
func descendants(pid int) []process {
	children := make(map[int][]process)
	for p := range everyProcess() {
		children[p.parent] = append(children[p.parent], p)
	}
	var all []process
	queue := []int{pid}
	for len(queue) > 0 {
		for _, p := range children[queue[0]] {
			all = append(all, p)
			queue = append(queue, p.pid)
		}
		queue = queue[1:]
	}
	return all
}

// pid is that of the process that listens.
func (s *Server) pid() int {
	pid := s.cmd.Process.Pid
	if s.daemon.child {
		for _, p := range descendants(pid) {
			return p.pid // the first is the child
		}
	}
	return pid
}

// KillSessions kills the server's processes of every live connection, as an
// administrator or the OOM killer does. The server goes on, and so do the
// commands that ran in the sessions.
func (s *Server) KillSessions() {
	if s.cmd == nil {
		return
	}
	all := descendants(s.pid())
	s.orphan = append(s.orphan, all...)
	for _, p := range all {
		if p.isServer() {
			p.signal(syscall.SIGKILL)
		}
	}
}

// guardScript ends what the logins of a server have left behind that is no descendant of it
// any more (a terminal that something keeps, a program in the background) when its input
// ends: when the test is over, or its binary was killed. SSH_CONNECTION is "CLIENT PORT
// SERVER PORT".
const guardScript = `read -r line
round=0
while [ $round -lt 200 ] && found=$(LC_ALL=C grep -lza "^SSH_CONNECTION=.* $1 $2\$" /proc/[0-9]*/environ); [ -n "$found" ]; do
  for one in $found; do
    one=${one%/environ}
    kill -s KILL "${one#/proc/}"
  done
  round=$((round + 1))
done
rm -rf "$3"`

// watch starts the guard of a server that listens.
func (s *Server) watch() {
	s.t.Helper()
	host, port, _ := net.SplitHostPort(s.Addr)
	s.guard = exec.Command("sh", "-c", guardScript, "sh", host, port, s.Dir)
	s.guard.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is not for it
	input, err := s.guard.StdinPipe()
	s.must(err, s.guard.Start())
	s.guardInput = input
}

// Stop ends the server and breaks its connections. The commands that run in
// them go on until the end of the test. It may be called twice.
func (s *Server) Stop() {
	if s.cmd == nil {
		return
	}
	// First the listener, so that no session is born behind our back; SIGKILL,
	// because a paused server would not hear anything else.
	all := descendants(s.cmd.Process.Pid)
	if listener, ok := readProcess(s.pid()); ok {
		listener.signal(syscall.SIGKILL)
	}
	if s.daemon.child {
		// nsenter ends with the server, once it has taken in its end: left to the
		// system's init, that would hold up the end of the pid namespace.
		s.cmd.Process.Signal(syscall.SIGCONT)
	} else {
		s.cmd.Process.Kill()
	}
	s.orphan = append(s.orphan, all...)
	for _, p := range all {
		if p.isServer() {
			p.signal(syscall.SIGKILL)
		}
		p.signal(syscall.SIGCONT)
	}
	<-s.exited
	s.cmd = nil
}

// Pause stops the server and everything below it with SIGSTOP: connections stay
// open, and nothing answers any more. The kernel still takes new connections.
func (s *Server) Pause() { s.signalAll(syscall.SIGSTOP) }

// Resume ends a Pause.
func (s *Server) Resume() { s.signalAll(syscall.SIGCONT) }

func (s *Server) signalAll(sig syscall.Signal) {
	if s.cmd == nil {
		return
	}
	if p, ok := readProcess(s.cmd.Process.Pid); ok {
		p.signal(sig)
	}
	for _, p := range descendants(s.cmd.Process.Pid) {
		p.signal(sig)
	}
}

// Sessions counts the connections that the server holds.
func (s *Server) Sessions() int {
	if s.cmd == nil {
		return 0
	}
	n := 0
	listener := s.pid()
	for _, p := range descendants(listener) {
		if p.isServer() && p.parent == listener {
			n++
		}
	}
	return n
}
