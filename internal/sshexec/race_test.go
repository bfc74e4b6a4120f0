//go:build race

package sshexec

// raceEnabled: times mean nothing under the race detector.
const raceEnabled = true
