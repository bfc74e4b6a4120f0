package policy

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"mvdan.cc/sh/v3/syntax"
)

// Bounds of what is read. Beyond them a text is unknown.
const (
	maxText     = 128 << 10 // bytes
	maxOpenings = 2000      // brackets and words that open something: how deep the parser may go
	maxDepth    = 16        // substitutions in substitutions, texts in texts
	maxSimples  = 1000      // simple commands
	maxRedirs   = 16        // of one command
	maxFiles    = 4000      // read and written, counted for every command
	maxSet      = 1000      // variables
)

// dialects are the grammars in which a text must mean the same.
var dialects = []syntax.LangVariant{syntax.LangPOSIX, syntax.LangBash, syntax.LangMirBSDKorn, syntax.LangZsh}

// parsers are kept, since making one costs more than a short line; one pool for
// each of dialects.
var parsers = func() []*sync.Pool {
	var pools []*sync.Pool
	for _, d := range dialects {
		pools = append(pools, &sync.Pool{New: func() any { return syntax.NewParser(syntax.Variant(d)) }})
	}
	return pools
}()

// raw is what one grammar makes of a text: its simple commands in the order of
// the text, not yet seen through, and the variables it sets.
type raw struct {
	simples   []simple
	variables []string
	// besides: something happens that neither of these tells, such as the
	// assignment of a number to COLUMNS.
	besides bool
}

// parse takes a text apart. It gives why not, in words that end a sentence
// beginning with "the command".
func parse(text string) (raw, string) {
	if why := scan(text); why != "" {
		return raw{}, why
	}
	var first raw
	for i := range dialects {
		file, err := parseAs(i, text)
		if err != nil {
			if i > 0 {
				return raw{}, "is read differently by different shells"
			}
			return raw{}, "is not what a POSIX shell understands (" + err.Error() + ")"
		}
		c := collector{text: text}
		c.list(file.Stmts, place{top: true})
		if c.why != "" {
			return raw{}, c.why
		}
		if i == 0 {
			first = raw{c.simples, c.variables, c.besides}
		} else if !sameRaw(first, raw{c.simples, c.variables, c.besides}) {
			return raw{}, "is read differently by different shells"
		}
	}
	return first, ""
}

// parseAs parses text by the grammar of dialects[i]. The parser reads what
// anybody sends; a defect of it that ends in a panic is a text not understood.
func parseAs(i int, text string) (file *syntax.File, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the parser failed: %v", p)
		}
	}()
	p := parsers[i].Get().(*syntax.Parser)
	file, err = p.Parse(strings.NewReader(text), "")
	parsers[i].Put(p)
	return file, err
}

func sameRaw(a, b raw) bool {
	return a.besides == b.besides && slices.Equal(a.variables, b.variables) && slices.EqualFunc(a.simples, b.simples, func(s, t simple) bool {
		return slices.Equal(s.words, t.words) && slices.Equal(s.writes, t.writes) && slices.Equal(s.reads, t.reads) &&
			s.unknown == t.unknown && s.sequel == t.sequel && s.joined == t.joined && s.heredoc == t.heredoc
	})
}

// scan refuses texts before they reach a parser: those that are too much for
// it, and characters about which shells disagree.
func scan(text string) string {
	if len(text) > maxText {
		return "is too long to be understood"
	}
	openings := 0
	wordStart := 0
	documents := strings.Contains(text, "<<")
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\n' && i > 0 && text[i-1] == '\\' && i > 1 && !strings.ContainsRune(" \t\n", rune(text[i-2])):
			return "continues a line within a word"
		case c == '\n' && i > 0 && text[i-1] == '\\' && strings.Contains(text[strings.LastIndexByte(text[:i], '\n')+1:i], "#"):
			// A comment ends with its line whatever stands there; the parser goes on.
			return "has a comment, or a #, in a line that it continues"
		case c == '\n' && i > 0 && text[i-1] == '\\' && documents:
			// The line behind it may end a here-document, or may not.
			return "continues a line and has a here-document, of which different shells see the end in different places"
		case c < ' ' && c != '\t' && c != '\n', c == 0x7f:
			return "has control characters in it"
		case c >= 0x80 && i+1 < len(text) && (text[i+1] == '\\' || text[i+1] == '`'):
			// The second byte of a character in some encodings.
			return "is read differently in different character sets"
		case c == '(' || c == '{' || c == '`' || c == '!':
			openings++
		}
		if !('a' <= text[i] && text[i] <= 'z') {
			wordStart = i + 1
		} else if i+1 == len(text) || !('a' <= text[i+1] && text[i+1] <= 'z') {
			switch text[wordStart : i+1] {
			case "if", "elif", "while", "until", "for", "case", "select", "function", "coproc", "time", "repeat", "foreach":
				openings++
			}
		}
	}
	if openings > maxOpenings {
		return "is nested too deeply to be understood"
	}
	return ""
}

