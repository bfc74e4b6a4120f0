//go:build race

package e2e

// raceEnabled: memory and time are not those of the real program.
const raceEnabled = true
