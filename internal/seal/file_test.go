package seal_test

import (
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/seal"
)

const keyFile = "seal.key"

// same reports whether two keys are the same one.
func same(a, b *seal.Key) bool {
	return a.Check("test", []byte("data"), b.Tag("test", []byte("data")))
}

func TestTheKeyIsMadeOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), keyFile)
	first, err := seal.OpenKey(path)
	if err != nil {
		t.Fatal(err)
	}
	second, err := seal.OpenKey(path)
	if err != nil || !same(first, second) {
		t.Errorf("the second start has another key, %v", err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	random, err := hex.DecodeString(strings.TrimSpace(string(b)))
	if err != nil || len(random) != seal.KeySize || !same(first, seal.NewKey(random)) {
		t.Errorf("the file does not hold the key in hexadecimal: %v", err)
	}
	other, err := seal.OpenKey(filepath.Join(t.TempDir(), keyFile))
	if err != nil || same(first, other) {
		t.Errorf("another directory has the same key, %v", err)
	}
}

func TestProcessesThatStartAtOnceAgree(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, keyFile)
	keys := make([]*seal.Key, 16)
	start := make(chan struct{})
	var all sync.WaitGroup
	for i := range keys {
		all.Go(func() {
			<-start
			k, err := seal.OpenKey(path)
			if err != nil {
				t.Error(err)
			}
			keys[i] = k
		})
	}
	close(start)
	all.Wait()
	if t.Failed() {
		return
	}
	kept, err := seal.OpenKey(path)
	if err != nil {
		t.Fatal(err)
	}
	for i, k := range keys {
		if !same(k, kept) {
			t.Errorf("start %d has another key than the file", i)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("left in the directory: %v, %v", entries, err)
	}
}

func TestABadKeyFileIsRefused(t *testing.T) {
	good := strings.Repeat("5a", seal.KeySize)
	for name, c := range map[string]struct {
		content string
		mode    os.FileMode
		hint    string
	}{
		"read by the group":     {good + "\n", 0o640, "chmod 600"},
		"read by all":           {good + "\n", 0o604, "chmod 600"},
		"written by the group":  {good + "\n", 0o620, "chmod 600"},
		"empty":                 {"", 0o600, "from a copy"},
		"cut short":             {good[:63], 0o600, "from a copy"},
		"cut to whole bytes":    {good[:62], 0o600, "from a copy"},
		"a digit too many":      {good + "a\n", 0o600, "from a copy"},
		"a second line":         {good + "\n" + good + "\n", 0o600, "from a copy"},
		"a second line, short":  {good + "\n\n", 0o600, "from a copy"},
		"not hexadecimal":       {good[:62] + "zz\n", 0o600, "from a copy"},
		"zeros after a crash":   {strings.Repeat("\x00", 65), 0o600, "from a copy"},
		"a megabyte of letters": {strings.Repeat("a", 1<<20), 0o600, "from a copy"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), keyFile)
			if err := os.WriteFile(path, []byte(c.content), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, c.mode); err != nil {
				t.Fatal(err)
			}
			_, err := seal.OpenKey(path)
			e := fault.From(err)
			if err == nil || e.Reason != fault.ReasonBadSealKey || e.Kind != fault.FailedPrecondition {
				t.Fatalf("OpenKey: %v", err)
			}
			for _, want := range []string{path, c.hint, "commands and their output stay"} {
				if !strings.Contains(e.Text(), want) {
					t.Errorf("%q does not say %q", e.Text(), want)
				}
			}
			if strings.Contains(err.Error()+e.Text(), "5a5a") {
				t.Errorf("the error shows the key: %v", err)
			}
			if after, _ := os.ReadFile(path); string(after) != c.content {
				t.Error("a refused file was changed")
			}
		})
	}
}

func TestAKeyThatCannotBeReadOrWritten(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "directory"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{
		"a directory":       filepath.Join(dir, "directory"),
		"no such directory": filepath.Join(dir, "missing", keyFile),
		"below a file":      filepath.Join(dir, "file", keyFile),
	} {
		_, err := seal.OpenKey(path)
		if e := fault.From(err); err == nil || e.Reason != fault.ReasonBadSealKey || e.Hint == "" || !strings.Contains(e.Text(), path) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A file without a newline at its end, as an editor or echo -n leaves it, is as
// good.
func TestAKeyWithoutNewline(t *testing.T) {
	path := filepath.Join(t.TempDir(), keyFile)
	if err := os.WriteFile(path, []byte(strings.Repeat("5A", seal.KeySize)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := seal.OpenKey(path); err != nil {
		t.Error(err)
	}
}
