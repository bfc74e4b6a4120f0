package chaos

import (
	"cmp"
	"os"
	"slices"
	"time"

	"github.com/telexec/telexec/internal/inventory"
	"github.com/telexec/telexec/internal/test/sshtest"
	"github.com/telexec/telexec/internal/test/testenv"
)

// The machines: one behind a wire, one with a small disk for its runs.
const (
	wireHost, wireUser = "wire1", "anna"
	diskHost, diskUser = "small1", "ben"
	smallDisk          = 8 << 20 // bytes
)

// startMachines starts the hosts with a network or a disk of their own, where
// the machine that runs the test can have such; else there are only the others,
// and fewer kinds of faults.
func (h *harness) startMachines() (options []testenv.Option) {
	h.t.Helper()
	if _, err := os.Stat("/dev/net/tun"); err != nil || os.Geteuid() != 0 {
		h.t.Log("no hosts with a network or a disk of their own: that takes root and TUN devices")
		return nil
	}
	wire := sshtest.StartMachine(h.t, sshtest.MachineOptions{Accounts: []sshtest.Account{{Name: wireUser}}, Wire: true})
	disk := sshtest.StartMachine(h.t, sshtest.MachineOptions{Accounts: []sshtest.Account{{Name: diskUser, SmallDisk: smallDisk}}})
	for name, m := range map[string]*sshtest.Machine{wireHost: wire, diskHost: disk} {
		h.machines[name], h.servers[name] = m, m.Server
	}
	h.places = append(h.places, Place{Name: wireHost, Wire: true}, Place{Name: diskHost, Small: true, Disk: true})
	hosts := testenv.WithHosts(limited(wire.HostOf(wireHost, wireUser)), limited(disk.HostOf(diskHost, diskUser)))
	return []testenv.Option{hosts}
}

// sortPlaces makes a plan independent of the order of maps.
func (h *harness) sortPlaces() {
	slices.SortFunc(h.places, func(a, b Place) int { return cmp.Compare(a.Name, b.Name) })
}

// breakMachine begins a fault that only a machine can have, and gives what ends it.
func (h *harness) breakMachine(kind FaultKind, host string) (end func()) {
	m := h.machines[host]
	switch kind {
	case DropLink:
		m.Wire.Drop()
		return m.Wire.Heal
	case DelayLink:
		m.Wire.Delay(100*time.Millisecond, 50*time.Millisecond)
		return m.Wire.Heal
	}
	m.Fill(diskUser)
	return func() { m.Free(diskUser) }
}

// limited lets as many commands run at once on a host as on all others.
func limited(host inventory.Host) inventory.Host {
	host.MaxCommands = perHost
	return host
}
