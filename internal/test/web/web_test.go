package web

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/telexec/telexec/internal/inventory"
	"github.com/telexec/telexec/internal/test/sshtest"
	"github.com/telexec/telexec/internal/test/testenv"
)

var (
	strict = flag.Bool("web.strict", false, "assert the times that are measured, and not only print them")
	big    = flag.Int64("web.big", 30_000_000, "how many bytes the command of big.test.mjs prints")
	shots  = flag.String("web.shots", "", "the directory of the screenshots; without it, one that is removed")
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// How long a spec may take, on a slow machine with the race detector; and with much
// output.
const (
	specLimit = 5 * time.Minute
	bigLimit  = 25 * time.Minute
)

// rules let specs see what needs an approval, and what is denied. They are for some
// alone, for a line that nobody can see through is taken for all that it may be.
const rules = `policy:
  rules:
    - {name: factors-need-a-yes, effect: require_approval, match: {programs: [factor], principals: [olga, "jwt:odd:*"]}}
    - {name: two-for-sums, effect: require_approval, match: {programs: [cksum], principals: [olga]}, approval: {count: 2}}
    - {name: no-reboots, effect: deny, match: {programs: [reboot, shutdown], principals: [olga]}}
`

// together lets operators act on each other's sessions, and viewers look at them; it
// goes on in "auth", with which the issuer ends.
const together = `  wider: [{roles: [viewer, operator], hosts: ["*"]}]
sessions: {typing_roles: [operator, admin]}
`

// two has tasks wait for others, so that there is a queue.
const two = "tasks: {max_running: 2}\n"

// TestWeb runs the specs. Those that measure are alone on the machine, as far as
// this package goes; then come the others, side by side.
func TestWeb(t *testing.T) {
	needs(t)
	browser := launch(t)
	for _, spec := range []struct {
		name   string
		alone  bool
		config string // beside that of all
	}{
		{"latency", true, ""},
		{"cancel", true, ""},
		{"shared", true, together},
		{"big", true, ""},
		{"network", false, ""}, // waits for most of its time, and so goes well beside others
		{"look", false, two},
		{"output", false, ""},
		{"injection", false, ""},
		{"tabs", false, ""},
		{"polling", false, ""},
		{"keyboard", false, ""},
		{"roles", false, ""},
		{"terminal", false, ""},
		{"sessions", false, together},
		{"tasks", false, two},
	} {
		t.Run(spec.name, func(t *testing.T) {
			if !spec.alone {
				t.Parallel()
			}
			play(t, browser, filepath.Join("specs", spec.name+".test.mjs"), spec.config)
		})
	}
}

// play runs a spec on a service of its own. The goroutine of the test does what
// the spec asks for over the control server, for that is what testenv wants.
func play(t *testing.T, browser, spec, config string) {
	t.Helper()
	secret := strings.Repeat("telexec-web-test", 3)
	file := filepath.Join(t.TempDir(), "jwt.secret")
	if err := os.WriteFile(file, []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	testenv.Build(t, "telexec")
	env := testenv.Start(t,
		testenv.WithConfig(rules+issuer(file)+config),
		testenv.WithHosts(oddHosts()...),
		testenv.WithHosts(twins(t)...))
	c := newControl(t, env, secret)

	limit := specLimit
	if *strict {
		limit = bigLimit
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "node", "--test-reporter=spec", "--test-timeout=180000", spec)
	cmd.Env = append(plainEnvironment(t), "TELEXEC_WEB_CONTROL="+c.url, "TELEXEC_WEB_TOKEN="+c.token, "TELEXEC_WEB_BROWSER="+browser,
		"TELEXEC_WEB_STRICT="+strconv.FormatBool(*strict), "TELEXEC_WEB_BIG="+strconv.FormatInt(*big, 10), "TELEXEC_WEB_SHOTS="+shotsDir(t))
	cmd.WaitDelay = 10 * time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var (
		said  []byte
		err   error
		ended = make(chan struct{}) // closed when the spec has ended; said and err are set then
	)
	go func() {
		defer close(ended)
		said, err = cmd.CombinedOutput()
	}()
	c.serve(ended)
	c.endCommands(t)
	if err := errors.Join(err, ctx.Err()); err != nil {
		t.Errorf("%s: %v\n%s", spec, err, said)
		return
	}
	t.Logf("\n%s", said)
}

// oddHosts have nothing behind them, and what a page must show as text alone; their
// names the configuration has looked at already.
func oddHosts() []inventory.Host {
	const user = `<img src=x onerror=canary="user">`
	return []inventory.Host{
		{Name: "closed:+@port", Address: "127.0.0.1:1", User: user, ConnectTimeout: time.Second, Labels: map[string]string{"env": "test", "note": `<img src=x onerror=canary="label">`}},
		{Name: strings.Repeat("long-name.", 25), Address: "127.0.0.1:1", User: user, ConnectTimeout: time.Second, Labels: map[string]string{"${canary}": "\u202egnp.exe\u200b"}},
	}
}

// twins are several hosts that are one, for steps on many.
func twins(t *testing.T) (hosts []inventory.Host) {
	t.Helper()
	server := sshtest.Start(t, sshtest.Options{User: sshtest.PlainUser(t), MaxSessions: 10})
	for i := range 5 {
		h := server.Host(fmt.Sprintf("twin%d", i+1))
		h.Labels = map[string]string{"group": "twins"}
		hosts = append(hosts, h)
	}
	return hosts
}

// shotsDir is where screenshots go.
func shotsDir(t *testing.T) string {
	t.Helper()
	if *shots == "" {
		return t.TempDir()
	}
	dir, err := filepath.Abs(*shots)
	if err == nil {
		err = os.MkdirAll(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}
