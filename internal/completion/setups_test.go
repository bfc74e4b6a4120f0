package completion_test

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/telexec/telexec/internal/completion"
)

// setups are accounts as people have them.
var setups = map[string]setup{
	"bash with everything": {kind: "bash", rc: map[string]string{
		".bash_profile": "export WHO=profile\n. ~/.bashrc\n",
		".bashrc": `PS1='\n\[\e[1;32m\]\u\[\e[0m\]:\w $(echo sub)\n[$?] \$ '
PROMPT_COMMAND='printf "\033]0;%s\007" "$PWD"; seen=$?; echo "before the prompt"'
PS0='\[\e[0m\]'
trap 'traced=$BASH_COMMAND' DEBUG
alias local=false builtin=false shopt=false export=false
IFS=:
HISTCONTROL=ignoreboth
set -o vi
`}},
	"bash with an exported prompt": {kind: "bash", rc: map[string]string{
		".profile": "export PS1='$ ' PROMPT_COMMAND='PS1=\"\\w> \"'\n"}},
	"bash with prompt commands in an array": {kind: "bash", rc: map[string]string{
		".bash_login": "f() { PS1=\"$? \\\\$ \"; }\nPROMPT_COMMAND=(f 'echo b')\nset -u\nshopt -u promptvars\n"}},
	"bash with read-only prompt commands": {kind: "bash", rc: map[string]string{
		".bash_profile": "PROMPT_COMMAND='history -a'\nreadonly PROMPT_COMMAND\n"}},
	"bash with a read-only prompt": {kind: "bash", rc: map[string]string{
		".bash_profile": "PS1='ro> '\nreadonly PS1\n"}},
	"bash with a read-only prompt, and prompt commands": {kind: "bash", rc: map[string]string{
		".bash_profile": "PS1='ro> '\nPROMPT_COMMAND='history -a'\nreadonly PS1\nset -u\n"}},
	"bash with read-only prompt commands that are not there": {kind: "bash", rc: map[string]string{
		".bash_profile": "readonly PROMPT_COMMAND\nset -u\n"}},
	"bash that expands no prompt": {kind: "bash", rc: map[string]string{
		".bash_profile": "PROMPT_COMMAND='shopt -u promptvars'\n"}},
	"bash 4.2 with a read-only prompt": {kind: "bash", launch: older("402"), rc: map[string]string{
		".bash_profile": "PS1='ro> '\nreadonly PS1\n"}},
	"zsh with a read-only prompt": {kind: "zsh", rc: map[string]string{
		".zshrc": "unsetopt prompt_sp\nPS1='z%# '\nPROMPT_EOL_MARK=\nreadonly PS1 PROMPT_EOL_MARK\n"}},
	"zsh that expands no percent":  {kind: "zsh", rc: map[string]string{".zshrc": "unsetopt prompt_percent prompt_sp\nPS1='z> '\n"}},
	"bash that exports everything": {kind: "bash", rc: map[string]string{".bash_profile": "set -a\n"}},
	"bash without a locale":        {kind: "bash", env: []string{"LANG="}},
	"bash 5.0": {kind: "bash", launch: older("500"), rc: map[string]string{
		".bash_profile": "PROMPT_COMMAND='PS1=\"[$?] \"; echo before'\n"}},
	"bash 4.2": {kind: "bash", launch: older("402")},
	"bash 3.2": {kind: "bash", launch: func(l completion.Launch) completion.Launch {
		l = older("302")(l)
		l.Argv[3] = strings.Replace(l.Argv[3], "-ge 4", "-ge 99", 1)
		return l
	}},
	"zsh with everything": {kind: "zsh", rc: map[string]string{
		".zshenv": "export WHO=zshenv\n",
		".zshrc": `setopt prompt_subst vi ksh_arrays sh_word_split no_unset
precmd() { print -n "\e]0;title\a" }
last() { PROMPT=$'%F{green}%n%f $(echo sub)\n%? %# ' }
precmd_functions=(last)
preexec() { print -n "\e]0;$1\a" }
alias print=false typeset=false local=false
IFS=:
export PS1
`}},
	"zsh without a mark for lines without end": {kind: "zsh", rc: map[string]string{
		".zshrc": "unsetopt prompt_sp\nPS1='%# '\nsetopt transient_rprompt\nRPROMPT=right\n"}},
	"zsh that hides that mark": {kind: "zsh", rc: map[string]string{".zshrc": "PROMPT_EOL_MARK=''\n"}},
	"zsh in another directory": {kind: "zsh", env: []string{"ZDOTDIR="}, rc: map[string]string{
		".zshenv": "ZDOTDIR=$HOME/z\n", "z/.zshrc": "PS1='in z %# '\nprecmd_functions=()\n"}},
	"fish with everything": {kind: "fish", rc: map[string]string{
		".config/fish/config.fish": `function fish_prompt
    echo -n "[$status $pipestatus]"
    set_color green
    echo
    echo -n '$ '
end
function fish_right_prompt; echo right; end
function on --on-event fish_preexec; echo -n -e '\e]0;x\a'; end
fish_vi_key_bindings
`}},
	"dash with everything": {kind: "dash", env: []string{"ENV=/nonexistent"}, rc: map[string]string{
		".profile": "export PS1='\n$PWD ! $(echo sub)\n$ '\nexport ENV=$HOME/.shrc\n", ".shrc": "WHO=shrc\nset -u\n"}},
	"ash with everything": {kind: "ash", rc: map[string]string{
		".profile": `export PS1='\[\e[32m\]\u@\h\[\e[0m\]:\w\n\$ '` + "\n"}},
	"mksh with everything": {kind: "mksh", rc: map[string]string{
		".profile": "PS1=$'\\002\\r\\002\\e[32m\\002$PWD \\002\\e[0m\\002\n$ '\n", ".mkshrc": "WHO=mkshrc\n"}},
	"ksh with everything": {kind: "ksh", rc: map[string]string{
		".profile": "export PS1=$'\\E[32m$PWD\\E[0m ! $ '\n", ".kshrc": "set -o vi\nWHO=kshrc\n"}},
}

