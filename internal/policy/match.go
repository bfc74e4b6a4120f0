package policy

import (
	"slices"
	"strings"
)

// truth is whether a condition holds, as far as that is known.
type truth int

const (
	no truth = iota
	maybe
	yes
)

func is(b bool) truth {
	if b {
		return yes
	}
	return no
}

// about reports whether the conditions hold that are not about the command.
func (r *rule) about(q *Request) bool {
	m := &r.Match
	any := func(patterns []string, text string) bool {
		return len(patterns) == 0 || slices.ContainsFunc(patterns, func(p string) bool { return glob(p, text) })
	}
	for label, pattern := range m.Labels {
		if value, has := q.Labels[label]; !has || !glob(pattern, value) {
			return false
		}
	}
	return any(m.Hosts, q.Host) && any(m.Principals, q.Principal) &&
		(len(m.Roles) == 0 || slices.ContainsFunc(m.Roles, func(role string) bool { return slices.Contains(q.Roles, role) })) &&
		(len(m.Origins) == 0 || slices.Contains(m.Origins, q.Origin)) &&
		(len(m.ActionTypes) == 0 || slices.Contains(m.ActionTypes, q.ActionType))
}

// matches reports whether the rule is one for s. Of an allow rule maybe is no.
func (r *rule) matches(q *Request, in *reading, s *simple) truth {
	if !r.onCommand {
		return yes
	}
	m := &r.Match
	got := yes
	if r.Effect != Allow {
		s = s.cleaned()
	}
	if s.unknown != "" {
		got = maybe
	} else {
		if len(m.Programs) > 0 {
			best := no
			for _, p := range m.Programs {
				best = max(best, matchProgram(p, s, in, r.Effect == Allow))
			}
			got = min(got, best)
		}
		if len(m.Commands) > 0 {
			got = min(got, r.whole(s, matchCommands(r.commands, s, in, r.Effect == Allow)))
		}
		if len(m.ActionTypes) > 0 {
			got = min(got, r.whole(s, matchCommands(r.actionTypes[q.ActionType], s, in, r.Effect == Allow)))
		}
		if len(m.Args) > 0 {
			got = min(got, r.args(s, in))
		}
	}
	if len(m.Writes) > 0 || r.Effect == Allow {
		got = min(got, r.given(m.Writes, len(s.writes), func(p string, i int) truth { return matchPath(p, s.writes[i], in, r.Effect == Allow) }))
	}
	if len(m.Variables) > 0 || r.Effect == Allow {
		got = min(got, r.given(m.Variables, len(in.variables), func(p string, i int) truth { return is(glob(p, in.variables[i])) }))
	}
	if r.Effect == Allow && (got == maybe || slices.ContainsFunc(s.reads, mayConnect)) {
		return no
	}
	return got
}

// mayConnect reports whether a file that is read may be /dev/tcp/HOST/PORT, for
// which some shells open a connection.
func mayConnect(w word) bool {
	const network = "/dev/"
	return !w.known && (strings.HasPrefix(network, w.prefix) || strings.HasPrefix(w.prefix, network))
}

// whole is what a match of the words of s means for the rule: a command that
// reads a file besides is more than its words.
func (r *rule) whole(s *simple, got truth) truth {
	if len(s.reads) == 0 || r.Effect == Deny {
		return got
	}
	return min(got, maybe)
}

// given judges the things (files written, variables set) of a command. An allow
// rule must list them all; for a deny rule one that it lists is enough; for an
// approval one makes it possible and all make it sure.
func (r *rule) given(patterns []string, n int, match func(pattern string, i int) truth) truth {
	all, some := yes, no
	for i := range n {
		best := no
		for _, p := range patterns {
			best = max(best, match(p, i))
		}
		all, some = min(all, best), max(some, best)
	}
	switch {
	case r.Effect == Allow:
		return all
	case r.Effect == Deny || n == 0:
		return some
	}
	return max(all, min(some, maybe))
}

// args judges the arguments of s, and the files it reads.
func (r *rule) args(s *simple, in *reading) truth {
	things := append(slices.Clone(s.words[min(1, len(s.words)):]), s.reads...)
	if s.open {
		things = append(things, word{})
	}
	if len(things) == 0 && r.Effect == RequireApproval {
		return yes // all of none
	}
	return r.given(r.Match.Args, len(things), func(p string, i int) truth {
		return matchWord(p, things[i], s, in, r.Effect == Allow)
	})
}

// matchWord reports whether an argument of s is one of pattern. An allow rule is
// strict: it means words as they are written, and globWord says what else.
func matchWord(pattern string, w word, s *simple, in *reading, strict bool) truth {
	switch {
	case !w.known:
		return maybe
	case globWord(pattern, w.text, strict):
		return yes
	case !strict && !(s.goes && !strings.HasPrefix(w.text, "/")) && in.mayBeWord(pattern, w.text):
		return maybe
	}
	return no
}

func matchProgram(pattern string, s *simple, in *reading, strict bool) truth {
	if len(s.words) == 0 {
		return no
	}
	program := s.words[0].text
	got := is(globProgram(pattern, program))
	if strings.Contains(program, "/") && program[0] != '/' && in.moves || s.named && strings.ContainsAny(pattern, "*?") {
		got = min(got, maybe)
	}
	if !strict && got == no && strings.Contains(program, "/") && in.mayBe(programPaths, pattern, program) {
		return maybe
	}
	return got
}

// matchCommands reports whether s is one of commands, word by word; strictly as
// matchWord says.
func matchCommands(commands [][]string, s *simple, in *reading, strict bool) truth {
	best := no
	for _, patterns := range commands {
		best = max(best, matchCommand(patterns, s, in, strict))
	}
	return best
}

func matchCommand(patterns []string, s *simple, in *reading, strict bool) truth {
	if len(s.words) == 0 {
		return no
	}
	got := matchProgram(patterns[0], s, in, strict)
	words, patterns := s.words[1:], patterns[1:]
	rest := len(patterns) > 0 && patterns[len(patterns)-1] == "*"
	if rest {
		patterns = patterns[:len(patterns)-1]
	}
	for i, p := range patterns {
		switch {
		case i >= len(words) && s.open:
			got = min(got, maybe)
		case i >= len(words):
			got = no
		case !words[i].single: // it may be any number of words
			return min(got, maybe)
		default:
			got = min(got, matchWord(p, words[i], s, in, strict))
		}
		if got == no {
			return no
		}
	}
	switch {
	case rest:
	case len(words) > len(patterns):
		if slices.ContainsFunc(words[len(patterns):], func(w word) bool { return w.single }) {
			return no
		}
		got = min(got, maybe)
	case s.open:
		got = min(got, maybe)
	}
	return got
}

func matchPath(pattern string, w word, in *reading, strict bool) truth {
	switch {
	case !w.known:
		return maybe
	case w.text == "":
		return no
	case globPath(pattern, w.text):
		if w.text[0] != '/' && in.moves {
			return maybe
		}
		return yes
	case !strict && in.mayBeFile(pattern, w.text):
		return maybe
	}
	return no
}
