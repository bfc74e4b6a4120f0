package sshtest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Wire is the network between this machine and one with a network of its own: two
// TUN devices (see tun(4)), and a goroutine for each direction that carries the
// packets from one to the other.
//
//	here 198.18.x.y ── tun ══ goroutine ══ tun ── 198.18.x.y+1 there
//
// What a bad network does is done by the goroutines, so it needs nothing of the
// kernel but TUN (tc-netem is often not there). Packets that are dropped are
// dropped in silence, as by a firewall or a pulled cable: nobody is told. Its
// methods may be called concurrently.
type Wire struct {
	here, host netip.Addr

	mu     sync.Mutex
	drop   bool
	loss   float64
	delay  time.Duration
	jitter time.Duration
	lost   int // packets that were not carried

	ends    [2]*os.File
	running sync.WaitGroup
}

// mtu is larger than Ethernet's: fewer packets for the same bytes.
const mtu = 9000

// newWire makes the devices, one here and one in the network namespace of pid.
func newWire(t testing.TB, pid int) *Wire {
	t.Helper()
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		t.Skipf("this machine has no TUN devices: %v", err)
	}
	w := &Wire{}
	w.choose(t)
	name := "tlx" + strconv.Itoa(os.Getpid()%100_000) + "x" + strconv.Itoa(int(w.host.As4()[2])<<8|int(w.host.As4()[3]))
	var err error
	if w.ends[0], err = openTUN(name, w.here, w.host); err == nil {
		err = inNetwork(pid, func() (err error) {
			if err := up("lo"); err != nil {
				return err
			}
			w.ends[1], err = openTUN("eth0", w.host, w.here)
			return err
		})
	}
	if err != nil {
		if w.ends[0] != nil {
			w.ends[0].Close()
		}
		t.Fatalf("a wire to the network namespace: %v", err)
	}
	for i := range w.ends {
		w.running.Go(func() { w.carry(w.ends[i], w.ends[1-i]) })
	}
	return w
}

// choose takes two addresses of 198.18.0.0/15, which is kept for such networks
// (RFC 2544), that no wire of another test has.
func (w *Wire) choose(t testing.TB) {
	t.Helper()
	taken, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for {
		n := rand.IntN(1<<15) * 4
		w.here = netip.AddrFrom4([4]byte{198, byte(18 + n>>16), byte(n >> 8), byte(n) + 1})
		w.host = w.here.Next()
		free := true
		for _, a := range taken {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr() == w.here {
				free = false
			}
		}
		if free {
			return
		}
	}
}

// Drop makes the wire a black hole, both ways, for what is on it too.
func (w *Wire) Drop() { w.set(func() { w.drop = true }) }

// Delay holds each packet for d, and up to jitter longer; the order is kept. Both
// ways: a round trip takes twice as long.
func (w *Wire) Delay(d, jitter time.Duration) { w.set(func() { w.delay, w.jitter = d, jitter }) }

// Loss drops packets at random, 0 to 1 of all, each way.
func (w *Wire) Loss(share float64) { w.set(func() { w.loss = share }) }

// Heal ends Drop, Delay and Loss.
func (w *Wire) Heal() { w.set(func() { w.drop, w.delay, w.jitter, w.loss = false, 0, 0, 0 }) }

// Lost is how many packets were dropped so far.
func (w *Wire) Lost() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lost
}

func (w *Wire) set(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
}

// fate says what becomes of a packet that comes now.
func (w *Wire) fate() (carried bool, delay time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.drop || w.loss > 0 && rand.Float64() < w.loss {
		w.lost++
		return false, 0
	}
	delay = w.delay
	if w.jitter > 0 {
		delay += rand.N(w.jitter)
	}
	return true, delay
}

// dark tells whether a packet that is on the wire is lost by now.
func (w *Wire) dark() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.drop {
		w.lost++
	}
	return w.drop
}

