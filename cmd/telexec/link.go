package main

import (
	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

// link tells a reader of output when the service has lost the host of a command,
// as it also has for a moment after a restart, and when it has it back: nothing
// comes meanwhile, and that looks like silence.
type link struct {
	out  *printer
	lost bool
}

// watch takes every state of the command that the stream tells.
func (l *link) watch(cmd *telexecv1.Command) {
	switch lost := reconnecting(cmd); {
	case lost == l.lost:
	case lost:
		l.lost = true
		l.out.warn("the service has lost the connection to %s; command %s goes on there, reconnecting", cmd.GetHost(), cmd.GetId())
	case !ended(cmd.GetState()): // how it has ended is told by its outcome
		l.lost = false
		l.out.warn("the connection to %s is back; command %s is followed on", cmd.GetHost(), cmd.GetId())
	}
}

// reconnecting reports whether a command goes on without being seen.
func reconnecting(cmd *telexecv1.Command) bool {
	return cmd.GetConnection() == telexecv1.Connection_CONNECTION_RECONNECTING && !ended(cmd.GetState())
}

// durable reports whether a command lives on its host by itself.
func durable(cmd *telexecv1.Command) bool {
	return cmd.GetDurability() == telexecv1.Durability_DURABILITY_DURABLE
}
