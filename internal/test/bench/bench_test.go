package bench

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"google.golang.org/protobuf/types/known/durationpb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/test/sshtest"
	"github.com/telexec/telexec/internal/test/testenv"
	"github.com/telexec/telexec/pkg/client"
)

// rival is a way to run a command and have its exit code.
type rival struct {
	name string
	run  func() error
}

// setup starts an sshd and a service for it.
func setup(b *testing.B) (*sshtest.Server, *testenv.Env) {
	b.Helper()
	env := testenv.Start(b, testenv.WithMaxCommands(200))
	return env.Servers[env.Host], env
}

// dial opens a raw connection.
func dial(b testing.TB, srv *sshtest.Server) *ssh.Client {
	b.Helper()
	pem, err := os.ReadFile(srv.IdentityFile)
	if err != nil {
		b.Fatal(err)
	}
	signer, err := ssh.ParsePrivateKey(pem)
	if err != nil {
		b.Fatal(err)
	}
	c, err := ssh.Dial("tcp", srv.Addr, &ssh.ClientConfig{
		User: srv.User, Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, HostKeyCallback: ssh.FixedHostKey(srv.HostKey),
		Config: ssh.Config{Ciphers: []string{"aes128-gcm@openssh.com"}},
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	return c
}

// raw runs a command on a raw connection.
func raw(c *ssh.Client, line string) error {
	s, err := c.NewSession()
	if err != nil {
		return err
	}
	defer s.Close()
	return s.Run(line)
}

// controlMaster opens a connection of the OpenSSH client and gives the arguments
// that run a command on it.
func controlMaster(b testing.TB, srv *sshtest.Server) []string {
	b.Helper()
	host, port, _ := strings.Cut(srv.Addr, ":")
	socket := filepath.Join(b.TempDir(), "mux")
	args := []string{"-F", "none", "-p", port, "-l", srv.User, "-i", srv.IdentityFile, "-o", "IdentitiesOnly=yes",
		"-o", "UserKnownHostsFile=" + srv.KnownHostsFile, "-o", "ControlPath=" + socket, host}
	master := exec.Command("ssh", append([]string{"-M", "-N"}, args...)...)
	if err := master.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { master.Process.Kill(); master.Wait() })
	for range 500 {
		if exec.Command("ssh", append(slices.Clone(args), "true")...).Run() == nil {
			return args
		}
	}
	b.Fatal("the ControlMaster does not answer")
	return nil
}

// The two ways in which a command can live on its host.
const (
	attached = telexecv1.Durability_DURABILITY_ATTACHED
	durable  = telexecv1.Durability_DURABILITY_DURABLE
)

// execute runs a command to its end through the service and leaves output out.
func execute(ctx context.Context, c telexecv1.CommandServiceClient, host, line string, how telexecv1.Durability) error {
	res, err := c.Execute(ctx, &telexecv1.ExecuteRequest{
		Host: host, Command: line, Durability: how, Wait: durationpb.New(time.Minute), Output: &telexecv1.OutputOptions{Omit: true},
	})
	if err != nil {
		return err
	}
	if s := res.Command.State; s != telexecv1.CommandState_COMMAND_STATE_COMPLETED || res.Command.GetExitCode() != 0 {
		return fmt.Errorf("%s: %v", s, res.Command.Failure)
	}
	return nil
}

// rss is the resident memory of the service in bytes.
func rss(b testing.TB, env *testenv.Env) int64 {
	b.Helper()
	statm, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", env.PID()))
	if err != nil {
		b.Fatal(err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(statm))[1], 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}

func percentile(ds []time.Duration, p int) time.Duration {
	slices.Sort(ds)
	return ds[len(ds)*p/100]
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// BenchmarkTrue is the time from the request to the exit code of "true" on a warm
// connection.
func BenchmarkTrue(b *testing.B) {
	srv, env := setup(b)
	conn := dial(b, srv)
	mux := controlMaster(b, srv)
	commands := env.Commands()
	rivals := []rival{
		{"raw", func() error { return raw(conn, "true") }},
		{"controlmaster", func() error { return exec.Command("ssh", append(slices.Clone(mux), "true")...).Run() }},
		{"attached", func() error { return execute(b.Context(), commands, env.Host, "true", attached) }},
		{"durable", func() error { return execute(b.Context(), commands, env.Host, "true", durable) }},
	}
	times := make([][]time.Duration, len(rivals))
	for _, r := range rivals { // warm
		for range 5 {
			if err := r.run(); err != nil {
				b.Fatal(r.name, err)
			}
		}
	}
	for b.Loop() {
		for i, r := range rivals {
			begin := time.Now()
			if err := r.run(); err != nil {
				b.Fatal(r.name, err)
			}
			times[i] = append(times[i], time.Since(begin))
		}
	}
	for i, r := range rivals {
		b.ReportMetric(ms(percentile(times[i], 50)), r.name+"-p50-ms")
		b.ReportMetric(ms(percentile(times[i], 95)), r.name+"-p95-ms")
	}
	for i, r := range rivals[2:] {
		b.ReportMetric(ms(percentile(times[2+i], 50)-percentile(times[0], 50)), r.name+"-over-raw-p50-ms")
	}
	b.ReportMetric(0, "ns/op")
}

// BenchmarkCallers is how many commands per second 1, 10 and 50 callers get
// through, against as many callers of raw connections with eight each.
func BenchmarkCallers(b *testing.B) {
	srv, env := setup(b)
	commands := env.Commands()
	for _, callers := range []int{1, 10, 50} {
		b.Run(strconv.Itoa(callers), func(b *testing.B) {
			conns := make([]*ssh.Client, (callers+7)/8)
			for i := range conns {
				conns[i] = dial(b, srv)
			}
			var next atomic.Int64
			rivals := []rival{
				{"raw", func() error { return raw(conns[next.Add(1)%int64(len(conns))], "true") }},
				{"attached", func() error { return execute(b.Context(), commands, env.Host, "true", attached) }},
				{"durable", func() error { return execute(b.Context(), commands, env.Host, "true", durable) }},
			}
			const each = 400 // commands of each rival in a round
			took := make([]time.Duration, len(rivals))
			rounds := 0
			for b.Loop() {
				rounds++
				for i, r := range rivals {
					begin := time.Now()
					var wg sync.WaitGroup
					var left atomic.Int64
					left.Store(each)
					for range callers {
						wg.Go(func() {
							for left.Add(-1) >= 0 {
								for r.run() != nil {
									if r.name != "raw" {
										b.Error("refused")
									}
									// A raw connection refuses a channel while another is closing:
									// its caller asks again, as every such caller must.
								}
							}
						})
					}
					wg.Wait()
					took[i] += time.Since(begin)
				}
			}
			for i, r := range rivals {
				b.ReportMetric(float64(rounds*each)/took[i].Seconds(), r.name+"-cmd/s")
				if i > 0 {
					b.ReportMetric(100*took[0].Seconds()/took[i].Seconds(), r.name+"-%of-raw")
				}
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkThroughput is the rate at which 1 GiB of random bytes comes from the
// host, on a raw connection thrown away, through the service all stored.
func BenchmarkThroughput(b *testing.B) {
	srv, env := setup(b)
	conn := dial(b, srv)
	const mib = 1024
	const file = "telexec-bench-random" // in the login directory
	if err := raw(conn, fmt.Sprintf("head -c %d /dev/urandom >%s", mib<<20, file)); err != nil {
		b.Fatal(err)
	}
	defer raw(conn, "rm "+file)
	commands := env.Commands()
	rivals := []rival{
		{"raw", func() error {
			s, err := conn.NewSession()
			if err != nil {
				return err
			}
			defer s.Close()
			s.Stdout = io.Discard
			return s.Run("cat " + file)
		}},
		{"attached", func() error { return execute(b.Context(), commands, env.Host, "cat "+file, attached) }},
		{"durable", func() error { return execute(b.Context(), commands, env.Host, "cat "+file, durable) }},
	}
	took := make([]time.Duration, len(rivals))
	rounds := 0
	for b.Loop() {
		rounds++
		for i, r := range rivals {
			begin := time.Now()
			if err := r.run(); err != nil {
				b.Fatal(r.name, err)
			}
			took[i] += time.Since(begin)
		}
	}
	for i, r := range rivals {
		b.ReportMetric(float64(rounds)*mib/took[i].Seconds(), r.name+"-MiB/s")
		if i > 0 {
			b.ReportMetric(100*took[0].Seconds()/took[i].Seconds(), r.name+"-%of-raw")
		}
	}
	b.ReportMetric(float64(rss(b, env))/(1<<20), "RSS-after-MiB")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkInput is the rate at which 16 MiB from a pipe, written in pieces of
// 64 KiB, come to a command that reads them.
func BenchmarkInput(b *testing.B) {
	_, env := setup(b)
	commands := env.Commands()
	c, err := client.Dial(client.Options{Server: env.GRPCAddr, Token: client.Token(env.Token.Reveal())})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	const mib = 16
	give := func(how telexecv1.Durability) error {
		res, err := commands.Execute(b.Context(), &telexecv1.ExecuteRequest{Host: env.Host, Command: "cat >/dev/null", Durability: how, StdinOpen: true, Wait: durationpb.New(0)})
		if err != nil {
			return err
		}
		r, w := io.Pipe()
		go func() {
			defer w.Close()
			for piece := range slices.Chunk(make([]byte, mib<<20), 64<<10) {
				if _, err := w.Write(piece); err != nil {
					return
				}
			}
		}()
		defer r.Close()
		if _, err := c.CopyInput(b.Context(), res.Command.Id, r); err != nil {
			return err
		}
		_, err = commands.GetStatus(b.Context(), &telexecv1.GetStatusRequest{CommandId: res.Command.Id, Wait: durationpb.New(time.Minute)})
		return err
	}
	rivals := []rival{{"attached", func() error { return give(attached) }}, {"durable", func() error { return give(durable) }}}
	took := make([]time.Duration, len(rivals))
	rounds := 0
	for b.Loop() {
		rounds++
		for i, r := range rivals {
			begin := time.Now()
			if err := r.run(); err != nil {
				b.Fatal(r.name, err)
			}
			took[i] += time.Since(begin)
		}
	}
	for i, r := range rivals {
		b.ReportMetric(float64(rounds)*mib/took[i].Seconds(), r.name+"-MiB/s")
	}
	b.ReportMetric(0, "ns/op")
}

// BenchmarkLineAge is how old a line is when a watcher has it: from the host's
// clock before it is printed, on the same machine, to the arrival.
func BenchmarkLineAge(b *testing.B) {
	srv, env := setup(b)
	conn := dial(b, srv)
	const lines = 200
	line := fmt.Sprintf("i=0; while [ $i -lt %d ]; do date +%%s%%N; i=$((i+1)); sleep 0.01; done", lines)
	ages := map[string][]time.Duration{}
	for b.Loop() {
		s, err := conn.NewSession()
		if err != nil {
			b.Fatal(err)
		}
		out, err := s.StdoutPipe()
		if err != nil {
			b.Fatal(err)
		}
		if err := s.Start(line); err != nil {
			b.Fatal(err)
		}
		buf := make([]byte, 4096)
		for {
			n, err := out.Read(buf)
			ages["raw"] = appendAges(ages["raw"], buf[:n])
			if err != nil {
				break
			}
		}
		s.Close()
		for name, how := range map[string]telexecv1.Durability{"attached": attached, "durable": durable} {
			res, err := env.Commands().Execute(b.Context(), &telexecv1.ExecuteRequest{Host: env.Host, Command: line, Durability: how, Wait: durationpb.New(0)})
			if err != nil {
				b.Fatal(err)
			}
			watch, err := env.Commands().StreamOutput(b.Context(), &telexecv1.StreamOutputRequest{CommandId: res.GetCommand().GetId(), Follow: true})
			if err != nil {
				b.Fatal(err)
			}
			for {
				m, err := watch.Recv()
				if err != nil {
					b.Fatal(err)
				}
				ages[name] = appendAges(ages[name], m.GetChunk().GetData())
				if m.GetEnded() != nil {
					break
				}
			}
		}
	}
	for name, a := range ages {
		if len(a) < lines {
			b.Errorf("%s: %d lines", name, len(a))
		}
		b.ReportMetric(ms(percentile(a, 50)), name+"-p50-ms")
		b.ReportMetric(ms(percentile(a, 99)), name+"-p99-ms")
	}
	b.ReportMetric(0, "ns/op")
}

// appendAges adds the ages of the lines in data, each a time in ns since 1970.
func appendAges(ages []time.Duration, data []byte) []time.Duration {
	now := time.Now()
	for line := range strings.Lines(string(data)) {
		if at, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64); err == nil {
			ages = append(ages, now.Sub(time.Unix(0, at)))
		}
	}
	return ages
}

// BenchmarkIdle is what durable commands that print nothing cost their host: the
// processor time of all processes of the login user over ten seconds, sshd's
// included, and their memory, per command.
func BenchmarkIdle(b *testing.B) {
	srv, env := setup(b)
	commands := env.Commands()
	const many = 40
	if err := execute(b.Context(), commands, env.Host, "true", durable); err != nil {
		b.Fatal(err)
	}
	ids := make([]string, many)
	for i := range ids {
		res, err := commands.Execute(b.Context(), &telexecv1.ExecuteRequest{Host: env.Host, Command: "sleep 600", Durability: durable, Wait: durationpb.New(0)})
		if err != nil {
			b.Fatal(err)
		}
		ids[i] = res.Command.Id
	}
	awaitRunning(b, commands, ids)
	const window = 10 * time.Second
	var used time.Duration
	var processes int
	rounds := 0
	for b.Loop() {
		before, _ := processorTime(b, srv.User)
		<-time.After(window) // what is measured is a stretch of time
		after, n := processorTime(b, srv.User)
		used, processes = used+after-before, n
		rounds++
	}
	b.ReportMetric(float64(used.Microseconds())/float64(rounds)/window.Seconds()/many, "host-µs/s/command")
	b.ReportMetric(float64(processes)/many, "processes/command")
	b.ReportMetric(0, "ns/op")
	for _, id := range ids {
		if _, err := commands.Cancel(b.Context(), &telexecv1.CancelRequest{CommandId: id}); err != nil {
			b.Fatal(err)
		}
	}
}

// processorTime sums up what the processes of a user have used so far.
func processorTime(b *testing.B, name string) (used time.Duration, processes int) {
	b.Helper()
	u, err := user.Lookup(name)
	if err != nil {
		b.Fatal(err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		b.Fatal(err)
	}
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		b.Fatal(err)
	}
	for _, dir := range dirs {
		info, err := os.Stat(dir)
		if err != nil || uint64(info.Sys().(*syscall.Stat_t).Uid) != uid {
			continue
		}
		stat, err := os.ReadFile(dir + "/stat")
		if err != nil {
			continue // it has ended
		}
		f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		for _, ticks := range f[11:13] { // utime and stime, in hundredths of a second
			n, err := strconv.ParseInt(ticks, 10, 64)
			if err != nil {
				b.Fatal(err)
			}
			used += time.Duration(n) * 10 * time.Millisecond
		}
		processes++
	}
	return used, processes
}

// awaitRunning waits until all commands run.
func awaitRunning(b *testing.B, commands telexecv1.CommandServiceClient, ids []string) {
	b.Helper()
	for _, id := range ids {
		for {
			res, err := commands.GetStatus(b.Context(), &telexecv1.GetStatusRequest{CommandId: id})
			if err != nil {
				b.Fatal(err)
			}
			if res.Command.State == telexecv1.CommandState_COMMAND_STATE_RUNNING {
				break
			}
		}
	}
}

// BenchmarkMemory is the resident memory of the service, idle after its start,
// and what each of 100 running commands adds.
func BenchmarkMemory(b *testing.B) {
	_, env := setup(b)
	commands := env.Commands()
	if err := execute(b.Context(), commands, env.Host, "true", durable); err != nil {
		b.Fatal(err)
	}
	idle := rss(b, env)
	const many = 100
	for b.Loop() {
		ids := make([]string, many)
		for i := range ids {
			res, err := commands.Execute(b.Context(), &telexecv1.ExecuteRequest{Host: env.Host, Command: "sleep 600", Wait: durationpb.New(0)})
			if err != nil {
				b.Fatal(err)
			}
			ids[i] = res.Command.Id
		}
		awaitRunning(b, commands, ids)
		b.ReportMetric(float64(rss(b, env)-idle)/many/1024, "KiB/command")
		for _, id := range ids {
			if _, err := commands.Cancel(b.Context(), &telexecv1.CancelRequest{CommandId: id}); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(idle)/(1<<20), "idle-MiB")
	b.ReportMetric(0, "ns/op")
}