// older makes bash take itself for an older one.
func older(version string) func(completion.Launch) completion.Launch {
	return func(l completion.Launch) completion.Launch {
		script := l.Files["bash"]
		l.Files["bash"] = strings.Replace(script, "_telexec_v=$((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1]))", "_telexec_v="+version, 1)
		return l
	}
}

func TestSetups(t *testing.T) {
	t.Parallel()
	for name, s := range setups {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := open(t, s)
			basics(c)
			c.says("env | grep -c -e '^_*[tT][eE][lL]' -e _telexec_prompt", "0\n", 1)
			c.says("env | grep -c "+c.nonce[:16], "0\n", 1)
		})
	}
}

// Where a prompt is read-only and there is nothing else to tell marks with, none is told,
// not even that there will be some, and the shell is as without us.
func TestNoMarks(t *testing.T) {
	for name, s := range map[string]setup{
		"bash": {kind: "bash", rc: map[string]string{".bash_profile": "PS1='ro> ' PS0= PROMPT_COMMAND=:\nreadonly PS1 PS0 PROMPT_COMMAND\n"}},
		"bash that ends at what fails": {kind: "bash", rc: map[string]string{
			".bash_profile": "PS1='ro> ' PS0= PROMPT_COMMAND=:\nreadonly PS1 PS0 PROMPT_COMMAND\nset -eu\n"}},
		"dash": {kind: "dash", rc: map[string]string{".profile": "PS1='ro> '\nreadonly PS1\n"}},
		"ash":  {kind: "ash", rc: map[string]string{".profile": "PS1='ro> '\nreadonly PS1\nset -e\n"}},
		"mksh": {kind: "mksh", rc: map[string]string{".profile": "PS1='ro> '\nset -eu\nreadonly PS1\n"}},
		"ksh":  {kind: "ksh", rc: map[string]string{".profile": "PS1='ro> '\nreadonly PS1\nset -e\n"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s.silent = true
			c := open(t, s)
			shown := func() string { return strings.TrimSpace(strings.Join(c.lines(0), "\n")) }
			c.quiet(func() bool { return strings.HasSuffix("\n"+shown(), "\nro>") })
			c.write("echo $((6*7))\r")
			c.quiet(func() bool { return strings.HasSuffix(shown(), "\n42\nro>") })
			line, _ := completion.Nested(c.nonce)
			c.write(strings.ReplaceAll(line, "{dir}", c.dir) + "\r")
			c.quiet(func() bool { return strings.HasSuffix(shown(), "nested\"\nro>") })
			if raw := c.raw.String(); strings.Contains(raw, "133;P") || strings.Contains(raw, "133;D") {
				t.Errorf("%q", raw)
			}
		})
	}
}

func TestProfilesAreRead(t *testing.T) {
	for name, want := range map[string]string{
		"bash with everything": "profile", "zsh with everything": "zshenv", "dash with everything": "shrc",
		"mksh with everything": "mkshrc", "ksh with everything": "kshrc",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := open(t, setups[name])
			c.says("echo \"$WHO\"", want+"\n", 0)
		})
	}
}

