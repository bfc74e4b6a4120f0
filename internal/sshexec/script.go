package sshexec

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/hostshell"
	"github.com/telexec/telexec/internal/inventory"
)

// The scripts of durable runs.
var (
	startingScript = remoteScript("start.sh")
	timeoutScript  = hostshell.Identity + hostshell.Ladder + remoteScript("timeout.sh")
	commandHead    = remoteScript("command.sh")
	becomeTail     = remoteScript("become.sh")

	inputHead, inputTail   = oneLine("input.sh")
	uploadHead, uploadTail = oneLine("upload.sh")
	sudoHead, sudoTail     = oneLine("sudo.sh", "become.sh")
)

// oneLine gives scripts of which all lines can be joined, before and behind the
// line of the at sign.
func oneLine(names ...string) (head, tail string) {
	var all strings.Builder
	for _, name := range names {
		all.WriteString(remoteScript(name))
	}
	head, tail, _ = strings.Cut(all.String(), "@\n")
	join := func(s string) string { return strings.TrimSpace(strings.ReplaceAll(s, "\n", " ")) + " " }
	return join(head), join(tail)
}

// interpretation gives the values of become.sh: who reads the line, and how.
type interpretation struct{ line, login, reader, short string }

func interpret(spec *command.Spec) interpretation {
	i := interpretation{line: spec.CommandLine(), login: "no", reader: "sh"}
	if i.line != "" && (i.line[0] == '-' || i.line[0] == '+') {
		i.line = " " + i.line // sh -c would take it for an option
	}
	if spec.LoginShell {
		i.login = "yes"
	}
	name, builtin := shortcut(spec)
	if builtin {
		name = "-" + name // which no program's is
	}
	i.short = name
	return i
}

// directory gives what cd is to be told.
func directory(spec *command.Spec) string {
	dir := spec.WorkingDirectory
	if dir != "" && dir[0] != '/' {
		dir = "./" + dir // "-" is not the directory before, and CDPATH is not for us
	}
	return dir
}

// startScript gives the whole of what goes to /bin/sh.
func (d *durable) startScript(nonce, mode string) string {
	spec := d.run.Spec
	d.mu.Lock()
	got := d.got
	d.mu.Unlock()
	key := d.key
	var b strings.Builder
	set := func(name, value string) { b.WriteString(name + "=" + command.Quote(value) + "\n") }
	set("nonce", nonce)
	set("key", key)
	set("id", d.run.ID)
	set("mode", mode)
	set("fence", strconv.FormatInt(d.run.Fence, 10))
	set("out", placeBehind(got[command.Stdout]))
	set("err", placeBehind(got[command.Stderr]))
	set("follow", d.facts.follow)
	if mode == modeStart || mode == modeRetry {
		input := "none"
		switch {
		case spec.StdinOpen:
			input = "open"
		case len(spec.Stdin) > 0:
			input = "file"
		}
		since := "" // the host may have been restarted since an owner before has sent it
		if d.again && d.first == modeStart {
			since = d.facts.boot
		}
		limit, timeout, sudo := "", "", ""
		if d.run.Host.SpoolLimit > 0 {
			limit = strconv.FormatInt(max(1, d.run.Host.SpoolLimit/512), 10)
		}
		if spec.Timeout > 0 {
			timeout = fmt.Sprintf("%.3f", spec.Timeout.Seconds())
			b.WriteString(timeoutScript)
			set("password", d.sudo.Reveal())
		}
		if spec.Sudo != nil {
			sudo = sudoInput(spec, d.run.ID, key)
		}
		set("since", since)
		set("input", input)
		set("given", strconv.Itoa(len(spec.Stdin)))
		set("limit", limit)
		set("timeout", timeout)
		set("sudo", sudo)
		builtin := "no"
		if d.facts.unseen() {
			builtin = "yes"
		}
		set("builtin", builtin)
		set("new_session", d.facts.newSession)
		set("text", commandFile(spec, d.run.ID))
	}
	b.WriteString(startingScript)
	set("new", d.facts.dirs[0])
	b.WriteString("main " + command.Quote(d.facts.all()...) + "\n")
	return b.String()
}

