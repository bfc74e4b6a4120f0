package sshexec

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/hostshell"
	"github.com/telexec/telexec/internal/test/sshtest"
	"github.com/telexec/telexec/internal/test/testenv"
)

// Without setsid, perl and python do as well; without GNU tail the spools are
// looked at.
func TestPoorHosts(t *testing.T) {
	t.Parallel()
	h := start(t, sshtest.Options{User: sshtest.PlainUser(t)})
	lines, err := h.runner.ask(t.Context(), h.inv, "mkdir -p /tmp/telexec-nothing; "+strings.NewReplacer(
		"command -v setsid", "false", "perl ", "$nothing ").Replace(probeScript))
	f, ok := parseFacts(lines)
	if err != nil || !ok || !strings.HasPrefix(f.newSession, "python3 ") {
		t.Fatal(lines, err)
	}
	for name, words := range map[string]string{
		"perl": `perl -MPOSIX=setsid -e setsid;exec(@ARGV)`, "python3": strings.Replace(f.newSession, "python3", "/usr/bin/python3", 1),
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := exec.LookPath(strings.Fields(words)[0]); err != nil {
				testenv.Missing(t, err.Error())
			}
			t.Parallel()
			h := *h
			h.t, h.runner = t, New(newDialer(t), Options{})
			facts := f
			facts.newSession, facts.follow = words, "poll"
			h.runner.accounts.Store(account(h.inv), &known{turn: make(chan struct{}, 1), facts: &facts, until: time.Now().Add(time.Hour)})
			h.runner.askAfter = 100 * time.Millisecond
			inAnyShell(t, &h, false)
			// No signal is ignored that sshd does not have ignored itself.
			ignored, _, _ := h.line(command.Spec{Line: "grep SigIgn: /proc/self/status"})
			k := h.durably(command.Spec{Line: "yes | head -n 1; grep SigIgn: /proc/self/status; sleep 0.4; echo late"})
			if e := k.end(t); code(e) != "0" || k.text(command.Stdout) != "y\n"+ignored+"late\n" {
				t.Error(code(e), k.text(command.Stdout))
			}
		})
	}
}

