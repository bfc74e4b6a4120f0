package policy

import (
	"slices"
	"strings"
)

// Narrower reports whether new surely runs nothing that old does not run. Every
// simple command of new is one of old, exactly with its words and redirections,
// in the same order, and nothing in either is unknown. Leaving one out must not
// change what the rest does, so either new is where old begins, or both are plain
// sequences (; and newline) without a standard input, which the first of two may
// take from the second, and what is left out is none that changes the shell, such
// as cd. A text that is more than a plain sequence, or that sets a variable or a
// trap, is narrower than itself only. Where it runs must be the same, without
// more of sudo or of a login shell.
//
// It sees names of variables only: whoever changes the values of Env or the
// standard input has made another request, whatever this says.
func Narrower(old, new Request) bool {
	if old.Host != new.Host || old.RawShell != new.RawShell || old.Input != new.Input || new.LoginShell && !old.LoginShell ||
		new.Sudo && !old.Sudo || old.Sudo && !narrowerUser(old.SudoUser, new) || old.ActionType != new.ActionType || old.Directory != new.Directory ||
		!slices.Equal(slices.Sorted(slices.Values(old.EnvNames)), slices.Sorted(slices.Values(new.EnvNames))) {
		return false
	}
	was, is := words(old), words(new)
	if was.simples == nil || is.simples == nil {
		return false
	}
	if old.Line == new.Line && slices.Equal(old.Argv, new.Argv) {
		return true
	}
	if !was.plain() || !is.plain() {
		return false
	}
	return beginning(was.simples, is.simples) || !old.Input && selection(was.simples, is.simples)
}

// plain reports whether the simple commands of r are all there is to it: a plain
// sequence, in which each one does the same whether those behind it are there or
// not.
func (r raw) plain() bool {
	return !r.besides && !slices.ContainsFunc(r.simples, func(s simple) bool { return !s.sequel || lingers(s) })
}

// beginning reports whether was begins with is.
func beginning(was, is []simple) bool {
	return len(is) <= len(was) && slices.EqualFunc(was[:len(is)], is, func(a, b simple) bool { return a.joined == b.joined && sameSimple(a, b) })
}

// selection reports whether is has some of the commands of was, and leaves out
// none on which others hang.
func selection(was, is []simple) bool {
	joined := func(s simple) bool { return s.joined }
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

// words gives the simple commands of q as they are written, not what they run in
// turn: who takes sudo -u app, timeout 5 or exec away has another command. There
// are none where not everything about them is known.
func words(q Request) raw {
	q.Sudo, q.EnvNames = false, nil
	r := read(&q)
	if r.why != "" || len(r.variables) > 0 || slices.ContainsFunc(r.simples, func(s simple) bool { return s.doubt() != "" || s.heredoc }) {
		return raw{}
	}
	if len(q.Argv) > 0 || q.LoginShell || q.RawShell {
		plain := q.Argv
		if len(plain) == 0 {
			plain = strings.Fields(q.Line)
		}
		s := simple{sequel: true}
		for _, w := range plain {
			s.words = append(s.words, literal(w))
		}
		return raw{simples: []simple{s}}
	}
	written, why := parse(q.Line)
	if why != "" || len(written.variables) > 0 || slices.ContainsFunc(written.simples, func(s simple) bool { return s.doubt() != "" || s.heredoc || len(s.words) == 0 }) {
		return raw{}
	}
	return written
}

// narrowerUser reports whether new runs as old, whom sudo made it, or as less.
func narrowerUser(old string, new Request) bool {
	root := func(user string) bool { return user == "" || user == "root" }
	if !new.Sudo {
		return root(old)
	}
	return old == new.SudoUser || root(old) && root(new.SudoUser)
}

func sameSimple(a, b simple) bool {
	same := func(a, b []word) bool {
		return slices.EqualFunc(a, b, func(v, w word) bool { return v.text == w.text })
	}
	return same(a.words, b.words) && same(a.writes, b.writes) && same(a.reads, b.reads) && slices.Equal(a.redirections, b.redirections)
}

// lingers reports whether s may have set, or taken away, what the shell does at
// its end.
func lingers(s simple) bool {
	switch s.words[0].text {
	case "trap", "command", "builtin", "eval", ".", "source":
		return true
	}
	return false
}

// shifts reports whether s changes the shell that runs what follows.
func shifts(s simple) bool {
	switch s.words[0].text {
	case "export", "readonly", "unset", "cd", "chdir", "pushd", "popd", "umask", "ulimit", "exec", "exit", "bye", "return", "login", "newgrp", "read", "shift", "break", "continue":
		return true
	}
	return false
}
