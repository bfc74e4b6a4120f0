//go:build race

package testenv

// buildFlags make the programs as make test makes the tests.
var buildFlags = []string{"-race", "-gcflags=modernc.org/...=-race=false"}
