package inventory

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/telexec/telexec/internal/config"
	"github.com/telexec/telexec/internal/fault"
)

// ssh_config(5) is read here as OpenSSH's readconf.c reads it: the lines in their
// order, each either opening a block (Host, Match), bringing in other files
// (Include) or setting an option, where the first value set is the one that
// counts. Reading checks every line and keeps it; sshmatch.go then plays the
// lines for one host name.
//
//	file ──read──▶ sshFile: [host web*] [set Port] [include ──▶ sshFile …] [match …] …
//	                  └──options("web1")──▶ sshOptions
//
// docs/adr/0003-own-ssh-config-reader.md tells why no library does it.

// sshFile is a file that has been read, with what it includes.
type sshFile []sshLine

// sshLine is one line that does something. Exactly one field is set, but for an
// Include that names nothing.
type sshLine struct {
	host    []string          // Host: the patterns
	match   []criterion       // Match
	include []sshFile         // Include
	set     func(*sshOptions) // any option, played when its block is active
}

// criterion is one condition of a Match line.
type criterion struct {
	name   string // lower case, without !
	negate bool
	arg    string
}

// sshOptions is what ssh_config says about one host, before tokens and ~ are
// expanded; nil stands for nothing.
type sshOptions struct {
	hostName, user, hostKeyAlias, identityAgent *string
	port                                        *int
	identityFiles, certificateFiles             []string
	identitiesOnly                              *bool
	userKnownHosts, globalKnownHosts            *[]string
	policy                                      *HostKeyPolicy
	jump                                        *[]config.Target // none: empty
	proxyCommand                                *string
	connectTimeout, aliveInterval               *time.Duration
	aliveMax                                    *int

	named bool // a Host line that applies has the name itself, not a pattern
}

// first sets an option that is not set yet.
func first[T any](option **T, value T) {
	if *option == nil {
		*option = &value
	}
}

// maxIncludes is how deep Include may nest, as in OpenSSH.
const maxIncludes = 16

// sshReader reads ssh_config files.
type sshReader struct {
	home string
	open func(path string) ([]byte, error)
	glob func(pattern string) ([]string, error)
}

// openSSHFile reads a file that nobody but its owner may write.
func openSSHFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if mode := info.Mode(); mode.IsRegular() && mode.Perm()&0o022 != 0 {
		return nil, fault.New(fault.Invalid, fault.ReasonBadSSHConfig,
			"others than its owner may write %s (mode %04o)", path, mode.Perm()).
			WithHint("Run: chmod go-w %s", path)
	}
	return os.ReadFile(path)
}

// read reads a file and its includes. A file that is not there gives an error
// that is fs.ErrNotExist; any other is a *fault.Error.
func (r *sshReader) read(path string, depth int) (sshFile, error) {
	data, err := r.open(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, err
	case err != nil:
		if _, told := errors.AsType[*fault.Error](err); told {
			return nil, err
		}
		return nil, fault.Wrap(err, fault.Invalid, fault.ReasonBadSSHConfig, "%s cannot be read", path).
			WithHint("Let the user of the service read it, or set ssh_config to another file or to none")
	}
	var file sshFile
	n := 0
	for text := range strings.Lines(string(data)) {
		n++
		line, err := r.line(text, depth)
		if _, told := errors.AsType[*fault.Error](err); told {
			return nil, err
		}
		if err != nil {
			return nil, fault.New(fault.Invalid, fault.ReasonBadSSHConfig, "%s:%d: %v", path, n, err).
				WithHint("Mend the line; ssh -G -F %s HOST shows how ssh reads it", path)
		}
		if line != nil {
			file = append(file, *line)
		}
	}
	return file, nil
}

// blank is what separates words, and what lines may end with.
const blank = " \t\r\n\f"

// line reads one line; nil for one that does nothing.
func (r *sshReader) line(text string, depth int) (*sshLine, error) {
	text = strings.Trim(text, blank)
	if text == "" || text[0] == '#' {
		return nil, nil
	}
	keyword, rest, err := cutWord(text)
	if err != nil {
		return nil, err
	}
	keyword = strings.ToLower(keyword)
	if keyword == "match" {
		match, err := criteria(rest)
		return &sshLine{match: match}, err
	}
	if keyword != "host" && keyword != "include" && options[keyword] == nil {
		return nil, nil // an option that is none of ours
	}
	args, err := words(rest)
	switch {
	case err != nil:
		return nil, err
	case len(args) == 0 || slices.Contains(args, "") && keyword != "proxycommand":
		return nil, fmt.Errorf("%s has no value", keyword)
	case keyword == "host":
		return &sshLine{host: args}, nil
	case keyword == "include":
		files, err := r.include(args, depth)
		return &sshLine{include: files}, err
	}
	set, err := options[keyword](value{keyword, args, rest})
	return &sshLine{set: set}, err
}

