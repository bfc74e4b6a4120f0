package inventory

import (
	"fmt"
	"path/filepath"
	"strings"
)

// expand replaces the tokens of ssh_config: a percent sign and a letter; %% is a
// percent sign.
func expand(s string, tokens map[byte]string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b.WriteByte(s[i])
			continue
		}
		i++
		switch {
		case i == len(s):
			return "", fmt.Errorf("%q ends with a lone %%", s)
		case s[i] == '%':
			b.WriteByte('%')
		default:
			text, known := tokens[s[i]]
			if !known {
				return "", fmt.Errorf("%q has the token %%%c, which is not known there", s, s[i])
			}
			b.WriteString(text)
		}
	}
	return b.String(), nil
}

// expander makes paths of what ssh_config says.
type expander struct {
	home   string
	tokens map[byte]string
	getenv func(string) string
}

// path expands ~, tokens and ${VARIABLE}, in this order, and makes the path
// absolute.
func (e expander) path(s string) (string, error) {
	switch {
	case s == "~" || strings.HasPrefix(s, "~/"):
		s = strings.ReplaceAll(e.home, "%", "%%") + s[1:]
	case strings.HasPrefix(s, "~"):
		return "", fmt.Errorf("%q: only ~/ is expanded", s)
	}
	var b strings.Builder
	for rest := s; ; {
		before, after, found := strings.Cut(rest, "${")
		b.WriteString(before)
		if !found {
			break
		}
		name, after, closed := strings.Cut(after, "}")
		value := e.getenv(name)
		if !closed || value == "" {
			return "", fmt.Errorf("%q: the variable %s is not set", s, name)
		}
		b.WriteString(strings.ReplaceAll(value, "%", "%%"))
		rest = after
	}
	s, err := expand(b.String(), e.tokens)
	if err != nil {
		return "", err
	}
	return filepath.Abs(s)
}

// paths expands a list; none in it stands for nothing. The result is never nil.
func (e expander) paths(list []string) ([]string, error) {
	paths := make([]string, 0, len(list))
	for _, s := range list {
		if strings.EqualFold(s, none) {
			continue
		}
		p, err := e.path(s)
		if err != nil {
			return nil, err
		}
		paths = append(paths, p)
	}
	return paths, nil
}
