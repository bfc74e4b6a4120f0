// Package sshexec runs one process on a host over an SSH channel: it starts a
// command, carries its streams, tells how it ended, signals it, and ends it
// with all its children.
//
// A Runner starts; a Process is what runs. How to reach a host is not known
// here: the Runner asks a Dialer for an open channel, one per command and one
// more for each signal or cancel.
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
// channel, as a script on the standard input of /bin/sh (remote/identity.sh with
// remote/ladder.sh or remote/signal.sh). It first makes sure that the pid still
// is the process that was started (boot id, start time). The ladder then lists
// the whole tree, that is the members of the session and of the group, all that
// carry TELEXEC_ID in their environment, all that were seen before, and all
// descendants of those; sends INT; sends TERM; freezes what is left and kills
// it; and each time looks whether the list is empty, which is the proof. What
// it cannot find is a daemon that left the session and the tree and cleared its
// environment before the first look; what it can see but not end is reported.
package sshexec
