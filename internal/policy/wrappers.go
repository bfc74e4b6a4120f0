package policy

import (
	"path"
	"slices"
	"strings"
)

// A seer adds what a command runs, and the command itself where that is not
// transparent.
type seer func(r *reading, s simple, depth int)

// wrapper gives the seer of a program that runs what it is given; nil for one
// that is none of those.
func wrapper(name string) seer {
	switch name {
	case "sh", "bash", "dash", "ash", "ksh", "mksh", "zsh", "rbash":
		return seeShell
	case "env":
		return seeEnv
	case "xargs":
		return seeXargs
	case "find":
		return seeFind
	case "sudo":
		return seeSudo
	case "ssh":
		return seeSSH
	case "su":
		return seeSu
	case "runuser":
		return seeRunuser
	case "watch":
		return seeWatch
	case "busybox", "toybox":
		return seeBox
	case "ip":
		return seeIP
	case "doas":
		return around(options{flags: "n", values: "u"}, 0, true)
	case "chroot":
		return func(r *reading, s simple, depth int) {
			r.strays()
			around(options{}, 1, true)(r, s, depth)
		}
	case "nohup", "chronic":
		return around(options{}, 0, false)
	case "time":
		return around(options{flags: "p"}, 0, false)
	case "nice":
		return around(options{values: "n", longs: []string{"--adjustment"}, numbers: true}, 0, false)
	case "ionice":
		return around(options{flags: "t", values: "cn", long: []string{"--ignore"}, longs: []string{"--class", "--classdata"}}, 0, false)
	case "setsid":
		return around(options{flags: "cfw", long: []string{"--ctty", "--fork", "--wait"}}, 0, false)
	case "stdbuf":
		return around(options{values: "ioe", longs: []string{"--input", "--output", "--error"}}, 0, false)
	case "timeout":
		return around(options{flags: "v", values: "ks", long: []string{"--foreground", "--preserve-status", "--verbose"},
			longs: []string{"--kill-after", "--signal"}}, 1, false)
	}
	return nil
}

// opaque are programs and builtins of which nothing is known but that they do
// more than they say, with what to tell about them.
var opaque = func() map[string]string {
	m := map[string]string{}
	for _, name := range strings.Fields(`parallel script flock strace ltrace unshare nsenter systemd-run start-stop-daemon setarch linux32 linux64
		i386 x86_64 setpriv capsh pkexec runcon proot fakeroot fakechroot faketime dbus-run-session dbus-launch xvfb-run cpulimit taskset chrt
		numactl prlimit choom catchsegv rlwrap entr unbuffer daemonize daemon sg sshpass torsocks proxychains proxychains4 eatmydata firejail
		bwrap softlimit setuidgid envuidgid envdir chpst s6-setuidgid gosu su-exec setlock multitime perf valgrind gdb csh tcsh fish yash rc es
		at batch run-parts logsave mosh rsh remsh rexec xterm uxterm posh pdksh oksh loksh lksh rksh rzsh pfexec sudoedit run0 ssh-agent xauth
		systemd-inhibit nocache caffeinate ifne lckdo mispipe pee aa-exec cgexec schroot dtach
		systemd-cat systemd-nspawn tini tini-static dumb-init catatonit torify trickle scl sem tmux screen keychain with-contenv hyperfine`) {
		m[name] = name + " runs what it is given, and that is not followed"
	}
	for _, name := range strings.Fields(`alias unalias function set shopt enable hash complete compgen compopt bind mapfile readarray declare
		typeset local let nameref integer float getopts autoload functions zmodload zle zstyle emulate sched vared compdef bindkey zcompile disable
		unhash unfunction fc r history global print suspend logout disown setopt unsetopt setenv unsetenv abbr noglob nocorrect repeat coproc jobs hist
		select foreach limit unlimit log private zformat zparseopts zregexparse zpty ztcp zsocket zsystem sysopen sysread syswrite
		comparguments compctl comptry rehash which-command`) {
		m[name] = name + " changes what the shell makes of what follows"
	}
	return m
}()

