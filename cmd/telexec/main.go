package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	signals := make(chan os.Signal, 8) // more than anybody types while one is handled
	for _, s := range []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP} {
		if !signal.Ignored(s) { // nohup, or a job in the background of a script
			signal.Notify(signals, s)
		}
	}
	resized := make(chan os.Signal, 1) // one is enough: the size is asked for
	signal.Notify(resized, syscall.SIGWINCH)
	signal.Ignore(syscall.SIGPIPE) // a reader that went away is a write error, which run handles
	os.Exit(run(context.Background(), Env{
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv, Signals: signals, Resized: resized,
	}, os.Args[1:]))
}
