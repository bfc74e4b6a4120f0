// Package main prints coverage per room from a profile in the text form of
// "go tool covdata textfmt": the one into which "make cover" has merged what
// the tests of all rooms, and the programs they started, have run through.
//
// A room counts as covered what any test reached, for a room like api is tested
// mostly from outside. Rooms that only serve tests are left out.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
)

const (
	module     = "github.com/telexec/telexec/"
	testOnly   = "internal/test/"
	storeSuite = "internal/store/storetest"
)

func main() {
	if err := run(os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "cover:", err)
		os.Exit(1)
	}
}

// run prints the table for the profile named in args. With -goal it fails where
// a room is below.
func run(args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("cover", flag.ContinueOnError)
	flags.SetOutput(stderr)
	goal := flags.Float64("goal", 0, "per cent that each room must reach")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() != 1 {
		return fmt.Errorf("want one profile")
	}
	f, err := os.Open(flags.Arg(0))
	if err != nil {
		return err
	}
	defer f.Close()
	rooms, err := read(f)
	if err != nil {
		return fmt.Errorf("%s: %w", flags.Arg(0), err)
	}

	var all tally
	var below []string
	for _, room := range slices.Sorted(maps.Keys(rooms)) {
		t := rooms[room]
		all.statements += t.statements
		all.covered += t.covered
		mark := ""
		if t.percent() < *goal {
			below = append(below, room)
			mark = "  below the goal"
		}
		fmt.Fprintf(stdout, "%-28s %5d of %5d statements  %5.1f %%%s\n", room, t.covered, t.statements, t.percent(), mark)
	}
	fmt.Fprintf(stdout, "%-28s %5d of %5d statements  %5.1f %%\n", "all", all.covered, all.statements, all.percent())
	if len(below) > 0 {
		return fmt.Errorf("below %g %%: %s", *goal, strings.Join(below, ", "))
	}
	return nil
}

// tally counts the statements of a room.
type tally struct{ statements, covered int }

func (t tally) percent() float64 {
	if t.statements == 0 {
		return 100
	}
	return 100 * float64(t.covered) / float64(t.statements)
}

// read sums a profile up per room. A block may stand in it several times, once
// per run; it is covered if one of them reached it.
func read(profile io.Reader) (map[string]tally, error) {
	type block struct {
		room       string
		statements int
		covered    bool
	}
	blocks := map[string]block{}
	lines := bufio.NewScanner(profile)
	for n := 1; lines.Scan(); n++ {
		line := lines.Text()
		if strings.HasPrefix(line, "mode: ") {
			continue
		}
		// github.com/telexec/telexec/internal/fault/fault.go:58.2,60.3 2 1
		fields := strings.Fields(line)
		if len(fields) != 3 {
			return nil, fmt.Errorf("line %d: want three fields in %q", n, line)
		}
		file, _, _ := strings.Cut(strings.TrimPrefix(fields[0], module), ":")
		statements, err1 := strconv.Atoi(fields[1])
		count, err2 := strconv.Atoi(fields[2])
		if err1 != nil || err2 != nil {
			return nil, fmt.Errorf("line %d: want two numbers in %q", n, line)
		}
		b := blocks[fields[0]]
		blocks[fields[0]] = block{path.Dir(file), statements, b.covered || count > 0}
	}
	rooms := map[string]tally{}
	for _, b := range blocks {
		if strings.HasPrefix(b.room, testOnly) || b.room == storeSuite {
			continue
		}
		t := rooms[b.room]
		t.statements += b.statements
		if b.covered {
			t.covered += b.statements
		}
		rooms[b.room] = t
	}
	return rooms, lines.Err()
}
