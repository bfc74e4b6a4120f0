package chaos

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"math/rand/v2"
	"strconv"
	"time"
)

// Stream is a source of bytes that is known in advance.
type Stream int

// The streams. Typed is what the harness sends to a command's standard input.
const (
	Stdout Stream = iota
	Stderr
	Typed
)

// String gives the name.
func (s Stream) String() string { return [...]string{"stdout", "stderr", "stdin"}[s] }

// Kind is a manner of running.
type Kind string

// The kinds.
const (
	Steady  Kind = "steady"  // lines at a random pace
	Bursts  Kind = "bursts"  // much at once, on both streams, then a rest
	Bulk    Kind = "bulk"    // as fast as it goes, up to 200 MB
	Silent  Kind = "silent"  // a word, up to a minute of silence, a word
	Brief   Kind = "brief"   // a line and an end, for all exit codes
	Given   Kind = "given"   // copies the input that it was given at the start
	Fed     Kind = "fed"     // copies the input that is sent while it runs
	Endless Kind = "endless" // prints on and on until it is ended
)

// Kinds lists them.
var Kinds = []Kind{Steady, Bursts, Bulk, Silent, Brief, Given, Fed, Endless}

// Step is one thing that a script does: it prints so many bytes, then pauses.
type Step struct {
	Stream Stream
	Bytes  int64
	Pause  time.Duration
}

// Script is a command whose truth is known. Two scripts with the same fields
// are the same.
type Script struct {
	Kind   Kind
	Seed   uint64
	Scale  float64 // of sizes; 1 is the full form
	Pace   float64 // of pauses; 1 is the full form
	Exit   int     // exit code, where it ends by itself and without Signal
	Signal string  // ends itself with this signal, without SIG; empty: exits
}

// limits of a kind at scale 1.
const (
	bulkMost   = 200 << 20
	silenceMax = 60 * time.Second
	endlessFor = 10 * time.Minute // so that one that was forgotten ends by itself
)

// Steps gives what it does, in order. For Given and Fed the bytes are those of
// its input, copied to stdout.
func (s Script) Steps() []Step {
	r := rand.New(rand.NewPCG(s.Seed, 1))
	size := func(most float64) int64 { return 1 + int64(r.Float64()*most*s.Scale) }
	pause := func(most time.Duration) time.Duration {
		return time.Duration(r.Float64() * float64(most) * s.Pace)
	}
	var steps []Step
	switch s.Kind {
	case Steady:
		for range 20 + r.IntN(40) {
			steps = append(steps, Step{Stream(r.IntN(2)), 1 + r.Int64N(300), pause(800 * time.Millisecond)})
		}
	case Bursts:
		for range 3 + r.IntN(6) {
			steps = append(steps, Step{Stdout, size(2 << 20), 0}, Step{Stderr, size(256 << 10), pause(4 * time.Second)})
		}
	case Bulk:
		steps = []Step{{Stdout, size(bulkMost), 0}, {Stderr, 1 + r.Int64N(1000), 0}}
		if r.IntN(4) == 0 { // one in four at the full size
			steps[0].Bytes = int64(bulkMost * s.Scale)
		}
	case Silent:
		silence := time.Duration(float64(silenceMax) * s.Pace)
		steps = []Step{{Stdout, 30, silence/2 + pause(silenceMax/2)}, {Stderr, 30, 0}}
	case Brief:
		steps = []Step{{Stdout, r.Int64N(100), 0}, {Stderr, r.Int64N(100), 0}}
	case Given:
		steps = []Step{{Typed, 1 + r.Int64N(512<<10), 0}}
	case Fed:
		steps = []Step{{Typed, size(1 << 20), 0}}
	case Endless:
		for took := time.Duration(0); took < endlessFor; {
			p := 50*time.Millisecond + time.Duration(r.Int64N(int64(250*time.Millisecond)))
			steps = append(steps, Step{Stream(r.IntN(2)), 1 + r.Int64N(2000), p})
			took += p
		}
	}
	return steps
}

// Size is how many bytes of a stream there are when it has run to its end.
func (s Script) Size(stream Stream) (n int64) {
	for _, step := range s.Steps() {
		if step.Stream == stream || stream == Stdout && step.Stream == Typed {
			n += step.Bytes
		}
	}
	return n
}

// Lasts is how long it takes at least.
func (s Script) Lasts() (d time.Duration) {
	for _, step := range s.Steps() {
		d += step.Pause
	}
	return d
}

// Content fills p with what a stream holds from offset on.
func (s Script) Content(stream Stream, offset int64, p []byte) {
	if stream == Stdout && (s.Kind == Given || s.Kind == Fed) {
		stream = Typed
	}
	Content(s.Seed, stream, offset, p)
}

// Sum is the SHA-256 of the first size bytes of a stream, in hexadecimal.
func (s Script) Sum(stream Stream, size int64) string {
	h, buf := sha256.New(), make([]byte, 64<<10)
	for at := int64(0); at < size; {
		part := buf[:min(int64(len(buf)), size-at)]
		s.Content(stream, at, part)
		h.Write(part)
		at += int64(len(part))
	}
	return sum(h)
}

func sum(h hash.Hash) string { return hex.EncodeToString(h.Sum(nil)) }

// alphabet of text, and how long a line of it is.
const (
	alphabet   = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 ;"
	lineLength = 80
)

// Content fills p with what a stream of a seed holds from offset on: random
// bytes where the seed is odd, lines of text where it is even. Any offset costs
// the same.
func Content(seed uint64, stream Stream, offset int64, p []byte) {
	base := mix(seed ^ uint64(stream+1)<<56)
	word, at := uint64(0), int64(-1)
	text := seed%2 == 0
	for i := range p {
		o := offset + int64(i)
		if o>>3 != at {
			at = o >> 3
			word = mix(base + uint64(at)*0x9e3779b97f4a7c15)
		}
		b := byte(word >> (8 * (o & 7)))
		if text {
			b = alphabet[b&63]
			if o%lineLength == lineLength-1 {
				b = '\n'
			}
		}
		p[i] = b
	}
}

// mix is the finalizer of splitmix64 (Steele, Lea, Flood: Fast Splittable
// Pseudorandom Number Generators, 2014).
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// Args are the arguments that make an actor play the script.
func (s Script) Args() []string {
	number := func(f float64) string { return strconv.FormatFloat(f, 'g', -1, 64) }
	return []string{string(s.Kind), strconv.FormatUint(s.Seed, 10), number(s.Scale), number(s.Pace), strconv.Itoa(s.Exit)}
}

// ParseScript reads Args. Signal is not in them: the shell around the actor
// sends it.
func ParseScript(args []string) (s Script, err error) {
	if len(args) != 5 {
		return s, fmt.Errorf("want kind, seed, scale, pace and exit code, not %q", args)
	}
	s.Kind = Kind(args[0])
	if s.Seed, err = strconv.ParseUint(args[1], 10, 64); err != nil {
		return s, err
	}
	if s.Scale, err = strconv.ParseFloat(args[2], 64); err != nil {
		return s, err
	}
	if s.Pace, err = strconv.ParseFloat(args[3], 64); err != nil {
		return s, err
	}
	s.Exit, err = strconv.Atoi(args[4])
	return s, err
}