// What is a login shell, says so; the variables by which the files were found are what
// they were; and the files are gone.
func TestLogin(t *testing.T) {
	for kind, in := range map[string][]string{
		"bash": {"ENV=/some/env", "shopt -q login_shell; echo $? $0 $ENV ${POSIXLY_CORRECT-} ${HISTFILE##*/}; shopt -qo posix", "0 -bash /some/env .bash_history\n", "1"},
		"zsh":  {"ZDOTDIR=/some/dir", "[[ -o login ]]; echo $? $ZDOTDIR", "0 /some/dir\n", "0"},
		"fish": {"X=", "status is-login", "", "0"},
		"dash": {"ENV=/some/env", "echo $ENV", "/some/env\n", "0"},
		"ash":  {"ENV=", "echo ${ENV-none}.", ".\n", "0"},
		"mksh": {"X=", "echo ${ENV-none}", "none\n", "0"},
		"ksh":  {"ENV=/some/env", "echo $ENV", "/some/env\n", "0"},
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			c := open(t, setup{kind: kind, env: slices.Clone(in[:1]), rc: map[string]string{".bash_logout": "echo logged out\n"}})
			code, _ := strconv.Atoi(in[3])
			c.says(in[1], in[2], code)
			left, err := os.ReadDir(c.dir)
			if err != nil || len(left) != 1 || left[0].Name() != "nested" {
				t.Error("left behind:", left, err)
			}
			if kind == "bash" {
				c.write("exit\r")
				c.shows("logged out")
			}
		})
	}
}

// The files are found whatever their directory is called.
func TestOddDirectories(t *testing.T) {
	each(t, func(t *testing.T, kind string) {
		c := open(t, setup{kind: kind, under: `it's "a" $HOME of \ many; *words`})
		c.says("sh -c 'exit 5'", "", 5)
	})
}

// A bash that is called sh stays in POSIX mode.
func TestBashAsSh(t *testing.T) {
	t.Parallel()
	sh := filepath.Join(t.TempDir(), "sh")
	if err := os.Symlink(shellPath(t, "bash"), sh); err != nil {
		t.Fatal(err)
	}
	c := open(t, setup{kind: "bash", path: sh, rc: map[string]string{".profile": "WHO=profile\n", ".bash_profile": "WHO=bash\n"}})
	c.says("echo $WHO $0; shopt -qo posix", "profile -sh\n", 0)
	basics(c)
}

// What people do to their prompts in a session must not take the marks away.
func TestPromptsSetAnew(t *testing.T) {
	each(t, func(t *testing.T, kind string) {
		c := open(t, setup{kind: kind, rc: map[string]string{".again": "PS1='again$ '\nPROMPT_COMMAND='PS1=\"set \"'\nPS0=\n"}})
		var lines []string
		switch kind {
		case "bash":
			lines = []string{
				`export PS1='$ '`, `unset PS0`, `PROMPT_COMMAND='PS1="anew$ "'`, `PROMPT_COMMAND="$PROMPT_COMMAND; true"`, `. ~/.again`,
				`old=$PS1; PS1="(venv) $PS1"`, `PS1=$old`, `PROMPT_COMMAND+=('PS1="late$ "')`, `PROMPT_COMMAND=`, `set -x`, `set +x`, `trap 'd=1' DEBUG`, `set -o posix`, `set +o posix`,
				`set -u`, `shopt -u promptvars`, `PS1='x$ '`, `unset PS1`,
			}
		case "zsh":
			lines = []string{`PS1='$ '`, `precmd() { PS1='anew$ ' }`, `precmd_functions=()`, `precmd_functions+=(precmd)`, `PS1="(venv) $PS1"`, `unset PROMPT_EOL_MARK`, `unsetopt prompt_sp`,
				`setopt prompt_sp`, `set -x`, `set +x`, `setopt no_unset ksh_arrays`, `emulate sh`, `emulate zsh`, `trap 'd=1' DEBUG`, `preexec_functions=()`}
		case "fish":
			lines = []string{`function fish_prompt; echo -n 'anew$ '; end`, `functions -c fish_prompt _old; function fish_prompt; echo -n '(venv) '; _old; end`,
				`functions -e fish_prompt; functions -c _old fish_prompt; functions -e _old`, `fish_vi_key_bindings`, `functions -e fish_prompt`}
		default:
			lines = []string{`PS1="(venv) $PS1"`, `set -u`, `set -x`, `set +x`, `export PS1`}
		}
		for _, line := range lines {
			if r := c.run(line); r.code != 0 {
				t.Errorf("%s: %d %q", line, r.code, r.out)
			}
			if r := c.run("sh -c 'exit 4'"); r.code != 4 {
				t.Errorf("after %s: %d %q", line, r.code, r.out)
			}
		}
	})
}

