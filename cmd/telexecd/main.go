package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"google.golang.org/grpc/grpclog"
)

func main() {
	// gRPC and its gateway would report every client that goes away, in a form of
	// their own; what matters of it is in our log.
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard))
	// SIGHUP is no stop: it has the policy read again, as daemons do. A service whose
	// terminal was closed goes on.
	hangups := make(chan os.Signal, 1) // one that waits is enough for any number
	signal.Notify(hangups, syscall.SIGHUP)
	var stops []os.Signal
	for _, s := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		if !signal.Ignored(s) { // nohup, or a job in the background of a script
			stops = append(stops, s)
		}
	}
	ctx, stop := context.Background(), func() {}
	if len(stops) > 0 { // no signals would mean all of them
		ctx, stop = signal.NotifyContext(ctx, stops...)
	}
	context.AfterFunc(ctx, stop) // from then on a second signal ends the process at once
	err := run(ctx, env{Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv, Hangups: hangups}, os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "telexecd:", err)
	}
	os.Exit(exitCode(err))
}
