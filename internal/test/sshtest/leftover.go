package sshtest

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// marks are the variables in the environment by which the processes of a command
// are known.
var marks = []string{"TELEXEC_ID=", "TELEXEC_RUN="}

// Leftovers lists what there is of a command on the host: the processes that
// carry its id in their environment, and the files that have it in their name,
// in every place where the service may keep them; empty: nothing. Zombies are not
// counted. Where the test is not root it sees its own processes and files only.
func (s *Server) Leftovers(id string) []string {
	s.t.Helper()
	u, err := user.Lookup(s.User)
	s.must(err)
	home := s.home
	if home == "" {
		home = u.HomeDir
	}
	return append(Carriers(id), filesOf(id, "/", home, u.Uid)...)
}

// Leftovers is that of Server, for every account of the machine.
func (m *Machine) Leftovers(id string) []string {
	m.t.Helper()
	left := Carriers(id)
	for _, a := range m.accounts {
		left = append(left, filesOf(id, m.Path(a.Name, "/"), a.home, strconv.Itoa(a.uid))...)
	}
	slices.Sort(left)
	return slices.Compact(left)
}

// Carriers lists the live processes of this machine, and of every namespace in
// it, that carry a command's id in their environment, one per line: "process PID
// (STATE) COMMAND LINE".
func Carriers(id string) []string {
	var all []string
	for _, p := range carriers(id) {
		line, _ := os.ReadFile("/proc/" + strconv.Itoa(p.pid) + "/cmdline")
		all = append(all, fmt.Sprintf("process %d (%s) %s", p.pid, p.state, bytes.ReplaceAll(bytes.TrimSuffix(line, []byte{0}), []byte{0}, []byte(" "))))
	}
	return all
}

// carriers are the processes behind Carriers. A zombie has no environment.
func carriers(id string) []process {
	var all []process
	for p := range everyProcess() {
		env, err := os.ReadFile("/proc/" + strconv.Itoa(p.pid) + "/environ")
		if err != nil {
			continue
		}
		for variable := range bytes.SplitSeq(env, []byte{0}) {
			if slices.ContainsFunc(marks, func(mark string) bool { return string(variable) == mark+id }) {
				all = append(all, p)
				break
			}
		}
	}
	return all
}

// filesOf lists the files of a command of one account, below the root directory
// of its host.
func filesOf(id, root, home, uid string) []string {
	var found []string
	for _, dir := range []string{
		filepath.Join(home, runDirectory), filepath.Join(home, ".cache/telexec"),
		"/var/tmp/telexec-" + uid, "/tmp/telexec-" + uid, "/dev/shm/telexec-" + uid,
	} {
		// A directory that is not there, or goes meanwhile, has nothing.
		_ = filepath.WalkDir(filepath.Join(root, dir), func(path string, d fs.DirEntry, err error) error {
			if err == nil && strings.Contains(d.Name(), id) {
				rest, _ := filepath.Rel(root, path)
				found = append(found, "file /"+rest)
			}
			return nil
		})
	}
	return found
}
