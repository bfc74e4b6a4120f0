package web

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/durationpb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/secret"
	"github.com/telexec/telexec/internal/test/testenv"
)

// oddName is the name of a principal that a page must take for nothing but text.
const oddName = `<img/src=x/onerror=canary="name">`

// issuer is the configuration of a JWT's issuer: names in API keys are plain, those
// of others are whatever they say.
func issuer(secretFile string) string {
	return fmt.Sprintf(`auth:
  jwt:
    - name: odd
      issuer: https://login.example
      audience: telexec
      secret_file: %q
      principal_claim: sub
      roles_claim: roles
      roles: {all: [viewer, operator, approver]}
`, secretFile)
}

// oddToken is a JWT of that issuer.
func oddToken(key string) string {
	part := func(v any) string {
		text, err := json.Marshal(v)
		if err != nil {
			panic(err) // maps of texts and numbers only
		}
		return base64.RawURLEncoding.EncodeToString(text)
	}
	signed := part(map[string]any{"alg": "HS256", "typ": "JWT"}) + "." + part(map[string]any{
		"iss": "https://login.example", "aud": "telexec", "sub": oddName, "roles": []string{"all"}, "exp": time.Now().Add(time.Hour).Unix(),
	})
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte(signed))
	return signed + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// control does for a spec what a browser cannot.
type control struct {
	url, token string

	env    *testenv.Env
	wire   *wire
	tokens map[string]secret.Text
	// jobs are sent by the handlers and done by serve, for testenv is for the
	// goroutine of the test. Unbuffered: a handler waits until its job is taken.
	jobs chan func()
	// stopped is whether the spec has left the service so; of the jobs.
	stopped bool

	mcp    string // the program
	mu     sync.Mutex
	agents map[string]*mcp.ClientSession // of who calls; each has a telexec-mcp of its own
}

// newControl makes the keys and starts the server.
func newControl(t *testing.T, env *testenv.Env, jwtKey string) *control {
	t.Helper()
	c := &control{
		token: rand.Text(), env: env, wire: newWire(t, env.HTTPAddr), jobs: make(chan func()),
		mcp: testenv.Build(t, "telexec-mcp"), agents: make(map[string]*mcp.ClientSession),
		tokens: map[string]secret.Text{
			"admin": env.Token, "odd": secret.New(oddToken(jwtKey)),
			"viewer":   env.Key("vera", "viewer"),
			"operator": env.Key("otto", "operator"),
			"asker":    env.Key("olga", "operator"), // whom the rules are for
			"approver": env.Key("anna", "viewer", "approver"),
			"second":   env.Key("bert", "viewer", "approver"),
		},
	}
	env.Conn() // so that handlers share one that is there
	mux := http.NewServeMux()
	mux.HandleFunc("GET /facts", c.facts)
	mux.HandleFunc("POST /service", c.service)
	mux.HandleFunc("POST /network", c.network)
	mux.HandleFunc("POST /execute", c.execute)
	mux.HandleFunc("POST /cli", c.cli)
	mux.HandleFunc("POST /agent", c.agent)
	mux.HandleFunc("GET /processes", c.processes)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+c.token {
			http.Error(w, "the token is missing", http.StatusUnauthorized)
			return
		}
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		srv.Close()
		for _, a := range c.agents {
			_ = a.Close() // its program is told to end, and says how it did
		}
	})
	c.url = srv.URL
	return c
}

// serve does the jobs until the spec has ended.
func (c *control) serve(ended <-chan struct{}) {
	for {
		select {
		case job := <-c.jobs:
			job()
		case <-ended:
			return
		}
	}
}

// endCommands cancels what the spec has left, tasks first, for these begin commands, and
// closes its sessions: all live on without the service.
func (c *control) endCommands(t *testing.T) {
	t.Helper()
	if c.stopped {
		c.env.Restart()
	}
	c.endTasks(t)
	list, err := c.env.Commands().ListCommands(t.Context(), &telexecv1.ListCommandsRequest{Active: true, PageSize: 1000})
	if err != nil {
		t.Errorf("what is left running: %v", err)
	}
	var cancels sync.WaitGroup
	for _, left := range list.GetCommands() {
		cancels.Go(func() {
			if _, err := c.env.Commands().Cancel(t.Context(), &telexecv1.CancelRequest{CommandId: left.GetId(), Grace: durationpb.New(0)}); err != nil {
				t.Errorf("cancel of %s: %v", left.GetId(), err)
			}
		})
	}
	cancels.Wait()
	sessions := telexecv1.NewSessionServiceClient(c.env.Conn())
	open, err := sessions.ListSessions(t.Context(), &telexecv1.ListSessionsRequest{PageSize: 1000})
	if err != nil {
		t.Errorf("which sessions are left: %v", err)
	}
	for _, left := range open.GetSessions() {
		if _, err := sessions.CloseSession(t.Context(), &telexecv1.CloseSessionRequest{Session: left.GetId()}); err != nil {
			t.Errorf("close of %s: %v", left.GetName(), err)
		}
	}
}

func (c *control) endTasks(t *testing.T) {
	t.Helper()
	tasks := telexecv1.NewTaskServiceClient(c.env.Conn())
	list, err := tasks.ListTasks(t.Context(), &telexecv1.ListTasksRequest{PageSize: 1000, Status: "queued,running,awaiting_approval,undoing"})
	if err != nil {
		t.Errorf("which tasks are left: %v", err)
	}
	var cancels sync.WaitGroup
	for _, left := range list.GetTasks() {
		cancels.Go(func() {
			if _, err := tasks.CancelTask(t.Context(), &telexecv1.CancelTaskRequest{TaskId: left.GetId(), Grace: durationpb.New(0)}); err != nil {
				t.Errorf("cancel of the task %s: %v", left.GetId(), err)
			}
		})
	}
	cancels.Wait()
}

