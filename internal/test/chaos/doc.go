// Package chaos proves, from outside, that telexec loses no command. It runs a
// real telexecd against real sshd servers, gives it commands whose output and
// end are known in advance, breaks everything around them at random, and
// compares what the service tells with what must be true.
//
//	seed ──▶ Script ──▶ what each stream holds, byte for byte, and the end
//	           │                                     │
//	           ▼ the same code, run on the host      ▼
//	   actor on the host ──▶ telexec ──▶ Sightings, Watches ──▶ Record.Check
//	           │                ▲
//	           └ one line into  └ Faults: kill -9, restart, SIGSTOP, lost links,
//	             its own file     killed sshd sessions, a full disk
//
// The model has four words. A [Script] is a command that the harness knows the
// truth about: any byte of its output can be computed from the seed, the stream
// and the offset ([Content]), so a watcher is checked byte by byte wherever it
// begins. A [Fault] is something that was broken, from when to when. A [Record]
// is all that was seen of a command and done to it, through all doors. Check
// holds a record against the rules, which are few:
//
//   - it started exactly once, as the host itself has written down;
//   - every watcher got every byte once and right, and what is stored has the
//     right SHA-256; an output that could not be kept is right up to the offset
//     that the service tells;
//   - its exit code or signal is the true one; LOST is only for an attached run
//     that a fault has met;
//   - it ends once: every watcher, poll and list tells the same end, and nobody
//     sees it alive after somebody saw it ended;
//   - GetStatus, ListCommands and StreamOutput agree; the same request id gives
//     the same command, always;
//   - nothing is left of it on the host: no process, no file.
//
// The rules are plain functions over a record, and are tested on made-up ones:
// each must be able to fail.
//
// "make chaos" runs it at full length, and a short form runs with every "make
// test". Whatever happens is drawn from one seed, which is printed; CHAOS_SEED
// gives it again. The draw repeats, the machine's timing does not: the same seed
// gives the same commands and faults in the same order, at much the same time.
// docs/reliability.md tells how to read the result.
//
// Start with Script, then Record and Check; the tests hold the harness itself.
package chaos
