//go:build race

package storetest

// raceEnabled: a database in Go is ten to twenty times slower then.
const raceEnabled = true
