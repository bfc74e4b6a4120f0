package policy

import (
	"path"
	"strings"
)

// glob reports whether text matches pattern: * is any text, ? one character.
// It takes at most len(pattern)*len(text) steps.
func glob(pattern, text string) bool { return match(pattern, text, false) }

// maxPath is PATH_MAX of Linux, the largest there is.
const maxPath = 4096

// globPath is glob for paths: * and ? stop at a slash, ** does not. A pattern
// with a wildcard matches clean paths only, so that /tmp/* is not the way to
// /tmp/../etc.
//
// What is longer than maxPath matches nothing, and no host opens it.
func globPath(pattern, text string) bool {
	if !strings.ContainsAny(pattern, "*?") {
		return pattern == text
	}
	return len(text) <= maxPath && path.Clean(text) == text && text != ".." && !strings.HasPrefix(text, "../") && match(pattern, text, true)
}

// globWord is glob for an argument. With strict a pattern with a slash in it does
// not match a way up that it does not name: /var/log/* is not the way to
// /var/log/../../etc/shadow.
func globWord(pattern, text string, strict bool) bool {
	up := func(s string) bool {
		return strings.HasPrefix(s, "../") || strings.HasSuffix(s, "/..") || strings.Contains(s, "/../") || strings.Contains(s, "=../") || s == ".."
	}
	if strict && strings.Contains(pattern, "/") && up(text) && !up(pattern) {
		return false
	}
	return glob(pattern, text)
}

func match(pattern, text string, slash bool) bool {
	// The classic walk with one place to come back to. Of ** the place is kept
	// apart: when * fails for good, an earlier ** may still take more.
	type place struct{ p, t int }
	star, deep := place{-1, 0}, place{-1, 0}
	p, t := 0, 0
	for t < len(text) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			if !slash || strings.HasPrefix(pattern[p:], "**") {
				for p < len(pattern) && pattern[p] == '*' {
					p++
				}
				deep, star = place{p, t}, place{-1, 0}
				continue
			}
			p++
			star = place{p, t}
			continue
		case p < len(pattern) && (pattern[p] == text[t] || pattern[p] == '?' && !(slash && text[t] == '/')):
			step := 1
			if pattern[p] == '?' {
				for t+step < len(text) && text[t+step]&0xC0 == 0x80 { // the rest of a character of UTF-8
					step++
				}
			}
			p++
			t += step
			continue
		case star.p >= 0 && text[star.t] != '/':
			star.t++
			p, t = star.p, star.t
			continue
		case deep.p >= 0:
			deep.t++
			star = place{-1, 0}
			p, t = deep.p, deep.t
			continue
		}
		return false
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// plainDirs are where a program is the one of its plain name.
var plainDirs = []string{"/bin/", "/usr/bin/", "/sbin/", "/usr/sbin/", "/usr/local/bin/", "/usr/local/sbin/"}

// plainName gives the name by which patterns without a slash know a program;
// empty for one that lies elsewhere.
func plainName(program string) string {
	if !strings.Contains(program, "/") {
		return program
	}
	for _, dir := range plainDirs {
		if name, ok := strings.CutPrefix(program, dir); ok && !strings.Contains(name, "/") {
			return name
		}
	}
	return ""
}

// globProgram matches the name of a program as Match.Programs says.
func globProgram(pattern, program string) bool {
	if strings.Contains(pattern, "/") {
		return globPath(pattern, program)
	}
	name := plainName(program)
	return name != "" && glob(pattern, name)
}
