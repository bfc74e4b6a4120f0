package policy

import (
	"strings"

	"mvdan.cc/sh/v3/syntax"
)

// building puts a word together from its parts.
type building struct {
	c      *collector
	value  strings.Builder
	prefix string
	// computed: the value is not known from here on, and prefix is what was.
	computed bool
	single   bool
	files    bool // what is computed is names of files only
	bare     bool
}

// word gives what is known of a word, and walks the commands in it.
func (c *collector) word(w *syntax.Word) word {
	b := building{c: c, single: true, files: true, bare: true}
	if lit := w.Lit(); lit == "{}" || lit == "[" {
		// find's, which is no brace expansion, and test's, which is no pattern.
		return word{text: lit, known: true, prefix: lit, single: true, bare: true}
	}
	b.parts(w.Parts, false)
	if b.computed {
		return word{text: c.source(w), prefix: b.prefix, single: b.single, files: b.files, bare: b.bare}
	}
	text := b.value.String()
	return word{text: text, known: true, prefix: text, single: true, bare: b.bare}
}

// compute ends what is known of the word.
func (b *building) compute(files, single bool) {
	if !b.computed {
		b.computed, b.prefix = true, b.value.String()
	}
	b.files = b.files && files
	b.single = b.single && single
}

func (b *building) parts(parts []syntax.WordPart, quoted bool) {
	c := b.c
	for i, part := range parts {
		if c.why != "" {
			return
		}
		switch part := part.(type) {
		case *syntax.Lit:
			b.literal(part.Value, quoted, following(parts[i+1:]))
		case *syntax.SglQuoted:
			b.bare = false
			if part.Dollar || quoted {
				c.fail("has $'…' in it, which only some shells have")
				return
			}
			b.value.WriteString(part.Value)
		case *syntax.DblQuoted:
			b.bare = false
			if part.Dollar || quoted {
				c.fail(`has $"…" in it, which only some shells have`)
				return
			}
			b.parts(part.Parts, true)
		case *syntax.ParamExp:
			b.bare = false
			name := ""
			if part.Param != nil {
				name = part.Param.Value
			}
			// Numbers are not split: that would need an IFS with digits in it.
			plain := part.Exp == nil && (name == "?" || name == "#" || name == "$")
			b.compute(false, plain || quoted && name != "@")
			b.parameter(part, following(parts[i+1:]))
		case *syntax.CmdSubst:
			b.bare = false
			b.compute(false, quoted)
			b.substitute(part, quoted)
		case *syntax.ArithmExp:
			b.bare = false
			b.compute(false, quoted)
			// A variable's value is an expression again, and a subscript in it may run
			// commands, so only numbers are understood.
			if part.Bracket || part.Unsigned || strings.Trim(strings.TrimPrefix(c.source(part), "$(("), "0123456789 +-*/%()<>=!&|^~?:") != "" {
				c.fail("computes with more than numbers, which may run commands in some shells")
			}
		default:
			c.fail("has an expansion that only some shells have")
		}
	}
}

// following gives the text behind a piece of text: "" at the end, and something
// that stands for no blank where that is no text.
func following(parts []syntax.WordPart) string {
	if len(parts) == 0 {
		return ""
	}
	if l, ok := parts[0].(*syntax.Lit); ok {
		return l.Value
	}
	return "?"
}

// literal adds a piece of text as it stands in the source, with its backslashes;
// next is what stands behind it.
func (b *building) literal(text string, quoted bool, next string) {
	for i := 0; i < len(text); i++ {
		ch := text[i]
		switch {
		case ch == '\\' && i+1 < len(text) && (!quoted || strings.IndexByte("$`\"\\\n", text[i+1]) >= 0):
			b.bare = false
			i++
			ch = text[i]
			if !quoted && ch >= 0x80 {
				b.c.fail("has characters beyond ASCII outside quotes")
			}
		case ch == '\\' && !quoted:
			b.c.fail("ends in a backslash")
		case ch == '$':
			// Alone it means itself. Before anything else some shells see an expansion.
			if behind := text[i+1:] + next; behind != "" && !(quoted && (behind[0] == ' ' || behind[0] == '\n')) {
				b.c.fail("has a $ in it that different shells read differently; put it in single quotes")
			}
		case quoted:
		case ch >= 0x80:
			b.c.fail("has characters beyond ASCII outside quotes")
		case ch == '*' || ch == '?' || ch == '[':
			b.bare = false
			b.compute(true, false)
		case ch == '{' && strings.HasPrefix(text[i:], "{}"):
			b.value.WriteByte(ch) // find's and xargs'; nothing to expand
			i++
			ch = '}'
		case ch == '{' || ch == '}':
			b.compute(false, false)
		case ch == '~', ch == '=' && i == 0 && len(text)+len(next) > 1 && b.value.Len() == 0 && !b.computed:
			b.compute(false, true)
		}
		b.value.WriteByte(ch)
	}
}

