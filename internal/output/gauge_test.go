package output_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/telexec/telexec/internal/output"
)

var update = flag.Bool("update", false, "write what is recognised beside the recordings")

// told gives what a gauge tells of a stream, which comes byte by byte so that
// nothing is stale when it is seen.
func told(stream string) (all []string) {
	var g output.Gauge
	at := time.Unix(0, 0)
	for _, b := range []byte(stream) {
		if p, news := g.Write([]byte{b}, at); news {
			all = append(all, fmt.Sprintf("%g %s", p.Percent, p.Label))
		}
		at = at.Add(time.Microsecond)
	}
	return all
}

// What real programs wrote, most of them to a terminal, and beside it what is
// told of it: -update writes that, to be read before it is kept.
func TestGaugeOfRecordings(t *testing.T) {
	recordings, err := filepath.Glob("testdata/progress/*.txt")
	if err != nil || len(recordings) < 10 {
		t.Fatalf("found %d recordings: %v", len(recordings), err)
	}
	for _, file := range recordings {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			stream, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := strings.Join(append(told(string(stream)), ""), "\n")
			beside := strings.TrimSuffix(file, ".txt") + ".want"
			if *update {
				if err := os.WriteFile(beside, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(beside)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("told:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

// Forms beside those that were recorded, written as the documentation and the
// sources of the programs show them.
func TestGaugeForms(t *testing.T) {
	for _, c := range []struct {
		name, stream string
		want         []string
	}{
		{"rsync of all", "\r         32,768   0%    0.00kB/s    0:00:00  \r    104,857,600  42%  150.20MB/s    0:00:01 (xfr#1, to-chk=3/9)\n",
			[]string{"0 ", "42 "}},
		{"rsync of a file", "big.iso\n         32,768   3%    0.00kB/s    0:00:00  \r  1,238,099 100%  146.38kB/s    0:00:08  (xfr#5, to-chk=169/396)\n",
			[]string{"3 big.iso", "100 big.iso"}},
		{"ninja", "[1/4] CC a.o\n[2/4] CC b.o\n[4/4] LINK a\n", []string{"50 CC b.o", "100 LINK a"}},
		{"ninja on a terminal", "\r[1/8] CC a.o\x1b[K\r[2/8] CC b.o\x1b[K\r[3/8] CC c.o\x1b[K\n", []string{"25 CC b.o", "37.5 CC c.o"}},
		{"yarn", "[1/4] Resolving packages...\n[2/4] Fetching packages...\n[3/4] Linking dependencies...\n",
			[]string{"25 Fetching packages", "50 Linking dependencies"}},
		{"make of CMake", "[ 10%] Building C object a.o\n[ 20%] Building C object b.o\n[100%] Built target a\n",
			[]string{"20 Building C object b.o", "100 Built target a"}},
		{"docker build", "Step 1/4 : FROM debian\n ---> 12ab\nStep 3/4 : RUN make\n", []string{"0 FROM debian", "50 RUN make"}},
		{"docker build with BuildKit", "#5 [1/9] FROM debian\n#8 [build 3/9] RUN make\n#8 0.123 cc\n#8 DONE 1.2s\n",
			[]string{"0 FROM debian", "22.2 RUN make"}},
		{"docker pull", "\x1b[1A\x1b[2K\ra1b2c3d4e5f6: Downloading [====>            ]  1.5MB/3MB\x1b[1B", []string{"50 a1b2c3d4e5f6: Downloading"}},
		{"tqdm", "\r  0%|          | 0/100 [00:00<?, ?it/s]\r 42%|████▏     | 42/100 [00:01<00:01, 41.2it/s]",
			[]string{"0 ", "42 "}},
		{"tqdm with words", "train:  42%|████▏     | 42/100 [00:01<00:01, 41.2it/s]\n", []string{"42 train"}},
		{"git beyond a pipe", "Receiving objects:  42% (42/100), 1.20 MiB | 1.1 MiB/s\rReceiving objects: 100% (100/100), done.\n",
			[]string{"42 Receiving objects", "100 Receiving objects"}},
		{"words and a number, drawn over", "\rExporting 1%\rExporting 2%\rExporting 99.97 %\n", []string{"2 Exporting", "99.9 Exporting"}},
		{"words and a number on lines", "Uploading: 10%\nsomething else\nUploading: 20%\nUploading: 20%\n", []string{"20 Uploading"}},
		{"so much complete", "10% complete\n20% complete\n", []string{"20 "}},
		{"another phase begins lower", "\rReading 50%\rReading 100%\rWriting 1%\rWriting 2%\n", []string{"100 Reading", "2 Writing"}},
		{"youtube-dl", "\r[download]   1.0% of 10.00MiB at 1.00MiB/s ETA 00:10\r[download]  42.5% of 10.00MiB at 1.00MiB/s ETA 00:05", []string{}},
		{"removal", "0 upgraded, 0 newly installed, 2 to remove and 3 not upgraded.\nRemoving a (1) ...\r\nRemoving b (1) ...\r\nProcessing triggers for man-db (2.11.2-2) ...\r\n",
			[]string{"0 Removing a (1)", "50 Removing b (1)", "100 Processing triggers for man-db (2.11.2-2)"}},
		{"upgrade", "1 upgraded, 0 newly installed, 1 reinstalled, 1 downgraded, 0 to remove and 3 not upgraded.\nPreparing to unpack .../a_2_all.deb ...\nUnpacking a (2) over (1) ...\nSetting up a (2) ...\n",
			[]string{"0 Preparing to unpack .../a_2_all.deb", "0 Unpacking a (2) over (1)", "16.6 Setting up a (2)"}},
		{"a label beyond its measure", "\rDownloading " + strings.Repeat("é", 100) + " 1%\rDownloading " + strings.Repeat("é", 100) + " 2%\n",
			[]string{"2 Downloading " + strings.Repeat("é", 54)}},
		{"a label that is not text", "\rRead\x00ing \xff\xfe\u202e x 1%\rRead\x00ing \xff\xfe\u202e x 2%\n", []string{"2 Reading x"}},
		{"a label with letters that are not seen", "\rRead\u3164ing\u2800\ufe0f x\u034f 1%\rRead\u3164ing\u2800\ufe0f x\u034f 2%\n", []string{"2 Reading x"}},
		{"colours", "\x1b[1mUploading\x1b[0m: \x1b[32m10%\x1b[0m\n\x1b[1mUploading\x1b[0m: \x1b[32m20%\x1b[0m\n\x1b]0;a title 50%\x07", []string{"20 Uploading"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := told(c.stream); !slices.Equal(got, c.want) {
				t.Errorf("told %q, want %q", got, c.want)
			}
		})
	}
}

// What has percentages and is no progress.
func TestGaugeInventsNothing(t *testing.T) {
	for name, stream := range map[string]string{
		"df":                 "Filesystem      Size  Used Avail Use% Mounted on\n/dev/vda        252G   49G  203G  20% /\ntmpfs            16G  1.0G   15G  54% /tmp\n",
		"df of one column":   "Use%\n 20%\n 54%\n",
		"watch df":           "\x1b[H\x1b[2J/dev/vda  252G  49G  203G  20% /\x1b[H\x1b[2J/dev/vda  252G  50G  202G  21% /\x1b[H",
		"top":                "\x1b[H%Cpu(s):  1.3 us,  0.2 sy\x1b[K\n 1234 root 20 0 1.3 0.2 0:00.1 sh\n\x1b[H%Cpu(s):  2.3 us\n",
		"htop":               "\x1b[1;1H  0[||||      12.3%]\x1b[1;1H  0[||||||    22.3%]\x1b[1;1H",
		"docker stats":       "\x1b[2J\x1b[Hweb  0.15%  12MiB / 1GiB  1.20%  1kB / 2kB\x1b[2J\x1b[Hweb  0.35%  12MiB / 1GiB  1.30%  1kB\n",
		"load in a log":      "CPU usage: 12%\nCPU usage: 15%\nCPU usage: 99%\n",
		"load drawn over":    "\rCPU 12%\rCPU 13%\rCPU 14%\r",
		"a warning":          "Warning: disk is at 91%\nWarning: disk is at 92%\n",
		"another warning":    "Warning: partition full to 91%\nWarning: partition full to 92%\n",
		"ping":               "3 packets transmitted, 0 received, 100% packet loss, time 2043ms\n",
		"a URL":              "GET /a%20b HTTP/1.1\nGET /a20%20b\nhttp://x/?q=42%25\n",
		"a sale":             "50% off\n60% off\nsave 10%\nsave 20%\n",
		"coverage":           "ok  \tpkg/a\t0.1s\tcoverage: 45.2% of statements\nok  \tpkg/b\t0.1s\tcoverage: 85.2% of statements\nTOTAL   120   12   90%\nTOTAL   120   12   91%\n",
		"JSON":               "{\"progress\": \"42%\"}\n{\"progress\": \"43%\"}\n{\"percent\": 42}\n",
		"a date":             "2026-01-02 10:11:12 12%\n2026-01-02 10:11:13 13%\n",
		"a question":         "[1/2] Continue? \n",
		"one of two":         "[1/2] in a log\nother\n",
		"no order":           "[2/2] b\n[1/2] a\n",
		"a path":             "[1/1] done\n[12/24/2026] x\n[12/25/2026] x\n",
		"too much":           "Uploading 110%\nUploading 120%\nUploading 1000%\n",
		"negative":           "Uploading -10%\nUploading -5%\n",
		"one value":          "Uploading 42%\n",
		"it does not grow":   "Uploading 42%\nUploading 41%\nUploading 41%\n",
		"a version":          "Downloading v1.2.3%\nDownloading v1.2.4%\n",
		"coverage of lines":  "Lines: 42% (42/100)\nLines: 43% (43/100)\nCoverage: 42% (42/100)\n",
		"a table":            "| 42% | a | 1/2 x |\n|a 42%| b | 1/2 [x] |\n",
		"git without counts": "Receiving objects: 42% (done)\n",
		"git that is wrong":  "Receiving objects: 42% (1/100)\n",
		"curl, no total":     "\r  0     0    0  1318k    0     0  1527k      0 --:--:--  0:00:01 --:--:-- 1527k\r",
		"a status of its own": "pmstatus:a:b:c\npmstatus:x\ndlstatus:1:101.0:x\n" +
			"pmstatus:a:NaN:c\npmstatus:a:1e1:c\npmstatus:a:-1:c\n",
		"dpkg alone":    "Unpacking a (1) ...\nSetting up a (1) ...\n(Reading database ... 5%\r(Reading database ... 10%\r",
		"a long line":   "Uploading " + strings.Repeat("x", 600) + " 1%\nUploading " + strings.Repeat("x", 600) + " 2%\n",
		"an escape":     "\x1b]0;Uploading 10%\x07\x1b]0;Uploading 20%\x07",
		"a line within": "see Uploading 1% here\nsee Uploading 2% here\n",
	} {
		t.Run(name, func(t *testing.T) {
			if got := told(stream); len(got) > 0 {
				t.Errorf("told %q", got)
			}
		})
	}
}

// The last progress is the same however a stream is cut, and what is told on the
// way is some of what is told byte by byte.
func checkCuts(t *testing.T, stream []byte, cuts *rand.Rand) {
	t.Helper()
	all := told(string(stream))
	var g output.Gauge
	at, next := time.Unix(0, 0), 0
	last := ""
	for rest := stream; len(rest) > 0; {
		n := min(1+cuts.IntN(1+cuts.IntN(300)), len(rest))
		p, news := g.Write(rest[:n], at)
		rest = rest[n:]
		if !news {
			continue
		}
		last = fmt.Sprintf("%g %s", p.Percent, p.Label)
		if p.Percent < 0 || p.Percent > 100 || len(p.Label) > 120 || !utf8.ValidString(p.Label) || strings.ContainsFunc(p.Label, unicode.IsControl) {
			t.Errorf("told %q", last)
		}
		i := slices.Index(all[next:], last)
		if i < 0 {
			t.Fatalf("told %q, which is not in %q after %d", last, all, next)
		}
		next += i
	}
	if len(all) > 0 && last != all[len(all)-1] {
		t.Errorf("told %q last, and byte by byte %q", last, all[len(all)-1])
	}
}

func TestGaugeHoweverCut(t *testing.T) {
	recordings, _ := filepath.Glob("testdata/progress/*.txt")
	for _, file := range recordings {
		stream, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for seed := range uint64(30) {
			checkCuts(t, stream, rand.New(rand.NewPCG(seed, 1)))
		}
	}
}

func FuzzGauge(f *testing.F) {
	recordings, _ := filepath.Glob("testdata/progress/*.txt")
	for _, file := range recordings {
		stream, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(stream[:min(len(stream), 2000)], uint64(1))
	}
	f.Add([]byte("[1/3] a\n[2/3] b\r\n\rx 1%\rx 2% (3/4)\x1b[2Kx|3%|\n"), uint64(2))
	f.Add([]byte("\r#### 12.5%[##\n"), uint64(3))
	f.Add([]byte("f\n 1,2 3% 4kB/s 0:00:01\r 1 4% 4kB/s 0:00:01\n1 upgraded, 2 newly installed, 0 to remove and 0 not upgraded.\nUnpacking x ...\n"), uint64(2))
	f.Fuzz(func(t *testing.T, stream []byte, seed uint64) {
		checkCuts(t, stream[:min(len(stream), 64<<10)], rand.New(rand.NewPCG(seed, 1)))
	})
}

// Of a stream that is too fast to be read whole the end still tells.
func TestGaugeOfBulk(t *testing.T) {
	var g output.Gauge
	at := time.Unix(0, 0)
	line := []byte(strings.Repeat("0123456789 abcdef 42% of nothing\n", 64<<10/33))
	for range 1000 {
		if p, news := g.Write(line, at); news {
			t.Fatalf("told %v of bulk", p)
		}
		at = at.Add(100 * time.Microsecond)
	}
	if p, news := g.Write(append(line, "\rWriting objects:  42% (42/100)\r"...), at); !news || p.Percent != 42 {
		t.Errorf("told %v, %v", p, news)
	}
}

// What was not read is not made up: neither the beginning of a line, nor the steps
// and the line before that came ahead of it.
func TestGaugeBehindWhatIsSkipped(t *testing.T) {
	burst := strings.Repeat("x", 1<<20)
	for _, c := range []struct{ name, before, behind, want string }{
		{"a line", "\rWriting objects:  4", "2% (42/100)\r", ""},
		{"the next line", "\rWriting objects:  4", "2% (42/100)\rWriting objects:  43% (43/100)\r", "43 Writing objects"},
		{"a line that was long", "\r" + strings.Repeat("x", 600), "\r[=>  ]\rWriting objects:  43% (43/100)\r", "43 Writing objects"},
		{"a title for the terminal", "\x1b]0;", "\rWriting objects:  43% (43/100)\r", "43 Writing objects"},
		{"counted packages", "2 upgraded, 0 newly installed, 0 to remove and 0 not upgraded.\nUnpacking a (1) ...\n", "\nSetting up b (1) ...\n", ""},
		{"the file", "big.iso\n", "\r  1,238,099  42%  146.38kB/s    0:00:08\r", "42 "},
	} {
		for name, skip := range map[string]func(g *output.Gauge) string{
			"told":    func(g *output.Gauge) string { g.Skip(); return c.behind },
			"in bulk": func(*output.Gauge) string { return burst + c.behind },
		} {
			var g output.Gauge
			g.Write([]byte(c.before), time.Unix(0, 0))
			got := ""
			if p, news := g.Write([]byte(skip(&g)), time.Unix(0, 0)); news {
				got = fmt.Sprintf("%g %s", p.Percent, p.Label)
			}
			if got != c.want {
				t.Errorf("%s, %s: told %q, want %q", c.name, name, got, c.want)
			}
		}
	}
}

func BenchmarkGauge(b *testing.B) {
	for name, line := range map[string]string{
		"lines":   "2026-01-02T10:11:12Z INFO request served path=/v1/commands status=200 bytes=1234\n",
		"percent": "2026-01-02T10:11:12Z GET /a%20b/c 12% of 100% at 50% status=200 100%\n",
		"redraws": "\rWriting objects:  42% (42/100), 1.20 MiB | 1.10 MiB/s",
		"zeros":   strings.Repeat("\x00", 1000),
		"escapes": "\x1b[1m\x1b[32m+\x1b[0m",
	} {
		b.Run(name, func(b *testing.B) {
			chunk := []byte(strings.Repeat(line, 64<<10/len(line)))
			b.SetBytes(int64(len(chunk)))
			b.ReportAllocs()
			var g output.Gauge
			at := time.Unix(0, 0)
			for b.Loop() {
				g.Write(chunk, at)
				at = at.Add(time.Duration(len(chunk)) * 2) // 500 MB/s
			}
		})
	}
}
