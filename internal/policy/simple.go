package policy

import (
	"path"
	"slices"
	"strings"
)

// word is a word of a command as far as it is known before it runs.
type word struct {
	text  string // its value; where it is computed, the text as written
	known bool   // text is its value
	// prefix is what it surely begins with, where it is computed.
	prefix string
	// single: it becomes exactly one word. Unquoted expansions become any number
	// of words.
	single bool
	// files: only names of files make it many, and all begin with prefix.
	files bool
	// bare: it has neither quotes nor backslashes, so a shell may take it for a
	// word of its grammar.
	bare bool
}

func literal(text string) word {
	return word{text: text, known: true, prefix: text, single: true}
}

// simple is a simple command: what would be one call of execve, or of a builtin.
type simple struct {
	words   []word
	open    bool   // further words are added at run time
	writes  []word // files written by redirection, but /dev/null
	reads   []word // files read by redirection, but /dev/null
	heredoc bool   // some of its input is in the text
	// redirections are all of its own as they are written, in their order, but
	// here-documents. No rule is about them: they tell one command from another.
	redirections []redirection
	// unknown says why nothing sure is known of what this runs; "" where the
	// program is known.
	unknown string
	// named: a rule must name its program without wildcards, since it runs a file.
	named bool
	// goes: it is cd. By itself that does nothing to where it goes, and what follows
	// is judged for being there.
	goes bool
	// raises: it is sudo, around a command that is in the list too.
	raises bool
	// sequel: it stands in a plain sequence (; && newline) at the top; joined: and
	// is joined to the one before by &&.
	sequel, joined bool
}

// redirection is a redirection as it is written.
type redirection struct {
	fd       string // "" where none is written
	operator string // >, >>, <, <>, >|, >& or <&
	target   string
}

// reading is what is known of a whole request.
type reading struct {
	why       string // why it could not be taken apart at all; then simples is nil
	simples   []simple
	variables []string // set anywhere in it, but harmless ones; sorted, each once
	read      int      // bytes of text parsed for it, texts in texts again
	files     int      // opened by redirection for texts in texts, see maxFiles
	moves     bool     // it may change its directory, so that relative paths of rules mean nothing
	// directories are where it may be, as far as that is known: absolute, or from
	// where commands start by themselves. lost: it may be elsewhere too.
	directories []string
	lost        bool
}

// assign notes an assignment: NAME=value, of which the name is known.
func (r *reading) assign(w word) {
	name, value, _ := strings.Cut(w.prefix, "=")
	if !w.known || !isPlain(name, value) {
		r.setVariable(name)
	}
}

func (r *reading) setVariable(name string) {
	if harmless(name) {
		return
	}
	if i, found := slices.BinarySearch(r.variables, name); !found {
		r.variables = slices.Insert(r.variables, i, name)
	}
	if len(r.variables) > maxSet {
		r.fail("sets too many variables to be understood")
	}
}

func (s *simple) texts() []string {
	texts := make([]string, len(s.words), len(s.words)+1)
	for i, w := range s.words {
		texts[i] = w.text
	}
	if s.open {
		texts = append(texts, "…")
	}
	return texts
}

// cleaned gives s with its paths as short as they can be, so that /bin/./rm is
// not past a rule that denies rm.
func (s *simple) cleaned() *simple {
	long := func(w word) bool {
		return w.known && strings.Contains(w.text, "/") && !strings.HasPrefix(w.text, "./") && path.Clean(w.text) != w.text
	}
	program := len(s.words) > 0 && long(s.words[0])
	if !program && !slices.ContainsFunc(s.writes, long) {
		return s
	}
	c := *s
	if program {
		c.words = slices.Clone(s.words)
		c.words[0].text = path.Clean(c.words[0].text)
	}
	c.writes = slices.Clone(s.writes)
	for i, w := range c.writes {
		if long(w) {
			c.writes[i].text = path.Clean(w.text)
		}
	}
	return &c
}

// doubt tells what is unknown about it, for people; "" where nothing is.
func (s *simple) doubt() string {
	if s.unknown != "" {
		return s.unknown
	}
	for _, w := range slices.Concat(s.words, s.writes, s.reads) {
		if !w.known {
			return "the word " + quoted(w.text) + " is computed at run time"
		}
	}
	if s.open {
		return "further arguments are added at run time"
	}
	return ""
}

func quoted(text string) string {
	const most = 120
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return `"` + strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, text) + `"`
}
