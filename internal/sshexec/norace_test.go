//go:build !race

package sshexec

const raceEnabled = false
