package sqlite

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/telexec/telexec/internal/seal"
	"github.com/telexec/telexec/internal/store"
	"github.com/telexec/telexec/internal/store/storetest"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		child(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T, dir string) store.Store { return open(t, dir) })
}

// testKey is the service's in all tests.
var testKey = seal.NewKey(bytes.Repeat([]byte{7}, seal.KeySize))

// open opens the store in a directory. The test closes it.
func open(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(t.Context(), filepath.Join(dir, "commands.db"), Options{Logger: slog.New(slog.NewTextHandler(t.Output(), nil)), Key: testKey})
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	return s
}