// isLoader reports whether a program is the dynamic loader, which runs the one
// that it is given and lies elsewhere on every system (ld.so(8)).
func isLoader(program string) bool {
	name := path.Base(program)
	return strings.HasPrefix(name, "ld") && (strings.HasSuffix(name, ".so") || strings.Contains(name, ".so."))
}

// around is the seer of a program that runs the command behind its options and
// its first operands. itself: the program must be allowed too.
func around(o options, operands int, itself bool) seer {
	return func(r *reading, s simple, depth int) {
		rest, given, ok := o.strip(s.words)
		ok = ok && users(given) <= 1
		for range operands {
			if !ok || len(rest) == 0 || !rest[0].single {
				ok = false
				break
			}
			rest = rest[1:]
		}
		switch {
		case !ok, len(rest) == 0 && (s.open || itself):
			r.unknown(s, "what "+s.words[0].text+" is given is not understood")
			return
		case len(rest) == 0, itself:
			r.emit(s)
		}
		if len(rest) > 0 {
			r.see(s.inner(rest), depth)
		}
	}
}

// seeShell sees through sh -c 'text'. The shell itself is nothing then.
func seeShell(r *reading, s simple, depth int) {
	i, text := 1, false
	for ; i < len(s.words) && s.words[i].known && len(s.words[i].text) > 1 && s.words[i].text[0] == '-'; i++ {
		letters := s.words[i].text[1:]
		if strings.Trim(letters, "ceuxl") != "" {
			r.unknown(s, "the options of "+s.words[0].text+" are not understood")
			return
		}
		text = text || strings.Contains(letters, "c")
	}
	rest := s.words[i:]
	switch {
	case len(rest) == 0 && (text || s.open), len(rest) > 0 && !rest[0].known && (text || !strings.HasPrefix(rest[0].prefix, "/")),
		len(rest) > 0 && rest[0].known && strings.HasPrefix(rest[0].text, "+"):
		r.unknown(s, "what "+s.words[0].text+" runs is computed at run time")
	case text:
		r.runsText(s, rest[0].text, depth)
	default:
		r.emit(s) // a script, or what it reads from its input
	}
}

func seeEnv(r *reading, s simple, depth int) {
	rest, given, ok := options{flags: "i", values: "u", long: []string{"--ignore-environment"}, longs: []string{"--unset"}}.strip(s.words)
	if len(rest) > 0 && rest[0].known && rest[0].text == "-" {
		rest = rest[1:]
	}
	for _, o := range given {
		if o.name == "-u" || o.name == "--unset" {
			ok = ok && o.value.known
			r.setVariable(o.value.text)
		}
	}
	for ok && len(rest) > 0 && strings.Contains(rest[0].prefix, "=") {
		ok = rest[0].single
		r.assign(rest[0])
		rest = rest[1:]
	}
	switch {
	case !ok, len(rest) == 0 && s.open:
		r.unknown(s, "what env is given is not understood")
	case len(rest) == 0:
		r.emit(s)
	default:
		r.see(s.inner(rest), depth)
	}
}

func seeXargs(r *reading, s simple, depth int) {
	rest, given, ok := options{flags: "0rtx", values: "nPLsdIE",
		long:  []string{"--null", "--no-run-if-empty", "--verbose", "--exit"},
		longs: []string{"--max-args", "--max-procs", "--max-lines", "--max-chars", "--delimiter"}}.strip(s.words)
	if !ok {
		r.unknown(s, "what xargs is given is not understood")
		return
	}
	in := s.inner(append([]word(nil), rest...))
	if len(rest) == 0 && !s.open {
		in.words = []word{literal("echo")}
	}
	in.open = true
	for _, o := range given {
		if o.name != "-I" {
			continue
		}
		if !o.value.known || o.value.text == "" {
			r.unknown(s, "what xargs is given is not understood")
			return
		}
		in.words = replaced(in.words, o.value.text)
	}
	r.see(in, depth)
}

// replaced gives words with those that contain mark computed.
func replaced(words []word, mark string) []word {
	for i, w := range words {
		if at := strings.Index(w.text, mark); at >= 0 {
			words[i] = word{text: w.text, prefix: w.text[:at], single: w.single}
			if !w.known {
				words[i].prefix = ""
			}
		}
	}
	return words
}

