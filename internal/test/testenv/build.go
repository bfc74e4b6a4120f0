package testenv

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// built holds the programs that this process has built already.
var built struct {
	sync.Mutex
	paths map[string]string
}

// Build gives the path of a program of this repository, "telexecd", "telexec" or
// "telexec-mcp", built from the sources as they are: with the race detector
// where the tests have it, and counting coverage where they do (-args
// -test.gocoverdir=DIR). Packages that test at the same time share the build.
func Build(t testing.TB, name string) string {
	t.Helper()
	built.Lock()
	defer built.Unlock()
	if path, ok := built.paths[name]; ok {
		return path
	}
	root := moduleRoot(t)
	flags, dir := buildFlags, "plain"
	if len(flags) > 0 {
		dir = "race"
	}
	if coverDir() != "" {
		flags = append(flags[:len(flags):len(flags)], "-cover", "-coverpkg=./cmd/...,./internal/...,./pkg/...")
		dir += "-cover"
	}
	dir = filepath.Join(root, "bin", "test", dir)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	unlock := lock(t, filepath.Join(dir, ".lock"))
	defer unlock()
	// go build links only when something has changed.
	program := filepath.Join(dir, name)
	cmd := exec.Command("go", append(append([]string{"build"}, flags...), "-buildvcs=false", "-o", program, "./cmd/"+name)...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(cmd.Args, " "), err, out)
	}
	if built.paths == nil {
		built.paths = make(map[string]string)
	}
	built.paths[name] = program
	return program
}

// coverDir is where coverage data goes; empty: nowhere. The flag wins, for go
// test sets the variable to a directory that it removes.
func coverDir() string {
	if f := flag.Lookup("test.gocoverdir"); f != nil && f.Value.String() != "" {
		return f.Value.String()
	}
	return os.Getenv("GOCOVERDIR")
}

// Tool gives the path of a tool that make has built into bin/tools; where it is not
// there, it is Missing.
func Tool(t testing.TB, name string) string {
	t.Helper()
	path := filepath.Join(moduleRoot(t), "bin", "tools", name)
	if _, err := os.Stat(path); err != nil {
		Missing(t, "no bin/tools/"+name+"; make bin/tools/"+name+" builds it")
	}
	return path
}

// moduleRoot is the directory of go.mod.
func moduleRoot(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		up := filepath.Dir(dir)
		if up == dir {
			t.Fatal("no go.mod above the working directory")
		}
		dir = up
	}
}

// lock keeps other test processes out until it is released.
func lock(t testing.TB, path string) (unlock func()) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err == nil {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
	}
	if err != nil {
		t.Fatal(fmt.Errorf("lock %s: %w", path, err))
	}
	return func() { f.Close() }
}
