package chaos

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// proc is a process of this machine as /proc tells it, see proc(5).
type proc struct {
	pid    int
	parent int
	state  byte
	start  string // in ticks since boot; with pid it names one process only
	cpu    time.Duration
	rss    int64 // bytes
}

// tick is the unit of times in /proc/PID/stat: USER_HZ is 100 on Linux.
const tick = 10 * time.Millisecond

func readProc(pid int) (p proc, ok bool) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return p, false
	}
	end := bytes.LastIndexByte(stat, ')') // the name may hold anything
	f := strings.Fields(string(stat[end+1:]))
	if end < 0 || len(f) < 22 {
		return p, false
	}
	user, _ := strconv.ParseInt(f[11], 10, 64)
	system, _ := strconv.ParseInt(f[12], 10, 64)
	pages, _ := strconv.ParseInt(f[21], 10, 64)
	parent, _ := strconv.Atoi(f[1])
	return proc{pid: pid, parent: parent, state: f[0][0], start: f[19], cpu: time.Duration(user+system) * tick, rss: pages * int64(os.Getpagesize())}, true
}

// lives reports whether it is still there, and not only as a zombie.
func (p proc) lives() bool {
	now, ok := readProc(p.pid)
	return ok && now.start == p.start && now.state != 'Z' && now.state != 'X'
}

// zombie reports whether it is dead and its parent has not taken note. Those that
// init has adopted are left out: how soon it looks is its own affair.
func (p proc) zombie() bool {
	now, ok := readProc(p.pid)
	return ok && now.start == p.start && now.state == 'Z' && now.parent != 1
}

// carriers lists the live processes with a variable in their environment.
func carriers(variable string) (found []proc) {
	needle := []byte("\x00" + variable + "\x00")
	for pid := range pids() {
		env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if err != nil || !bytes.Contains(append([]byte{0}, env...), needle) {
			continue
		}
		if p, ok := readProc(pid); ok && p.state != 'Z' {
			found = append(found, p)
		}
	}
	return found
}

// pids gives the processes that there are.
func pids() func(yield func(int) bool) {
	return func(yield func(int) bool) {
		dirs, _ := filepath.Glob("/proc/[0-9]*")
		for _, dir := range dirs {
			if pid, err := strconv.Atoi(filepath.Base(dir)); err == nil && !yield(pid) {
				return
			}
		}
	}
}

// memory is the resident memory of a process, and its part of what it shares
// with others, in bytes.
func memory(pid int) (rss, pss int64) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, 0
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		n, _ := strconv.ParseInt(f[1], 10, 64)
		switch f[0] {
		case "Rss:":
			rss = n << 10
		case "Pss:":
			pss = n << 10
		}
	}
	return rss, pss
}

// busy is the processor time that the whole machine has spent since boot.
func busy() (total time.Duration) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(text), "\n")
	for i, field := range strings.Fields(line)[1:] {
		n, _ := strconv.ParseInt(field, 10, 64)
		if i != 3 && i != 4 && i < 8 { // not idle, not waiting for disks, guests are counted as users
			total += time.Duration(n) * tick
		}
	}
	return total
}

// idOf gives the command that a process belongs to, by the service's own marks.
func idOf(pid int) string {
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		return ""
	}
	for variable := range bytes.SplitSeq(env, []byte{0}) {
		for _, name := range []string{"TELEXEC_ID=", "TELEXEC_RUN="} {
			if id, ok := bytes.CutPrefix(variable, []byte(name)); ok {
				return string(id)
			}
		}
	}
	return ""
}
