package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/test/testenv"
)

func TestAuditList(t *testing.T) {
	three := int32(3)
	d := &desk{entries: []*telexecv1.AuditEntry{
		{Sequence: 4, Time: timestamppb.New(time.Now().Add(-90 * time.Second)), Kind: "refused", Method: "CommandService/Execute", Address: "192.0.2.1", Reason: "TOKEN_EXPIRED", Count: 4},
		{Sequence: 3, Kind: "command.ended", Host: "web1", Command: "false\n", Outcome: "COMPLETED", ExitCode: &three},
		{Sequence: 2, Kind: "command.accepted", By: &telexecv1.Actor{Principal: "ann", Origin: telexecv1.Origin_ORIGIN_CLI}, Host: "web1", Command: "false", Decision: "allow", Rule: "look"},
		{Sequence: 1, Kind: "command.signal", Signal: "INT", Subject: "s"},
	}}
	i := d.sit(t)
	i.want(t, i.run(t.Context(), "audit"), 0, []string{
		"4    1 min ago  refused           -            192.0.2.1  -     TOKEN_EXPIRED ×4        CommandService/Execute\n",
		"3    -          command.ended     -            -          web1  completed, exit code 3  false\\n\n",
		"ann via cli", "allow by look", "INT",
	}, nil)
	i = d.sit(t)
	i.want(t, i.run(t.Context(), "audit", "list", "--json", "--limit", "2", "--kind", "refused,login", "--principal", "ann", "--host", "web1", "--command", "commands/"+someID, "--since", "2h"), 0,
		[]string{`"sequence":"4"`, `"sequence":"3"`, `!"sequence":"2"`}, nil)
	req := last[*telexecv1.ListAuditEntriesRequest](t, d)
	if !slices.Equal(req.GetKinds(), []string{"refused", "login"}) || req.GetPrincipal() != "ann" || req.GetHost() != "web1" || req.GetCommandId() != someID ||
		req.GetTimeFrom() == nil || req.GetPageSize() != 2 {
		t.Errorf("%v", req)
	}
	i = d.sit(t)
	i.want(t, i.run(t.Context(), "audit", "--limit", "-1"), 125, nil, []string{"--limit"})
	i = d.sit(t)
	i.want(t, i.run(t.Context(), "audit", "--since", "then"), 125, nil, []string{"cannot read the time"})
	// What no entry can have is no question, and its answer would not be "nothing was done".
	for _, bad := range []string{"token.create", "Refused", "refused,tokens", ","} {
		i = d.sit(t)
		i.want(t, i.run(t.Context(), "audit", "--kind", bad), 125, nil, []string{"there is no kind", "command.accepted, command.ended, ", "token.created"})
	}
	i = d.sit(t)
	i.want(t, i.run(t.Context(), "audit", "--command", "WX"), 125, nil, []string{"not the id of a command"})
	i = (&scripted{desk: d, list: []*telexecv1.Command{{Id: someID}, {Id: otherID}}}).start(t)
	i.want(t, i.run(t.Context(), "audit", "--command", "V2W3"), 0, []string{"refused"}, nil)
	if req := last[*telexecv1.ListAuditEntriesRequest](t, d); req.GetCommandId() != someID {
		t.Errorf("%v", req)
	}
}

// The kinds that are offered and taken are those that the service writes.
func TestAuditKinds(t *testing.T) {
	var kinds []string
	for _, k := range audit.Kinds {
		kinds = append(kinds, string(k))
	}
	if !slices.Equal(knownValues["kind"], kinds) {
		t.Errorf("got %q, the service writes %q", knownValues["kind"], kinds)
	}
}

