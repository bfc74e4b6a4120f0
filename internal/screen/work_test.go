package screen

import (
	"fmt"
	"strings"
	"testing"
)

// Sequences of few bytes that touch all of the screen, the scrollback or a whole line.
var cheap = map[string]string{
	"RIS": "\x1bc", "RIS behind text": "x\x1bc", "RIS behind styles": "\x1b[4mx\x1bc", "DECSTR": "\x1b[!p",
	"DECALN": "\x1b#8", "DECALN and ED": "\x1b#8\x1b[2J", "ED": "\x1b[H\x1b[J", "ED 1": "\x1b[999;999H\x1b[1J", "ED 2": "\x1b[2J", "ED 3": "\n\x1b[3J",
	"ED in colors": "\x1b[44m\x1b[2J\x1b[45m\x1b[2J\x1b[m", "selective ED": "\x1b[?2J", "EL in colors": "\x1b[44m\x1b[2K\x1b[45m\x1b[2K\x1b[m",
	"alternate screen": "\x1b[?1049h\x1b[?1049l", "alternate screen in colors": "\x1b[44m\x1b[?47h\x1b[m\x1b[?47l", "alternate screen and RIS": "\x1b[?47hx\x1bc",
	"IL": "\x1b[2147483647L", "DL": "\x1b[2147483647M", "one of IL": "\x1b[L", "SU": "\x1b[2147483647S", "SD": "\x1b[2147483647T", "RI": "\x1b[H\x1bM",
	"scroll region": "\x1b[2;999r\x1b[999H\n\x1b[r", "ICH": "\x1b[2147483647@", "DCH": "\x1b[2147483647P", "ECH": "\x1b[2147483647X",
	"SL": "\x1b[ @", "SR": "\x1b[2147483647 A", "DECIC": "\x1b['}", "DECDC": "\x1b['~",
	"CHT": "\x1b[2147483647I\r", "CBT": "\x1b[999G\x1b[2147483647Z", "TBC": "\x1b[3g\x1b[999G\x1bH\r\t", "DECSC": "\x1b7\x1b8",
	"scrolling in colors": "\x1b[44m\x1b[2J\n\n\n\x1b[m",
}

// dear are those of which the work is in proportion to what they ask for.
var dear = map[string]string{
	"REP": "x\x1b[2147483647b", "REP of what combines": "x\u0301\u0302\x1b[2147483647b",
	"SR of text": "x\x1b[ A", "selective ED of what is protected": "\x1b[1\"qx\x1b[\"q\x1b[?2J",
}

var workSizes = [][2]int{{80, 24}, {1000, 500}}

// full is a terminal that is full of text and has scrollback.
func full(size [2]int) *Screen {
	s := New(size[0], size[1], 50)
	fmt.Fprint(s, "\x1b[?1049hx\x1b[?1049l", strings.Repeat(strings.Repeat("x", size[0]-1)+"\r\n", size[1]+100))
	return s
}

// stain puts something into all cells of which it does not count what is in them, and gives
// how many were written to since.
func stain(s *Screen) (written func() int) {
	const dirt = 'D' | 1<<widthShift
	var stained [][]cell
	for _, rows := range [][]*line{s.main.rows, s.main.spare, s.alt.rows, s.alt.spare} {
		for _, l := range rows {
			if !l.even {
				continue
			}
			for i := range l.cells {
				l.cells[i].content = dirt
			}
			l.used = len(l.cells)
			stained = append(stained, l.cells)
		}
	}
	return func() (n int) {
		for _, cells := range stained {
			for i := range cells {
				if cells[i].content != dirt {
					n++
				}
			}
		}
		return n
	}
}

// TestWork bounds what a sequence does that comes again and again: it allocates nothing, and
// writes to no more cells than a few lines have, however large the screen is.
func TestWork(t *testing.T) {
	for _, size := range workSizes {
		s := full(size)
		for name, one := range cheap {
			out := []byte(one)
			fmt.Fprint(s, strings.Repeat(one, 50)) // the scrollback is full
			if n := testing.AllocsPerRun(20, func() { _, _ = s.Write(out) }); n > 0 {
				t.Errorf("%v: %s: %v allocations", size, name, n)
			}
			fmt.Fprint(s, "\x1bc")
			written := stain(s)
			fmt.Fprint(s, one, one)
			if n := written(); n > 4*size[0] {
				t.Errorf("%v: %s: writes to %d cells", size, name, n)
			}
		}
	}
}

// TestWorkOfText is TestWork on a screen that is full: what was written there is gone once.
func TestWorkOfText(t *testing.T) {
	for _, size := range [][2]int{{80, 24}, {400, 200}} {
		for _, one := range []string{"\x1bc", "\x1b#8", "\x1b[2J", "\x1b[H\x1b[J", "\x1b[44m\x1b[2J", "\x1b[?1049h", "\x1b[999L", "\x1b[999S"} {
			s := full(size)
			before := make([]cell, 0, size[0]*size[1])
			for _, l := range s.main.rows {
				before = append(before, l.cells...)
			}
			lines := append([]*line(nil), s.main.rows...)
			fmt.Fprint(s, one)
			n := 0
			for y, l := range lines {
				for x := range l.cells {
					if l.cells[x] != before[y*size[0]+x] {
						n++
					}
				}
			}
			if n > size[0] {
				t.Errorf("%v: %q writes to %d cells", size, one, n)
			}
		}
	}
}

func BenchmarkSequences(b *testing.B) {
	for _, size := range workSizes {
		for _, of := range []map[string]string{cheap, dear} {
			for name, one := range of {
				b.Run(fmt.Sprintf("%dx%d/%s", size[0], size[1], name), func(b *testing.B) {
					s, out := full(size), []byte(one)
					b.SetBytes(int64(len(out)))
					b.ReportAllocs()
					for b.Loop() {
						_, _ = s.Write(out)
					}
				})
			}
		}
	}
}
