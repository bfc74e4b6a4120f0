package policy

import "slices"

// Narrower reports whether new surely runs nothing that old does not run. Every
// simple command of new is one of old, exactly with its words and files, in the
// same order, and nothing in either is unknown. Leaving one out must not change
// what the rest does, so either new is where old begins, or both are plain
// sequences (; and newline) and what is left out is none that changes the shell,
// such as cd. Where it runs must be the same, without more of sudo or of a login
// shell.
//
// It sees names of variables only: whoever changes the values of Env or the
// standard input has made another request, whatever this says.
func Narrower(old, new Request) bool {
	if old.Host != new.Host || old.RawShell != new.RawShell || new.LoginShell && !old.LoginShell ||
		new.Sudo && (!old.Sudo || new.SudoUser != old.SudoUser) || old.ActionType != new.ActionType || old.Directory != new.Directory ||
		!slices.Equal(slices.Sorted(slices.Values(old.EnvNames)), slices.Sorted(slices.Values(new.EnvNames))) {
		return false
	}
	was, is := words(old), words(new)
	if was == nil || is == nil {
		return false
	}
	if old.Line == new.Line && slices.Equal(old.Argv, new.Argv) {
		return true
	}
	plain := func(s simple) bool { return s.sequel }
	joined := func(s simple) bool { return s.joined }
	if slices.ContainsFunc(was, func(s simple) bool { return !plain(s) }) || slices.ContainsFunc(is, func(s simple) bool { return !plain(s) }) {
		return false
	}
	if len(is) <= len(was) && slices.EqualFunc(was[:len(is)], is, func(a, b simple) bool { return a.joined == b.joined && sameSimple(a, b) }) {
		return true
	}
	if slices.ContainsFunc(was, joined) || slices.ContainsFunc(is, joined) {
		return false
	}
	for _, n := range is {
		at := slices.IndexFunc(was, func(o simple) bool { return sameSimple(o, n) })
		if at < 0 || slices.ContainsFunc(was[:at], shifts) {
			return false
		}
		was = was[at+1:]
	}
	return true
}

// words gives the simple commands of q where everything about them is known,
// and nil otherwise.
func words(q Request) []simple {
	q.Sudo, q.EnvNames = false, nil
	r := read(&q)
	if r.why != "" || len(r.variables) > 0 || slices.ContainsFunc(r.simples, func(s simple) bool { return s.doubt() != "" || s.heredoc }) {
		return nil
	}
	return r.simples
}

func sameSimple(a, b simple) bool {
	same := func(a, b []word) bool {
		return slices.EqualFunc(a, b, func(v, w word) bool { return v.text == w.text })
	}
	return same(a.words, b.words) && same(a.writes, b.writes) && same(a.reads, b.reads)
}

// shifts reports whether s changes the shell that runs what follows.
func shifts(s simple) bool {
	switch s.words[0].text {
	case "cd", "chdir", "pushd", "popd", "umask", "ulimit", "exec", "exit", "return", "read", ".", "source", "shift", "break", "continue":
		return true
	}
	return false
}
