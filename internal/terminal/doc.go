// Package terminal keeps sessions: shells on terminals of hosts that people and agents
// use at the same time, all seeing the same bytes. It knows nothing of SSH, SQL or the
// wire; ports.go has what it needs of them.
//
// Start with Terminals (terminals.go), the set of all sessions, and live (live.go), one
// session. One goroutine owns each live, the only place where it changes:
//
//	Shell ──read──▶ intake ─▶ marks ─▶ output ─┬▶ ring, by offsets ──▶ viewers (viewer.go)
//	  ▲               (intake.go)              │                  └──▶ commands' pumps (process.go)
//	  └──write── keys ◀── owner ◀── requests   ├▶ screen: what a late viewer is given
//	(link.go)  (writer.go)                     └▶ recording (record.go)
//
// The output of a session is one stream of bytes with offsets that never change. The
// marks of the shell are taken out of it and never seen; what the service itself says
// is put into it at its place. Viewers and commands are cursors on the ring that holds
// its end. A viewer slows nobody: what has fallen off the ring is replaced by the screen
// as it is. A command loses no byte: while its pump is pumpMost behind, nothing more is
// read from the shell.
//
// How the shell is doing is told by its marks, or guessed from its prompts (prompt.go);
// turn.go has the states. A command comes to run by Start, which types it when the shell
// reads, or by somebody who types (typed.go). How one is ended is cancel.go's, what
// becomes of a shell that is started in the shell nested.go's, and what of a session
// whose connection is lost loss.go's. Who may type is keyboard.go's. A session begins in
// create.go and opening.go, goes on after a restart in take.go, and ends in close.go and
// ending.go; scribe.go brings it to the journal.
//
// The room is larger than most: whatever happens in a session is decided in one place,
// by one owner, and its files share that owner's fields.
package terminal
