package sqlite

import (
	"crypto/rand"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/command"
)

// benchDir is a directory on a disk, which the temporary one may not be: set
// TELEXEC_BENCH_DIR to measure another.
func benchDir(b *testing.B) string {
	dir, err := os.MkdirTemp(os.Getenv("TELEXEC_BENCH_DIR"), "store")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func benchStore(b *testing.B) *Store {
	s := open(b, benchDir(b))
	b.Cleanup(func() {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	})
	return s
}

func benchCommand(now time.Time) command.Command {
	return command.Command{
		ID: ulid.MustNew(ulid.Timestamp(now), ulid.DefaultEntropy()).String(), Version: 1, State: command.Starting,
		Spec: command.Spec{
			Host: "web1", Line: "systemctl status nginx", RequestID: rand.Text(),
			Env: map[string]string{"LANG": "C.UTF-8"}, Labels: map[string]string{"env": "prod"},
		},
		CreatedBy: command.Actor{Principal: "deploy", Origin: command.OriginCLI}, CreateTime: now, LastActivity: now,
		Node: "node-a", Fence: 1,
	}
}

func end(c command.Command, output ...command.Chunk) command.Change {
	from := c.State
	code := 0
	c.Version++
	c.State, c.StartTime, c.EndTime, c.Exit.Code = command.Completed, c.CreateTime, time.Now(), &code
	for _, o := range output {
		c.Size[o.Stream] = o.End()
	}
	return command.Change{From: from, Fence: c.Fence, Command: c, Output: output, Audit: []audit.Entry{hasEnded(c)}}
}

// accepted and hasEnded are what the audit is told of a command.
func accepted(c command.Command) audit.Entry {
	return audit.Entry{
		Time: c.CreateTime, Kind: audit.CommandAccepted, Principal: c.CreatedBy.Principal, Origin: string(c.CreatedBy.Origin), Address: "192.0.2.7",
		Call: "01ARZ3NDEKTSV4RRFFQ69G5FAV", CommandID: c.ID, Host: c.Spec.Host, Command: c.CommandLine(), RequestHash: make([]byte, 32), Decision: "allow", Rule: "look",
	}
}

func hasEnded(c command.Command) audit.Entry {
	return audit.Entry{
		Time: c.EndTime, Kind: audit.CommandEnded, Principal: c.CreatedBy.Principal, Origin: string(c.CreatedBy.Origin), CommandID: c.ID, Host: c.Spec.Host,
		Outcome: string(c.State), ExitCode: c.Exit.Code, Stdout: &audit.Output{Size: c.Size[0], Digest: make([]byte, 32), Head: []byte("active (running)\n")},
	}
}

// BenchmarkCreate and BenchmarkApply are the two commits of a short command.
func BenchmarkCreate(b *testing.B) {
	s := benchStore(b)
	for b.Loop() {
		c := benchCommand(time.Now())
		if _, _, err := s.Create(b.Context(), c, make([]byte, 32), nil, accepted(c)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkApply(b *testing.B) {
	s := benchStore(b)
	c := benchCommand(time.Now())
	if _, _, err := s.Create(b.Context(), c, nil, nil, accepted(c)); err != nil {
		b.Fatal(err)
	}
	at := int64(0)
	for b.Loop() {
		chunk := command.Chunk{Offset: at, Data: []byte("active (running)\n")}
		at = chunk.End()
		c.Version++
		if err := s.Apply(b.Context(), command.Change{From: c.State, Fence: c.Fence, Command: c, Output: []command.Chunk{chunk}}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkShortCommand is a whole short command, by so many callers at once.
func BenchmarkShortCommand(b *testing.B) {
	for _, callers := range []int{1, 10, 50, 200} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			s := benchStore(b)
			var wait sync.WaitGroup
			var n, slowest atomic.Int64
			b.ResetTimer()
			for range callers {
				wait.Go(func() {
					for n.Add(1) <= int64(b.N) {
						begin := time.Now()
						c := benchCommand(begin)
						if _, _, err := s.Create(b.Context(), c, make([]byte, 32), nil, accepted(c)); err != nil {
							b.Error(err)
							return
						}
						if err := s.Apply(b.Context(), end(c, command.Chunk{Data: []byte("active (running)\n")})); err != nil {
							b.Error(err)
							return
						}
						if d := int64(time.Since(begin)); d > slowest.Load() {
							slowest.Store(d)
						}
					}
				})
			}
			wait.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commands/s")
			b.ReportMetric(float64(b.Elapsed().Milliseconds())*float64(callers)/float64(b.N), "ms/command")
			b.ReportMetric(float64(slowest.Load())/1e6, "ms-slowest")
		})
	}
}

// BenchmarkOutput is bulk output in chunks of the size that the log hands over.
func BenchmarkOutput(b *testing.B) {
	for _, commands := range []int{1, 4} {
		b.Run(fmt.Sprintf("commands=%d", commands), func(b *testing.B) {
			s := benchStore(b)
			data := make([]byte, 1<<20)
			rand.Read(data)
			var wait sync.WaitGroup
			var n, slowest, wal atomic.Int64
			b.SetBytes(int64(len(data)))
			b.ResetTimer()
			for range commands {
				wait.Go(func() {
					c := benchCommand(time.Now())
					if _, _, err := s.Create(b.Context(), c, nil, nil, accepted(c)); err != nil {
						b.Error(err)
						return
					}
					for n.Add(1) <= int64(b.N) {
						begin := time.Now()
						chunk := command.Chunk{Offset: c.Size[0], Data: data}
						c.Version++
						c.Size[0] = chunk.End()
						if err := s.Apply(b.Context(), command.Change{From: c.State, Fence: c.Fence, Command: c, Output: []command.Chunk{chunk}}); err != nil {
							b.Error(err)
							return
						}
						if d := int64(time.Since(begin)); d > slowest.Load() {
							slowest.Store(d)
						}
						if i, err := os.Stat(s.path + "-wal"); err == nil && i.Size() > wal.Load() {
							wal.Store(i.Size())
						}
					}
				})
			}
			wait.Wait()
			b.ReportMetric(float64(slowest.Load())/1e6, "ms-slowest")
			b.ReportMetric(float64(wal.Load())/(1<<20), "MiB-wal")
			b.ReportMetric(float64(rss(b))/(1<<20), "MiB-rss")
		})
	}
}

// rss is the resident memory of the process in bytes, 0 where it is not told.
func rss(b *testing.B) (n int) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &n); err == nil {
			return n << 10
		}
	}
	return 0
}

// BenchmarkReadOutput reads a long output in order and at random.
func BenchmarkReadOutput(b *testing.B) {
	s := benchStore(b)
	c := benchCommand(time.Now())
	if _, _, err := s.Create(b.Context(), c, nil, nil, accepted(c)); err != nil {
		b.Fatal(err)
	}
	data := make([]byte, 8<<20)
	rand.Read(data)
	const size = 512 << 20
	for c.Size[0] < size {
		chunk := command.Chunk{Offset: c.Size[0], Data: data}
		c.Size[0] = chunk.End()
		if err := s.Apply(b.Context(), command.Change{From: c.State, Fence: c.Fence, Command: c, Output: []command.Chunk{chunk}}); err != nil {
			b.Fatal(err)
		}
	}
	for _, limit := range []int{4 << 10, 64 << 10, 1 << 20} {
		for _, order := range []string{"sequential", "random"} {
			b.Run(fmt.Sprintf("%dKiB/%s", limit>>10, order), func(b *testing.B) {
				b.SetBytes(int64(limit))
				at := int64(0)
				for b.Loop() {
					got, err := s.ReadOutput(b.Context(), c.ID, command.Stdout, at, limit)
					if err != nil || len(got) != limit {
						b.Fatalf("%d bytes, %v", len(got), err)
					}
					if at += int64(limit); order == "random" {
						at = at*6364136223846793005 + 1442695040888963407
					}
					at = int64(uint64(at) % uint64(size-limit))
				}
			})
		}
	}
}
