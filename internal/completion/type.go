package completion

import (
	"fmt"
	"strings"
)

const (
	enter  = "\r"
	quote  = "\x16" // Ctrl-V: the next key is a character
	runKey = "\x1e" // what fish runs _telexec_run for

	// lineMost is how much of a line is typed at once into what edits or takes in lines of
	// limited length: BusyBox takes 1023 bytes, a terminal in canonical mode 4095.
	lineMost = 1000
)

// Type gives the keys that make a shell of this kind run text as one command, with all
// its lines, ended by the code of the last. shell is that of Event.Shell; empty, or one
// that is not known, stands for what is no shell: each line is typed as it is.
//
// A line that is whole in itself is typed as it stands. Others (several lines; an open
// quote, which would wait for its end; a "!", or a "^" at the beginning, which recall the
// history) become eval '…', so that they are read as a script would be: what is
// unfinished is an error with a code. fish reads it like that by itself.
func Type(shell, text string) []byte {
	text = strings.NewReplacer("\r\n", "\n", "\x00", "").Replace(strings.TrimRight(text, "\r\n"))
	switch shell {
	case "bash", "zsh":
		if plain(text) && whole(text) && !recalls(text) {
			return []byte(text + enter)
		}
		return []byte(literally("eval '"+strings.ReplaceAll(text, "'", `'\''`)+"'", quote+"\n") + enter)
	case "fish":
		return []byte("\x1b[200~" + strings.ReplaceAll(text, "\x1b", "") + "\x1b[201~" + runKey)
	case "ksh", "ksh93", "mksh", "ash":
		if plain(text) && whole(text) && len(text) <= lineMost {
			return []byte(text + enter)
		}
		return []byte("eval " + ansiQuoted(text) + enter)
	case "dash", "sh":
		// What is called sh may be bash.
		if plain(text) && whole(text) && len(text) <= lineMost && !(shell == "sh" && recalls(text)) {
			return []byte(text + enter)
		}
		return []byte(literally("eval "+pieces(text), enter) + enter)
	}
	return []byte(strings.ReplaceAll(text, "\n", enter) + enter)
}

// recalls reports whether text may stand for something in the history: a ! that is not
// the last character, or before a blank or =, anywhere; a ^ at the beginning of a line.
// bash takes !( for a pattern where extglob is on, and zsh always; which of them that is
// is not known here. zsh does not care for blanks before the ^.
func recalls(text string) bool {
	for line := range strings.SplitSeq(text, "\n") {
		if strings.HasPrefix(strings.TrimLeft(line, " \t"), "^") {
			return true
		}
	}
	for {
		_, behind, found := strings.Cut(text, "!")
		if !found {
			return false
		}
		if behind != "" && !strings.ContainsRune(" \t\n=", rune(behind[0])) {
			return true
		}
		text = behind
	}
}

// plain reports whether text has nothing that a line editor takes for a key.
func plain(text string) bool { return strings.IndexFunc(text, control) < 0 }

func control(r rune) bool { return r < ' ' || r == 0x7f }

// literally types text so that its control characters are characters, and its line ends
// the keys lineEnd.
func literally(text, lineEnd string) string {
	var b strings.Builder
	for _, part := range strings.SplitAfter(text, "\n") {
		line, ended := strings.CutSuffix(part, "\n")
		for i := range len(line) {
			if control(rune(line[i])) {
				b.WriteString(quote)
			}
			b.WriteByte(line[i])
		}
		if ended {
			b.WriteString(lineEnd)
		}
	}
	return b.String()
}

// pieces puts text in single quotes, over as many lines as it needs.
func pieces(text string) string {
	var b strings.Builder
	b.WriteByte('\'')
	n := len("eval '")
	for _, r := range runes(text) {
		switch {
		case r == "\n":
			n = 0
		case n >= lineMost:
			b.WriteString("'\\\n'")
			n = 1
		}
		if r == "'" {
			r = `'\''`
		}
		b.WriteString(r)
		n += len(r)
	}
	b.WriteByte('\'')
	return b.String()
}

