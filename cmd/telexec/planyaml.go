package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/scanner"
	"github.com/goccy/go-yaml/token"
)

// The YAML of a plan, and what is refused of it before a parser sees it.

// notText gives the first byte that is no UTF-8, and its line; 0: there is none.
func notText(data []byte) (line int, b byte) {
	if utf8.Valid(data) {
		return 0, 0
	}
	line = 1
	for len(data) > 0 {
		r, n := utf8.DecodeRune(data)
		switch {
		case r == utf8.RuneError && n == 1:
			return line, data[0]
		case r == '\n':
			line++
		}
		data = data[n:]
	}
	return 0, 0
}

// planBound is why the parser does not see a file.
type planBound struct {
	line    int
	message string
}

func (e *planBound) Error() string { return e.message }

// parseYAML is the library's parser with its panics turned into errors: it has some on
// input that is not YAML at all. What would cost it much more than a plan, and what it would
// alter, is refused before with a *planBound.
func parseYAML(data []byte) (tree *ast.File, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = errors.New("it cannot be read")
		}
	}()
	if line := blankRun(data); line > 0 {
		return nil, &planBound{line, fmt.Sprintf("more than %d blank lines in a row", planBlank)}
	}
	var s scanner.Scanner
	s.Init(string(data))
	var words token.Tokens
	var at planNesting
	for {
		more, err := s.Scan()
		if err == io.EOF {
			break
		}
		for _, t := range more { // any other error is one of them
			words.Add(t)
			if at.next(t) > planDepth {
				return nil, &planBound{t.Position.Line, fmt.Sprintf("nested more than %d deep; no plan needs that", planDepth)}
			}
			if altered(t) {
				return nil, &planBound{t.Position.Line, "an escape that stands for no character"}
			}
			if len(words) > planWords {
				return nil, &planBound{t.Position.Line, fmt.Sprintf("more than %d words and signs up to here; no plan needs that", planWords)}
			}
		}
	}
	return parser.Parse(words, 0)
}

// altered reports whether the scanner has put U+FFFD where nobody wrote it.
func altered(t *token.Token) bool {
	return t.Type == token.DoubleQuoteType && strings.ContainsRune(t.Value, utf8.RuneError) &&
		!strings.ContainsRune(t.Origin, utf8.RuneError) && !strings.Contains(strings.ToLower(t.Origin), "fffd")
}

// blankRun gives the line at which more blank ones have stood in a row than a plan needs; 0: none.
func blankRun(data []byte) int {
	line, run := 1, 0
	for i, c := range data {
		switch c {
		case '\r':
			if i+1 < len(data) && data[i+1] == '\n' {
				continue
			}
			fallthrough
		case '\n':
			line++
			if run++; run > planBlank+1 {
				return line - 1
			}
		case ' ', '\t':
		default:
			run = 0
		}
	}
	return 0
}

// planNesting is where in a file the scanner is: inside so many brackets, below keys and
// hyphens that stand in these columns.
type planNesting struct {
	flow    int
	columns []int
	last    *token.Token
}

// next takes a token, and gives how deep it stands.
func (n *planNesting) next(t *token.Token) int {
	key := t
	switch t.Type {
	case token.SequenceStartType, token.MappingStartType:
		n.flow++
	case token.SequenceEndType, token.MappingEndType:
		n.flow = max(n.flow-1, 0)
	case token.MappingValueType:
		if n.last != nil && n.last.Position.Line == t.Position.Line {
			key = n.last
		}
		n.below(key)
	case token.SequenceEntryType, token.MappingKeyType:
		n.below(key)
	}
	n.last = t
	return n.flow + len(n.columns)
}

// below enters what stands behind a key or a hyphen.
func (n *planNesting) below(t *token.Token) {
	if n.flow > 0 {
		return
	}
	c := t.Position.Column
	for len(n.columns) > 0 && n.columns[len(n.columns)-1] >= c {
		n.columns = n.columns[:len(n.columns)-1]
	}
	n.columns = append(n.columns, c)
}