// placeBehind gives the place behind so many bytes of a spool, as start.sh wants it.
func placeBehind(n int64) string {
	const block = 64 << 10
	return fmt.Sprintf("%d %d %d", n+1, n/block, n%block)
}

// commandFile gives the text of the command file.
func commandFile(spec *command.Spec, id string) string {
	var b strings.Builder
	sudo := ""
	if spec.Sudo != nil {
		sudo = "yes"
	}
	fmt.Fprintf(&b, "telexec_id=%s telexec_sudo=%s telexec_dir=%s\n{\n", id, sudo, command.Quote(directory(spec)))
	b.WriteString(commandHead)
	if sudo != "" {
		b.WriteString(sudoExec(spec.Sudo) + "\n}\n")
		return b.String()
	}
	for _, name := range spec.EnvNames() {
		fmt.Fprintf(&b, "export %s=%s\n", name, command.Quote(spec.Env[name]))
	}
	i := interpret(spec)
	fmt.Fprintf(&b, "export TELEXEC_ID=%s\ntelexec_login=%s telexec_reader=%s telexec_short=%s telexec_line=%s\n",
		id, i.login, i.reader, command.Quote(i.short), command.Quote(i.line))
	b.WriteString(becomeTail + "}\n")
	return b.String()
}

// sudoBegin is the line behind what sudo may have read as the password, or not
// have asked for.
const sudoBegin = "telexec-begin"

// sudoExec gives the line that becomes sudo. Nothing secret is in it: the shell
// behind sudo reads from standard input what it is to do.
//
// What sudo refuses it asks for again, and would read what follows as passwords,
// each of which is a failed login that the host may count. So a password first
// goes to a sudo that does nothing, and whose input ends behind it.
func sudoExec(s *command.Sudo) string {
	behind := " -u " + command.Quote(cmp.Or(s.User, "root")) + " -- /bin/sh -c "
	const read = `while IFS= read -r telexec_program; do [ "$telexec_program" = ` + sudoBegin + ` ] && break; done; ` +
		`IFS= read -r telexec_program && eval "$telexec_program"`
	if !s.NeedsPassword {
		return "exec sudo -n" + behind + command.Quote(read)
	}
	ask := "sudo -S -p ''" + behind
	// A printf that is a program would have the password as its argument.
	return `unset telexec_word; IFS= read -r telexec_word; case $(command -v printf) in */*) ;; ` +
		`*) printf '%s\n' "$telexec_word" 2>/dev/null | ` + ask + `: >/dev/null || exit 1;; esac; ` +
		`unset telexec_word; exec ` + ask + command.Quote(read)
}

// sudoInput gives what stands in front of the command's own standard input: the
// password, for the sudo that tries it and for the one that counts, or, where sudo
// wants none, for nobody; and the program.
func sudoInput(spec *command.Spec, id, key string) string {
	var b strings.Builder
	if spec.Sudo.NeedsPassword {
		password := spec.Sudo.Password.Reveal() + "\n"
		b.WriteString(password + password)
	}
	b.WriteString(sudoBegin + "\n")
	b.WriteString(sudoProgram(spec, id, key)) // start.sh ends the line
	return b.String()
}

// sudoProgram gives what the shell behind sudo is to do, in one line.
func sudoProgram(spec *command.Spec, id, key string) string {
	var b strings.Builder
	b.WriteString(sudoHead)
	for _, name := range spec.EnvNames() {
		fmt.Fprintf(&b, "export %s=%s; ", name, expression(spec.Env[name]))
	}
	i := interpret(spec)
	fmt.Fprintf(&b, "export TELEXEC_ID=%s; telexec_key=%s telexec_login=%s telexec_reader=%s telexec_short=%s telexec_dir=%s telexec_line=%s; ",
		id, key, i.login, i.reader, expression(i.short), expression(directory(spec)), expression(i.line))
	b.WriteString(sudoTail)
	return b.String()
}

