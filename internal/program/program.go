// Package program is what the command lines of all programs have in common: which
// build this is, and the flags --help and --version.
//
//	var flags struct {
//		Help    program.HelpFlag    `short:"h" help:"Show help."`
//		Version program.VersionFlag `help:"Print the version of this program."`
//	}
//	parser, err := kong.New(&flags, kong.Name("telexec"), kong.NoDefaultHelp(), …)
//	if _, err = parser.Parse(args); errors.Is(err, program.ErrShown) {
//		return nil
//	}
package program

import (
	"errors"
	"fmt"
	"runtime/debug"
	"strings"

	"github.com/alecthomas/kong"
)

// Build gives what the Go linker knows about this program: its version, and the
// commit it was built from. The version is "unknown" and the commit empty where
// it knows nothing.
func Build() (version, commit string) {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown", ""
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			commit = s.Value
		}
	}
	return info.Main.Version, commit
}

// Version is that of Build, alone.
func Version() string {
	version, _ := Build()
	return version
}

// ErrShown ends parsing when all that was asked for, help or the version, was
// shown.
var ErrShown = errors.New("shown")

// HelpFlag shows help and ends parsing.
type HelpFlag bool

// BeforeReset is called by kong before it complains about anything missing.
func (HelpFlag) BeforeReset(ctx *kong.Context) error {
	if err := ctx.PrintUsage(false); err != nil {
		return err
	}
	return ErrShown
}

// VersionFlag prints the program's name and build, and ends parsing, whatever
// else is there.
type VersionFlag bool

// IsBool says that the flag takes no value.
func (VersionFlag) IsBool() bool { return true }

// BeforeReset prints the version and ends parsing.
func (VersionFlag) BeforeReset(ctx *kong.Context) error {
	version, commit := Build()
	if _, err := fmt.Fprintln(ctx.Stdout, strings.TrimSpace(ctx.Model.Name+" "+version+" "+commit)); err != nil {
		return err
	}
	return ErrShown
}
