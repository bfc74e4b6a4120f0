package completion

import (
	_ "embed"
	"path"
	"strings"
)

// Launch says how a shell is started: with which files on its host, which only its user
// may read, and by which words. "{dir}" in Argv and Env stands for the directory of the
// files; they may be removed once a prompt was shown.
type Launch struct {
	Files map[string]string // relative name → content
	Argv  []string
	Env   map[string]string // on top of the environment; may be nil
}

var (
	//go:embed shell/bash_start.sh
	bashStart string
	//go:embed shell/bash.sh
	bashMarks string
	//go:embed shell/zsh_start.zsh
	zshStart string
	//go:embed shell/zsh_started.zsh
	zshStarted string
	//go:embed shell/zsh.zsh
	zshMarks string
	//go:embed shell/fish.fish
	fishMarks string
	//go:embed shell/posix_start.sh
	posixStart string
	//go:embed shell/posix.sh
	posixMarks string
)

// keep is how the words that start a shell keep the ENV of the account for it; the
// script puts it back. Shells expand what is in ENV: where the path has a $ in it, it names
// a variable.
const keep = `if [ -n "${ENV+set}" ]; then export TELEXEC_ENV="$ENV"; fi; `

// Integrate says how a shell of this kind and path is started so that it reads what a
// login shell reads and tells marks with this nonce. ok is false for a kind that cannot
// tell any. The kind is what the shell is, whatever its name: a /bin/sh that is dash is
// "dash"; one that is bash is "bash" and stays in POSIX mode.
func Integrate(shell, file, nonce string) (launch Launch, ok bool) {
	if file == "" {
		file = shell
	}
	switch shell {
	case "bash":
		// Only as "-bash" it says of itself that it is a login shell; --posix makes it read
		// ENV alone, and the script ends that mode. Bash 3 may be deaf to ENV.
		const start = keep + `export TELEXEC_RC="$1"; if [ "${BASH_VERSINFO[0]}" -ge 4 ]; then ENV='$TELEXEC_RC' exec -a "-${0##*/}" "$0" --posix; ` +
			`else exec "$0" --rcfile "$1" -i; fi`
		launch.Argv = []string{file, "--posix", "-c", start, file, "{dir}/bash"}
		launch.Files = map[string]string{"bash": bashStart + bashMarks}
	case "zsh":
		const start = `if [ -n "${ZDOTDIR+set}" ]; then export TELEXEC_ZDOTDIR="$ZDOTDIR"; fi; ZDOTDIR="$1" exec "$0" -l`
		launch.Argv = []string{"/bin/sh", "-c", start, file, "{dir}"}
		launch.Files = map[string]string{".zshenv": zshStart + zshMarks + zshStarted}
	case "fish":
		launch.Argv = []string{file, "--login", "--init-command", `source $TELEXEC_RC; rm -f -- $TELEXEC_RC; set -e TELEXEC_RC`}
		launch.Env = map[string]string{"TELEXEC_RC": "{dir}/fish"} // in no quotes, which would read a $ in it
		launch.Files = map[string]string{"fish": fishMarks}
	case "dash", "ash", "ksh", "ksh93", "mksh", "sh":
		start := keep + `export TELEXEC_RC="$1" ENV="$1"; `
		if shell != "mksh" { // which expands nothing
			start += `case $1 in *[\$\"\\]* | *\` + "`" + `*) ENV='$TELEXEC_RC' ;; esac; `
		}
		start += `exec "$0" -i`
		if path.Base(file) == "busybox" {
			start = strings.TrimSuffix(start, "-i") + "ash -i"
		}
		launch.Argv = []string{"/bin/sh", "-c", start, file, "{dir}/sh"}
		launch.Files = map[string]string{"sh": posixStart + "_telexec_is=" + shell + "\n" + posixMarks}
	default:
		return Launch{}, false
	}
	for name, content := range launch.Files {
		launch.Files[name] = fill(content, nonce)
	}
	return launch, true
}

// Nested is for a shell that was started in a session and tells no marks: when line is
// typed there, with "{dir}" for the directory of file, it tells them too. file goes by
// the name of "nested" and can be read by bash, zsh, fish and whatever is like sh. It
// may be read again where marks were lost.
func Nested(nonce string) (line, file string) {
	// fish knows a backslash between single quotes, other shells do not.
	const inFish = `test '\\' = "\\"`
	sh := "if test -n \"${BASH_VERSION-}\"; then eval " + quoted(bashForget+bashMarks) +
		"\nelif test -n \"${ZSH_VERSION-}\"; then eval " + quoted(zshMarks) +
		"\nelse\n" + posixMarks + "fi\n"
	file = inFish + " && eval " + quoted(fishMarks) + "\n" + inFish + " || eval " + quoted(sh) + "\n"
	return ` . "{dir}/nested"`, fill(file, nonce)
}

// bashForget takes the line of Nested out of the history, where the account does not
// keep lines that begin with a space out of it by itself.
const bashForget = `_telexec_n=$(HISTTIMEFORMAT= \builtin history 1 2>/dev/null) || \true
if [[ $_telexec_n == *" . "*/nested\" ]]; then
  _telexec_n=${_telexec_n%%[!0-9 ]*}
  \builtin history -d "$((_telexec_n))" 2>/dev/null || \true
fi
\unset _telexec_n
`

// quoted puts s in quotes that sh and fish read alike: no backslash may stand before a
// single quote or another backslash in s.
func quoted(s string) string { return "'" + strings.ReplaceAll(s, "'", `'"'"'`) + "'" }

func fill(script, nonce string) string {
	return strings.NewReplacer("@ESC@", "\x1b", "@BEL@", "\a", "@SOH@", "\x01", "@CR@", "\r", "@NONCE@", nonce).Replace(script)
}
