package screen_test

import (
	"bytes"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/telexec/telexec/internal/screen"
)

// outputs are what the speed is measured with.
var outputs = map[string][]byte{
	"yes":     bytes.Repeat([]byte("y\r\n"), 20000),
	"lines":   bytes.Repeat([]byte(strings.Repeat("lorem ipsum ", 6)+"\r\n"), 800),
	"colored": colored(),
	"chinese": bytes.Repeat([]byte(strings.Repeat("漢字", 18)+"\r\n"), 500),
	"moving":  bytes.Repeat([]byte("\x1b[5;10H\x1b[32mabc\x1b[K\x1b[10;1H\x1b[1;44m 12 \x1b[m\x1b[2;1H"), 1000),
}

// colored is like ls --color and grep: a color for every word.
func colored() []byte {
	var b bytes.Buffer
	for i := range 800 {
		for k := range 6 {
			fmt.Fprintf(&b, "\x1b[01;%dmfile-%04d\x1b[0m  ", 31+(i+k)%7, i*6+k)
		}
		b.WriteString("\r\n")
	}
	return b.Bytes()
}

func BenchmarkWrite(b *testing.B) {
	for _, name := range []string{"yes", "lines", "colored", "chinese", "moving"} {
		b.Run(name, func(b *testing.B) {
			s := screen.New(80, 24, 10000)
			out := outputs[name]
			for range 20 {
				_, _ = s.Write(out) // fills the scrollback
			}
			b.SetBytes(int64(len(out)))
			b.ReportAllocs()
			for b.Loop() {
				_, _ = s.Write(out)
			}
		})
	}
}

func BenchmarkSnapshot(b *testing.B) {
	s := screen.New(80, 24, 10000)
	for range 20 {
		_, _ = s.Write(outputs["colored"])
	}
	for _, lines := range []int{0, 1000, 10000} {
		b.Run(fmt.Sprint(lines), func(b *testing.B) {
			for b.Loop() {
				b.ReportMetric(float64(len(s.Snapshot(lines))), "bytes")
			}
		})
	}
}

func BenchmarkResize(b *testing.B) {
	s := screen.New(80, 24, 10000)
	for range 20 {
		_, _ = s.Write(outputs["lines"])
	}
	for b.Loop() {
		s.Resize(60, 24)
		s.Resize(80, 24)
	}
}

// heap is how much is in use.
func heap() int {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// TestMemory bounds what a full scrollback takes.
func TestMemory(t *testing.T) {
	for name, most := range map[string]int{"lines": 3 << 20, "colored": 5 << 20} {
		before := heap()
		s := screen.New(80, 24, 10000)
		for range 13 {
			_, _ = s.Write(outputs[name])
		}
		if got := heap() - before; got > most {
			t.Errorf("%s: 10,000 lines of 80 columns take %d bytes, want at most %d", name, got, most)
		} else {
			t.Logf("%s: %d bytes", name, got)
		}
		runtime.KeepAlive(s)
	}
}

// TestNoAllocation requires that writing allocates nothing once the scrollback is full.
func TestNoAllocation(t *testing.T) {
	for name, out := range outputs {
		s := screen.New(80, 24, 200)
		_, _ = s.Write(out)
		if n := testing.AllocsPerRun(2, func() { _, _ = s.Write(out) }); n > 10 {
			t.Errorf("%s: %v allocations for %d bytes", name, n, len(out))
		}
	}
}