// flight is a packet on a slow wire.
type flight struct {
	data []byte
	due  time.Time
}

// carry carries packets one way until an end is closed.
func (w *Wire) carry(from, to *os.File) {
	// Sent to by this goroutine, which closes it; read by the one below. A wire
	// holds only so much: what does not fit is lost, as in any router.
	slow := make(chan flight, 4096)
	var late sync.WaitGroup
	late.Go(func() {
		for f := range slow {
			if wait := time.Until(f.due); wait > 0 {
				<-time.After(wait)
			}
			if !w.dark() {
				_, _ = to.Write(f.data) // a device that is going takes nothing
			}
		}
	})
	defer late.Wait()
	defer close(slow)
	buf := make([]byte, mtu+100)
	var last time.Time // when the packet before is due
	for {
		n, err := from.Read(buf)
		if err != nil {
			if errors.Is(err, unix.EINTR) {
				continue
			}
			return
		}
		carried, delay := w.fate()
		if !carried {
			continue
		}
		now := time.Now()
		if delay == 0 && !last.After(now) {
			_, _ = to.Write(buf[:n])
			continue
		}
		due := now.Add(delay)
		if due.Before(last) {
			due = last
		}
		select {
		case slow <- flight{append([]byte(nil), buf[:n]...), due}:
			last = due
		default:
			w.set(func() { w.lost++ })
		}
	}
}

func (w *Wire) close() {
	w.Heal()
	for _, end := range w.ends {
		end.Close()
	}
	w.running.Wait()
}

// inNetwork calls f in the network namespace of a process.
func inNetwork(pid int, f func() error) error {
	// A namespace is a thread's affair.
	runtime.LockOSThread()
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer own.Close()
	other, err := os.Open("/proc/" + strconv.Itoa(pid) + "/ns/net")
	if err == nil {
		defer other.Close()
		err = unix.Setns(int(other.Fd()), unix.CLONE_NEWNET)
	}
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	err = f()
	if back := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); back != nil {
		return errors.Join(err, back) // the thread stays locked, and ends with its goroutine
	}
	runtime.UnlockOSThread()
	return err
}

// openTUN makes a TUN device in the network namespace of the calling thread, and
// sets it up as one end of a link between two addresses. It goes with its file.
func openTUN(name string, own, peer netip.Addr) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("/dev/net/tun: %w", err)
	}
	ifr, err := unix.NewIfreq(name)
	if err == nil {
		ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
	}
	if err == nil {
		err = configureInterface(name, func(socket int) error {
			if err := setAddress(socket, name, unix.SIOCSIFADDR, own); err != nil {
				return err
			}
			if err := setAddress(socket, name, unix.SIOCSIFDSTADDR, peer); err != nil {
				return err
			}
			r, err := unix.NewIfreq(name)
			if err != nil {
				return err
			}
			r.SetUint32(mtu)
			return unix.IoctlIfreq(socket, unix.SIOCSIFMTU, r)
		})
	}
	if err == nil {
		err = up(name)
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("TUN device %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

func setAddress(socket int, name string, request uint, addr netip.Addr) error {
	r, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	if err := r.SetInet4Addr(addr.AsSlice()); err != nil {
		return err
	}
	return unix.IoctlIfreq(socket, request, r)
}

// up sets an interface up.
func up(name string) error {
	return configureInterface(name, func(socket int) error {
		r, err := unix.NewIfreq(name)
		if err != nil {
			return err
		}
		if err := unix.IoctlIfreq(socket, unix.SIOCGIFFLAGS, r); err != nil {
			return err
		}
		r.SetUint16(r.Uint16() | unix.IFF_UP)
		return unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, r)
	})
}

// configureInterface calls f with a socket of the thread's namespace.
func configureInterface(name string, f func(socket int) error) error {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(socket)
	if err := f(socket); err != nil {
		return fmt.Errorf("interface %s: %w", name, err)
	}
	return nil
}
