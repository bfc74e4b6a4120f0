package command

// State is where a command is in its life. The strings are stored and shown.
type State string

// The states, each with the states that may follow.
const (
	AwaitingApproval State = "AWAITING_APPROVAL" // → Queued, Rejected, Expired, Cancelled
	Queued           State = "QUEUED"            // → Starting, Cancelled, Expired, Failed, Rejected
	Starting         State = "STARTING"          // → Running, Queued, Completed, Failed, Cancelled, TimedOut, Lost
	Running          State = "RUNNING"           // → Completed, Failed, Cancelled, TimedOut, Lost

	Completed State = "COMPLETED" // end: ran to its own end; exit code known, but by prompt or silence
	Failed    State = "FAILED"    // end: could not start, or a signal that no cancel or timeout sent
	Cancelled State = "CANCELLED" // end: by us, processes proven gone
	TimedOut  State = "TIMED_OUT" // end: its timeout passed
	Rejected  State = "REJECTED"  // end: by policy or approver
	Expired   State = "EXPIRED"   // end: waited too long
	Lost      State = "LOST"      // end: outcome cannot be known
)

// States lists all states in the order of a life.
var States = []State{
	AwaitingApproval, Queued, Starting, Running,
	Completed, Failed, Cancelled, TimedOut, Rejected, Expired, Lost,
}

// Ended reports whether s is an end.
func (s State) Ended() bool {
	switch s {
	case Completed, Failed, Cancelled, TimedOut, Rejected, Expired, Lost:
		return true
	}
	return false
}

// Valid reports whether s is one of the states.
func (s State) Valid() bool {
	switch s {
	case AwaitingApproval, Queued, Starting, Running:
		return true
	}
	return s.Ended()
}

// Event is what can happen to a command.
type Event string

// The events.
const (
	Approve      Event = "approve"       // an approver said yes
	Reject       Event = "reject"        // policy or an approver said no
	Claim        Event = "claim"         // it got a slot
	Unclaim      Event = "unclaim"       // the slot was given back before anything reached the host
	Start        Event = "start"         // the host has started it
	StartFail    Event = "start_fail"    // it could not start
	Exited       Event = "exited"        // the host reported an exit code, or its session that it is over
	Killed       Event = "killed"        // a signal ended it that was not our proven cancel or timeout, or it turned out that it never began
	CancelledEnd Event = "cancelled_end" // ended by our cancel, proven
	Timeout      Event = "timeout"       // ended for its timeout
	Expire       Event = "expire"        // waited too long
	Lose         Event = "lose"          // its outcome cannot be known
)

// Events lists all events.
var Events = []Event{
	Approve, Reject, Claim, Unclaim, Start, StartFail,
	Exited, Killed, CancelledEnd, Timeout, Expire, Lose,
}

// Next is the whole state machine: the state that follows s when e happens. It
// is pure. ok is false where e cannot happen in s; the state is then s.
//
// A cancel is not an event but a wish: what it leads to is CancelledEnd, or
// Exited where the command's own end won the race.
func Next(s State, e Event) (next State, ok bool) {
	switch s {
	case AwaitingApproval:
		switch e {
		case Approve:
			return Queued, true
		case Reject:
			return Rejected, true
		case CancelledEnd:
			return Cancelled, true
		case Expire:
			return Expired, true
		}
	case Queued:
		switch e {
		case Claim:
			return Starting, true
		case Reject:
			return Rejected, true
		case StartFail:
			return Failed, true
		case CancelledEnd:
			return Cancelled, true
		case Expire:
			return Expired, true
		}
	case Starting, Running:
		switch e {
		case Start:
			if s == Starting {
				return Running, true
			}
		case Unclaim:
			if s == Starting {
				return Queued, true
			}
		case StartFail:
			if s == Starting {
				return Failed, true
			}
		case Exited:
			return Completed, true
		case Killed:
			return Failed, true
		case CancelledEnd:
			return Cancelled, true
		case Timeout:
			return TimedOut, true
		case Lose:
			return Lost, true
		}
	}
	return s, false
}