// collector walks what one grammar made of a text.
type collector struct {
	text      string
	simples   []simple
	variables []string
	besides   bool   // see raw
	why       string // the first thing that is not understood; ends the walk
	depth     int    // of substitutions
	files     int    // of simples, see maxFiles
}

// place is where a statement stands.
type place struct {
	top    bool // in a plain sequence (; && newline) at the top
	joined bool // to the one before by &&
}

func (c *collector) fail(why string) {
	if c.why == "" {
		c.why = why
	}
}

func (c *collector) emit(s simple) {
	if len(c.simples) >= maxSimples {
		c.fail("consists of too many commands to be understood")
		return
	}
	c.simples = append(c.simples, s)
}

// opaque emits a command of which only why is known.
func (c *collector) opaque(n syntax.Node, why string) {
	c.emit(simple{words: []word{{text: c.source(n)}}, unknown: why})
}

func (c *collector) source(n syntax.Node) string {
	from, to := int(n.Pos().Offset()), int(n.End().Offset())
	if from > to || to > len(c.text) {
		return ""
	}
	return c.text[from:to]
}

func (c *collector) set(name string) {
	if i, found := slices.BinarySearch(c.variables, name); !found {
		c.variables = slices.Insert(c.variables, i, name)
	}
	if len(c.variables) > maxSet {
		c.fail("sets too many variables to be understood")
	}
}

func (c *collector) list(stmts []*syntax.Stmt, at place) {
	for _, s := range stmts {
		c.stmt(s, at)
	}
}

// stmt walks a statement. Its redirections count for every command in it.
func (c *collector) stmt(s *syntax.Stmt, at place) {
	if c.why != "" {
		return
	}
	if s.Coprocess || s.Disown {
		c.fail("starts a coprocess or a disowned job")
		return
	}
	if s.Negated || s.Background {
		at = place{}
	}
	if len(s.Redirs) > maxRedirs {
		c.fail("redirects too much to be understood")
		return
	}
	var to simple
	for _, r := range s.Redirs {
		c.redirect(r, &to)
	}
	before := len(c.simples)
	if s.Cmd != nil {
		c.command(s.Cmd, at)
	}
	if len(s.Redirs) == 0 || c.why != "" {
		return
	}
	if before == len(c.simples) {
		c.opaque(s, "a redirection without a command means different things to different shells")
	}
	if c.files += (len(c.simples) - before) * (len(to.reads) + len(to.writes)); c.files > maxFiles {
		c.fail("redirects too much to be understood")
		return
	}
	for i := range c.simples[before:] {
		in := &c.simples[before+i]
		in.writes = append(in.writes, to.writes...)
		in.reads = append(in.reads, to.reads...)
		in.heredoc = in.heredoc || to.heredoc
	}
	switch s.Cmd.(type) {
	case *syntax.CallExpr, *syntax.DeclClause: // of others it is the group that has them
		c.simples[len(c.simples)-1].redirections = to.redirections
	}
}