// ansiQuoted puts text in the quotes $'…', which have no line ends, over as many lines
// as it needs.
func ansiQuoted(text string) string {
	var b strings.Builder
	b.WriteString("$'")
	n := len("eval $'")
	for _, r := range runes(text) {
		if n >= lineMost {
			b.WriteString("'\\\r$'")
			n = 2
		}
		switch c := r[0]; {
		case c == '\n':
			r = `\n`
		case c == '\t':
			r = `\t`
		case c == '\\' || c == '\'':
			r = `\` + r
		case control(rune(c)):
			r = fmt.Sprintf(`\%03o`, c)
		}
		b.WriteString(r)
		n += len(r)
	}
	b.WriteByte('\'')
	return b.String()
}

// runes cuts text into characters, and bytes that are none.
func runes(text string) []string { return strings.Split(text, "") }

// ends are the words that end what others begin.
var ends = map[string]string{
	"if": "fi", "while": "done", "until": "done", "for": "done", "select": "done", "case": "esac", "{": "}", "[[": "]]",
}

// whole reports whether a shell is sure to read the line to its end and then run it: no
// quote, substitution or compound command is open. Where that takes more than a glance
// it says no.
func whole(line string) bool {
	if strings.Contains(line, "<<") || strings.Contains(line, "$'") {
		return false
	}
	for _, body := range strings.Split(line, "()")[1:] {
		if !strings.HasPrefix(strings.TrimLeft(body, " "), "{") {
			return false // of a function, and still to come
		}
	}
	var (
		open  []string // what the compound commands that are open end with
		deep  int      // parentheses
		wrong bool     // something is closed that was not open
		file  bool     // word is where a redirection goes
		word  string   // so far; what is quoted in it counts as x
		first = true   // word is where a command may begin
	)
	shut := func() {
		if n := len(open) - 1; n >= 0 && open[n] == word {
			open = open[:n]
		} else {
			wrong = true
		}
	}
	end := func() {
		if word == "" {
			return
		}
		wrong = wrong || subscript(word)
		if file {
			word, file = "", false
			return
		}
		was := first
		first = false
		if was {
			switch word {
			case "if", "while", "until", "{":
				open = append(open, ends[word])
				first = true
			case "for", "select", "case", "[[":
				open = append(open, ends[word])
			case "fi", "done", "esac", "}":
				shut()
			case "function", "coproc", "repeat", "foreach":
				wrong = true // what follows depends on the shell
			case "then", "else", "elif", "do", "!", "time":
				first = true
			}
		}
		if word == "]]" && !was {
			shut()
		}
		word = ""
	}
	for i := 0; i < len(line); i++ {
		switch c := line[i]; c {
		case '\\':
			if i++; i == len(line) {
				return false
			}
			word += "x"
		case '\'', '"', '`':
			n := closing(line[i+1:], c)
			if n < 0 || c == '`' && strings.ContainsAny(line[i+1:i+1+n], "'\"\\(") {
				return false
			}
			i += 1 + n
			word += "x"
		case '$':
			word += "x"
			if strings.HasPrefix(line[i:], "${") {
				n := strings.IndexByte(line[i:], '}')
				if n < 0 || strings.ContainsAny(line[i+2:i+n], " '\"\\`$(){<>;&|") {
					return false
				}
				i += n
			}
		case '#':
			if word == "" {
				return false // whether it begins a comment depends on the shell
			}
			word += "x"
		case ' ':
			end()
		case '<', '>':
			end()
			file = true
		case '(', ')', ';', '|', '&':
			end()
			first, file = true, false
			switch c {
			case '(':
				deep++
			case ')':
				deep--
				wrong = wrong || deep < 0
			}
		default:
			word += string(c)
		}
	}
	end()
	line = strings.TrimRight(line, " ")
	return len(open) == 0 && deep == 0 && !wrong && !strings.HasSuffix(line, "|") && !strings.HasSuffix(line, "&&") && !strings.HasSuffix(line, "|&")
}

// subscript reports whether a [ in a word is still open: a subscript or an expression
// goes on behind blanks, and over lines.
func subscript(word string) bool {
	if word == "[" || word == "[[" {
		return false
	}
	deep := 0
	for i := range len(word) {
		switch word[i] {
		case '[':
			deep++
		case ']':
			deep = max(0, deep-1)
		}
	}
	return deep > 0
}

// closing gives where in s the quote, or parenthesis, is closed by c; below 0: nowhere.
func closing(s string, c byte) int {
	for i := 0; i < len(s); i++ {
		if s[i] == c {
			return i
		}
		if c == '\'' {
			continue
		}
		inner := byte(0)
		switch {
		case s[i] == '\\':
			i++
		case c == '"' && s[i] == '`', c == ')' && (s[i] == '`' || s[i] == '"' || s[i] == '\''):
			inner = s[i]
		case s[i] == '(' && (c == ')' || c == '"' && i > 0 && s[i-1] == '$'):
			inner = ')'
		}
		if inner != 0 {
			n := closing(s[i+1:], inner)
			if n < 0 {
				return -1
			}
			i += 1 + n
		}
	}
	return -1
}