// include reads the files of an Include line.
func (r *sshReader) include(patterns []string, depth int) ([]sshFile, error) {
	if depth >= maxIncludes {
		return nil, fmt.Errorf("more than %d Includes inside of each other", maxIncludes)
	}
	var files []sshFile
	for _, p := range patterns {
		switch {
		case strings.HasPrefix(p, "~/"):
			p = filepath.Join(r.home, p[2:])
		case strings.HasPrefix(p, "~"):
			return nil, fmt.Errorf("%s: only ~/ is expanded", p)
		case !filepath.IsAbs(p):
			p = filepath.Join(r.home, ".ssh", p)
		}
		paths, err := r.glob(p)
		if err != nil {
			return nil, fmt.Errorf("%s is not a pattern", p)
		}
		for _, path := range paths {
			file, err := r.read(path, depth+1)
			if errors.Is(err, fs.ErrNotExist) {
				continue // a link to nowhere
			}
			if err != nil {
				return nil, err
			}
			files = append(files, file)
		}
	}
	return files, nil
}

// cutWord takes the first word off a line: it ends at a blank, at an equals sign
// or where a quoted part ends. It is strdelim of OpenSSH.
func cutWord(s string) (word, rest string, err error) {
	i := strings.IndexAny(s, blank+`"=`)
	if i < 0 {
		return s, "", nil
	}
	if s[i] == '"' {
		quoted, rest, ok := strings.Cut(s[i+1:], `"`)
		if !ok {
			return "", "", errors.New("a quote is not closed")
		}
		return s[:i] + quoted, strings.TrimLeft(rest, blank), nil
	}
	rest = strings.TrimLeft(s[i+1:], blank)
	if s[i] != '=' && strings.HasPrefix(rest, "=") { // only one equals sign belongs to the keyword
		rest = strings.TrimLeft(rest[1:], blank)
	}
	return s[:i], rest, nil
}

