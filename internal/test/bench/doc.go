// Package bench measures telexec side by side with what it stands on: a raw
// connection of x/crypto/ssh, and the OpenSSH client with a ControlMaster. All
// talk to the same sshd on loopback, in turns within one run, so that the ratios
// hold whatever the machine does meanwhile; the absolute figures hold for the
// machine of that day only. Run it with "make bench"; docs/benchmarks.md keeps
// the figures.
//
// The service is a process of its own, with its store on disk, asked over gRPC.
package bench