// throughSudo gives what an attached run with sudo is for the login user, and what
// goes first on its standard input. On a terminal sudo asks there for itself.
func throughSudo(spec *command.Spec, id string) (login *command.Spec, stdin string) {
	s := *spec
	s.Sudo, s.Argv, s.Env, s.WorkingDirectory, s.LoginShell = nil, nil, nil, "", false
	if spec.Pty != nil {
		s.Line = "exec sudo -u " + command.Quote(cmp.Or(spec.Sudo.User, "root")) + " -- /bin/sh -c " + command.Quote(sudoProgram(spec, id, ""))
		return &s, ""
	}
	s.Line = sudoExec(spec.Sudo)
	return &s, sudoInput(spec, id, "")
}

// upload puts the standard input of a run beside the place where it will be.
func (r *Runner) upload(ctx context.Context, run Run, f *facts) error {
	nonce := rand.Text()
	program := uploadHead + fmt.Sprintf("nonce=%s dir=%s id=%s size=%d; ", nonce, expression(f.dirs[0]), run.ID, len(run.Spec.Stdin)) + uploadTail
	lines, err := hostshell.Ask(ctx, r.dialer.Open, run.Host, nonce, shellExec(newline+program), run.Spec.Stdin)
	if err != nil {
		return err
	}
	switch strings.Join(lines, "\n") {
	case "took":
		return nil
	case "nospace":
		return noSpace(run.Host.Name)
	case "nodir":
		r.forget(run.Host)
		return notDurable(run.Host, "its directory for runs cannot be written any more")
	}
	return fault.New(fault.Unavailable, fault.ReasonStartFailed, "%s did not take the command's standard input; nothing was started", run.Host.Name)
}

// newline makes $1 a line end, as expression wants it; see attached.sh.
const newline = `set -- "${IFS#??}"; set -- "${1%"${1#?}"}"; `

// shellExec gives the exec request for a program of one line.
func shellExec(program string) string { return "exec /bin/sh -c " + hostshell.Word(program) }

// Clean removes what the host keeps of runs of which nothing lives and for which
// through is true; old tells it that nobody has touched one for a week. It gives
// how many it removed.
func (r *Runner) Clean(ctx context.Context, host inventory.Host, through func(id string, old bool) bool) (removed int, err error) {
	f, err := r.facts(ctx, host)
	if fault.ReasonOf(err) == fault.ReasonNotDurable {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	lines, err := r.askInTurn(ctx, host, cleanScript+"list_runs "+command.Quote(f.all()...)+"\n")
	if err != nil {
		return 0, err
	}
	var ids, olds []string
	for _, line := range lines {
		word, id, _ := strings.Cut(line, " ")
		switch {
		case !idForm(id):
		case word == "old":
			olds = append(olds, id)
		case word == "run" && through(id, slices.Contains(olds, id)):
			ids = append(ids, id)
		}
	}
	return r.remove(ctx, host, f, "", ids)
}

var cleanScript = remoteScript("clean.sh")

// remove removes runs, and leaves alone those of owners behind fence, if one is given.
func (r *Runner) remove(ctx context.Context, host inventory.Host, f *facts, fence string, ids []string) (removed int, err error) {
	if len(ids) == 0 {
		return 0, nil
	}
	lines, err := r.askInTurn(ctx, host, cleanScript+"ids="+command.Quote(strings.Join(ids, " "))+"\nremove_runs "+command.Quote(append([]string{fence}, f.all()...)...)+"\n")
	for _, line := range lines {
		if strings.HasPrefix(line, "removed ") {
			removed++
		}
	}
	return removed, err
}

// idForm reports whether s can be the id of a run, and so part of a file's name.
func idForm(s string) bool {
	return s != "" && len(s) <= 64 && strings.Trim(s, letters+digits+"-_") == ""
}
