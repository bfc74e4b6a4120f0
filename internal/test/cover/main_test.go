package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const profile = `mode: set
github.com/telexec/telexec/internal/fault/fault.go:1.2,3.4 3 1
github.com/telexec/telexec/internal/fault/fault.go:5.2,6.4 1 0
github.com/telexec/telexec/internal/fault/fault.go:5.2,6.4 1 0
github.com/telexec/telexec/cmd/telexec/run.go:1.2,3.4 4 0
github.com/telexec/telexec/cmd/telexec/run.go:1.2,3.4 4 7
github.com/telexec/telexec/internal/test/loopback/loopback.go:1.2,3.4 100 0
`

func TestRun(t *testing.T) {
	for name, test := range map[string]struct {
		profile string
		args    []string
		want    string // the table
		err     string // in the error; empty: none
	}{
		"a table": {profile, nil, `cmd/telexec                      4 of     4 statements  100.0 %
internal/fault                   3 of     4 statements   75.0 %
all                              7 of     8 statements   87.5 %
`, ""},
		"a goal that is reached": {profile, []string{"-goal", "75"}, `cmd/telexec                      4 of     4 statements  100.0 %
internal/fault                   3 of     4 statements   75.0 %
all                              7 of     8 statements   87.5 %
`, ""},
		"a goal that is missed": {profile, []string{"-goal", "90"}, `cmd/telexec                      4 of     4 statements  100.0 %
internal/fault                   3 of     4 statements   75.0 %  below the goal
all                              7 of     8 statements   87.5 %
`, "below 90 %: internal/fault"},
		"nothing ran":     {"mode: set\n", nil, "all                              0 of     0 statements  100.0 %\n", ""},
		"a broken line":   {"one two\n", nil, "", "line 1: want three fields"},
		"broken numbers":  {"mode: set\na:1 x 1\n", nil, "", "line 2: want two numbers"},
		"an unknown flag": {profile, []string{"-nope"}, "", "not defined"},
		"two profiles":    {profile, []string{"a", "b"}, "", "want one profile"},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "profile.txt")
			if err := os.WriteFile(file, []byte(test.profile), 0o600); err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			err := run(append(test.args, file), &out, io.Discard)
			if test.err == "" && err != nil || test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)) {
				t.Errorf("error %v, want %q", err, test.err)
			}
			if out.String() != test.want {
				t.Errorf("printed\n%swant\n%s", out.String(), test.want)
			}
		})
	}
	if err := run([]string{filepath.Join(t.TempDir(), "missing")}, io.Discard, io.Discard); err == nil {
		t.Error("a missing profile is no error")
	}
}
