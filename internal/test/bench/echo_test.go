package bench

import (
	"bytes"
	"context"
	"io"
	"os/exec"
	"slices"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/telexec/telexec/internal/hostshell"
	"github.com/telexec/telexec/internal/inventory"
	"github.com/telexec/telexec/internal/session"
	"github.com/telexec/telexec/internal/sshconn"
	"github.com/telexec/telexec/internal/sshterm"
	"github.com/telexec/telexec/internal/test/sshtest"
)

// terms gives terminals over a pool of connections, as the service has them.
func terms(b *testing.B) *sshterm.Terms {
	pool := sshconn.New(sshconn.Options{})
	b.Cleanup(func() { pool.Close() })
	return sshterm.New(pooled{pool}, sshterm.Options{})
}

type pooled struct{ pool *sshconn.Pool }

func (p pooled) Open(ctx context.Context, host inventory.Host) (hostshell.Session, error) {
	return pooledSession(p.pool.Open(ctx, host))
}

func (p pooled) OpenFirst(ctx context.Context, host inventory.Host) (hostshell.Session, error) {
	return pooledSession(p.pool.OpenFirst(ctx, host))
}

func pooledSession(c *sshconn.Channel, err error) (hostshell.Session, error) {
	if err != nil {
		return hostshell.Session{}, err
	}
	return hostshell.Session{Channel: c.Channel, Requests: c.Requests(), Lost: c.Done(), Err: c.Err, Close: c.Close, Alive: c.Alive}, nil
}

// keyboard is a terminal on which cat runs, whose echo is the kernel's.
type keyboard struct {
	name string
	in   io.Writer
	out  io.Reader
}

// press types a key and waits for its echo.
func (k keyboard) press(b testing.TB, key, echo string) {
	if _, err := io.WriteString(k.in, key); err != nil {
		b.Fatal(k.name, err)
	}
	k.await(b, echo)
}

func (k keyboard) await(b testing.TB, sign string) {
	var got []byte
	buf := make([]byte, 4096)
	for !bytes.Contains(got, []byte(sign)) {
		n, err := k.out.Read(buf)
		got = append(got, buf[:n]...)
		if err != nil {
			b.Fatal(k.name, err)
		}
	}
}

// BenchmarkEcho is the time from a key to its echo: on a terminal of a raw connection,
// of the OpenSSH client, of a session that nothing keeps, and of those that are kept.
func BenchmarkEcho(b *testing.B) {
	srv := sshtest.Start(b, sshtest.Options{User: sshtest.PlainUser(b)})
	const begin, ready = "stty sane; printf 'rea''dy\\n'; exec cat >/dev/null", "ready"
	var keyboards []keyboard

	conn := dial(b, srv)
	raw, err := conn.NewSession()
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { raw.Close() })
	in, err1 := raw.StdinPipe()
	out, err2 := raw.StdoutPipe()
	if err := firstError(err1, err2, raw.RequestPty("xterm-256color", 24, 80, ssh.TerminalModes{}), raw.Start(begin)); err != nil {
		b.Fatal(err)
	}
	keyboards = append(keyboards, keyboard{"raw", in, out})

	client := exec.Command("ssh", append([]string{"-tt"}, append(slices.Clone(controlMaster(b, srv)), begin)...)...)
	in, err1 = client.StdinPipe()
	out, err2 = client.StdoutPipe()
	if err := firstError(err1, err2, client.Start()); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { client.Process.Kill(); client.Wait() })
	keyboards = append(keyboards, keyboard{"openssh", in, out})

	t := terms(b)
	for _, keeper := range []session.Keeper{session.KeptByNone, session.KeptByTmux, session.KeptByDtach, session.KeptByScreen} {
		s, err := t.Open(b.Context(), sshterm.Spec{ID: "bench-" + string(keeper), Host: srv.Host("web1"), Keeper: keeper})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() {
			ctx, stop := context.WithTimeout(context.Background(), 20*time.Second)
			defer stop()
			s.End(ctx)
		})
		if _, err := s.Write([]byte(begin + "\r")); err != nil {
			b.Fatal(err)
		}
		keyboards = append(keyboards, keyboard{map[session.Keeper]string{
			session.KeptByNone: "direct", session.KeptByTmux: "tmux", session.KeptByDtach: "dtach", session.KeptByScreen: "screen",
		}[keeper], s, s})
	}
	for _, k := range keyboards {
		k.await(b, ready)
		for range 20 { // warm
			k.press(b, "x", "x")
		}
		k.press(b, "\r", "\n")
	}
	times := make([][]time.Duration, len(keyboards))
	for n := 0; b.Loop(); n++ {
		for i, k := range keyboards {
			begin := time.Now()
			k.press(b, "x", "x")
			times[i] = append(times[i], time.Since(begin))
			if n%60 == 59 { // a line has an end
				k.press(b, "\r", "\n")
			}
		}
	}
	base := percentile(times[0], 50)
	for i, k := range keyboards {
		b.ReportMetric(ms(percentile(times[i], 50)), k.name+"-p50-ms")
		b.ReportMetric(ms(percentile(times[i], 99)), k.name+"-p99-ms")
		if i > 0 {
			b.ReportMetric(ms(percentile(times[i], 50)-base), k.name+"-over-raw-p50-ms")
			b.ReportMetric(float64(percentile(times[i], 50))/float64(base), k.name+"-of-raw")
		}
	}
	b.ReportMetric(0, "ns/op")
}

// firstError gives the first error.
func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
