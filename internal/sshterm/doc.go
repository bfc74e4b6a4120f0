// Package sshterm is a shell on a terminal of a host: it starts one, or finds again one
// that was kept; carries what is typed and what is shown; tells who has the terminal;
// and ends what runs there, or all of it.
//
//	terms := sshterm.New(dialer, sshterm.Options{})
//	s, err := terms.Open(ctx, sshterm.Spec{ID: id, Host: host, Nonce: completion.NewNonce()})
//	defer s.Close()
//	s.Facts()            // what shell, what keeps it, whether it tells marks
//	s.Write([]byte("ls\r"))
//	n, err := s.Read(buf) // io.EOF: the shell has ended
//
// How to reach a host is not known here; a Dialer gives channels.
//
// # How a shell is opened
//
//	probe.go     what the account has, asked once: the shell and what it really is, keepers
//	terms.go     which keeper it will be
//	open.go      prepare: the files of the session; then one channel, on which
//	             start.sh becomes the shell, or attach.sh starts a keeper and is its client
//	resume.go    where the files of one that was opened before are: in any place, also one
//	             that cannot be written any more; what is not to be seen is not gone
//	shell.go     Shell: reads, types, resizes, tells the end
//	plain.go     a stream that is the terminal itself, and lines of ours in it
//	tmux.go      tmux's control mode
//	hidden.go    what was typed unseen, and is not in the picture of its screen
//	foreground.go who has the terminal; the ladder; the end
//
// The files of a session are in a directory of its own, sessions/ID, in the place that
// the account's commands have too (docs/remote-protocol.md): mode 0700, the owner
// checked. What our scripts say begins with RS and a nonce, and is taken out.
//
// The exec request of an SSH server starts no login shell, so what a login shell reads is
// read by what package completion makes of it.
//
// # What keeps a shell
//
// The best that the host has, of these:
//
//   - tmux, from 3.0 on, in control mode and on a server of its own, which reads none of
//     the account's configuration: every byte that the shell prints comes through as it
//     is, and after a lost connection the screen can be had (Facts.Redraw). It is a
//     terminal, though, and answers what programs ask one (Facts.Answers).
//   - dtach: nothing but a terminal that goes on. Every byte comes through; what was
//     printed while nobody was there is lost, and the screen is not known. Programs are
//     told by WINCH to draw again.
//   - screen draws what it has understood, so that other bytes come than were printed, and
//     no marks (Facts.Marks is false). After a lost connection it draws the screen anew.
//
// Where a keeper does not start (a host without any UTF-8 locale has no tmux), or cannot be
// attached to, the next one is taken; where there is none, or logind ends everything that
// a login has started, KeeperReason tells so, and the shell ends with its connection.
//
// The keeper runs hold.sh, which runs the shell and writes down its exit code, so that it
// is known also where nobody was there. The shell is found again by pid, start time and
// boot id. There is one client at a time: who comes later displaces who was there. Until
// the first one is there the shell has not begun: start.sh waits for a line, so that
// nothing is printed to nobody; where none comes, it ends.
//
// # Who has the terminal
//
// Each terminal has a foreground group (tcgetpgrp(3)), which the host shows in
// /proc/PID/stat and in ps. Foreground, Ladder and Signal look for that of a given shell,
// over a channel of their own: the session's, or one that was started in it, which may
// have another terminal (sudo makes one). The ladder is sshexec's, on that group and all
// descendants; the shell itself is never touched. End climbs it for everything that bears
// the session's mark in its environment, beginning with HUP.
package sshterm