func TestAuditVerify(t *testing.T) {
	hash := strings.Repeat("ab", 32)
	d := &desk{verify: &telexecv1.VerifyAuditResponse{Intact: true, VerifiedRows: 7, HeadSequence: 10, HeadHash: bytes.Repeat([]byte{0xcd}, 32)}}
	i := d.sit(t)
	i.want(t, i.run(t.Context(), "audit", "verify", "--from", "3:"+hash), 0, []string{"intact, 7 rows behind row 3; the last is 10:" + strings.Repeat("cd", 32) + "\n"}, nil)
	if req := last[*telexecv1.VerifyAuditRequest](t, d); req.GetAfterSequence() != 3 || hex.EncodeToString(req.GetAfterHash()) != hash {
		t.Errorf("%v", req)
	}
	d.verify = &telexecv1.VerifyAuditResponse{VerifiedRows: 2, BrokenSequence: 3, BrokenReason: "its text\n"}
	i = d.sit(t)
	i.want(t, i.run(t.Context(), "audit", "verify"), 1, []string{"broken at row 3: its text\\n\n"}, nil)
	i = d.sit(t)
	i.want(t, i.run(t.Context(), "audit", "verify", "--json"), 1, []string{`"brokenSequence": "3"`}, nil)
	for _, bad := range []string{"3", "x:" + hash, "0:" + hash, "3:ab"} {
		i = d.sit(t)
		i.want(t, i.run(t.Context(), "audit", "verify", "--from", bad), 125, nil, []string{"--from"})
	}
}

// An export can be checked without the service, and every change of it is found.
func TestAuditExport(t *testing.T) {
	rows := chained(`{"kind":"a<b>"}`, "{\"c\":\"\u2028\"}", `{}`)
	d := &desk{rows: rows}
	file := filepath.Join(t.TempDir(), "audit.jsonl")
	i := d.sit(t)
	i.want(t, i.run(t.Context(), "audit", "export", file), 0, nil, nil)
	whole, err := os.ReadFile(file)
	if err != nil || i.stdout.Len() > 0 {
		t.Fatal(err, i.stdout.String())
	}
	if info, _ := os.Stat(file); info.Mode().Perm() != 0o600 {
		t.Errorf("others may read it: %v", info.Mode())
	}
	lines := strings.SplitAfter(string(whole), "\n")
	if want := `{"sequence":1,"previous_hash":"` + strings.Repeat("0", 64) + `","hash":"` + hex.EncodeToString(rows[0].GetHash()) + `","text":"{\"kind\":\"a<b>\"}"}` + "\n"; lines[0] != want {
		t.Errorf("got %s\nwant %s", lines[0], want)
	}
	i = d.sit(t)
	i.want(t, i.run(t.Context(), "audit", "export", file), 125, nil, []string{"exists"})
	i = d.sit(t)
	if code := i.run(t.Context(), "audit", "export", "--after", "1"); code != 0 || i.stdout.String() != lines[1]+lines[2] {
		t.Errorf("behind the first: %d\n%s", code, i.stdout.String())
	}
	i = d.sit(t)
	i.want(t, i.run(t.Context(), "audit", "export", "--after=-1"), 125, nil, []string{"--after"})

	hash := func(row int) string { return fmt.Sprint(row, ":", hex.EncodeToString(rows[row-1].GetHash())) }
	last := "3:" + hex.EncodeToString(rows[2].GetHash())
	for _, tt := range []struct {
		name   string
		export string
		args   []string
		code   int
		want   string
	}{
		{"whole", string(whole), nil, 0, "intact, 3 rows; the last is " + last},
		{"without a line end", strings.TrimSpace(string(whole)), nil, 0, "intact, 3 rows"},
		{"from its first row", string(whole), []string{"--from", hash(1)}, 0, "intact, 2 rows behind row 1; the last is " + last},
		{"from its second row", string(whole), []string{"--from", hash(2)}, 0, "intact, 1 rows behind row 2; the last is " + last},
		{"from its last row", string(whole), []string{"--from", last}, 0, "intact, 0 rows behind row 3; the last is " + last},
		{"behind the known row", lines[2], []string{"--from", hash(2)}, 0, "intact, 1 rows behind row 2; the last is " + last},
		{"behind another row than the known", lines[2], []string{"--from", "2:" + strings.Repeat("0", 64)}, 1, "broken at row 3: it does not follow"},
		{"not right behind the known row", lines[2], []string{"--from", hash(1)}, 1, "broken at row 2: it is missing"},
		{"changed before the known row", strings.Replace(string(whole), "a<b>", "a<c>", 1), []string{"--from", hash(2)}, 0, "intact, 1 rows"},
		{"the known row changed", strings.Replace(string(whole), "a<b>", "a<c>", 1), []string{"--from", hash(1)}, 1, "broken at row 1: its text"},
		{"changed behind the known row", strings.Replace(string(whole), `"{}"`, `"{ }"`, 1), []string{"--from", hash(2)}, 1, "broken at row 3: its text"},
		{"its end", lines[1] + lines[2], nil, 0, "intact, 2 rows; the last is " + last},
		{"a changed text", strings.Replace(string(whole), "a<b>", "a<c>", 1), nil, 1, "broken at row 1: its text"},
		{"a row missing", lines[0] + lines[2], nil, 1, "broken at row 2: it is missing"},
		{"the end missing", lines[0] + lines[1], []string{"--from", last}, 1, "broken at row 3: it was noted"},
		{"another hash than noted", string(whole), []string{"--from", "2:" + strings.Repeat("0", 64)}, 1, "broken at row 2: it has another hash"},
		{"no rows", "", nil, 125, "holds no row"},
		{"no export", "hello\n", nil, 125, "line 1 is not a row"},
		{"no hash", `{"hash":"x"}`, nil, 125, "hash: "},
		{"no previous hash", `{"previous_hash":"x"}`, nil, 125, "previous_hash: "},
		{"a line that never ends", strings.Repeat("x", exportLine+1), nil, 125, "cannot read the export"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "x")
			if err := os.WriteFile(file, []byte(tt.export), 0o600); err != nil {
				t.Fatal(err)
			}
			i := &invocation{env: map[string]string{"TELEXEC_SERVER": nowhere}} // no service is asked
			code := i.run(t.Context(), append([]string{"audit", "verify", "--file", file}, tt.args...)...)
			if got := i.stdout.String() + i.stderr.String(); code != tt.code || !strings.Contains(got, tt.want) {
				t.Errorf("exit code %d, %s", code, got)
			}
		})
	}
}

