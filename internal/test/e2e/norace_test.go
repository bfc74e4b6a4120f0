//go:build !race

package e2e

// raceEnabled: memory and time are not those of the real program.
const raceEnabled = false

// slowness is how many times longer than promised things may take.
const slowness = 1