// words splits the rest of a line: at blanks, with quotes, backslashes before
// quotes, blanks and backslashes, up to a # that begins a word. It is argv_split
// of OpenSSH.
func words(s string) ([]string, error) {
	var all []string
	for i := 0; i < len(s); i++ {
		if s[i] == ' ' || s[i] == '\t' {
			continue
		}
		if s[i] == '#' {
			break
		}
		var word []byte
		var quote byte
		for ; i < len(s); i++ {
			c := s[i]
			switch {
			case c == '\\' && i+1 < len(s) && (strings.IndexByte(`'"\`, s[i+1]) >= 0 || quote == 0 && s[i+1] == ' '):
				i++
				word = append(word, s[i])
				continue
			case quote == 0 && (c == '"' || c == '\''):
				quote = c
				continue
			case quote != 0 && c == quote:
				quote = 0
				continue
			}
			if quote == 0 && (c == ' ' || c == '\t') {
				break
			}
			word = append(word, c)
		}
		if quote != 0 {
			return nil, errors.New("a quote is not closed")
		}
		all = append(all, string(word))
	}
	return all, nil
}

// criteria reads the conditions of a Match line.
func criteria(rest string) ([]criterion, error) {
	var all []criterion
	for rest != "" && rest[0] != '#' {
		var c criterion
		var err error
		if c.name, rest, err = cutWord(rest); err != nil {
			return nil, err
		}
		c.name, c.negate = strings.CutPrefix(strings.ToLower(c.name), "!")
		switch c.name {
		case "all", "canonical", "final":
		default:
			if c.arg, rest, err = cutWord(rest); err != nil {
				return nil, err
			}
			if c.arg == "" || c.arg[0] == '#' {
				return nil, fmt.Errorf("match %s has no value", c.name)
			}
		}
		all = append(all, c)
	}
	if len(all) == 0 {
		return nil, errors.New("match has no condition")
	}
	for i, c := range all {
		if c.name == "all" && (i != len(all)-1 || i > 1) { // ssh takes one before it
			return nil, errors.New("match all cannot be combined with other conditions")
		}
	}
	return all, nil
}

// value is what stands behind a keyword.
type value struct {
	keyword string
	args    []string // at least one, none empty
	rest    string   // as written
}

// one gives the only word.
func (v value) one() (string, error) {
	if len(v.args) > 1 {
		return "", fmt.Errorf("%s takes one value, not %d", v.keyword, len(v.args))
	}
	return v.args[0], nil
}

// single makes the reader of an option with one value from the parser of that
// value and the place it is kept.
func single[T any](parse func(string) (T, error), option func(*sshOptions) **T) func(value) (func(*sshOptions), error) {
	return func(v value) (func(*sshOptions), error) {
		word, err := v.one()
		if err != nil {
			return nil, err
		}
		x, err := parse(word)
		if err != nil {
			return nil, fmt.Errorf("%s: %q is not %w", v.keyword, word, err)
		}
		return func(o *sshOptions) { first(option(o), x) }, nil
	}
}

// options holds the options that are read, by their keywords.
var options = map[string]func(value) (func(*sshOptions), error){
	"hostname":              single(parseText, func(o *sshOptions) **string { return &o.hostName }),
	"user":                  single(parseText, func(o *sshOptions) **string { return &o.user }),
	"hostkeyalias":          single(parseText, func(o *sshOptions) **string { return &o.hostKeyAlias }),
	"identityagent":         single(parseText, func(o *sshOptions) **string { return &o.identityAgent }),
	"port":                  single(parsePort, func(o *sshOptions) **int { return &o.port }),
	"identitiesonly":        single(parseYes, func(o *sshOptions) **bool { return &o.identitiesOnly }),
	"stricthostkeychecking": single(parsePolicy, func(o *sshOptions) **HostKeyPolicy { return &o.policy }),
	"connecttimeout":        single(parseTime, func(o *sshOptions) **time.Duration { return &o.connectTimeout }),
	"serveraliveinterval":   single(parseTime, func(o *sshOptions) **time.Duration { return &o.aliveInterval }),
	"serveralivecountmax":   single(parseCount, func(o *sshOptions) **int { return &o.aliveMax }),
	"identityfile":          added(func(o *sshOptions) *[]string { return &o.identityFiles }),
	"certificatefile":       added(func(o *sshOptions) *[]string { return &o.certificateFiles }),
	"userknownhostsfile":    several(func(o *sshOptions) **[]string { return &o.userKnownHosts }),
	"globalknownhostsfile":  several(func(o *sshOptions) **[]string { return &o.globalKnownHosts }),
	"proxyjump":             proxyJump,
	"proxycommand": func(v value) (func(*sshOptions), error) {
		return func(o *sshOptions) {
			if o.jump == nil { // whichever comes first counts
				first(&o.proxyCommand, v.rest)
			}
		}, nil
	},
}

// added is an option whose lines add up.
func added(option func(*sshOptions) *[]string) func(value) (func(*sshOptions), error) {
	return func(v value) (func(*sshOptions), error) {
		word, err := v.one()
		return func(o *sshOptions) {
			if list := option(o); !slices.Contains(*list, word) {
				*list = append(*list, word)
			}
		}, err
	}
}

// several is an option with several words on its line.
func several(option func(*sshOptions) **[]string) func(value) (func(*sshOptions), error) {
	return func(v value) (func(*sshOptions), error) {
		if len(v.args) > 1 && slices.Contains(v.args, none) {
			return nil, fmt.Errorf("%s: none stands alone", v.keyword)
		}
		return func(o *sshOptions) { first(option(o), v.args) }, nil
	}
}

// none is the word that switches an option off.
const none = "none"

func proxyJump(v value) (func(*sshOptions), error) {
	word, err := v.one()
	if err != nil {
		return nil, err
	}
	var hops []config.Target
	if !strings.EqualFold(word, none) {
		for hop := range strings.SplitSeq(word, ",") {
			t, err := config.ParseTarget(hop)
			if err != nil {
				return nil, fmt.Errorf("proxyjump: %w", err)
			}
			hops = append(hops, t)
		}
	}
	return func(o *sshOptions) {
		if o.proxyCommand == nil {
			first(&o.jump, hops)
		}
	}, nil
}

// The parsers of values; their errors complete "… is not".

func parseText(s string) (string, error) { return s, nil }

func parsePort(s string) (int, error) {
	n, err := net.LookupPort("tcp", s) // OpenSSH takes service names too
	if err != nil || n < 1 {
		return 0, errors.New("a port")
	}
	return n, nil
}

func parseYes(s string) (bool, error) {
	switch strings.ToLower(s) {
	case "yes", "true":
		return true, nil
	case "no", "false":
		return false, nil
	}
	return false, errors.New("yes or no")
}

func parsePolicy(s string) (HostKeyPolicy, error) {
	switch strings.ToLower(s) {
	case "yes", "true", "ask":
		return Strict, nil
	case "accept-new", "no", "false", "off":
		// Checking is never switched off: what is unknown is accepted, what has
		// changed is not.
		return AcceptNew, nil
	}
	return "", errors.New("one of yes, ask, accept-new, no")
}

func parseCount(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		return 0, errors.New("a whole number")
	}
	return int(n), nil
}

// parseTime reads a time of sshd_config(5): 30, 1m30s, 1w. None is 0.
func parseTime(s string) (time.Duration, error) {
	bad := errors.New("a time such as 30, 90s or 1m30s")
	if s == none {
		return 0, nil
	}
	unit := map[byte]int64{'s': 1, 'm': 60, 'h': 3600, 'd': 86400, 'w': 604800}
	var total int64
	for rest := s; rest != "" || s == ""; {
		after := strings.TrimLeft(rest, "0123456789")
		n, err := strconv.ParseInt(rest[:len(rest)-len(after)], 10, 32)
		if err != nil {
			return 0, bad
		}
		seconds := int64(1)
		if after != "" {
			if seconds = unit[after[0]|0x20]; seconds == 0 {
				return 0, bad
			}
			after = after[1:]
		}
		if total += n * seconds; total > math.MaxInt32 { // OpenSSH keeps it in an int
			return 0, bad
		}
		rest = after
	}
	return time.Duration(total) * time.Second, nil
}