// An export comes from a pipe as well, and who waits for one that does not come can
// leave.
func TestAuditVerifyOfStandardInput(t *testing.T) {
	var export strings.Builder
	for _, row := range chained("{}", `{"a":"b"}`) {
		fmt.Fprintf(&export, `{"sequence":%d,"previous_hash":"%x","hash":"%x","text":%q}`+"\n", row.GetSequence(), row.GetPreviousHash(), row.GetHash(), row.GetText())
	}
	i := &invocation{env: map[string]string{"TELEXEC_SERVER": nowhere}, stdin: strings.NewReader(export.String())}
	i.want(t, i.run(t.Context(), "audit", "verify", "--file", "-"), 0, []string{"intact, 2 rows; the last is 2:"}, nil)
	i = &invocation{stdin: strings.NewReader("")}
	i.want(t, i.run(t.Context(), "audit", "verify", "--file", "-"), 125, nil, []string{"holds no row"})

	never, w := io.Pipe()
	defer w.Close()
	i = &invocation{stdin: never, signals: make(chan os.Signal, 1)}
	i.signals <- os.Interrupt
	i.want(t, i.run(t.Context(), "audit", "verify", "--file", "-"), 130, []string{"!intact"}, nil)
}

// What came before an export failed is kept, and it is told how to go on.
func TestAuditExportThatFails(t *testing.T) {
	d := &desk{rows: chained("{}", "{}"), fail: refused(codes.Unauthenticated, "TOKEN_REVOKED", "the token was taken back")}
	i := d.sit(t)
	i.want(t, i.run(t.Context(), "audit", "export"), 125, []string{`"sequence":2`}, []string{"2 rows were exported", "--after 2 goes on", "was taken back"})
	i = d.sit(t)
	i.want(t, i.run(t.Context(), "audit", "export", filepath.Join(t.TempDir(), "no", "x")), 125, nil, []string{"cannot write"})
	file := filepath.Join(t.TempDir(), "it's all")
	i = d.sit(t)
	i.want(t, i.run(t.Context(), "audit", "export", file), 125, nil, []string{"2 rows were exported", "--after 2 >> '" + strings.ReplaceAll(file, "'", `'\''`) + "' goes on", "was taken back"})
	if whole, err := os.ReadFile(file); err != nil || strings.Count(string(whole), "\n") != 2 {
		t.Errorf("%q, %v", whole, err)
	}
	d.fail = nil
	i = d.sit(t)
	_, screen, wait := i.startOnTerminal(t, "audit", "export", filepath.Join(t.TempDir(), "x"))
	until(t, screen, "telexec: 2 rows, the last is 2")
	if code := wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// An export that has not begun leaves nothing that would be in the way of the next.
func TestAuditExportThatIsRefused(t *testing.T) {
	d := &desk{fail: refused(codes.PermissionDenied, "ROLE_MISSING", "only an admin may")}
	file := filepath.Join(t.TempDir(), "audit.jsonl")
	i := d.sit(t)
	i.want(t, i.run(t.Context(), "audit", "export", file), 125, nil, []string{"only an admin may", "!goes on"})
	d.fail = nil
	d.rows = chained("{}")
	i = d.sit(t)
	i.want(t, i.run(t.Context(), "audit", "export", file), 0, nil, nil)
	i = d.sit(t)
	i.want(t, i.run(t.Context(), "audit", "export", file), 125, nil, []string{"exists"})
	if _, err := os.Stat(file); err != nil {
		t.Errorf("the export of somebody else is gone: %v", err)
	}
}

// Where writing fails, no row is told to go on from: the last ones are not there.
func TestAuditExportThatCannotBeWritten(t *testing.T) {
	var texts []string
	for range 100 {
		texts = append(texts, strings.Repeat("x", 1000))
	}
	d := &desk{rows: chained(texts...)}
	i := d.sit(t)
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		testenv.Missing(t, "no full device here: "+err.Error())
	}
	defer full.Close()
	code := run(t.Context(), Env{Stdout: full, Stderr: &i.stderr, Getenv: func(name string) string { return i.env[name] }}, []string{"audit", "export"})
	i.want(t, code, 125, nil, []string{"could not be written", "no space left", "not whole", "!goes on"})

	file := filepath.Join(t.TempDir(), "audit.jsonl")
	i = d.sit(t)
	shell := exec.CommandContext(t.Context(), "sh", "-c", "ulimit -f 40; exec telexec audit export "+file)
	shell.Env, shell.Stdout, shell.Stderr = os.Environ(), &i.stdout, &i.stderr
	for name, value := range i.env {
		shell.Env = append(shell.Env, name+"="+value)
	}
	_ = shell.Run()
	i.want(t, shell.ProcessState.ExitCode(), 125, nil, []string{"could not be written", "not whole", "remove", "!goes on", "!--after"})
	if info, err := os.Stat(file); err != nil || info.Size() == 0 {
		t.Errorf("%v, %v", info, err)
	}
}

// Whatever a file holds, it is told to be no export, broken, or intact, and then
// with a last row.
func FuzzVerifyExport(f *testing.F) {
	var whole strings.Builder
	for _, row := range chained("{}", `{"a":"b"}`) {
		line, err := json.Marshal(exportRow{row.GetSequence(), hex.EncodeToString(row.GetPreviousHash()), hex.EncodeToString(row.GetHash()), row.GetText()})
		if err != nil {
			f.Fatal(err)
		}
		whole.Write(append(line, '\n'))
	}
	f.Add(whole.String())
	f.Add("{}\n{}")
	f.Add("")
	f.Fuzz(func(t *testing.T, export string) {
		resp, err := verifyExport(strings.NewReader(export), &telexecv1.VerifyAuditRequest{})
		switch {
		case err != nil:
		case !resp.GetIntact():
			if resp.GetBrokenReason() == "" {
				t.Error("broken without a reason")
			}
		case resp.GetHeadSequence() < resp.GetVerifiedRows() || len(resp.GetHeadHash()) != sha256.Size:
			t.Errorf("%d rows, the last %d:%x", resp.GetVerifiedRows(), resp.GetHeadSequence(), resp.GetHeadHash())
		}
	})
}