// Why a host cannot keep a command, and that it is asked anew.
func TestNotDurable(t *testing.T) {
	t.Parallel()
	m := sshtest.StartMachine(t, sshtest.MachineOptions{Accounts: []sshtest.Account{
		{Name: "good"}, {Name: "none", Shell: "/usr/sbin/nologin"}, {Name: "odd", Shell: "/bin/rbash"}}})
	for name, why := range map[string]string{"good": "", "none": "/bin/sh", "odd": "/bin/sh"} {
		h := on(t, m, name)
		err := h.runner.Probe(t.Context(), h.inv)
		reason := fault.ReasonNotDurable
		if name == "none" {
			reason, why = fault.ReasonStartFailed, `exit code 1; it said: "This account is currently not available."`
		}
		if why == "" && err != nil || why != "" && (fault.ReasonOf(err) != reason || !strings.Contains(err.Error(), why)) {
			t.Errorf("%s: %v", name, err)
		}
		if why != "" {
			run := Run{ID: newID(), Host: h.inv, Fence: 2, Spec: &command.Spec{Line: "true"}, Output: newOutput().sink}
			if _, err := h.runner.Start(t.Context(), run); fault.ReasonOf(err) != fault.ReasonNotDurable {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	// The directory goes while it is believed to be there.
	h := on(t, m, "good")
	k := h.durably(command.Spec{Line: "true"})
	k.end(t)
	if err := os.RemoveAll(m.Path("good", "~/.local/state/telexec")); err != nil {
		t.Fatal(err)
	}
	run := Run{ID: newID(), Host: h.inv, Fence: 1, Spec: &command.Spec{Line: "true"}, Output: newOutput().sink}
	if p, err := h.runner.Start(t.Context(), run); err != nil {
		t.Error(err)
	} else {
		if _, err := p.Wait(); err != nil {
			t.Error(err)
		}
		p.Collected()
		<-p.(*durable).through
	}
	h.durably(command.Spec{Line: "true"}).end(t)
	if _, err := h.runner.Start(t.Context(), Run{ID: newID(), Host: h.inv, Fence: 1, Spec: &command.Spec{Line: "true", Pty: &command.Pty{}}}); fault.ReasonOf(err) != fault.ReasonNotDurable {
		t.Error(err)
	}
}

// A home directory may be called anything, and be missing.
func TestHomes(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"with blank", "it's \"$quoted\"", "naïve*", ""} {
		home := filepath.Join(t.TempDir(), name)
		if name == "" {
			home = "/nonexistent"
		} else if err := os.Mkdir(home, 0o700); err != nil {
			t.Fatal(err)
		}
		h := start(t, sshtest.Options{})
		h.runner = New(newDialer(t), Options{})
		lines, err := h.runner.ask(t.Context(), h.inv, "HOME="+command.Quote(home)+"\n"+probeScript)
		f, ok := parseFacts(lines)
		if err != nil || !ok || len(f.dirs) == 0 || name != "" && !strings.HasPrefix(f.dirs[0], home) {
			t.Errorf("%q: %q %v", name, lines, err)
			continue
		}
		h.runner.accounts.Store(account(h.inv), &known{turn: make(chan struct{}, 1), facts: &f, until: time.Now().Add(time.Hour)})
		k := h.durably(command.Spec{Line: "cat", StdinOpen: true, Stdin: []byte("a")})
		if _, err := k.Input(t.Context(), []byte("b"), true); err != nil {
			t.Error(err)
		}
		if e := k.end(t); code(e) != "0" || k.text(command.Stdout) != "ab" {
			t.Errorf("%q: %s %q", name, code(e), k.text(command.Stdout))
		}
	}
}

// A directory that somebody else has put there, or a link, is not used.
func TestForeignDirectories(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs another user")
	}
	h := start(t, sshtest.Options{})
	dir := t.TempDir()
	link, others, own := filepath.Join(dir, "link"), filepath.Join(dir, "others"), filepath.Join(dir, "own")
	for _, d := range []string{others, own} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Symlink(own, link), os.Chown(others, 12345, 12345)); err != nil {
		t.Fatal(err)
	}
	script, _, _ := strings.Cut(hostshell.Places, "find_dirs() {")
	script += "say() { printf 'telexec:%s: %s\\n' \"$nonce\" \"$*\"; }\n"
	lines, err := h.runner.ask(t.Context(), h.inv, script+"home="+command.Quote(dir)+"; for d in "+command.Quote(link, others, own)+"; do usable $d && say dir $d; done\n")
	if err != nil || strings.Join(lines, ",") != "dir "+own {
		t.Error(lines, err)
	}
	if info, err := os.Stat(own); err != nil || info.Mode().Perm() != 0o700 {
		t.Error(info, err)
	}
	// Where others may write it is not changed, but refused.
	if err := os.Chmod(own, 0o755); err != nil {
		t.Fatal(err)
	}
	lines, err = h.runner.ask(t.Context(), h.inv, script+"home=; usable "+command.Quote(own)+" && say dir\n")
	if info, statErr := os.Stat(own); err != nil || len(lines) > 0 || statErr != nil || info.Mode().Perm() != 0o755 {
		t.Error(lines, err, info)
	}
}

