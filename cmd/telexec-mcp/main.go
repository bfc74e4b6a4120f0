package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	var stops []os.Signal
	for _, s := range []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP} {
		if !signal.Ignored(s) { // nohup, or a job in the background of a script
			stops = append(stops, s)
		}
	}
	ctx, stop := context.Background(), func() {}
	if len(stops) > 0 { // no signals would mean all of them
		ctx, stop = signal.NotifyContext(ctx, stops...)
	}
	context.AfterFunc(ctx, stop)   // from then on a second signal ends the process at once
	signal.Ignore(syscall.SIGPIPE) // a client that went away is a write error, which run handles
	os.Exit(run(ctx, Env{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv}, os.Args[1:]))
}
