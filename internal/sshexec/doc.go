// Package sshexec runs one process on a host over an SSH channel: it starts a
// command, carries its streams, tells how it ended, signals it, and ends it
// with all its children.
//
// A Runner starts; a Process is what runs. How to reach a host is not known
// here: the Runner asks a Dialer for an open channel, one per command and one
// more for each signal or cancel.
//
// # Durable runs
//
// A durable run lives on its host by itself. docs/remote-protocol.md tells the
// protocol in full; this is the short of it.
//
//	durable.go  keep ── one goroutine per run: attempt, pause, attempt, …, end, clean
//	follow.go   follow ── one channel: sends start.sh, reads both streams
//	mark.go     marks ── what is said to us between the output
//	conclude.go the host's words about an end, as an Ending or a fault
//
//	Start ─▶ keep ─▶ follow ──exec /bin/sh──▶ sshd ─▶ start.sh: claims the id
//	                   │  script on stdin                │forks
//	                   │                                 ├─▶ command.sh ─▶ the command
//	                   │                                 │     stdout ─▶ cat ─▶ ID.o
//	                   │                                 │     stderr ─▶ cat ─▶ ID.e
//	                   │                                 └─▶ finisher: the last words
//	 sink ◀── output ──┤◀── tail -f of ID.o and ID.e, from any offset
//	 Wait ◀── done ────┘
//
// What is proven by what:
//
//   - that it starts at most once: ID.st is made with O_EXCL by who looks after
//     the id, ID.go with O_EXCL by who runs it, or by who sees to it that nobody
//     does (Void);
//   - that it is still the same process: boot id and start time beside each pid;
//   - how it ended: the record in ID.st, overwritten in place before anybody is
//     told, by the shell that waits for the command, and once more by the finisher
//     when both streams have ended;
//   - where a byte belongs: an offset in a spool is the offset in the stream;
//   - who may act: ID.f has the highest fence that the host has seen.
//
// A closed channel touches the follower and nothing else. Whatever is killed or
// removed on the host, the judgement is made anew by the next follower (judge in
// start.sh), and what cannot be known is told as HOST_REBOOTED, RUN_REMOVED or
// SUPERVISOR_KILLED, never as an exit.
//
// What an account has (directories, setsid, tail) is asked once by probe.sh and
// kept for ten minutes; what is missing for a durable run is NOT_DURABLE.
//
// The room is large because the host's half of the protocol and ours are one
// thing: they are read, changed and tested together.
//
// # Attached runs
//
// An attached run lives on its channel. The exec request carries one line that
// every login shell (sh, bash, zsh, ksh, fish, csh and their like) reads the
// same: exec /bin/sh -c WORD. The script in WORD (remote/attached.sh) tells who
// it is on standard error, in one line with a random nonce:
//
//	telexec:NONCE: started PID GROUP SESSION KIND BOOT START
//
// and then becomes the command, so that this pid is the command's own and the
// exit code or signal that sshd reports is exact. The line is taken out of the
// stream; everything before it (login files may talk) and behind it is output,
// byte for byte. A channel without this line has started nothing, and Start
// fails with what the host said instead.
//
//	Start ──exec──▶ sshd ─▶ login shell ─▶ sh: attached.sh ─▶ the command
//	  ◀──────────── "telexec:NONCE: started …" ──┘ stderr        │
//	sink ◀────────────── stdout, stderr ─────────────────────────┤
//	Wait ◀────────────── exit-status or exit-signal, EOF ────────┘
//
// Values of the environment go the same way as the script, on standard input, so
// that no list of processes on the host shows them. A terminal would echo them:
// with a PTY they stand in the exec request, and the host's ps shows them until
// the command has taken the script's place.
//
// KIND says whether the login shell is a plain sh, which then is given the script
// itself the next time: an exec of a shell is most of what a short run costs.
//
// As with ssh itself, the run ends when its output has ended, not before: a
// child in the background that holds standard output keeps it going. Children
// that hold no stream are left alone at an ordinary end. Only Cancel looks for
// them.
//
// # Ending a command
//
// SSH's own signal requests are refused for root logins, reach only some of the
// processes, and prove nothing. Cancel and Signal therefore go over a second
// channel, as a script on the standard input of /bin/sh (identity.sh with
// ladder.sh, both of hostshell, or with remote/signal.sh). It first makes sure that the pid still
// is the process that was started (boot id, start time). The ladder then lists
// the whole tree, that is the members of the session and of the group, all that
// carry TELEXEC_ID in their environment, all that were seen before, and all
// descendants of those; sends INT; sends TERM; freezes what is left and kills
// it; and each time looks whether the list is empty, which is the proof. What
// it cannot find is a daemon that left the session and the tree and cleared its
// environment before the first look, and does not have the output of a durable run
// open either; what it can see but not end is reported.
package sshexec