func (c *collector) command(cmd syntax.Command, at place) {
	switch cmd := cmd.(type) {
	case *syntax.CallExpr:
		c.call(cmd, at)
	case *syntax.DeclClause:
		c.declare(cmd, at)
	case *syntax.BinaryCmd:
		x, y := place{}, place{}
		switch cmd.Op {
		case syntax.AndStmt:
			x, y = at, place{top: at.top, joined: true}
		case syntax.OrStmt, syntax.Pipe:
		default:
			c.fail("joins commands in a way that different shells read differently")
		}
		c.stmt(cmd.X, x)
		c.stmt(cmd.Y, y)
	case *syntax.Block:
		c.list(cmd.Stmts, place{})
	case *syntax.Subshell:
		c.list(cmd.Stmts, place{})
	case *syntax.IfClause:
		for i := cmd; i != nil; i = i.Else {
			c.list(i.Cond, place{})
			c.list(i.Then, place{})
		}
	case *syntax.WhileClause:
		c.list(cmd.Cond, place{})
		c.list(cmd.Do, place{})
	case *syntax.ForClause:
		c.loop(cmd)
	case *syntax.CaseClause:
		c.choice(cmd)
	case *syntax.TimeClause:
		if cmd.Stmt == nil {
			c.besides = true
			return
		}
		c.stmt(cmd.Stmt, place{})
	case *syntax.FuncDecl:
		c.opaque(cmd, "it declares a function, which then stands for any program")
	default:
		c.opaque(cmd, "it is a construct that only some shells have")
	}
}

func (c *collector) loop(f *syntax.ForClause) {
	iter, ok := f.Loop.(*syntax.WordIter)
	if !ok || f.Select || f.Braces || !isName(iter.Name.Value) {
		c.fail("has a loop that only some shells have")
		return
	}
	c.set(iter.Name.Value)
	for _, w := range iter.Items {
		c.word(w)
	}
	c.list(f.Do, place{})
}

func (c *collector) choice(cl *syntax.CaseClause) {
	if cl.Braces || c.depth > 0 {
		c.fail("has a case that different shells read differently")
		return
	}
	c.besides = true // its word, which ${x?} makes the end of the shell
	c.word(cl.Word)
	for _, item := range cl.Items {
		if item.Op != syntax.Break {
			c.fail("has a case that only some shells have")
		}
		for _, p := range item.Patterns {
			c.word(p)
		}
		c.list(item.Stmts, place{})
	}
}

// call walks a simple command.
func (c *collector) call(call *syntax.CallExpr, at place) {
	c.besides = c.besides || len(call.Assigns) > 0
	for _, a := range call.Assigns {
		if a.Append || a.Naked || a.Index != nil || a.Array != nil || a.Name == nil || !isName(a.Name.Value) {
			c.fail("sets a variable in a way that only some shells have")
			return
		}
		var value word
		if a.Value != nil {
			value = c.word(a.Value)
		}
		if !value.known || !isPlain(a.Name.Value, value.text) {
			c.set(a.Name.Value)
		}
	}
	words := make([]word, 0, len(call.Args))
	for _, w := range call.Args {
		words = append(words, c.word(w))
	}
	// time is a keyword for some shells and a program for others.
	if len(call.Assigns) == 0 && len(words) > 0 && words[0].bare && words[0].text == "time" {
		at = place{}
		words = words[1:]
		if len(words) > 0 && words[0].bare && words[0].text == "-p" {
			words = words[1:]
		}
		c.besides = c.besides || len(words) == 0
	}
	if len(words) == 0 || c.why != "" {
		return
	}
	if words[0].bare && keywords[words[0].text] {
		c.fail(`begins with "` + words[0].text + `", which is a keyword for some shells`)
		return
	}
	c.emit(simple{words: words, sequel: at.top, joined: at.joined})
}

// keywords are words of the grammar of some shell that POSIX does not know as
// such.
var keywords = map[string]bool{
	"[[": true, "]]": true, "function": true, "select": true, "coproc": true, "foreach": true, "repeat": true, "end": true, "nocorrect": true,
	"noglob": true, "-": true, "let": true, "declare": true, "typeset": true, "nameref": true, "integer": true, "float": true, "local": true,
	"time": true, "always": true, "namespace": true, "{}": true, "{": true, "}": true, "!": true,
}

