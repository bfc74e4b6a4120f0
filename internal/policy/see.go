package policy

import (
	"slices"
	"strings"
)

// read takes a request apart.
func read(q *Request) *reading {
	r := &reading{}
	r.starts(q.Directory)
	for _, name := range q.EnvNames {
		r.setVariable(name) // whatever the value is: it is not known here
	}
	if q.Sudo {
		words := []word{literal("sudo")}
		if q.SudoUser != "" {
			words = append(words, literal("-u"), literal(q.SudoUser))
		}
		r.simples = append(r.simples, simple{words: words, raises: true, sequel: true})
	}
	switch {
	case q.LoginShell || q.RawShell:
		r.foreign(q)
	case len(q.Argv) > 0:
		s := simple{sequel: true}
		for _, a := range q.Argv {
			s.words = append(s.words, literal(a))
		}
		r.see(s, 0)
	default:
		r.line(q.Line, place{top: true}, 0)
	}
	if r.why != "" {
		r.simples = nil
	}
	for i := range r.simples { // at last, when it is known where the line goes
		s := &r.simples[i]
		if s.unknown != "" || len(s.words) == 0 {
			continue
		}
		if name := r.mayRunOthers(s.words[0].text); name != "" {
			s.unknown = "its program may be " + name + ", which runs what it is given"
		}
	}
	return r
}

// line takes a text apart and sees through its commands. depth counts texts in
// texts.
func (r *reading) line(text string, at place, depth int) {
	if r.read += len(text); depth > maxDepth || r.read > 2*maxText {
		r.fail("is nested too deeply to be understood")
		return
	}
	parsed, why := parse(text)
	if why != "" {
		r.fail(why)
		return
	}
	for _, name := range parsed.variables {
		r.setVariable(name)
	}
	for _, s := range parsed.simples {
		if !at.top {
			s.sequel, s.joined = false, false
		}
		r.see(s, depth)
	}
}

func (r *reading) fail(why string) {
	if r.why == "" {
		r.why = why
	}
}

// foreign reads a line for an unknown shell: plain words, which mean themselves
// wherever there are words at all.
func (r *reading) foreign(q *Request) {
	words := q.Argv
	if len(words) == 0 {
		words = strings.FieldsFunc(q.Line, func(c rune) bool { return c == ' ' || c == '\t' })
	}
	s := simple{sequel: true}
	percents := 0
	for _, w := range words {
		percents += strings.Count(w, "%") // two are a variable on Windows, even with blanks between
		if w == "" || strings.Trim(w, plainRunes) != "" || w[0] == '=' || w[0] == '%' || q.RawShell && percents > 1 {
			r.fail("has more than plain words in it, and nobody knows what the shell of this host makes of that")
			return
		}
		s.words = append(s.words, literal(w))
	}
	if len(words) > 0 && foreignKeywords[words[0]] {
		r.fail(`begins with "` + words[0] + `", which is a keyword for some shells`)
		return
	}
	r.see(s, 0)
}

const plainRunes = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./:=,@%+-"

// foreignKeywords are words that begin something in some shell that is not
// POSIX's: fish, csh, rc.
var foreignKeywords = map[string]bool{
	"and": true, "or": true, "not": true, "begin": true, "end": true, "if": true, "else": true, "while": true, "for": true, "switch": true,
	"case": true, "function": true, "foreach": true, "repeat": true, "onintr": true, "@": true, "time": true, "fn": true,
	"abbr": true, "hashstat": true, "limit": true, "until": true, "do": true, "then": true, "select": true, "coproc": true, "noglob": true,
	"nocorrect": true, "-": true, "whatis": true, "setenv": true, "unsetenv": true, "string": true, "argparse": true, "emit": true,
}

// emit adds a command that is not seen through any further.
func (r *reading) emit(s simple) {
	if len(r.simples) >= maxSimples {
		r.fail("consists of too many commands to be understood")
		return
	}
	r.simples = append(r.simples, s)
}

// unknown adds a command of which nothing is sure but the words.
func (r *reading) unknown(s simple, why string) {
	s.unknown = why
	r.emit(s)
}