// seeFind sees find itself and what it runs.
func seeFind(r *reading, s simple, depth int) {
	for _, w := range s.words[1:] {
		if !w.known && (!w.files || w.prefix == "" || w.prefix[0] != '/' && w.prefix[0] != '.') {
			s.open = true
		}
	}
	if s.open {
		r.unknown(s, "arguments of find that are computed at run time may be -exec")
		return
	}
	var runs []simple
	writes := append([]word(nil), s.writes...)
	for i := 1; i < len(s.words); i++ {
		switch s.words[i].text {
		case "-fprint", "-fprint0", "-fls", "-fprintf":
			if i+1 < len(s.words) {
				writes = append(writes, s.words[i+1])
			}
		case "-exec", "-execdir", "-ok", "-okdir":
			in := s.inner(nil)
			if strings.HasSuffix(s.words[i].text, "dir") {
				r.strays()
			}
			end := i + 1
			for ; end < len(s.words); end++ {
				w := s.words[end]
				if w.text == ";" || w.text == "+" && s.words[end-1].text == "{}" {
					break
				}
				if w.text == "+" {
					end = len(s.words) // for some finds it ends here too
					break
				}
				in.words = append(in.words, w)
			}
			if end >= len(s.words) || len(in.words) == 0 {
				r.unknown(s, "what find is to run is not understood")
				return
			}
			if s.words[end].text == "+" {
				in.words, in.open = in.words[:len(in.words)-1], true
			}
			in.words = replaced(in.words, "{}")
			runs = append(runs, in)
			i = end
		}
	}
	s.writes = writes
	r.emit(s)
	for _, in := range runs {
		r.see(in, depth)
	}
}

// seeSudo sees sudo itself and what it runs.
func seeSudo(r *reading, s simple, depth int) {
	rest, given, ok := options{flags: "nEHSkKbAlvPV", values: "ugp",
		long:  []string{"--non-interactive", "--set-home", "--stdin", "--background", "--reset-timestamp", "--list", "--validate", "--version", "--preserve-env"},
		longs: []string{"--user", "--group", "--prompt"}}.strip(s.words)
	for ok && len(rest) > 0 && strings.Contains(rest[0].prefix, "=") {
		ok = rest[0].single
		r.assign(rest[0])
		rest = rest[1:]
	}
	for _, o := range given {
		if o.name == "-A" {
			ok = false // asks a program for the password
		}
	}
	if !ok || len(rest) == 0 && s.open || users(given) > 1 {
		r.unknown(s, "what sudo is given is not understood")
		return
	}
	s.raises = len(rest) > 0
	r.emit(s)
	if len(rest) > 0 {
		r.see(s.inner(rest), depth)
	}
}

// seeSu sees su -c 'text'.
func seeSu(r *reading, s simple, depth int) {
	var text *word
	users := 0
	for i := 1; i < len(s.words); i++ {
		w := s.words[i]
		switch {
		case !w.known:
			users = 2
		case w.text == "-" || w.text == "-l" || w.text == "--login":
			r.strays()
		case (w.text == "-c" || w.text == "--command") && text == nil && i+1 < len(s.words):
			i++
			text = &s.words[i]
		case strings.HasPrefix(w.text, "--command=") && text == nil:
			l := literal(strings.TrimPrefix(w.text, "--command="))
			text = &l
		case strings.HasPrefix(w.text, "-"):
			users = 2
		default:
			users++
		}
	}
	if users > 1 || s.open || text == nil || !text.known {
		r.unknown(s, "what "+s.words[0].text+" is given is not understood")
		return
	}
	r.emit(s)
	r.runsText(s, text.text, depth)
}

func seeRunuser(r *reading, s simple, depth int) {
	if len(s.words) > 1 && s.words[1].known && strings.HasPrefix(s.words[1].text, "-u") {
		around(options{values: "u"}, 0, true)(r, s, depth)
		return
	}
	seeSu(r, s, depth)
}