// declare walks what bash, mksh and zsh have a grammar for, and POSIX has not:
// export x=1.
func (c *collector) declare(d *syntax.DeclClause, at place) {
	words := []word{{text: d.Variant.Value, known: true, prefix: d.Variant.Value, single: true, bare: true}}
	for _, a := range d.Args {
		switch {
		case a.Append || a.Index != nil || a.Array != nil:
			c.fail("sets a variable in a way that only some shells have")
			return
		case a.Name == nil && a.Value != nil:
			words = append(words, c.word(a.Value))
		case a.Naked:
			words = append(words, word{text: a.Name.Value, known: true, prefix: a.Name.Value, single: true, bare: true})
		default:
			w := word{known: true, single: true, bare: true}
			if a.Value != nil {
				w = c.word(a.Value)
			}
			w.text, w.prefix = a.Name.Value+"="+w.text, a.Name.Value+"="+w.prefix
			words = append(words, w)
		}
	}
	if c.why != "" {
		return
	}
	if keywords[words[0].text] {
		c.fail(`begins with "` + words[0].text + `", which is a keyword for some shells`)
		return
	}
	c.emit(simple{words: words, sequel: at.top, joined: at.joined})
}

// plainDocument reports whether the here-document begins right behind the line
// of its operator, and whether no expansion in it goes over a line end. Some
// shells look for its end line by line, and others read what is in between first.
func (c *collector) plainDocument(r *syntax.Redirect) bool {
	at := int(r.OpPos.Offset())
	end := strings.IndexByte(c.text[at:], '\n')
	if end < 0 || r.Hdoc == nil || len(r.Hdoc.Parts) == 0 {
		// An empty one: the line behind must be its end.
		line, _, _ := strings.Cut(c.text[at+end+1:], "\n")
		return end >= 0 && strings.TrimLeft(line, "\t") == strings.Trim(c.source(r.Word), `'"`)
	}
	body := int(r.Hdoc.Pos().Offset())
	if first := at + end + 1; body < first || strings.Trim(c.text[first:body], "\t") != "" {
		return false
	}
	for _, part := range r.Hdoc.Parts {
		if _, text := part.(*syntax.Lit); !text && strings.Contains(c.source(part), "\n") {
			return false
		}
	}
	return true
}

// redirect walks a redirection and adds what it reads and writes to to.
func (c *collector) redirect(r *syntax.Redirect, to *simple) {
	if r.N != nil && (len(r.N.Value) != 1 || r.N.Value[0] < '0' || r.N.Value[0] > '9') {
		c.fail("redirects in a way that different shells read differently")
		return
	}
	switch r.Op {
	case syntax.Hdoc, syntax.DashHdoc:
		delimiter := strings.Trim(c.source(r.Word), `'"`)
		if !isName(delimiter) || c.depth > 0 {
			c.fail("has a here-document that different shells read differently")
			return
		}
		if !c.plainDocument(r) {
			c.fail("has a here-document with something of several lines in it or before it, of which different shells see the end in different places")
			return
		}
		to.heredoc = true
		if r.Hdoc != nil && delimiter == c.source(r.Word) {
			b := building{c: c, single: true}
			b.parts(r.Hdoc.Parts, true)
		}
	case syntax.DplIn, syntax.DplOut:
		if t := c.source(r.Word); len(t) != 1 || t != "-" && (t[0] < '0' || t[0] > '9') {
			c.fail("redirects in a way that different shells read differently")
		}
		to.redirected(r, c.source(r.Word))
	case syntax.RdrIn, syntax.RdrOut, syntax.AppOut, syntax.RdrClob, syntax.RdrInOut:
		w := c.word(r.Word)
		to.redirected(r, w.text)
		switch {
		case w.known && w.text == "/dev/null":
		case strings.HasPrefix(w.prefix, "/dev/tcp/"), strings.HasPrefix(w.prefix, "/dev/udp/"):
			c.fail("redirects to the network, in some shells")
		case r.Op == syntax.RdrIn:
			to.reads = append(to.reads, w)
		default:
			to.writes = append(to.writes, w)
		}
	default:
		c.fail("redirects in a way that only some shells have")
	}
}

// redirected notes a redirection as it is written.
func (s *simple) redirected(r *syntax.Redirect, target string) {
	n := redirection{operator: r.Op.String(), target: target}
	if r.N != nil {
		n.fd = r.N.Value
	}
	s.redirections = append(s.redirections, n)
}