// see adds a command and those that it runs.
func (r *reading) see(s simple, depth int) {
	switch {
	case r.why != "":
		return
	case s.unknown != "" || len(s.words) == 0:
		if len(s.words) > 0 || s.open {
			if s.unknown == "" {
				s.unknown = "its program is computed at run time"
			}
			r.emit(s)
		}
		return
	case depth > maxDepth:
		r.unknown(s, "it is nested too deeply to be understood")
		return
	case !s.words[0].known:
		r.unknown(s, "its program is computed at run time")
		return
	case !programForm(s.words[0].text):
		r.unknown(s, "its program has a name that no program should have")
		return
	}
	if isLoader(s.words[0].text) {
		r.unknown(s, s.words[0].text+" runs what it is given, and that is not followed")
		return
	}
	name := plainName(s.words[0].text)
	if s.words[0].text != name && (name == "printf" || name == "test" || name == "[") {
		// These are programs like any other, and not the shell's own.
		r.emit(s)
		return
	}
	if check := builtin(name); check != nil {
		check(r, s, depth)
		return
	}
	if through := wrapper(name); through != nil {
		through(r, s, depth+1)
		return
	}
	if why := opaque[name]; why != "" {
		r.unknown(s, why)
		return
	}
	r.emit(s)
}

func programForm(text string) bool {
	return text == "[" || text != "" && text[0] != '-' && strings.Trim(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./+@%:,-") == ""
}

// inner gives the command that s runs: the same redirections, other words.
func (s simple) inner(words []word) simple {
	s.words = words
	s.raises = false
	return s
}

// options says which options of a program are understood.
type options struct {
	flags   string   // letters alone
	values  string   // letters with a value
	long    []string // without a value: "--null"
	longs   []string // with one: "--signal"
	numbers bool     // -5 is one
}

type option struct {
	name  string // "-n" or "--null"
	value word
}

// strip takes the options off words[1:]; ok is false where one is not
// understood. What remains begins with the first word that is no option.
func (o options) strip(words []word) (rest []word, given []option, ok bool) {
	rest = words[1:]
	for len(rest) > 0 {
		w := rest[0]
		if !w.known {
			return rest, given, len(w.prefix) > 0 && w.prefix[0] != '-'
		}
		if w.text == "-" || !strings.HasPrefix(w.text, "-") {
			break
		}
		rest = rest[1:]
		if w.text == "--" {
			break
		}
		if o.numbers && strings.Trim(w.text[1:], "0123456789") == "" {
			continue
		}
		if strings.HasPrefix(w.text, "--") {
			name, value, has := strings.Cut(w.text, "=")
			switch {
			case !has && slices.Contains(o.long, name):
				given = append(given, option{name: name})
			case has && slices.Contains(o.longs, name):
				given = append(given, option{name, literal(value)})
			case slices.Contains(o.longs, name) && len(rest) > 0 && rest[0].single:
				given = append(given, option{name, rest[0]})
				rest = rest[1:]
			default:
				return nil, nil, false
			}
			continue
		}
		for i := 1; i < len(w.text); i++ {
			letter := w.text[i]
			if strings.IndexByte(o.flags, letter) >= 0 {
				given = append(given, option{name: "-" + string(letter)})
				continue
			}
			if strings.IndexByte(o.values, letter) < 0 {
				return nil, nil, false
			}
			value := literal(w.text[i+1:])
			if value.text == "" {
				if len(rest) == 0 || !rest[0].single {
					return nil, nil, false
				}
				value, rest = rest[0], rest[1:]
			}
			given = append(given, option{"-" + string(letter), value})
			break
		}
	}
	return rest, given, true
}

// users counts the options among given that say as whom something runs. Of two
// the last one counts, and a pattern like "sudo -u app *" names only the first.
func users(given []option) int {
	n := 0
	for _, o := range given {
		switch o.name {
		case "-u", "--user", "-g", "--group":
			n++
		}
	}
	return n
}

// join gives words as the one text that eval and ssh make of them.
func join(words []word) (string, bool) {
	texts := make([]string, len(words))
	for i, w := range words {
		if !w.known {
			return "", false
		}
		texts[i] = w.text
	}
	return strings.Join(texts, " "), true
}

// runsText sees through what s has as text for another shell.
func (r *reading) runsText(s simple, text string, depth int) {
	before := len(r.simples)
	r.line(text, place{}, depth)
	if r.why != "" {
		return
	}
	if r.files += (len(r.simples) - before) * (len(s.writes) + len(s.reads)); r.files > maxFiles {
		r.fail("redirects too much to be understood")
		return
	}
	for i := range r.simples[before:] {
		in := &r.simples[before+i]
		in.writes = slices.Concat(in.writes, s.writes)
		in.reads = slices.Concat(in.reads, s.reads)
		in.heredoc = in.heredoc || s.heredoc
	}
	if before == len(r.simples) && len(s.writes)+len(s.reads) > 0 {
		r.emit(s) // nothing runs, but its files are opened
	}
}
