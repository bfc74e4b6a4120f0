package policy

import (
	"slices"
	"strings"
)

// builtin gives the seer of a command of shells themselves that does more than
// run and end: it runs a text, sets variables, or evaluates its arguments. It
// is nil for all others.
func builtin(name string) seer {
	switch name {
	case "eval":
		return seeEval
	case "trap":
		return seeTrap
	case "command":
		return seeCommand
	case "builtin", "exec":
		return around(options{}, 0, false)
	case "export", "readonly":
		return seeExport
	case "unset":
		return seeUnset
	case "read":
		return seeRead
	case "test", "[":
		return seeTest
	case "printf":
		return seePrintf
	case ".", "source":
		return seeSource
	case "cd", "chdir", "pushd", "popd":
		return seeMove
	case "exit", "return", "break", "continue", "shift", "wait":
		return seeNumbers
	case "ulimit":
		return seeLimit
	}
	return nil
}

func seeEval(r *reading, s simple, depth int) {
	text, known := join(s.words[1:])
	if !known || s.open || strings.HasPrefix(text, "-") {
		r.unknown(s, "the text for eval is computed at run time")
		return
	}
	r.runsText(s, text, depth+1)
}

func seeTrap(r *reading, s simple, depth int) {
	words := s.words[1:]
	if len(words) > 0 && words[0].known && words[0].text == "--" {
		words = words[1:]
	}
	text, known := join(words)
	switch {
	case !known || s.open, strings.HasPrefix(text, "-") && !strings.HasPrefix(text, "- "):
		r.unknown(s, "the text for trap is computed at run time")
	case len(words) < 2 || words[0].text == "-":
		r.runsText(s, "", depth+1)
	default:
		r.runsText(s, words[0].text, depth+1)
	}
}

// seeCommand sees through command NAME; command -v NAME only asks.
func seeCommand(r *reading, s simple, depth int) {
	if len(s.words) > 1 && s.words[1].known && (s.words[1].text == "-v" || s.words[1].text == "-V") {
		r.emit(s)
		return
	}
	around(options{flags: "p"}, 0, false)(r, s, depth+1)
}

// seeExport takes export and readonly as the assignments they are.
func seeExport(r *reading, s simple, _ int) {
	for _, w := range s.words[1:] {
		if w.known && w.text == "-p" {
			continue
		}
		name, _, has := strings.Cut(w.prefix, "=")
		if !isName(name) || !has && !w.known || !w.single {
			r.unknown(s, "what "+s.words[0].text+" sets is computed at run time")
			return
		}
		r.assign(w)
	}
	r.assigns(s)
}

func seeUnset(r *reading, s simple, _ int) {
	for _, w := range s.words[1:] {
		if !w.known || !isName(w.text) && w.text != "-v" {
			r.unknown(s, "what unset takes away is not understood")
			return
		}
		if w.text != "-v" {
			r.setVariable(w.text)
		}
	}
	r.assigns(s)
}

// assigns ends a command that only sets variables: nothing runs.
func (r *reading) assigns(s simple) {
	if s.open {
		r.unknown(s, "what "+s.words[0].text+" sets is computed at run time")
	} else if len(s.writes)+len(s.reads) > 0 || s.words[len(s.words)-1].text == "-p" || len(s.words) == 1 {
		r.emit(s)
	}
}

func seeRead(r *reading, s simple, _ int) {
	names := 0
	for _, w := range s.words[1:] {
		switch {
		case w.known && w.text == "-r" && names == 0:
		case w.known && isName(w.text):
			names++
			r.setVariable(w.text)
		default:
			r.unknown(s, "what read sets is not understood")
			return
		}
	}
	if names == 0 || s.open {
		r.unknown(s, "what read sets is not understood")
		return
	}
	r.emit(s)
}

