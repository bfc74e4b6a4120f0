package program

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// TestFlags: both flags show what they should, whatever else is missing, and an
// output that cannot be written is an error.
func TestFlags(t *testing.T) {
	parse := func(args ...string) (string, error) {
		var out bytes.Buffer
		var flags struct {
			Help    HelpFlag    `short:"h" help:"Show help."`
			Version VersionFlag `help:"Print the version of this program."`
			Needed  string      `arg:""`
		}
		parser, err := kong.New(&flags, kong.Name("prog"), kong.NoDefaultHelp(), kong.Writers(&out, &out))
		if err != nil {
			t.Fatal(err)
		}
		_, err = parser.Parse(args)
		return out.String(), err
	}
	for _, args := range [][]string{{"--help"}, {"-h"}, {"x", "--help"}} {
		if out, err := parse(args...); !errors.Is(err, ErrShown) || !strings.HasPrefix(out, "Usage: prog <needed>") {
			t.Errorf("%q: %q, %v", args, out, err)
		}
	}
	if out, err := parse("--version"); !errors.Is(err, ErrShown) || !strings.HasPrefix(out, "prog "+Version()) || strings.Count(out, "\n") != 1 {
		t.Errorf("--version: %q, %v", out, err)
	}
	if _, err := parse("x"); err != nil {
		t.Errorf("neither: %v", err)
	}
	if _, err := parse(); err == nil || errors.Is(err, ErrShown) {
		t.Errorf("nothing at all: %v", err)
	}
}
