package main

import (
	"context"
	"errors"
	"regexp"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/pkg/client"
)

// keyNames are the keys that have a name, as the service writes them.
var keyNames = []string{
	"Enter", "Tab", "Escape", "Backspace", "Delete", "Insert", "Space", "Up", "Down", "Left", "Right", "Home", "End", "PageUp", "PageDown",
	"F1", "F2", "F3", "F4", "F5", "F6", "F7", "F8", "F9", "F10", "F11", "F12",
}

var modifiers = []string{"Ctrl", "Alt", "Shift"}

const (
	mostModifiers = 3
	mostKeyArgs   = 256      // in one call
	mostKeyText   = 16 << 10 // bytes of one text
)

// likeKey is what somebody has meant as a key, and hardly as text: with what is a
// modifier here or elsewhere, or a function key that there is not. "1+1" is text.
var likeKey = regexp.MustCompile(`(?i)^((ctrl|control|strg|alt|option|shift|meta|cmd|command|super|win)\+.+|f[0-9]{1,2})$`)

// keysOf gives the keys that the arguments stand for. Case is none of what makes the name
// of a key, but of a letter behind Ctrl+ it is kept.
func keysOf(args []string, text bool) ([]*telexecv1.Key, error) {
	if len(args) > mostKeyArgs {
		return nil, failure("%d keys and texts are too many at once", len(args)).withHint("At most %d; what is text can be one argument", mostKeyArgs)
	}
	var keys []*telexecv1.Key
	for n, arg := range args {
		name := ""
		if !text {
			name = keyOf(arg)
		}
		switch {
		case arg == "":
			return nil, failure("key %d is empty", n+1).withHint("Is a variable not set, or has a $(…) failed?")
		case name != "":
			keys = append(keys, &telexecv1.Key{Key: &telexecv1.Key_Name{Name: name}})
			continue
		case !text && likeKey.MatchString(arg):
			return nil, failure("there is no key of the name %q", arg).withHint("telexec session keys --help lists the names; --text before the session types it as text")
		case len(arg) > mostKeyText:
			return nil, failure("key %d is a text of %s, and at most %s are typed at once", n+1, size(int64(len(arg))), size(mostKeyText)).
				withHint("Give it as several arguments")
		}
		keys = append(keys, &telexecv1.Key{Key: &telexecv1.Key_Text{Text: arg}})
	}
	return keys, nil
}

// keyOf gives the name of a key as the service knows it; empty for what is none. A single
// character without a modifier is text, which comes to the same.
func keyOf(arg string) string {
	name, held := "", 0
next:
	for {
		for _, m := range modifiers {
			if len(arg) > len(m)+1 && strings.EqualFold(arg[:len(m)+1], m+"+") {
				name, arg, held = name+m+"+", arg[len(m)+1:], held+1
				continue next
			}
		}
		break
	}
	if held > mostModifiers {
		return ""
	}
	for _, k := range keyNames {
		if strings.EqualFold(arg, k) {
			return name + k
		}
	}
	if held > 0 && len(arg) == 1 && ' ' < arg[0] && arg[0] < 0x7f {
		return name + arg
	}
	return ""
}

type sessionKeysCmd struct {
	Text   bool           `short:"t" help:"All of it is text, and nothing the name of a key."`
	Settle *time.Duration `placeholder:"TIME" help:"Answer when the screen has not changed for so long, 0 to 5s (default 0.2s)."`
	Lines  int32          `placeholder:"N" help:"So many lines of scrollback before the screen, at most 10000."`

	Session string   `arg:"" help:"Name or id of the session."`
	Keys    []string `arg:"" passthrough:"partial" help:"Keys by their names (Enter, Ctrl+C, Up, F5), and text."`
}

// Help is shown by session keys --help.
func (sessionKeysCmd) Help() string {
	return `An argument that is the name of a key, in small letters or large ones, is that key: Enter, Tab, Escape, Backspace, Delete, Insert, Space, Up, Down,
Left, Right, Home, End, PageUp, PageDown, F1 to F12, and with Ctrl+, Alt+ or Shift+ before them or before a letter. All
else is text, which is typed as it is. What follows the session is keys, also when it looks like flags of telexec: those stand
before it.

Examples:

    telexec session keys deploy 'top' Enter
    telexec session keys deploy q
    telexec session keys deploy Escape ':wq' Enter
    telexec session keys deploy ctrl+c
    telexec session keys --text deploy end          types the word`
}

// Run types.
func (c *sessionKeysCmd) Run(ctx context.Context, a *app) error {
	keys := c.Keys
	if len(keys) > 0 && keys[0] == "--" {
		keys = keys[1:]
	}
	req := &telexecv1.SendKeysRequest{Session: c.Session, ScrollbackLines: c.Lines}
	if err := errors.Join(named(c.Session), linesFit(c.Lines)); err != nil {
		return err
	}
	if c.Settle != nil && (*c.Settle < 0 || *c.Settle > mostSettle) {
		return failure("--settle is from 0 to %s", humanDuration(mostSettle))
	}
	var err error
	if req.Keys, err = keysOf(keys, c.Text); err != nil {
		return err
	}
	if c.Settle != nil {
		req.Settle = durationpb.New(*c.Settle)
	}
	return a.session(ctx, func(ctx context.Context, cl *client.Client) error {
		resp, err := cl.SendKeys(ctx, req)
		if err != nil {
			return err
		}
		if a.opts.JSON {
			return a.out.document(resp)
		}
		if !resp.GetSettled() {
			a.out.note("the screen was still changing")
		}
		return a.printScreen(resp.GetScreen())
	})
}