// seeTest passes those forms of test that compare texts and look at files.
// Numbers are expressions for some shells, and a subscript in one may run
// commands.
func seeTest(r *reading, s simple, _ int) {
	args := s.words[1:]
	if s.words[0].text == "[" {
		if len(args) == 0 || !args[len(args)-1].known || args[len(args)-1].text != "]" {
			r.unknown(s, "what [ is given is not understood")
			return
		}
		args = args[:len(args)-1]
	}
	if len(args) > 0 && args[0].known && args[0].text == "!" && len(args) > 1 {
		args = args[1:]
	}
	ok := !s.open
	for _, w := range args {
		ok = ok && w.single
	}
	is := func(i int, texts ...string) bool { return args[i].known && slices.Contains(texts, args[i].text) }
	switch {
	case !ok || len(args) == 0:
	case len(args) == 1:
	case len(args) == 2:
		ok = is(0, "-n", "-z", "-e", "-f", "-d", "-r", "-w", "-x", "-s", "-h", "-L", "-b", "-c", "-p", "-S", "-g", "-u", "-k", "-O", "-G")
	case len(args) == 3 && is(1, "=", "!=", "-nt", "-ot", "-ef"):
	case len(args) == 3 && is(1, "-eq", "-ne", "-lt", "-le", "-gt", "-ge"):
		ok = number(args[0]) && number(args[2])
	default:
		ok = false
	}
	if !ok {
		r.unknown(s, "what "+s.words[0].text+" compares may be evaluated by some shells")
		return
	}
	r.emit(s)
}

// number reports whether w is a plain number, or $? or $#, which are.
func number(w word) bool {
	if !w.known {
		return slices.Contains([]string{"$?", "$#", `"$?"`, `"$#"`}, w.text)
	}
	digits := strings.TrimPrefix(w.text, "-")
	return digits != "" && strings.Trim(digits, "0123456789") == ""
}

// seePrintf passes formats that take their arguments as text. For %d some
// shells evaluate them.
func seePrintf(r *reading, s simple, _ int) {
	ok := len(s.words) > 1 && s.words[1].known && !strings.HasPrefix(s.words[1].text, "-")
	numeric := false
	if ok {
		format := s.words[1].text
		for i := 0; i < len(format); i++ {
			if format[i] != '%' {
				continue
			}
			for i++; i < len(format) && strings.IndexByte("-+ #0123456789.", format[i]) >= 0; i++ {
			}
			if i == len(format) || strings.IndexByte("sbcq%", format[i]) < 0 {
				numeric = true
			}
		}
		for _, w := range s.words[2:] {
			ok = ok && (!numeric || number(w))
		}
		ok = ok && !(numeric && s.open)
	}
	if !ok {
		r.unknown(s, "what printf is given may be evaluated by some shells")
		return
	}
	r.emit(s)
}

// seeSource passes . and source, which a rule must name as they are.
func seeSource(r *reading, s simple, _ int) {
	s.named = true
	r.emit(s)
}

func seeMove(r *reading, s simple, _ int) {
	// Without an operand, and with some that begin with - or +, it goes to where
	// variables or the shell itself say.
	if w := s.words; len(w) == 2 && !s.open && w[0].text != "popd" && w[1].known && w[1].text != "" && strings.IndexByte("-+", w[1].text[0]) < 0 {
		r.goes(w[1].text)
	} else {
		r.strays()
	}
	s.goes = true
	r.emit(s)
}

func seeNumbers(r *reading, s simple, _ int) {
	for _, w := range s.words[1:] {
		if !number(w) {
			r.unknown(s, "what "+s.words[0].text+" is given may be evaluated by some shells")
			return
		}
	}
	if s.open {
		r.unknown(s, "what "+s.words[0].text+" is given may be evaluated by some shells")
		return
	}
	r.emit(s)
}

func seeLimit(r *reading, s simple, _ int) {
	for _, w := range s.words[1:] {
		if !number(w) && !(w.known && (w.text == "unlimited" || len(w.text) == 2 && w.text[0] == '-')) {
			r.unknown(s, "what ulimit is given may be evaluated by some shells")
			return
		}
	}
	r.emit(s)
}
