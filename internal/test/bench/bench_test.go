package bench

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"google.golang.org/protobuf/types/known/durationpb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/test/sshtest"
	"github.com/telexec/telexec/internal/test/testenv"
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
func dial(b *testing.B, srv *sshtest.Server) *ssh.Client {
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
func controlMaster(b *testing.B, srv *sshtest.Server) []string {
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

// execute runs a command to its end through the service and leaves output out.
func execute(ctx context.Context, c telexecv1.CommandServiceClient, host, line string) error {
	res, err := c.Execute(ctx, &telexecv1.ExecuteRequest{
		Host: host, Command: line, Wait: durationpb.New(time.Minute), Output: &telexecv1.OutputOptions{Omit: true},
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
func rss(b *testing.B, env *testenv.Env) int64 {
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
		{"telexec", func() error { return execute(b.Context(), commands, env.Host, "true") }},
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
	b.ReportMetric(ms(percentile(times[2], 50)-percentile(times[0], 50)), "over-raw-p50-ms")
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
				{"telexec", func() error { return execute(b.Context(), commands, env.Host, "true") }},
			}
			const each = 400 // commands of each rival in a round
			var took [2]time.Duration
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
									if r.name == "telexec" {
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
			}
			b.ReportMetric(100*took[0].Seconds()/took[1].Seconds(), "%of-raw")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkThroughput is the rate at which 256 MB of random bytes come from the
// host, on a raw connection thrown away, through the service all stored.
func BenchmarkThroughput(b *testing.B) {
	srv, env := setup(b)
	conn := dial(b, srv)
	const size = 256 << 20
	const file = "telexec-bench-random" // in the login directory
	if err := raw(conn, fmt.Sprintf("head -c %d /dev/urandom >%s", size, file)); err != nil {
		b.Fatal(err)
	}
	defer raw(conn, "rm "+file)
	commands := env.Commands()
	var took [2]time.Duration
	rounds := 0
	for b.Loop() {
		rounds++
		begin := time.Now()
		s, err := conn.NewSession()
		if err != nil {
			b.Fatal(err)
		}
		s.Stdout = io.Discard
		if err := s.Run("cat " + file); err != nil {
			b.Fatal(err)
		}
		took[0] += time.Since(begin)
		begin = time.Now()
		if err := execute(b.Context(), commands, env.Host, "cat "+file); err != nil {
			b.Fatal(err)
		}
		took[1] += time.Since(begin)
	}
	for i, name := range []string{"raw", "telexec"} {
		b.ReportMetric(float64(rounds)*256/took[i].Seconds(), name+"-MiB/s")
	}
	b.ReportMetric(100*took[0].Seconds()/took[1].Seconds(), "%of-raw")
	b.ReportMetric(float64(rss(b, env))/(1<<20), "RSS-after-MiB")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkMemory is the resident memory of the service, idle after its start,
// and what each of 100 running commands adds.
func BenchmarkMemory(b *testing.B) {
	_, env := setup(b)
	commands := env.Commands()
	if err := execute(b.Context(), commands, env.Host, "true"); err != nil {
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
