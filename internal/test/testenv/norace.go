//go:build !race

package testenv

// buildFlags make the programs as the tests are made.
var buildFlags []string