// do has serve do a job, and waits for its end.
func (c *control) do(r *http.Request, job func()) error {
	done := make(chan struct{}) // closed by the job, also where it fails the test
	select {
	case c.jobs <- func() { defer close(done); job() }:
		<-done
		return nil
	case <-r.Context().Done():
		return r.Context().Err()
	}
}

// answer writes JSON, or the error.
func answer(w http.ResponseWriter, v any, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(v); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

// ask reads the body of a request.
func ask(r *http.Request, into any) error {
	defer r.Body.Close()
	decoder := json.NewDecoder(r.Body)
	decoder.DisallowUnknownFields()
	return decoder.Decode(into)
}

// facts tells where everything is.
func (c *control) facts(w http.ResponseWriter, _ *http.Request) {
	tokens := make(map[string]string)
	for name, token := range c.tokens {
		tokens[name] = token.Reveal()
	}
	answer(w, map[string]any{
		"url":    "http://" + c.wire.address, // for the browser
		"direct": "http://" + c.env.HTTPAddr, // for the spec
		"host":   c.env.Host, "tokens": tokens, "oddName": "jwt:odd:" + oddName,
	}, nil)
}

// service ends telexecd, and starts it again.
func (c *control) service(w http.ResponseWriter, r *http.Request) {
	var want struct{ Do string }
	if err := ask(r, &want); err != nil {
		answer(w, nil, err)
		return
	}
	var failed error
	err := c.do(r, func() {
		switch want.Do {
		case "restart", "start":
			c.env.Restart()
			c.stopped = false
		case "stop":
			c.env.Stop()
			c.stopped = true
		case "kill":
			c.env.Kill()
			c.stopped = true
		default:
			failed = fmt.Errorf("%q is nothing that can be done to the service", want.Do)
		}
	})
	answer(w, struct{}{}, errors.Join(err, failed))
}

// network changes the wire.
func (c *control) network(w http.ResponseWriter, r *http.Request) {
	var want struct {
		Mode    string
		DelayMs int
	}
	err := ask(r, &want)
	if err == nil {
		err = c.wire.set(want.Mode, time.Duration(want.DelayMs)*time.Millisecond)
	}
	answer(w, struct{}{}, err)
}

// execute starts a command through the gRPC door.
func (c *control) execute(w http.ResponseWriter, r *http.Request) {
	var want struct {
		As      string
		Request json.RawMessage
	}
	if err := ask(r, &want); err != nil {
		answer(w, nil, err)
		return
	}
	req := &telexecv1.ExecuteRequest{}
	if err := protojson.Unmarshal(want.Request, req); err != nil {
		answer(w, nil, err)
		return
	}
	var commands telexecv1.CommandServiceClient
	if err := c.do(r, func() { commands = telexecv1.NewCommandServiceClient(c.env.As(c.tokens[want.As])) }); err != nil {
		answer(w, nil, err)
		return
	}
	got, err := commands.Execute(r.Context(), req)
	if err != nil {
		answer(w, nil, err)
		return
	}
	text, err := protojson.Marshal(got)
	answer(w, json.RawMessage(text), err)
}

// cli runs the command line to its end.
func (c *control) cli(w http.ResponseWriter, r *http.Request) {
	var want struct {
		As   string
		Args []string
	}
	if err := ask(r, &want); err != nil {
		answer(w, nil, err)
		return
	}
	said, err := c.env.CLI(r.Context(), c.tokens[want.As], want.Args...)
	answer(w, said, err)
}

// agent calls a tool of telexec-mcp, as an MCP client does.
func (c *control) agent(w http.ResponseWriter, r *http.Request) {
	var want struct {
		As, Tool  string
		Arguments map[string]any
	}
	if err := ask(r, &want); err != nil {
		answer(w, nil, err)
		return
	}
	session, err := c.agentOf(want.As)
	if err != nil {
		answer(w, nil, err)
		return
	}
	said, err := session.CallTool(r.Context(), &mcp.CallToolParams{Name: want.Tool, Arguments: want.Arguments})
	if err == nil && said.IsError {
		err = fmt.Errorf("%s: %+v", want.Tool, said.Content)
	}
	if err != nil {
		answer(w, nil, err)
		return
	}
	answer(w, said.StructuredContent, nil)
}

// agentOf gives the MCP client of a person, with the telexec-mcp that it has started.
func (c *control) agentOf(person string) (*mcp.ClientSession, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if session := c.agents[person]; session != nil {
		return session, nil
	}
	cmd := exec.Command(c.mcp, "--server", c.env.GRPCAddr)
	cmd.Env = append(os.Environ(), "TELEXEC_TOKEN="+c.tokens[person].Reveal())
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	// It lives longer than the request that it is started for.
	session, err := mcp.NewClient(&mcp.Implementation{Name: "agent", Version: "1"}, nil).Connect(context.Background(), &mcp.CommandTransport{Command: cmd}, nil)
	if err == nil {
		c.agents[person] = session
	}
	return session, err
}

// processes counts those of the host that have the text in their command line.
func (c *control) processes(w http.ResponseWriter, r *http.Request) {
	found := processes(func(_, line string) bool { return strings.Contains(line, r.URL.Query().Get("with")) })
	answer(w, map[string]int{"count": len(found)}, nil)
}
