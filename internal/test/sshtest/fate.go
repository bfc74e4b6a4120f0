package sshtest

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Running lists the live processes of the machine with a word in their command
// line, one per line; zombies have none. Commands can be found by it that have
// cleared their environment.
func (m *Machine) Running(word string) []string {
	var all []string
	for _, p := range m.processes() {
		line, err := os.ReadFile("/proc/" + strconv.Itoa(p.pid) + "/cmdline")
		if err == nil && bytes.Contains(line, []byte(word)) {
			all = append(all, fmt.Sprintf("process %d %s", p.pid, bytes.ReplaceAll(bytes.TrimSuffix(line, []byte{0}), []byte{0}, []byte(" "))))
		}
	}
	return all
}

// KillCommands kills everything that runs in the machine but its SSH server and
// the live connections, as the OOM killer at its worst.
func (m *Machine) KillCommands() {
	m.t.Helper()
	for _, p := range m.processes() {
		if !p.isServer() && p.parent != m.cmdPID() && p.pid != m.cmdPID() {
			p.signal(syscall.SIGKILL)
		}
	}
}

// killAll kills everything that runs in the machine, and waits until it is gone: on
// a busy CPU a process may die long after it was killed, and until then it may fork.
// All are stopped first, so that none lives to see what another has died of, and to
// write that down: a host that falls over leaves nobody the time.
func (m *Machine) killAll() {
	m.t.Helper()
	stopped := make(map[int]bool)
	for fresh := true; fresh; {
		fresh = false
		for _, p := range m.processes() {
			if !stopped[p.pid] {
				p.signal(syscall.SIGSTOP)
				stopped[p.pid], fresh = true, true
			}
		}
	}
	for late := time.After(10 * time.Second); ; {
		left := m.processes()
		if len(left) == 0 {
			return
		}
		for _, p := range left {
			p.signal(syscall.SIGKILL)
		}
		select {
		case <-time.After(time.Millisecond):
		case <-late:
			m.t.Fatalf("10 s after they were killed there are still: %+v", left)
		}
	}
}

// cmdPID is the process that this test has started for the server; 0: none.
func (m *Machine) cmdPID() int {
	if m.cmd == nil {
		return 0
	}
	return m.cmd.Process.Pid
}

// Reboot ends everything that runs in the machine, and starts it again with
// another boot id. Files stay.
func (m *Machine) Reboot() {
	m.t.Helper()
	m.Stop()
	m.killAll()
	var id [16]byte
	_, _ = rand.Read(id[:])
	file := filepath.Join(m.Dir, "boot_id")
	boot := fmt.Sprintf("%x-%x-%x-%x-%x\n", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
	m.must(os.WriteFile(file, []byte(boot), 0o644))
	args := append(m.holder.enter(), "mount", "--bind", file, filepath.Join("/", m.root, "proc/sys/kernel/random/boot_id"))
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		m.t.Fatalf("a new boot id: %v: %s", err, out)
	}
	m.Restart()
}

// Pids gives the pids, as a machine with pids of its own counts them, of the live
// processes that carry a command's id.
func (m *Machine) Pids(id string) []int {
	m.t.Helper()
	var all []int
	for _, p := range carriers(id) {
		if inner := innerPID(p.pid); inner > 0 {
			all = append(all, inner)
		}
	}
	return all
}

// innerPID is the pid of a process in its own pid namespace (see proc(5)); 0: it
// is gone.
func innerPID(pid int) int {
	status, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "NSpid:"); ok {
			fields := strings.Fields(rest)
			inner, _ := strconv.Atoi(fields[len(fields)-1])
			return inner
		}
	}
	return 0
}

// Decoy starts a process that has nothing to do with anything on a machine with
// pids of its own, with this pid, which must be free; it leads a group and a
// session of the same number. alive tells whether it still runs, and is not
// stopped. The machine should be quiet meanwhile.
func (m *Machine) Decoy(pid int) (alive func() bool) {
	m.t.Helper()
	args := append(m.holder.enter(), "setsid", "sleep", "1000000")
	if m.root != "" {
		m.t.Fatal("decoys need the programs of this machine")
	}
	for range 5 {
		m.NextPID(pid)
		cmd := exec.Command(args[0], args[1:]...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		var problem bytes.Buffer
		cmd.Stderr = &problem
		m.must(cmd.Start())
		var decoy process
		for deadline := time.Now().Add(5 * time.Second); decoy.name != "sleep"; {
			if time.Now().After(deadline) {
				cmd.Process.Kill()
				m.t.Fatalf("no process with pid %d: %v: %s", pid, cmd.Wait(), problem.String())
			}
			for _, p := range descendants(cmd.Process.Pid) {
				decoy = p
			}
		}
		end := func() {
			decoy.signal(syscall.SIGKILL)
			// nsenter stops with a stopped child.
			_ = cmd.Process.Signal(syscall.SIGCONT)
			_ = cmd.Wait() // it was killed
		}
		if innerPID(decoy.pid) != pid {
			end()
			continue
		}
		// Before the machine's own cleanup, which comes later.
		m.t.Cleanup(end)
		return func() bool {
			now, ok := readProcess(decoy.pid)
			return ok && now.start == decoy.start && now.state != "T" && now.state != "Z"
		}
	}
	m.t.Fatalf("no process could be made with pid %d", pid)
	return nil
}
