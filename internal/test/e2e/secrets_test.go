package e2e

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/crypto/ssh"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/durationpb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/inventory"
	"github.com/telexec/telexec/internal/secret"
	"github.com/telexec/telexec/internal/test/sshtest"
	"github.com/telexec/telexec/internal/test/testenv"
)

// TestSecretsStayWhereTheyAre gives the service one of every kind of secret and
// then looks for them, as they are and encoded, in all that it writes and shows,
// and in the process list of the host: while commands wait for approval, wait in
// the queue and run, after a kill -9, and when all is over.
//
// Values of env on a PTY are left out: the host's process list shows them while
// such a command starts, as ExecuteRequest.env says.
func TestSecretsStayWhereTheyAre(t *testing.T) {
	planted := map[string]string{}
	for _, what := range []string{"value of env", "stdin", "later input", "sudo password", "value of redact", "value of redaction.values_file", "JWT secret", "passphrase"} {
		planted[what] = rand.Text() + rand.Text()
	}
	// It has what base64 and percent-encoding change, and 57 bytes: no digit of base64
	// holds bits of something else.
	token := rand.Text() + "/+%=." + rand.Text()
	planted["value of secret_env"] = token

	m := sshtest.StartMachine(t, sshtest.MachineOptions{Accounts: []sshtest.Account{
		{Name: "ann", Sudo: sshtest.PasswordSudo, Password: secret.New(planted["sudo password"])},
	}})
	own := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(own, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	key := file("key", string(encrypted(t, m.IdentityFile, planted["passphrase"])))
	host := func(name string, most int) inventory.Host {
		h := m.HostOf(name, "ann")
		h.IdentityFiles, h.Passphrase, h.MaxCommands = []string{key}, secret.New(planted["passphrase"]), most
		h.ConnectTimeout = 30 * time.Second // with the race detector it takes seconds to open the key
		return h
	}
	env := testenv.Start(t, testenv.WithoutHosts(), testenv.WithHosts(host("gated", 10), host("busy", 1), host("free", 10)), testenv.WithConfig(`
log: {level: debug}
auth:
  jwt:
    - {name: corp, issuer: test, audience: telexec, secret_file: "`+file("jwt", planted["JWT secret"])+`", roles: {ops: [operator]}}
redaction: {values_file: "`+file("values", planted["value of redaction.values_file"]+"\n")+`"}
policy:
  rules:
    - {name: ask, effect: require_approval, match: {hosts: [gated]}}
    - {name: never, effect: deny, match: {programs: [chpasswd]}}`))
	planted["token of the administrator"] = env.Token.Reveal()
	agent, viewer, approver := env.Key("agent", "operator"), env.Key(vera, "viewer"), env.Key(anna, "approver")
	planted["API key of an agent"], planted["API key of a viewer"], planted["API key of an approver"] = agent.Reveal(), viewer.Reveal(), approver.Reveal()
	signed, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
		"iss": "test", "aud": "telexec", "sub": "ann", "roles": []string{"ops"}, "exp": time.Now().Add(time.Hour).Unix(),
	}).SignedString([]byte(planted["JWT secret"]))
	if err != nil {
		t.Fatal(err)
	}
	planted["JWT"] = signed

	// What the command prints besides its environment lies on the host.
	for _, what := range []string{"value of redact", "value of redaction.values_file"} {
		path := m.Path("ann", "~/"+strings.ReplaceAll(what, " ", "_"))
		if err := os.WriteFile(path, []byte(planted[what]), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	word := newWord() // is to be seen everywhere
	line := `cd ` + m.Home("ann") + `; read -r line; echo "${#PLAIN} ${#line}"
printf '%s\n' "$TOKEN"; printf %s "$TOKEN" | base64 -w0; echo; printf '%s\n' "$ENCODED"
cat value_of_redact; echo; cat value_of_redaction.values_file; echo
ps axww -o args >&2
read -r more; echo "${#more}"; : ` + word
	encoded := url.QueryEscape(token)
	printed := fmt.Sprintf("%d %d\n", len(planted["value of env"]), len(planted["stdin"]))
	for _, n := range []int{len(token), base64.StdEncoding.EncodedLen(len(token)), len(encoded), len(planted["value of redact"]), len(planted["value of redaction.values_file"])} {
		printed += strings.Repeat("*", n) + "\n"
	}
	request := func(host string) *telexecv1.ExecuteRequest {
		r := &telexecv1.ExecuteRequest{
			Host: host, Command: line, Stdin: []byte(planted["stdin"] + "\n"), Wait: durationpb.New(0), StdinOpen: host == "free",
			Env:       map[string]string{"PLAIN": planted["value of env"], "TOKEN": token, "ENCODED": encoded},
			SecretEnv: []string{"TOKEN"}, Redact: []string{planted["value of redact"]},
			Labels: map[string]string{"word": word},
		}
		if host != "busy" {
			r.Sudo = &telexecv1.Sudo{Password: planted["sudo password"]}
		}
		return r
	}

	seen := watchProcesses(t)
	look := func(when string) {
		t.Helper()
		found := lookIn(t, env, planted)
		found.in("the processes of the host", seen.all())
		found.tell(t, when, word)
	}

	// All states at once, through all doors.
	blocker := begin(t, env, &telexecv1.ExecuteRequest{Host: "busy", Command: "sleep 1000"})
	begun := func(token secret.Text, host string) string {
		t.Helper()
		r, err := telexecv1.NewCommandServiceClient(env.As(token)).Execute(t.Context(), request(host))
		if err != nil {
			t.Fatal(err)
		}
		return r.GetCommand().GetId()
	}
	queued, running := begun(secret.New(signed), "busy"), begun(agent, "free")
	body, err := protojson.Marshal(request("gated"))
	if err != nil {
		t.Fatal(err)
	}
	a := rest(t, env, "POST", "/v1/commands", string(body), "Authorization", "Bearer "+agent.Reveal())
	var made struct{ Command struct{ ID, State string } }
	if err := unmarshal(a, &made); err != nil || made.Command.State != "COMMAND_STATE_AWAITING_APPROVAL" {
		t.Fatalf("%v: %s", err, a.body)
	}
	gated := made.Command.ID
	waitOutput(t, env, running, printed)
	showsNothing(t, env, planted, word)
	refusedWithSecrets(t, env, viewer, agent, request("free"), planted["value of redact"])
	if got := await(t, env, queued, func(*telexecv1.Command) bool { return true }); got.GetState() != telexecv1.CommandState_COMMAND_STATE_QUEUED {
		t.Errorf("not queued: %v", got)
	}
	look("while commands wait and run")

	env.Kill()
	look("after kill -9")
	env.Restart()
	look("after the restart")
	await(t, env, running, func(c *telexecv1.Command) bool {
		return c.GetConnection() == telexecv1.Connection_CONNECTION_CONNECTED
	})
	if _, err := env.Commands().SendInput(t.Context(), &telexecv1.SendInputRequest{CommandId: running, Data: []byte(planted["later input"] + "\n")}); err != nil {
		t.Fatalf("input: %v", err)
	}
	// The password was in memory alone, and is gone with it: nobody need decide about
	// what cannot run any more.
	if _, _, last := output(t, env, &telexecv1.StreamOutputRequest{CommandId: gated}); last.GetState() != rejected || last.GetFailure().GetReason() != "SERVICE_RESTARTED" {
		t.Errorf("what has lost its password is %v", last)
	}
	if _, err := env.Commands().Cancel(t.Context(), &telexecv1.CancelRequest{CommandId: blocker}); err != nil {
		t.Error(err)
	}
	for id, more := range map[string]int{running: len(planted["later input"]), queued: 0} {
		stdout, stderr, last := output(t, env, &telexecv1.StreamOutputRequest{CommandId: id})
		if want := printed + fmt.Sprintln(more); last.GetState() != completed || stdout != want {
			t.Errorf("%v: it printed\n%s\nwant\n%s", last, stdout, want)
		}
		if !strings.Contains(stderr, "sshd") {
			t.Errorf("this is no list of processes: %q", stderr)
		}
		found := leaks{planted: planted}
		found.in("what was streamed", []byte(stdout+stderr))
		got, err := env.Commands().GetStatus(t.Context(), &telexecv1.GetStatusRequest{CommandId: id, Output: &telexecv1.OutputOptions{LimitBytes: 1 << 20}})
		if err != nil {
			t.Error(err)
		}
		text, _ := protojson.Marshal(got)
		found.in("what its status tells", text)
		found.tell(t, "of an ended command", word)
	}
	// A line is stored and shown as it is. The audit, which is for ever, masks in it
	// what is said to be secret.
	inLine := rand.Text()
	r := execute(t, env, &telexecv1.ExecuteRequest{Host: "free", Command: "echo " + inLine, Redact: []string{inLine}})
	if string(r.GetStdout().GetData()) != strings.Repeat("*", len(inLine))+"\n" {
		t.Errorf("it printed %q", r.GetStdout().GetData())
	}
	said, err := env.CLI(t.Context(), env.Token, "audit", "export")
	if err != nil || said.Code != 0 || !strings.Contains(said.Stdout, word) {
		t.Errorf("audit export: %v, %d %s", err, said.Code, said.Stderr)
	}
	planted["value of redact in a line"] = inLine
	found := leaks{planted: planted}
	found.in("the audit", []byte(said.Stdout))
	found.tell(t, "when all is over", word)
	delete(planted, "value of redact in a line")
	look("when all is over")
	env.Stop()
	look("after the stop")
	if !bytes.Contains(seen.all(), []byte("sshd")) || !bytes.Contains(seen.all(), []byte("sudo")) {
		t.Error("the processes of the host were not seen")
	}
}

// showsNothing looks at all that the service tells of what waits and runs.
func showsNothing(t *testing.T, env *testenv.Env, planted map[string]string, word string) {
	t.Helper()
	found := leaks{planted: planted}
	for _, path := range []string{"/v1/commands", "/v1/approvals", "/v1/tokens", "/v1/audit", "/v1/hosts", "/v1/server", "/metrics"} {
		a := rest(t, env, "GET", path, "")
		if a.status != 200 {
			t.Errorf("GET %s: HTTP %d %s", path, a.status, a.body)
		}
		found.in("GET "+path, a.body)
	}
	found.tell(t, "while commands wait and run", word)
}

// refusedWithSecrets asks for what is refused, each in another place.
func refusedWithSecrets(t *testing.T, env *testenv.Env, viewer, agent secret.Text, r *telexecv1.ExecuteRequest, redacted string) {
	t.Helper()
	if _, err := telexecv1.NewCommandServiceClient(env.As(viewer)).Execute(t.Context(), r); err == nil {
		t.Error("a viewer may execute")
	}
	his := telexecv1.NewCommandServiceClient(env.As(agent))
	r.Command = "chpasswd " + redacted
	if _, err := his.Execute(t.Context(), r); err == nil {
		t.Error("the policy lets it through")
	}
	body, err := protojson.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if a := rest(t, env, "POST", "/v1/commands", string(body), "Authorization", "Bearer "+agent.Reveal()); a.status != 403 {
		t.Errorf("HTTP %d %s", a.status, a.body)
	}
	r.Env["NOT A NAME"] = r.GetEnv()["PLAIN"]
	if _, err := his.Execute(t.Context(), r); err == nil || strings.Contains(err.Error(), redacted) {
		t.Errorf("what is not valid: %v", err)
	}
	if body, err = protojson.Marshal(r); err != nil {
		t.Fatal(err)
	}
	for _, broken := range [][]byte{body, body[:len(body)-10], append([]byte(`{"nothing": 1, `), body[1:]...)} {
		if a := rest(t, env, "POST", "/v1/commands", string(broken), "Authorization", "Bearer "+agent.Reveal()); a.status != 400 || bytes.Contains(a.body, []byte(redacted)) {
			t.Errorf("HTTP %d %s", a.status, a.body)
		}
	}
}

// encrypted gives a private key in PEM, under a passphrase.
func encrypted(t *testing.T, keyFile, passphrase string) []byte {
	t.Helper()
	text, err := os.ReadFile(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.ParseRawPrivateKey(text)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKeyWithPassphrase(key, "", []byte(passphrase))
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(block)
}

// leaks is what was found of the planted secrets, and where.
type leaks struct {
	planted map[string]string
	found   []string
	places  [][]byte
}

// in looks into one place.
func (l *leaks) in(place string, content []byte) {
	l.places = append(l.places, content)
	for _, what := range slices.Sorted(maps.Keys(l.planted)) {
		for form, text := range formsOf(l.planted[what]) {
			if at := bytes.Index(content, []byte(text)); at >= 0 {
				l.found = append(l.found, fmt.Sprintf("%s, %s, in %s at %d: …%q…", what, form, place, at, content[max(0, at-60):min(len(content), at+20)]))
			}
		}
	}
}

// tell fails the test for what was found; and where not even the word, which is no
// secret, was.
func (l *leaks) tell(t *testing.T, when, word string) {
	t.Helper()
	for _, one := range l.found {
		t.Errorf("%s: %s", when, one)
	}
	if !slices.ContainsFunc(l.places, func(place []byte) bool { return bytes.Contains(place, []byte(word)) }) {
		t.Errorf("%s: not even what is no secret was found", when)
	}
}

// formsOf gives the forms in which a secret could be written: in base64 wherever it
// begins in a text.
func formsOf(s string) map[string]string {
	forms := map[string]string{
		"as it is": s, "in hexadecimal": hex.EncodeToString([]byte(s)), "in capital hexadecimal": strings.ToUpper(hex.EncodeToString([]byte(s))),
		"percent-encoded": url.QueryEscape(s),
	}
	for before, skip := range []int{0, 2, 3} { // characters that hold bits of what stands before
		text := append(make([]byte, before), s...)
		whole := len(text) * 8 / 6 // the last one may hold bits of what follows
		forms[fmt.Sprint("in base64 behind ", before)] = base64.StdEncoding.EncodeToString(text)[skip:whole]
		forms[fmt.Sprint("in base64 of URLs behind ", before)] = base64.URLEncoding.EncodeToString(text)[skip:whole]
	}
	return forms
}

// lookIn looks into the data directory and the log. Not in the file that holds the
// administrator's token, nor for it where it is expected.
func lookIn(t *testing.T, env *testenv.Env, planted map[string]string) *leaks {
	t.Helper()
	l := &leaks{planted: planted}
	err := filepath.WalkDir(env.DataDir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == "admin.token" || d.Name() == "store.key" {
			return err
		}
		if !d.Type().IsRegular() {
			return nil
		}
		content, err := os.ReadFile(path)
		if os.IsNotExist(err) {
			return nil // the service has removed it meanwhile
		}
		l.in(path, content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	l.in("the log", []byte(env.Log()))
	if !strings.Contains(env.Log(), "level=DEBUG") || !strings.Contains(env.Log(), "principal=agent") {
		t.Error("the log does not tell all")
	}
	return l
}

// processes is every command line that any process of this machine has had.
type processes struct {
	mu   sync.Mutex
	seen map[string]bool
}

// watchProcesses looks at them until the end of the test.
func watchProcesses(t *testing.T) *processes {
	p := &processes{seen: make(map[string]bool)}
	var watcher sync.WaitGroup
	watcher.Go(func() {
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for {
			files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
			for _, f := range files {
				if line, err := os.ReadFile(f); err == nil && len(line) > 0 { // it may have ended
					p.mu.Lock()
					p.seen[string(line)] = true
					p.mu.Unlock()
				}
			}
			select {
			case <-tick.C:
			case <-t.Context().Done():
				return
			}
		}
	})
	t.Cleanup(watcher.Wait)
	return p
}

// all gives them, one after the other.
func (p *processes) all() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	return []byte(strings.Join(slices.Sorted(maps.Keys(p.seen)), "\n"))
}