// Where the prompt is all there is, who sets it takes the marks away until the line of
// Nested is typed.
func TestMarksAreFoundAgain(t *testing.T) {
	each(t, func(t *testing.T, kind string) {
		c := open(t, setup{kind: kind})
		c.write("PS1='plain> '; echo d''one\r")
		c.shows("done\r\nplain> ")
		c.nest()
		if c.shell.Shell != kind || c.shell.PID != c.cmd.Process.Pid {
			t.Errorf("%+v", c.shell)
		}
		c.says("sh -c 'exit 5'", "", 5)
		c.says("cd /; pwd", "/\n", 0)
	}, "dash", "ash", "mksh", "ksh")
}

// set -e is the user's: what fails ends the shell, and the integration does not.
func TestErrexit(t *testing.T) {
	each(t, func(t *testing.T, kind string) {
		c := open(t, setup{kind: kind, rc: map[string]string{".bash_profile": "PROMPT_COMMAND=:\n"}})
		c.says("set -e", "", 0)
		c.says("true", "", 0)
		c.says("! true", "", 1)
		c.says("echo on", "on\n", 0)
		c.write("sh -c 'exit 9'\r")
		c.ends(9)
	}, "bash", "zsh", "dash", "ash", "mksh", "ksh")
}

// So it is where login files say that, and that what is not set is an error.
func TestErrexitAtLogin(t *testing.T) {
	for name, s := range map[string]setup{
		"bash":                       {kind: "bash", rc: map[string]string{".bash_profile": "set -eu -o pipefail\n"}},
		"bash with a prompt command": {kind: "bash", rc: map[string]string{".bash_profile": "PROMPT_COMMAND=:\nset -eu\n"}},
		"bash with a read-only prompt": {kind: "bash", rc: map[string]string{
			".bash_profile": "PS1='ro> '\nreadonly PS1\nunset PROMPT_COMMAND\nset -eu\n"}},
		"bash 5.0": {kind: "bash", launch: older("500"), rc: map[string]string{".bash_profile": "set -eu\nunset PS1\n"}},
		"bash 4.2": {kind: "bash", launch: older("402"), rc: map[string]string{".bash_profile": "set -eu\n"}},
		"zsh":      {kind: "zsh", rc: map[string]string{".zshrc": "setopt err_exit no_unset pipe_fail\n"}},
		"zsh early": {kind: "zsh", rc: map[string]string{
			".zshenv": "set -eu\n", ".zshrc": "unset PROMPT_EOL_MARK\n"}},
		"dash": {kind: "dash", rc: map[string]string{".profile": "set -eu\nunset PS1 ENV\n"}},
		"ash":  {kind: "ash", rc: map[string]string{".profile": "set -eu\n"}},
		"ksh":  {kind: "ksh", rc: map[string]string{".profile": "set -eu\n"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := open(t, s)
			c.says("true", "", 0)
			c.says("! true", "", 1)
			c.says("echo on", "on\n", 0)
			c.nest()
			c.says("echo once more", "once more\n", 0)
			c.write("sh -c 'exit 9'\r")
			c.ends(9)
		})
	}
}

// A command that prints nothing is left alone, however long that takes, and an empty
// line is no command.
func TestSilence(t *testing.T) {
	each(t, func(t *testing.T, kind string) {
		c := open(t, setup{kind: kind})
		if c.shell.Starts {
			c.write("\r")
			e, _ := c.until(completion.PromptEnd, completion.CommandStart)
			if e.Kind != completion.PromptEnd {
				t.Error("an empty line has started a command")
			}
		}
		begun := time.Now()
		c.says("sleep 2.2; sh -c 'exit 5'", "", 5)
		if took := time.Since(begun); took < 2200*time.Millisecond {
			t.Errorf("it has ended after %v", took)
		}
	})
}

// The integration starts no process at a prompt: the shell has no children to count the
// faults of.
func TestNoForks(t *testing.T) {
	each(t, func(t *testing.T, kind string) {
		c := open(t, setup{kind: kind, rc: map[string]string{".bash_profile": "PROMPT_COMMAND=:\n", ".config/fish/config.fish": "function fish_prompt; echo '$ '; end\n"}})
		faults := func() string {
			stat, err := os.ReadFile("/proc/" + strconv.Itoa(c.cmd.Process.Pid) + "/stat")
			if err != nil {
				t.Skip("there is no /proc here")
			}
			return strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')'):]))[9] // cminflt
		}
		c.says("true", "", 0)
		before := faults()
		for range 5 {
			c.says("true", "", 0)
		}
		if now := faults(); now != before {
			t.Errorf("the faults of its children went from %s to %s", before, now)
		}
		c.says("sh -c true", "", 0)
		if now := faults(); now == before {
			t.Error("children are not counted")
		}
	})
}