// parameter checks an expansion of a variable; next is the text behind it.
func (b *building) parameter(p *syntax.ParamExp, next string) {
	c := b.c
	if p.Param == nil || p.Flags != nil || p.Excl || p.Width || p.IsSet || p.Split != syntax.OptUnset || p.GlobSubst != syntax.OptUnset ||
		p.RcExpand != syntax.OptUnset || p.NestedParam != nil || p.Index != nil || len(p.Modifiers) > 0 || p.Slice != nil || p.Repl != nil || p.Names != 0 {
		c.fail("has an expansion of a variable that only some shells have")
		return
	}
	name := p.Param.Value
	if !isName(name) && strings.Trim(name, "0123456789") != "" && !(len(name) == 1 && strings.Contains("?#$!@*-", name)) {
		c.fail("has an expansion of a variable that only some shells have")
		return
	}
	if p.Short && (strings.HasPrefix(next, "[") || len(next) > 1 && next[0] == ':' && next[1] != '/' && next[1] != ' ' && next[1] != '\n') {
		c.fail("has an expansion of a variable that zsh reads differently; write ${" + name + "}")
		return
	}
	if p.Exp == nil {
		return
	}
	if p.Length {
		c.fail("has an expansion of a variable that only some shells have")
		return
	}
	switch p.Exp.Op {
	case syntax.AlternateUnset, syntax.AlternateUnsetOrNull, syntax.DefaultUnset, syntax.DefaultUnsetOrNull, syntax.ErrorUnset, syntax.ErrorUnsetOrNull,
		syntax.RemSmallSuffix, syntax.RemLargeSuffix, syntax.RemSmallPrefix, syntax.RemLargePrefix:
	default:
		// := sets the variable, which would have to be told apart by name.
		c.fail("has an expansion of a variable that only some shells have, or that sets it")
		return
	}
	if p.Exp.Word == nil {
		return
	}
	for _, part := range p.Exp.Word.Parts {
		// What quotes mean in there depends on the shell.
		l, ok := part.(*syntax.Lit)
		if !ok || strings.IndexFunc(l.Value, func(r rune) bool {
			return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("_./:,@%+=*?- ", r))
		}) >= 0 {
			c.fail("has more than plain text in ${…}, which shells read differently")
			return
		}
	}
}

// substitute walks the commands of a command substitution.
func (b *building) substitute(s *syntax.CmdSubst, quoted bool) {
	c := b.c
	text := c.source(s)
	switch {
	case s.TempFile || s.ReplyVar:
		c.fail("has a substitution that only some shells have")
	case c.depth >= maxDepth:
		c.fail("is nested too deeply to be understood")
	case s.Backquotes && (strings.Contains(text, `\`) || quoted && strings.ContainsAny(text, `"'`)):
		c.fail("has quotes within backquotes, which shells read differently; write $(…)")
	case strings.Contains(text, "<<"):
		c.fail("has a here-document in a substitution, which shells read differently")
	case comment(text):
		c.fail("has a comment in a substitution, which shells read differently")
	}
	if c.why != "" {
		return
	}
	c.depth++
	c.list(s.Stmts, place{})
	c.depth--
}

// comment reports whether something in text may be the start of a comment.
func comment(text string) bool {
	for i := 1; i < len(text); i++ {
		if text[i] == '#' && strings.IndexByte(" \t\n;&|()`", text[i-1]) >= 0 {
			return true
		}
	}
	return false
}
