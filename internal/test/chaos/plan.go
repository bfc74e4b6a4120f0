package chaos

import (
	"math/rand/v2"
	"time"
)

// Place is a host that a plan may use.
type Place struct {
	Name  string
	Small bool // its run directory has no room for bulk
	Wire  bool // its packets can be lost and late
	Disk  bool // its run directory can be filled
}

// signals that a command may end itself with. INT and PIPE are not among them:
// a shell does not tell a death by one of these from an exit with its number,
// nor does telexec.
var signals = []string{"HUP", "QUIT", "KILL", "TERM", "USR1", "USR2", "ALRM", "SEGV", "ABRT", "BUS", "FPE", "ILL", "TRAP", "SYS"}

// Plan draws n commands from a seed. With 512 of them or more every exit code
// is among them, with 16 every kind.
func Plan(seed uint64, n int, scale, pace float64, places []Place) []*Record {
	r := rand.New(rand.NewPCG(seed, 2))
	codes := r.Perm(256)
	briefs := 0
	records := make([]*Record, n)
	for i := range records {
		c := &Record{Number: i, Script: Script{Seed: r.Uint64(), Scale: scale, Pace: pace}}
		place := places[r.IntN(len(places))]
		c.Host = place.Name
		s := &c.Script
		switch d := r.IntN(100); {
		case i%2 == 1 && i/2 < len(Kinds): // a short run has them all, too
			s.Kind = Kinds[i/2]
		// The codes first: every other command, until all were seen.
		case i%2 == 0 && briefs < len(codes):
			s.Kind, s.Exit = Brief, codes[briefs]
			briefs++
		case d < 20:
			s.Kind, s.Exit = Brief, r.IntN(256)
		case d < 40:
			s.Kind = Steady
		case d < 52:
			s.Kind = Bursts
		case d < 56:
			s.Kind = Bulk
		case d < 66:
			s.Kind = Silent
		case d < 73:
			s.Kind = Given
		case d < 82:
			s.Kind = Fed
		default:
			s.Kind = Endless
		}
		if place.Small && (s.Kind == Bulk || s.Kind == Bursts) {
			s.Kind = Steady
		}
		if s.Kind != Brief && r.IntN(2) == 0 {
			s.Exit = r.IntN(256)
		}
		if (s.Kind == Brief || s.Kind == Steady) && i%2 == 1 && r.IntN(3) == 0 {
			s.Signal, s.Exit = signals[r.IntN(len(signals))], 0
		}
		switch {
		case s.Kind == Endless && r.IntN(3) == 0:
			c.Timeout = time.Second + time.Duration(r.Float64()*float64(10*time.Second)*pace)
		case s.Kind == Endless, r.IntN(25) == 0:
			c.Cancel = true
		}
		c.Attached = r.IntN(16) == 0
		records[i] = c
	}
	return records
}

// faultWeights is how often each fault is drawn, against each other.
var faultWeights = []struct {
	kind   FaultKind
	weight int
}{
	{KillService, 22}, {RestartService, 12}, {StopService, 8}, {KillSessions, 24}, {StopSSHD, 6}, {DropLink, 12}, {DelayLink, 8}, {FillDisk, 8},
}

// Blow is a fault that is to come.
type Blow struct {
	Kind FaultKind
	Host string        // empty: the service
	At   time.Duration // from the start
	For  time.Duration // how long it is to last
}

// Blows draws n faults from a seed, spread over a time. They last up to most.
func Blows(seed uint64, n int, over, most time.Duration, places []Place) []Blow {
	r := rand.New(rand.NewPCG(seed, 3))
	var deck []FaultKind
	for _, w := range faultWeights {
		for range w.weight {
			deck = append(deck, w.kind)
		}
	}
	fits := func(k FaultKind) (hosts []string) {
		for _, p := range places {
			if (k != DropLink && k != DelayLink || p.Wire) && (k != FillDisk || p.Disk) {
				hosts = append(hosts, p.Name)
			}
		}
		return hosts
	}
	blows := make([]Blow, 0, n)
	for len(blows) < n {
		b := Blow{Kind: deck[r.IntN(len(deck))], For: 50*time.Millisecond + time.Duration(r.Float64()*float64(most))}
		switch b.Kind {
		case KillService, RestartService, StopService:
		default:
			hosts := fits(b.Kind)
			if len(hosts) == 0 {
				continue
			}
			b.Host = hosts[r.IntN(len(hosts))]
		}
		gap := float64(over) / float64(n)
		b.At = time.Duration((float64(len(blows)) + r.Float64()) * gap)
		blows = append(blows, b)
	}
	return blows
}
