// Package hostshell is how the service talks to the POSIX shell of a host, for the
// rooms that start something there.
//
//	lines, err := hostshell.Ask(ctx, dialer.OpenFirst, host, nonce, "exec /bin/sh", script)
//
// A script goes over a channel of its own (ask.go), on standard input, so that no list
// of processes shows it; what it says begins with a nonce, since login files may talk
// before and between. Word quotes for whatever login shell reads the exec request.
//
// Three scripts are here because more than one room needs them: places.sh finds a
// private directory, identity.sh makes sure that a pid is still the process that was
// started, and ladder.sh ends a tree of processes and proves it by a list. ParseReport
// reads what the ladder says.
package hostshell
