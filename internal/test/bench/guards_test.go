package bench

import (
	"flag"
	"testing"
	"time"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/test/testenv"
)

var base = flag.String("bench.base", "", "another telexecd to measure against, such as one from before there were guards")

// guards is a policy of some length, whose last rules decide.
const guards = `
policy:
  default: deny
  rules:
    - {name: no-power, effect: deny, match: {programs: [reboot, poweroff, shutdown, halt]}}
    - {name: no-disks, effect: deny, match: {programs: [mkfs*, fdisk, parted, dd]}}
    - {name: upgrades, effect: require_approval, match: {programs: [apt, apt-get, dnf, yum]}}
    - {name: database, effect: require_approval, match: {hosts: ["db*"], programs: [psql, mysql]}}
    - {name: restarts, effect: require_approval, match: {commands: ["systemctl restart *"]}}
    - {name: status, effect: allow, match: {commands: ["systemctl status *", "journalctl *"]}}
    - {name: agents, effect: allow, match: {origins: [mcp], programs: [ls, cat, df, uptime]}}
    - {name: look, effect: allow, match: {programs: [ls, cat, df, du, uptime, free, ps, id, true]}}
`

// BenchmarkGuards is what identity, policy and audit add to an Execute of "true":
// this telexecd with a policy and an operator's API key, against another one with
// its administrator's token.
func BenchmarkGuards(b *testing.B) {
	if *base == "" {
		b.Skip("make bench-guards names the telexecd to measure against")
	}
	with := testenv.Start(b, testenv.WithConfig(guards))
	without := testenv.Start(b, testenv.WithProgram(*base))
	commands := telexecv1.NewCommandServiceClient(with.As(with.Key("bench", "operator")))
	rivals := []rival{
		{"without", func() error { return execute(b.Context(), without.Commands(), without.Host, "true", durable) }},
		{"with", func() error {
			return execute(b.Context(), commands, with.Host, "true", durable)
		}},
	}
	times := make([][]time.Duration, len(rivals))
	for range 20 { // warm
		for _, r := range rivals {
			if err := r.run(); err != nil {
				b.Fatal(r.name, err)
			}
		}
	}
	for n := 0; b.Loop(); n++ {
		for i := range rivals {
			i = (i + n) % len(rivals) // neither is always the first
			begin := time.Now()
			if err := rivals[i].run(); err != nil {
				b.Fatal(rivals[i].name, err)
			}
			times[i] = append(times[i], time.Since(begin))
		}
	}
	for i, r := range rivals {
		b.ReportMetric(ms(percentile(times[i], 50)), r.name+"-p50-ms")
		b.ReportMetric(ms(percentile(times[i], 95)), r.name+"-p95-ms")
	}
	b.ReportMetric(ms(percentile(times[1], 50)-percentile(times[0], 50)), "added-p50-ms")
	b.ReportMetric(0, "ns/op")
}
