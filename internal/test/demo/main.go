// Package main is the demo: it shows telexec at work on a machine that has
// nothing but this repository.
//
// It starts an SSH host of its own (internal/test/loopback), the real telexecd
// with a configuration for that host on ephemeral ports, and then types commands
// of the real telexec as a person would. Everything it shows it also checks; what
// is not as it should be ends it with an error. With -stay it does not type
// anything but tells how to, and leaves the service up until Ctrl-C.
//
// "make demo" and "make run" build the programs and run it. What it writes is in
// a temporary directory, which it removes.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"golang.org/x/term"

	"github.com/telexec/telexec/internal/test/loopback"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends it at once
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// run is the whole demo.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	flags.SetOutput(stderr)
	bin := flags.String("bin", "bin", "where telexecd and telexec are")
	stay := flags.Bool("stay", false, "leave the service up until Ctrl-C")
	if err := flags.Parse(args); err != nil {
		return err
	}
	bins, err := filepath.Abs(*bin)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "telexec-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	opt := loopback.Options{Dir: dir}
	if !*stay { // what the demo's commands leave behind goes with it
		opt.Home = filepath.Join(dir, "home")
		if err := os.Mkdir(opt.Home, 0o700); err != nil {
			return err
		}
	}
	host, err := loopback.Start(context.WithoutCancel(ctx), opt)
	if err != nil {
		return fmt.Errorf("starting the host: %w", err)
	}
	defer host.Close()
	start := func(ctx context.Context) (*service, error) {
		return startService(ctx, bins, dir, host.ConfigHost("demo"), stderr)
	}
	t := typist{out: stdout, stderr: stderr, bin: bins, start: start, colour: coloured(stdout)}
	if t.service, err = start(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.service.stop(err != nil && ctx.Err() == nil, stderr)) }()
	if *stay {
		return t.leaveUp(ctx)
	}
	return t.show(ctx)
}

// coloured reports whether w wants colours: a terminal, and NO_COLOR unset.
func coloured(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd())) && os.Getenv("NO_COLOR") == ""
}
