package e2e

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/test/testenv"
)

// digest checks that the bytes of a stream come in order and hashes them.
type digest struct {
	hash.Hash
	size int64
}

func (d *digest) add(offset int64, data []byte) error {
	if offset != d.size {
		return fmt.Errorf("bytes at offset %d, want %d", offset, d.size)
	}
	d.size += int64(len(data))
	d.Write(data)
	return nil
}

func (d *digest) sum() string { return hex.EncodeToString(d.Sum(nil)) }

// TestBulk: 100 MB of random bytes on stdout and 1 MB on stderr arrive whole by
// gRPC and by REST, with a watcher beside that takes 1 KB per second.
func TestBulk(t *testing.T) {
	size := 100_000_000
	if testing.Short() {
		size = 8_000_000
	}
	env := testenv.Start(t)
	dir := strings.TrimSpace(string(execute(t, env, &telexecv1.ExecuteRequest{Command: "mktemp -d"}).GetStdout().GetData()))
	defer execute(t, env, &telexecv1.ExecuteRequest{Argv: []string{"rm", "-r", dir}})
	made := execute(t, env, &telexecv1.ExecuteRequest{WorkingDirectory: dir, Command: fmt.Sprintf(
		"head -c %d /dev/urandom >out; head -c 1000000 /dev/urandom >err; sha256sum out err | cut -c1-64", size)})
	want := strings.Fields(string(made.GetStdout().GetData()))
	if len(want) != 2 {
		t.Fatalf("%v", made)
	}

	before := memory(t, env, "VmRSS")
	// It waits until all watchers are there.
	id := begin(t, env, &telexecv1.ExecuteRequest{WorkingDirectory: dir, StdinOpen: true, Command: "read go; cat err >&2 & cat out; wait"})
	slow := make(chan error, 1)
	slowCtx, stopSlow := context.WithCancel(t.Context())
	defer stopSlow()
	go func() { slow <- watchSlowly(slowCtx, env, id) }()
	for {
		info, err := env.Admin().GetServerInfo(t.Context(), &telexecv1.GetServerInfoRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if info.GetWatchers() == 1 {
			break
		}
	}
	var wg sync.WaitGroup
	start := time.Now()
	for name, read := range map[string]func(testing.TB, *testenv.Env, string) (stdout, stderr *digest){"gRPC": byGRPC, "REST": byREST} {
		wg.Go(func() {
			stdout, stderr := read(t, env, id)
			t.Logf("%s: %d bytes in %v", name, stdout.size+stderr.size, time.Since(start).Round(time.Millisecond))
			if stdout.size != int64(size) || stdout.sum() != want[0] || stderr.size != 1_000_000 || stderr.sum() != want[1] {
				t.Errorf("%s: %d and %d bytes, sums %s and %s, want %v", name, stdout.size, stderr.size, stdout.sum(), stderr.sum(), want)
			}
		})
	}
	if _, err := env.Commands().SendInput(t.Context(), &telexecv1.SendInputRequest{CommandId: id, Data: []byte("go\n"), Eof: true}); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	stopSlow()
	if err := <-slow; err != nil {
		t.Errorf("slow watcher: %v", err)
	}
	peak := memory(t, env, "VmHWM")
	t.Logf("memory of the service: %d KiB before, %d KiB at most", before, peak)
	// Flat: what it holds does not grow with what a command prints.
	if !raceEnabled && peak-before > 128<<10 {
		t.Errorf("memory rose from %d to %d KiB", before, peak)
	}
	// And once more from the store, after the end.
	if stdout, stderr := byGRPC(t, env, id); stdout.sum() != want[0] || stderr.sum() != want[1] {
		t.Errorf("from the store: %d and %d bytes", stdout.size, stderr.size)
	}
}

func byGRPC(t testing.TB, env *testenv.Env, id string) (stdout, stderr *digest) {
	stdout, stderr = &digest{Hash: sha256.New()}, &digest{Hash: sha256.New()}
	s, err := env.Commands().StreamOutput(t.Context(), &telexecv1.StreamOutputRequest{CommandId: id, Follow: true})
	for err == nil {
		var m *telexecv1.StreamOutputResponse
		if m, err = s.Recv(); err != nil {
			break
		}
		if c := m.GetChunk(); c != nil {
			d := stdout
			if c.GetStream() == telexecv1.Stream_STREAM_STDERR {
				d = stderr
			}
			err = d.add(c.GetOffset(), c.GetData())
		}
	}
	if !errors.Is(err, io.EOF) {
		t.Errorf("gRPC: %v", err)
	}
	return stdout, stderr
}

func byREST(t testing.TB, env *testenv.Env, id string) (stdout, stderr *digest) {
	stdout, stderr = &digest{Hash: sha256.New()}, &digest{Hash: sha256.New()}
	resp := env.REST(t.Context(), "GET", "/v1/commands/"+id+"/output?follow=true", "")
	defer resp.Body.Close()
	lines := json.NewDecoder(resp.Body)
	for {
		var m struct {
			Chunk *struct {
				Stream string
				Offset string
				Data   []byte
			}
			Ended json.RawMessage
			Error json.RawMessage
		}
		err := lines.Decode(&m)
		if errors.Is(err, io.EOF) {
			return stdout, stderr
		}
		if c := m.Chunk; err == nil && c != nil {
			d, offset := stdout, int64(0)
			if c.Stream == "STREAM_STDERR" {
				d = stderr
			}
			if c.Offset != "" { // 0 is left out
				offset, err = strconv.ParseInt(c.Offset, 10, 64)
			}
			err = errors.Join(err, d.add(offset, c.Data))
		}
		if err != nil || m.Error != nil {
			t.Errorf("REST: %v %s", err, m.Error)
			return stdout, stderr
		}
	}
}

// watchSlowly reads 1 KB of a stream each second until ctx ends; that it ends
// there is no error.
func watchSlowly(ctx context.Context, env *testenv.Env, id string) error {
	resp := env.REST(ctx, "GET", "/v1/commands/"+id+"/output?follow=true", "")
	defer resp.Body.Close()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	kilobyte := make([]byte, 1000)
	for {
		if _, err := io.ReadFull(resp.Body, kilobyte); err != nil && ctx.Err() == nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// memory gives a figure of /proc/PID/status in KiB: VmRSS or VmHWM, its peak.
func memory(t testing.TB, env *testenv.Env, name string) int {
	t.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", env.PID()))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), name+":"); ok {
			n, err := strconv.Atoi(strings.Fields(value)[0])
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("no %s", name)
	return 0
}
