package archtest

// The floors. Rooms import strictly downward, and so never their like.
const (
	ground  = iota // what everybody needs, and what is generated
	words          // the domain: types, states, pure functions
	facts          // what is known: hosts, callers, output; and the client of the service
	workers        // what does the work; they meet only in the programs
	doors          // the programs
	testing        // what only tests and the build use
	harness        // what puts those together
)

// Project is the table of telexec.
var Project = Rules{
	Module: "github.com/telexec/telexec",

	Rooms: map[string]Room{
		"gen/openapi":        {ground, nil, "the generated REST document"},
		"gen/telexec/v1":     {ground, nil, "generated from proto/"},
		"internal/fault":     {ground, nil, "the one error type"},
		"internal/program":   {ground, nil, "what all programs have: a version, --help"},
		"internal/telemetry": {ground, nil, "logs and metrics, of whatever is told"},
		"web":                {ground, nil, "the built web UI"},

		"internal/approval": {words, []string{"internal/command", "internal/fault"}, "the words for a decision that a command waits for"},
		"internal/audit":    {words, nil, "the words for who did what, and the chain they stand in"},
		"internal/command":  {words, []string{"internal/audit", "internal/fault", "internal/secret"}, "the domain: the standard library, fault, secret and audit, nothing else"},
		"internal/config":   {words, []string{"internal/fault", "internal/secret"}, "settings; what they mean is the rooms' affair"},
		"internal/seal":     {words, []string{"internal/fault", "internal/secret"}, "values at rest that only this service can read"},
		"internal/secret":   {words, nil, "values that cannot be printed"},

		"internal/access":    {facts, []string{"internal/audit", "internal/command", "internal/fault", "internal/secret"}, "who asks, and whose things they may touch"},
		"internal/inventory": {facts, []string{"internal/config", "internal/fault", "internal/secret"}, "hosts and how to reach them"},
		"internal/output":    {facts, []string{"internal/command", "internal/fault", "internal/secret"}, "the log of a command"},
		"internal/policy":    {facts, []string{"internal/command", "internal/fault"}, "what may run; pure"},
		"pkg/client":         {facts, []string{"gen/telexec/v1"}, "what programs outside import; internal rooms stay inside"},

		"internal/api":               {workers, []string{"gen/telexec/v1", "internal/access", "internal/approval", "internal/audit", "internal/command", "internal/fault", "internal/inventory", "internal/output", "internal/policy", "internal/secret"}, "proto ↔ domain"},
		"internal/engine":            {workers, []string{"internal/access", "internal/approval", "internal/audit", "internal/command", "internal/fault", "internal/inventory", "internal/output", "internal/policy", "internal/secret"}, "runs commands; hosts and store come through its ports"},
		"internal/gateway":           {workers, []string{"gen/telexec/v1", "internal/access", "internal/audit", "internal/command", "internal/fault", "internal/output", "internal/secret", "internal/telemetry"}, "REST and WebSockets over the gRPC server, which it dials"},
		"internal/mcptool":           {workers, []string{"gen/telexec/v1", "pkg/client"}, "what agents see; a client like any other, so it is linked into telexec-mcp alone"},
		"internal/rpcserver":         {workers, []string{"internal/access", "internal/audit", "internal/command", "internal/fault", "internal/secret", "internal/telemetry"}, "the steps around every call, whatever the call"},
		"internal/sshconn":           {workers, []string{"internal/fault", "internal/inventory", "internal/secret"}, "live connections, whatever runs over them"},
		"internal/sshexec":           {workers, []string{"internal/command", "internal/fault", "internal/inventory", "internal/secret"}, "one remote process; connections come through its port"},
		"internal/store":             {workers, []string{"internal/access", "internal/approval", "internal/audit", "internal/command"}, "what a store must do"},
		"internal/store/sqlite":      {workers, []string{"internal/access", "internal/approval", "internal/audit", "internal/command", "internal/fault", "internal/seal", "internal/secret", "internal/store", "internal/store/sqlite/bulk"}, "the embedded store"},
		"internal/store/sqlite/bulk": {workers, []string{"internal/command"}, "the embedded store's files; what lies in them it is told"},
		"internal/store/storetest":   {workers, []string{"internal/access", "internal/approval", "internal/audit", "internal/command", "internal/fault", "internal/secret", "internal/store"}, "the suite that every store passes"},

		"cmd/telexecd": {doors, []string{"gen/openapi", "gen/telexec/v1", "internal/access", "internal/api", "internal/approval", "internal/audit", "internal/command", "internal/config", "internal/engine",
			"internal/fault", "internal/gateway", "internal/inventory", "internal/policy", "internal/program", "internal/rpcserver", "internal/seal", "internal/sshconn", "internal/sshexec",
			"internal/store", "internal/store/sqlite",
			"internal/telemetry", "web"}, "where the rooms meet"},
		"cmd/telexec":     {doors, []string{"gen/telexec/v1", "internal/program", "pkg/client"}, "a pure client: whatever it can, anybody's program can"},
		"cmd/telexec-mcp": {doors, []string{"internal/mcptool", "internal/program", "pkg/client"}, "serves mcptool; nothing of the service is in it"},

		"internal/openapi":       {testing, []string{"gen/telexec/v1", "internal/fault", "internal/rpcserver"}, "makes the REST document; part of the build"},
		"internal/test/archtest": {testing, nil, "reads files only"},
		"internal/test/bench":    {harness, nil, "measures telexec against raw SSH"},
		"internal/test/e2e":      {harness, nil, "the whole of it, from outside"},
		"internal/test/testenv":  {harness, []string{"gen/telexec/v1", "internal/inventory", "internal/secret", "internal/test/sshtest"}, "a service and its hosts for a test"},
		"internal/test/chaos":    {harness, nil, "the whole of it, while everything around breaks"},
		"internal/test/cover":    {testing, nil, "reads a profile only"},
		"internal/test/demo":     {harness, []string{"internal/command", "internal/secret", "internal/test/loopback"}, "runs the real programs"},
		"internal/test/loopback": {testing, nil, "an SSH server of the standard library and x/crypto"},
		"internal/test/mcpcheck": {harness, nil, "the MCP adapter, with clients that are not ours"},
		"internal/test/sdk":      {harness, nil, "the TypeScript SDK, in Node and in a browser"},
		"internal/test/sshtest":  {testing, []string{"internal/inventory", "internal/secret"}, "a real sshd, told as a host"},
		"internal/test/web":      {harness, nil, "the web UI, in a browser"},
	},

	Peers: []Peer{
		{"internal/approval", "internal/command", "what is decided about is a command"},
		{"internal/command", "internal/audit", "a change carries what it tells the audit; audit is a leaf"},
		{"internal/command", "internal/secret", "what is asked for may hold a password; secret is a leaf"},
		{"internal/config", "internal/secret", "settings hold secrets; secret is a leaf"},
		{"internal/seal", "internal/secret", "a key is a secret; secret is a leaf"},
		{"internal/store/sqlite", "internal/store", "a driver implements the contract"},
		{"internal/store/sqlite", "internal/store/sqlite/bulk", "the driver's files; bulk is a leaf"},
		{"internal/store/storetest", "internal/store", "the suite is written against the contract"},
	},

	Outside: []Place{
		// Who may speak which protocol.
		{Name: "database/sql", Rooms: []string{"internal/store/sqlite"}, Tests: true, Why: "SQL stays in the drivers"},
		{Name: "golang.org/x/crypto/ssh", Rooms: []string{"internal/sshconn", "internal/sshexec", "internal/terminal", "internal/test/*"}, Tests: true,
			Why: "SSH is spoken in three rooms"},
		{Name: "golang.org/x/crypto/ssh/knownhosts", Tests: true, Why: "skeema/knownhosts answers what host keys to ask for"},
		{Name: "google.golang.org/grpc", Rooms: []string{"internal/api", "internal/rpcserver", "internal/gateway", "internal/test/*", "pkg/client", "cmd/*"}, Tests: true,
			Why: "gRPC is spoken at the doors"},
		{Name: "google.golang.org/grpc/codes", Rooms: []string{"internal/rpcserver", "pkg/client"}, Tests: true,
			Why: "one table makes a status of a fault, and clients read it back"},
		{Name: "google.golang.org/grpc/status", Rooms: []string{"internal/rpcserver", "pkg/client"}, Tests: true,
			Why: "one table makes a status of a fault, and clients read it back"},
		{Name: "google.golang.org/grpc/status", Rooms: []string{"internal/gateway/rest.go"}, Why: "a hook of grpc-gateway is to give one; the table makes it"},
		{Name: "google.golang.org/protobuf", Rooms: []string{"internal/api", "internal/rpcserver", "internal/gateway", "internal/openapi", "internal/test/*", "pkg/client", "cmd/*"}, Tests: true,
			Why: "wire types stop at the door"},
		{Name: "google.golang.org/protobuf", Rooms: []string{"internal/mcptool"}, Why: "a door of its own: it makes requests and reads answers, with their times and durations"},
		{Name: "net/http", Rooms: []string{"internal/gateway", "internal/telemetry", "internal/openapi", "internal/test/*", "cmd/telexecd"}, Tests: true,
			Why: "HTTP is spoken by the gateway"},
		{Name: "net/http", Rooms: []string{"cmd/telexec-mcp"}, Why: "MCP over HTTP; what it serves does not know"},
		{Name: "net/http", Rooms: []string{"internal/access/jwks.go"}, Why: "the keys of issuers are behind URLs"},
		{Name: "net/http", Rooms: []string{"internal/rpcserver/errors.go"}, Why: "the table of statuses has HTTP's too"},
		{Name: "os/exec", Rooms: []string{"internal/test/*"}, Tests: true, Why: "the service runs nothing on its own host"},
		{Name: "os/signal", Rooms: []string{"cmd/*", "internal/test/*"}, Why: "programs catch signals, rooms have contexts"},
		{Name: "testing", Rooms: []string{"internal/test/*", "internal/store/storetest"}, Tests: true, Why: "tests only"},
		{Name: "unsafe", Why: "nothing here needs it"},

		// Libraries, each in its room.
		{Name: "buf.build/gen/go/bufbuild/protovalidate", Rooms: []string{"internal/rpcserver"}, Tests: true, Why: "requests are checked by the interceptor"},
		{Name: "buf.build/go/protovalidate", Rooms: []string{"internal/rpcserver"}, Tests: true, Why: "requests are checked by the interceptor"},
		{Name: "github.com/alecthomas/kong", Rooms: []string{"cmd/*", "internal/program"}, Why: "flags belong to the programs"},
		{Name: "github.com/coder/websocket", Rooms: []string{"internal/gateway", "internal/test/*"}, Tests: true, Why: "WebSockets are spoken by the gateway"},
		{Name: "github.com/goccy/go-yaml", Rooms: []string{"internal/config"}, Tests: true, Why: "one room reads the file"},
		{Name: "github.com/golang-jwt/jwt", Rooms: []string{"internal/access"}, Tests: true, Why: "one room looks at tokens"},
		{Name: "github.com/google/jsonschema-go", Rooms: []string{"internal/mcptool"}, Tests: true, Why: "tools tell the form of their arguments and answers"},
		{Name: "github.com/grpc-ecosystem/grpc-gateway", Rooms: []string{"internal/gateway"}, Tests: true, Why: "the REST door"},
		{Name: "github.com/modelcontextprotocol/go-sdk", Rooms: []string{"internal/mcptool", "cmd/telexec-mcp", "internal/test/*"}, Why: "MCP is spoken by its adapter"},
		{Name: "github.com/oklog/ulid", Rooms: []string{"internal/engine"}, Tests: true, Why: "one room names commands"},
		{Name: "github.com/oklog/ulid", Rooms: []string{"internal/store/sqlite/list.go", "internal/store/storetest"}, Why: "ids sort by time: a time is a place in the list"},
		{Name: "github.com/prometheus", Rooms: []string{"internal/telemetry"}, Tests: true, Why: "metrics have one room"},
		{Name: "github.com/rogpeppe/go-internal", Rooms: []string{"internal/test/*"}, Tests: true, Why: "tests only"},
		{Name: "github.com/skeema/knownhosts", Rooms: []string{"internal/sshconn"}, Why: "one room decides on host keys"},
		{Name: "go.uber.org/goleak", Rooms: []string{"internal/test/*"}, Tests: true, Why: "tests only"},
		{Name: "golang.org/x/sync", Rooms: []string{"internal/engine", "internal/sshconn", "cmd/*", "internal/test/*"}, Tests: true, Why: "groups of long-lived parts"},
		{Name: "golang.org/x/sys", Rooms: []string{"cmd/*", "internal/test/*"}, Tests: true, Why: "the system's own calls"},
		{Name: "golang.org/x/sys/cpu", Rooms: []string{"internal/sshconn/dial.go"}, Why: "the order of ciphers depends on whether the machine has AES"},
		{Name: "golang.org/x/term", Rooms: []string{"cmd/telexec", "internal/telemetry", "internal/test/*"}, Tests: true, Why: "is it a terminal?"},
		{Name: "golang.org/x/time/rate", Rooms: []string{"internal/access"}, Tests: true, Why: "limits of calls have one room"},
		{Name: "google.golang.org/genproto/googleapis/api", Rooms: []string{"internal/gateway", "internal/openapi"}, Tests: true, Why: "google.api.http rules"},
		{Name: "google.golang.org/genproto/googleapis/rpc", Rooms: []string{"internal/rpcserver", "internal/gateway", "internal/openapi", "pkg/client"}, Tests: true,
			Why: "the form of errors on the wire"},
		{Name: "mvdan.cc/sh/v3/syntax", Rooms: []string{"internal/policy"}, Tests: true, Why: "one room reads shell"},
		{Name: "modernc.org/sqlite", Rooms: []string{"internal/store/sqlite"}, Tests: true, Why: "SQL stays in the drivers"},
	},

	Functions: []Place{
		{Name: "context.Background", Rooms: []string{"cmd/*", "internal/test/*"}, Tests: true, Why: "contexts come from above; main has the first one"},
		{Name: "context.Background", Rooms: []string{"internal/sshconn/pool.go"}, Why: "a pool lives from New to Close, longer than any call"},
		{Name: "context.Background", Rooms: []string{"internal/store/sqlite"}, Why: "the writer's transactions are shared: the end of one caller must not end those of others"},
		{Name: "context.Background", Rooms: []string{"internal/store/storetest"}, Why: "tests"},
		{Name: "context.TODO", Why: "contexts come from above"},
		{Name: "log.Fatal", Why: "errors are returned"},
		{Name: "log.Fatalf", Why: "errors are returned"},
		{Name: "log.Print", Why: "logs are slog's"},
		{Name: "log.Printf", Why: "logs are slog's"},
		{Name: "log.Println", Why: "logs are slog's"},
		{Name: "os.Environ", Rooms: []string{"cmd/*", "internal/config", "internal/test/*"}, Tests: true, Why: "the environment is read once, at the start"},
		{Name: "os.Exit", Rooms: []string{"cmd/*/main.go", "internal/openapi/main.go", "internal/test/*/main.go"}, Tests: true, Why: "errors are returned; main exits"},
		{Name: "os.ExpandEnv", Rooms: []string{"internal/config"}, Tests: true, Why: "the environment is read once, at the start"},
		{Name: "os.Getenv", Rooms: []string{"cmd/*", "internal/config", "internal/test/*"}, Tests: true, Why: "the environment is read once, at the start"},
		{Name: "os.LookupEnv", Rooms: []string{"cmd/*", "internal/config", "internal/test/*"}, Tests: true, Why: "the environment is read once, at the start"},
		{Name: "time.Sleep", Why: "wait for what you wait for: a signal, a timer with a context"},
	},
}
