package policy

import (
	"slices"
	"strings"
)

// harmlessNames are variables that no program takes for a program, a library, a
// file to read or an option.
var harmlessNames = []string{
	"LANG", "TZ", "TERM", "NO_COLOR", "FORCE_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "COLORTERM",
	"CI", "REPLY", "SOURCE_DATE_EPOCH",
}

// shellNames are variables in small letters that some shell treats specially:
// in zsh path is PATH, and functions, aliases and their like are what they say.
var shellNames = []string{
	"argv", "status", "pipestatus", "path", "fpath", "cdpath", "mailpath", "manpath", "module_path", "psvar", "prompt", "prompt2", "prompt3",
	"prompt4", "watch", "histchars", "signals", "options", "commands", "functions", "functions_source", "functrace", "funcstack",
	"funcfiletrace", "funcsourcetrace", "aliases", "galiases", "saliases", "dis_aliases", "dis_galiases", "dis_saliases", "dis_builtins",
	"dis_functions", "dis_functions_source", "dis_patchars", "dis_reswords", "nameddirs", "parameters", "builtins", "reswords", "patchars",
	"history", "historywords", "jobdirs", "jobtexts", "jobstates", "userdirs", "usergroups", "errnos", "sysparams", "mapfile", "keymaps",
	"widgets", "terminfo", "termcap", "langinfo", "zsh_eval_context", "zsh_scheduled_events", "modules", "auto_resume", "noclobber",
	"ignoreeof", "home", "term", "user", "shell", "cwd", "fignore", "nonomatch", "noglob", "savehist", "autologout", "fish_function_path",
}

// harmless reports whether setting a variable can change no program that is run
// by a plain shell. Variables in small letters are those of the script itself.
func harmless(name string) bool {
	if !isName(name) {
		return false
	}
	if slices.Contains(harmlessNames, name) || strings.HasPrefix(name, "LC_") {
		return true
	}
	// The scripts that start a command have variables of their own.
	if strings.HasPrefix(name, "telexec_") {
		return false
	}
	return name == strings.ToLower(name) && name != "_" && !strings.HasSuffix(name, "_proxy") && !slices.Contains(shellNames, name)
}

// isPlain reports whether a variable is harmless with that value: the size of a
// terminal that is a number (mksh evaluates it), and a front end of debconf that
// is a name (debconf, in Perl, evaluates it).
func isPlain(name, value string) bool {
	switch name {
	case "COLUMNS", "LINES":
		return value != "" && strings.Trim(value, "0123456789") == ""
	case "DEBIAN_FRONTEND":
		return value != "" && strings.Trim(value, "abcdefghijklmnopqrstuvwxyz") == ""
	}
	return false
}

// isName reports whether name is a name for a variable (XBD 3.216).
func isName(name string) bool {
	for i := range len(name) {
		c := name[i]
		if !(c == '_' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || i > 0 && '0' <= c && c <= '9') {
			return false
		}
	}
	return name != ""
}