// seeWatch sees through watch, which hands its words to sh -c.
func seeWatch(r *reading, s simple, depth int) {
	rest, _, ok := options{flags: "betcgwdp", values: "n", long: []string{"--no-title", "--differences", "--precise", "--color", "--errexit", "--chgexit"},
		longs: []string{"--interval"}}.strip(s.words)
	text, known := join(rest)
	if !ok || !known || s.open || len(rest) == 0 {
		r.unknown(s, "what watch is given is not understood")
		return
	}
	r.runsText(s, text, depth)
}

// seeBox sees busybox itself and its applet.
func seeBox(r *reading, s simple, depth int) {
	switch {
	case len(s.words) == 1 && s.open, len(s.words) > 1 && (!s.words[1].known || strings.HasPrefix(s.words[1].text, "-")):
		r.unknown(s, "what "+s.words[0].text+" is given is not understood")
		return
	}
	r.emit(s)
	if len(s.words) > 1 {
		r.see(s.inner(s.words[1:]), depth)
	}
}

// seeIP passes ip where it surely runs nothing: ip netns exec, ip vrf exec and ip
// -batch do. All its words may be cut short (ip.c and utils.c of iproute2).
func seeIP(r *reading, s simple, _ int) {
	short := func(w word, full ...string) bool {
		text := strings.TrimPrefix(strings.TrimPrefix(w.text, "-"), "-")
		return text != "" && slices.ContainsFunc(full, func(f string) bool { return strings.HasPrefix(f, text) })
	}
	words, understood := s.words[1:], true
	for understood && len(words) > 0 && strings.HasPrefix(words[0].text, "-") {
		n := 1
		if short(words[0], "family", "loops", "netns") || strings.HasPrefix(words[0].text, "-rc") || strings.HasPrefix(words[0].text, "--rc") {
			n = 2
		}
		understood = len(words) >= n && words[0].known && words[n-1].single && !short(words[0], "batch")
		words = words[min(n, len(words)):]
	}
	switch {
	case !understood:
	case len(words) == 0:
		understood = !s.open
	case !words[0].known:
		understood = false
	case !short(words[0], "netns", "vrf"):
	case len(words) == 1:
		understood = !s.open
	default:
		understood = words[1].known && !short(words[1], "exec")
	}
	if !understood {
		r.unknown(s, "ip may run what it is given, and that is not followed")
		return
	}
	r.emit(s)
}

// sshOptions are those -o options that run nothing here and open nothing.
var sshOptions = map[string]bool{
	"batchmode": true, "connecttimeout": true, "connectionattempts": true, "stricthostkeychecking": true, "serveraliveinterval": true,
	"serveralivecountmax": true, "loglevel": true, "compression": true, "port": true, "user": true, "identitiesonly": true, "requesttty": true,
	"addressfamily": true, "tcpkeepalive": true, "numberofpasswordprompts": true, "passwordauthentication": true, "pubkeyauthentication": true,
}

// seeSSH sees ssh itself and what it runs on the other host. ssh takes options
// behind the host too.
func seeSSH(r *reading, s simple, depth int) {
	o := options{flags: "46aCKkNnqTtvx", values: "plibcmo"}
	host := false
	words := s.words
	for {
		rest, given, ok := o.strip(words)
		for _, g := range given {
			name, _, assigns := strings.Cut(g.value.text, "=")
			if host && g.value.text != "" {
				ok = false // may say as whom, which a pattern like "ssh h *" does not name
			}
			if g.name == "-o" && !(assigns && sshOptions[strings.ToLower(name)] && !strings.Contains(g.value.text, "\n")) {
				ok = false
			}
		}
		if !ok || s.open || len(rest) == 0 || !host && (!rest[0].known || strings.HasPrefix(rest[0].text, "-")) {
			r.unknown(s, "what ssh is given is not understood")
			return
		}
		if host {
			text, known := join(rest)
			if !known {
				r.unknown(s, "what ssh runs is computed at run time")
				return
			}
			r.emit(s)
			r.strays() // relative paths are those of the other host
			r.runsText(s.inner(s.words), text, depth)
			return
		}
		host = true
		words = rest
	}
}
