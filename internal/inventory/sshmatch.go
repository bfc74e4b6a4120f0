package inventory

import "strings"

// names gives every name that stands in a Host line of the file or its includes
// and is no pattern. Whether such a line ever applies is for options to say.
func (f sshFile) names(found map[string]bool) {
	for _, line := range f {
		for _, p := range line.host {
			if !strings.ContainsAny(p, "*?") && p[0] != '!' {
				found[p] = true
			}
		}
		for _, inner := range line.include {
			inner.names(found)
		}
	}
}

// options plays the file for a host that was asked for by name.
func (f sshFile) options(name, localUser string) *sshOptions {
	p := play{name: name, localUser: localUser}
	p.file(f, true, false)
	if p.wantsFinal {
		// Match final asks for a second reading, in which what the first one set
		// stays, and is what conditions look at.
		p.final = true
		p.file(f, true, false)
	}
	return &p.options
}

// play is one evaluation of a file.
type play struct {
	name, localUser   string
	options           sshOptions
	final, wantsFinal bool
}

// file plays the lines. The first ones belong to no block and are as active as
// the Include they come from; never is for a file that an inactive block
// includes: no block in it can become active.
func (p *play) file(f sshFile, active, never bool) {
	for _, line := range f {
		switch {
		case line.host != nil:
			active = p.host(line.host) && !never
			if active {
				for _, pattern := range line.host {
					p.options.named = p.options.named || pattern == p.name
				}
			}
		case line.match != nil:
			active = p.match(line.match) && !never
		case line.set != nil:
			if active {
				line.set(&p.options)
			}
		default:
			for _, inner := range line.include {
				p.file(inner, active, never || !active)
			}
		}
	}
}

// host reports whether a Host line applies: one pattern matches and no negated
// one does.
func (p *play) host(patterns []string) bool {
	found := false
	for _, pattern := range patterns {
		positive, negated := strings.CutPrefix(pattern, "!")
		if matches(p.name, positive) {
			if negated {
				return false
			}
			found = true
		}
	}
	return found
}

// match reports whether a Match line applies: all its conditions hold. One that
// cannot be decided here (exec, and what newer versions know) does not hold,
// negated or not.
func (p *play) match(criteria []criterion) bool {
	applies := true
	for _, c := range criteria {
		var holds bool
		switch c.name {
		case "all":
			holds = true
		case "final", "canonical":
			p.wantsFinal = p.wantsFinal || c.name == "final"
			holds = p.final
		case "host":
			host := p.name
			if p.options.hostName != nil {
				host = expandHostName(*p.options.hostName, p.name)
			}
			holds = matchesList(strings.ToLower(host), strings.ToLower(c.arg))
		case "originalhost":
			holds = matchesList(strings.ToLower(p.name), strings.ToLower(c.arg))
		case "user":
			user := p.localUser
			if p.options.user != nil {
				user = *p.options.user
			}
			holds = matchesList(user, c.arg)
		case "localuser":
			holds = matchesList(p.localUser, c.arg)
		default:
			return false
		}
		if holds == c.negate {
			applies = false // but a final that follows still wants its second reading
		}
	}
	return applies
}

// expandHostName puts the name that was asked for into a HostName. Only %h and %%
// mean something there; HostName with another token is refused in resolve.
func expandHostName(hostName, name string) string {
	s, err := expand(hostName, map[byte]string{'h': name})
	if err != nil {
		return hostName
	}
	return s
}

// matchesList reports whether s matches a list of patterns separated by commas,
// as Match has them.
func matchesList(s, list string) bool {
	found := false
	for pattern := range strings.SplitSeq(list, ",") {
		positive, negated := strings.CutPrefix(pattern, "!")
		if matches(s, positive) {
			if negated {
				return false
			}
			found = true
		}
	}
	return found
}

// matches reports whether s matches a pattern: * is any run of bytes, ? any one.
func matches(s, pattern string) bool {
	// On a mismatch the last star takes one byte more; earlier ones need no second
	// try, so this is never worse than len(s) times len(pattern).
	i, j, star, from := 0, 0, -1, 0
	for i < len(s) {
		switch {
		case j < len(pattern) && pattern[j] == '*':
			star, from = j, i
			j++
		case j < len(pattern) && (pattern[j] == '?' || pattern[j] == s[i]):
			i, j = i+1, j+1
		case star >= 0:
			from++
			i, j = from, star+1
		default:
			return false
		}
	}
	return strings.Trim(pattern[j:], "*") == ""
}
