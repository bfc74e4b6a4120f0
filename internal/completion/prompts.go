package completion

import (
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/telexec/telexec/internal/fault"
)

const (
	promptMost  = 120 // columns of a prompt that is recognised by its looks
	learnedMost = 16  // lines that are remembered
)

// Prompts recognises a prompt by its looks. It has one user at a time.
//
// A line looks like a prompt where it is at most 120 characters long and ends in one of
// $ # > %, with or without one blank behind it, and is none of what else ends so: a
// percentage ("50%", " 12.5 %", but not the host of "web1%"), a progress bar ("==>",
// "###"), the end of a tag or an address ("</html>", "a <b@c>", but not "<switch>"), or
// the prompt for the rest of a command ("->", "...>"). With patterns, a line is a prompt
// where one of them is found in it; its looks do not matter then. In both cases a line
// that was learned is one, whatever it looks like.
type Prompts struct {
	patterns []*regexp.Regexp
	learned  []string // latest last
}

// NewPrompts makes what recognises prompts by regular expressions, or by their looks
// where there are none. It fails with fault.Invalid for what is no regular expression.
func NewPrompts(patterns []string) (*Prompts, error) {
	var p Prompts
	for _, s := range patterns {
		re, err := regexp.Compile(s)
		if err != nil {
			return nil, fault.Wrap(err, fault.Invalid, fault.ReasonInvalidRequest, "%q is no regular expression for a prompt", s).
				WithHint(`Give an expression that Go's package regexp takes, such as '^\[edit\] .*#$'`)
		}
		p.patterns = append(p.patterns, re)
	}
	return &p, nil
}

// Learn takes a line that is known to be a prompt: what the cursor's row had when the
// session was opened, or after a command. An empty one, and one that is too long, teach
// nothing.
func (p *Prompts) Learn(line string) {
	line = strings.TrimRight(line, " ")
	if strings.TrimLeft(line, " ") == "" || utf8.RuneCountInString(line) > promptMost {
		return
	}
	p.learned = slices.DeleteFunc(p.learned, func(l string) bool { return l == line })
	if len(p.learned) == learnedMost {
		p.learned = slices.Delete(p.learned, 0, 1)
	}
	p.learned = append(p.learned, line)
}

// Is reports whether lastLine is a prompt: the text of the cursor's row up to the
// cursor, without escape sequences.
func (p *Prompts) Is(lastLine string) bool {
	if slices.Contains(p.learned, strings.TrimRight(lastLine, " ")) {
		return true
	}
	if len(p.patterns) > 0 {
		return slices.ContainsFunc(p.patterns, func(re *regexp.Regexp) bool { return re.MatchString(lastLine) })
	}
	return looksLikePrompt(lastLine)
}

var (
	percentage   = regexp.MustCompile(`(^|[^0-9A-Za-z_.-])[0-9]+([.,][0-9]+)? ?%$`)
	continuation = regexp.MustCompile(`[-.]>$|==>$|(^|[^0-9A-Za-z_])=>$`)
	tag          = regexp.MustCompile(`</|/>$|.<[^>]*>$`)
	row          = regexp.MustCompile(`(##|%%|\$\$)$`)
)

func looksLikePrompt(line string) bool {
	line = strings.TrimSuffix(line, " ")
	if line == "" || len(line) > 4*promptMost || utf8.RuneCountInString(line) > promptMost {
		return false
	}
	switch line[len(line)-1] {
	case '$':
		return !row.MatchString(line)
	case '#':
		return !row.MatchString(line)
	case '%':
		return !row.MatchString(line) && !percentage.MatchString(line)
	case '>':
		return !continuation.MatchString(line) && !tag.MatchString(line)
	}
	return false
}