// Input waits for a command that does not read, within bounds; what was taken
// twice is given once.
// The last piece and the end of the input come between two looks of feed.
func TestInputThatEndsWhileItIsLookedFor(t *testing.T) {
	t.Parallel()
	bash, err := exec.LookPath("bash")
	if err != nil {
		testenv.Missing(t, err.Error())
	}
	_, records, _ := strings.Cut(startingScript, "\nput() {")
	records, _, _ = strings.Cut("put() {"+records, "\n# make FILE")
	_, feed, _ := strings.Cut(startingScript, "\nfeed() {")
	feed, _, _ = strings.Cut(feed, "\n}\n")
	for behind := range 6 { // the looks that come first
		cmd := exec.CommandContext(t.Context(), bash, "-c", "looks=0\n"+`[() {
			builtin [ "$@"; was=$?
			looks=$((looks + 1))
			! builtin [ $looks -eq `+itoa(int64(behind))+` ] || { echo all >r.in.0.4; : >r.in.eof; echo more 1<>r.bell; }
			return $was
		}`+"\n"+records+"\nfeed() {"+feed+"\n}\nid=r; echo 0 0 >r.n; mkfifo r.bell; exec 9<>r.bell; echo more >&9"+`
		! builtin [ `+itoa(int64(behind))+` -eq 0 ] || { echo all >r.in.0.4; : >r.in.eof; }
		feed; :`)
		cmd.Dir = t.TempDir()
		out, err := cmd.CombinedOutput()
		if err != nil || string(out) != "all\n" {
			t.Errorf("%d: %q %v", behind, out, err)
		}
	}
}

// Input that is under way when the service lets go has not met the end of the
// command.
func TestInputWhileTheServiceLetsGo(t *testing.T) {
	t.Parallel()
	h := start(t, sshtest.Options{User: sshtest.PlainUser(t)})
	k := h.durably(command.Spec{Line: "echo up; sleep 600", StdinOpen: true})
	k.await(t, has("up"))
	full := make(chan error, 1) // sent to once
	go func() {
		_, err := k.Input(t.Context(), make([]byte, 20*pieceMost), false)
		full <- err
	}()
	for d := k.Process.(*durable); d.taken() < 14*pieceMost; {
		if !pause(t.Context(), time.Millisecond) {
			t.Fatal("not taken")
		}
	}
	k.Close()
	if err := <-full; fault.ReasonOf(err) != fault.ReasonConnectionLost {
		t.Error(err)
	}
	if err := k.Signal(t.Context(), "TERM"); fault.ReasonOf(err) != fault.ReasonConnectionLost {
		t.Error(err)
	}
	again := h.resumed(k, 2)
	if _, err := again.Cancel(t.Context(), time.Second); err != nil {
		t.Error(err)
	}
	again.end(t)
}

func TestInputThatIsNotRead(t *testing.T) {
	t.Parallel()
	h := start(t, sshtest.Options{User: sshtest.PlainUser(t)})
	open := h.file("open", newID())
	k := h.durably(command.Spec{Line: "echo up; until [ -e " + open + " ]; do sleep 0.05; done; wc -c", StdinOpen: true})
	k.await(t, has("up"))
	// What the host keeps is taken, however slowly.
	const kept = 16 * pieceMost
	data := bytes.Repeat([]byte("x"), kept)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if n, err := k.Input(ctx, data, false); err != nil || n != kept {
		t.Fatal(n, err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	n, err := k.Input(ctx, data, false)
	if fault.ReasonOf(err) != fault.ReasonInputBusy || n != kept {
		t.Errorf("%d %v", n, err)
	}
	d := k.Process.(*durable)
	// The answer to the last piece was lost: it is sent again.
	word, came, err := d.sendPiece(t.Context(), n-pieceMost, data[:pieceMost], false)
	if err != nil || word != "took" || came != n {
		t.Error(word, came, err)
	}
	if err := os.WriteFile(open, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(open)
	again := h.resumed(k, 2)
	defer k.Close()
	total, err := again.Input(t.Context(), []byte("end"), true)
	if err != nil || total != n+3 {
		t.Error(total, err)
	}
	if word, _, err := again.Process.(*durable).sendPiece(t.Context(), total, nil, true); err != nil || word != "took" && word != "ended" {
		t.Error(word, err)
	}
	if e := again.end(t); code(e) != "0" || strings.TrimSpace(strings.TrimPrefix(again.text(command.Stdout), "up\n")) != itoa(total) {
		t.Error(code(e), again.text(command.Stdout))
	}
}
