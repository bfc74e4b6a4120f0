package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/fault"
)

// ledger is an audit in memory that tests can damage. Its rows are as in the store:
// by number, whatever somebody has made of them.
type ledger struct {
	rows    []audit.Row
	head    audit.Head
	headErr error
	fail    error        // of AuditRows and AuditChain
	filter  audit.Filter // of the last AuditRows
	reads   int
	between func() // runs before each AuditChain
}

func newLedger(n int) *ledger {
	l := &ledger{}
	for i := range n {
		l.tell(audit.Entry{Time: noon.Add(time.Duration(i) * time.Second), Kind: audit.Refused, Principal: "ann", Detail: fmt.Sprint("entry ", i+1)})
	}
	return l
}

func (l *ledger) tell(e audit.Entry) {
	row := audit.Chain(l.head.Seq, l.head.Hash, e)
	l.rows = append(l.rows, row)
	l.head = audit.Head{Seq: row.Seq, Hash: row.Hash}
}

func (l *ledger) AuditRows(_ context.Context, f audit.Filter) (list []audit.Row, err error) {
	l.filter = f
	l.reads++
	for _, row := range slices.Backward(l.rows) {
		if (f.Before == 0 || row.Seq < f.Before) && len(list) < f.Limit {
			list = append(list, row)
		}
	}
	return list, l.fail
}

func (l *ledger) AuditChain(_ context.Context, after int64, limit int) (list []audit.Row, err error) {
	l.reads++
	if l.between != nil {
		l.between()
	}
	for _, row := range l.rows {
		if row.Seq > after && len(list) < limit {
			list = append(list, row)
		}
	}
	return list, l.fail
}

func (l *ledger) AuditHead(context.Context) (audit.Head, error) {
	l.reads++
	return l.head, l.headErr
}

// noKeys is a store of keys that has none and takes any.
type noKeys struct{ access.KeyStore }

func (noKeys) Keys(context.Context) ([]access.Key, error)            { return nil, nil }
func (noKeys) AddKey(context.Context, access.Key, audit.Entry) error { return nil }
func (noKeys) RevokeKey(context.Context, string, time.Time, audit.Entry) (access.Key, error) {
	return access.Key{}, fault.New(fault.NotFound, fault.ReasonUnknownToken, "no such token")
}

// exports keeps what an export sends.
type exports struct {
	grpc.ServerStream
	ctx  context.Context
	sent []*telexecv1.ExportAuditResponse
	fail error
}

func (e *exports) Context() context.Context { return e.ctx }
func (e *exports) Send(m *telexecv1.ExportAuditResponse) error {
	e.sent = append(e.sent, m)
	return e.fail
}

func TestEveryFieldOfAnAuditEntryIsTold(t *testing.T) {
	e := full[audit.Entry]()
	e.Origin = "mcp"
	tell := func() *telexecv1.AuditEntry {
		row := audit.Chain(8, audit.Hash{1}, e)
		p := rowToProto(row)
		if !bytes.Equal(p.GetHash(), row.Hash[:]) {
			t.Errorf("hash %x", p.GetHash())
		}
		p.Hash = []byte{1} // changes with everything
		return p
	}
	p := tell()
	if missing := unset("", p.ProtoReflect()); len(missing) > 0 {
		t.Errorf("never set: %v", missing)
	}
	if p.GetSequence() != 9 || !p.GetTime().AsTime().Equal(e.Time) || p.GetBy().GetOrigin() != telexecv1.Origin_ORIGIN_MCP {
		t.Errorf("%v", p)
	}
	leaves("", reflect.ValueOf(&e).Elem(), func(path string, v reflect.Value) {
		old := reflect.ValueOf(v.Interface())
		v.SetZero()
		if proto.Equal(p, tell()) {
			t.Errorf("%s is not told", path)
		}
		v.Set(old)
	})
	// What does not apply is empty, but one is one.
	p = rowToProto(audit.Chain(0, audit.Hash{}, audit.Entry{Time: noon, Kind: audit.Login}))
	want := &telexecv1.AuditEntry{Sequence: 1, Time: timestamppb.New(noon), Kind: "login", By: &telexecv1.Actor{}, Count: 1, Hash: p.GetHash()}
	if !proto.Equal(p, want) {
		t.Errorf("%v", p)
	}
}

// Whatever somebody has made of a row, it can be sent, and the list goes on.
func TestEntriesThatAreNoText(t *testing.T) {
	l := newLedger(1)
	l.tell(audit.Entry{Time: noon, Kind: audit.Refused, Principal: "\xff", Detail: "\xc3(", Command: strings.Repeat("\xff", 5000), Host: "\xf0"})
	for _, text := range []string{"", "{", "\xff\xfe", `{"time":"2030-01-02T12:00:00Z","detail":"` + "\xff" + `"}`, `{"kind":"` + `\ud800` + `"}`} {
		l.rows = append(l.rows, audit.Row{Seq: int64(len(l.rows) + 1), Text: []byte(text)})
	}
	page, err := NewAdmin(Info{}, &plant{}, nil, l, nil).ListAuditEntries(asRoot(t), &telexecv1.ListAuditEntriesRequest{})
	if err != nil || len(page.GetEntries()) != len(l.rows) {
		t.Fatalf("%v, %v", page, err)
	}
	if _, err := proto.Marshal(page); err != nil {
		t.Error(err)
	}
	if e := page.GetEntries()[4]; e.GetKind() != "damaged" || e.GetSequence() != 3 || e.GetDetail() == "" {
		t.Errorf("%v", e)
	}
	out := &exports{ctx: asRoot(t)}
	if err := NewAdmin(Info{}, &plant{}, nil, l, nil).ExportAudit(&telexecv1.ExportAuditRequest{}, out); err != nil || len(out.sent) != len(l.rows) {
		t.Fatalf("%v: %d rows", err, len(out.sent))
	}
	for _, m := range out.sent {
		if _, err := proto.Marshal(m); err != nil {
			t.Error(err)
		}
	}
}

func TestPagesOfTheAudit(t *testing.T) {
	l := newLedger(7)
	svc := NewAdmin(Info{}, &plant{}, nil, l, nil)
	req := &telexecv1.ListAuditEntriesRequest{PageSize: 3, Kinds: []string{"refused", "login"}, Principal: "ann", Host: "h", CommandId: anID,
		TimeFrom: timestamppb.New(noon), TimeTo: timestamppb.New(noon.Add(time.Hour))}
	var got []int64
	for {
		page, err := svc.ListAuditEntries(asRoot(t), req)
		if err != nil || len(got) > 7 {
			t.Fatal(err, got)
		}
		for _, e := range page.GetEntries() {
			got = append(got, e.GetSequence())
		}
		want := audit.Filter{Kinds: []audit.Kind{audit.Refused, audit.Login}, Principal: "ann", Host: "h", CommandID: anID,
			From: noon, To: noon.Add(time.Hour), Before: l.filter.Before, Limit: 4}
		if !reflect.DeepEqual(l.filter, want) {
			t.Errorf("%+v", l.filter)
		}
		if req.PageToken = page.GetNextPageToken(); req.PageToken == "" {
			break
		}
		l.tell(audit.Entry{Time: noon, Kind: audit.Login}) // what comes meanwhile moves nothing
	}
	if !slices.Equal(got, []int64{7, 6, 5, 4, 3, 2, 1}) {
		t.Errorf("%v", got)
	}
	first, err := svc.ListAuditEntries(asRoot(t), &telexecv1.ListAuditEntriesRequest{PageSize: 1})
	if err != nil {
		t.Fatal(err)
	}
	filter := &telexecv1.ListAuditEntriesRequest{}
	for name, bad := range map[string]*telexecv1.ListAuditEntriesRequest{
		"of another list":      {PageToken: first.GetNextPageToken(), Principal: "bob"},
		"nonsense":             {PageToken: "x"},
		"sealed, no number":    {PageToken: pageToken(filter, "x")},
		"sealed, not a number": {PageToken: pageToken(filter, "99999999999999999999")},
		"sealed, before all":   {PageToken: pageToken(filter, "0")},
		"sealed, below":        {PageToken: pageToken(filter, "-4")},
	} {
		if _, err := svc.ListAuditEntries(asRoot(t), bad); fault.ReasonOf(err) != fault.ReasonBadPageToken {
			t.Errorf("%s: %v", name, err)
		}
	}
	l.fail = errors.New("store")
	if _, err := svc.ListAuditEntries(asRoot(t), filter); err != l.fail {
		t.Error(err)
	}
}

// Entries with all that they can hold: a command, a detail, and the longest excerpts
// that can be configured.
func TestAPageOfTheAuditIsNotTooLarge(t *testing.T) {
	l := &ledger{}
	excerpt := bytes.Repeat([]byte{0xff}, 64<<10)
	for range 15 {
		l.tell(audit.Entry{Time: noon, Kind: audit.CommandEnded, Command: strings.Repeat("\xff", 9999), Detail: strings.Repeat("x", 9999),
			Stdout: &audit.Output{Head: excerpt, Tail: excerpt}, Stderr: &audit.Output{Head: excerpt, Tail: excerpt}})
	}
	svc := NewAdmin(Info{}, &plant{}, nil, l, nil)
	req, total := &telexecv1.ListAuditEntriesRequest{PageSize: 1000}, 0
	for {
		page, err := svc.ListAuditEntries(asRoot(t), req)
		if err != nil {
			t.Fatal(err)
		}
		if n := len(page.GetEntries()); n == 0 || proto.Size(page) > maxPageBytes+1000 {
			t.Fatalf("a page of %d, %d bytes", n, proto.Size(page))
		}
		total += len(page.GetEntries())
		if req.PageToken = page.GetNextPageToken(); req.PageToken == "" {
			break
		}
	}
	if total != 15 {
		t.Errorf("%d entries", total)
	}
}

func TestVerifyAudit(t *testing.T) {
	const n = 3*chainStep + 5 // more than is read at once
	good := newLedger(n)
	noted := good.rows[49].Hash
	badHash := bytes.Repeat([]byte{9}, 32)
	damagedHead := fault.New(fault.DataLoss, fault.ReasonStoreDamaged, "the tag is not ours")
	anew := func(from int) func(*ledger) { // everything written anew from a row on, by somebody without the key
		return func(l *ledger) {
			head := l.head
			l.rows = l.rows[:from-1]
			l.head = audit.Head{Seq: int64(from - 1), Hash: l.rows[from-2].Hash}
			for range n - from + 1 {
				l.tell(audit.Entry{Time: noon, Kind: audit.Login})
			}
			l.head = head
		}
	}
	anewWithKey := func(from int) func(*ledger) {
		return func(l *ledger) {
			anew(from)(l)
			last := l.rows[len(l.rows)-1]
			l.head = audit.Head{Seq: last.Seq, Hash: last.Hash}
		}
	}
	for name, c := range map[string]struct {
		damage   func(*ledger)
		sequence int64
		hash     []byte
		broken   int64 // 0: intact
		last     int64 // good row
		says     string
	}{
		"as it was":                   {nil, 0, nil, 0, n, ""},
		"from a known row":            {nil, 50, noted[:], 0, n, ""},
		"from the first row":          {nil, 1, good.rows[0].Hash[:], 0, n, ""},
		"from the last row":           {nil, n, good.head.Hash[:], 0, n, ""},
		"changed before known":        {func(l *ledger) { l.rows[9].Text = []byte("{}") }, 50, noted[:], 0, n, ""},
		"all before known removed":    {func(l *ledger) { l.rows = l.rows[49:] }, 50, noted[:], 0, n, ""},
		"known changed":               {func(l *ledger) { l.rows[49].Text = []byte("{}") }, 50, noted[:], 50, 49, "not what was written"},
		"known and its hash changed":  {func(l *ledger) { l.rows[49] = audit.Chain(49, l.rows[48].Hash, audit.Entry{}) }, 50, noted[:], 50, 49, "hash was noted"},
		"known removed":               {func(l *ledger) { l.rows = slices.Delete(l.rows, 49, 50) }, 50, noted[:], 50, 49, "missing"},
		"known and all behind gone":   {func(l *ledger) { l.rows = l.rows[:49] }, 50, noted[:], 50, 49, "missing"},
		"changed right behind":        {func(l *ledger) { l.rows[50].Prev[0]++ }, 50, noted[:], 51, 50, "does not follow"},
		"changed far behind":          {func(l *ledger) { l.rows[150].Text = []byte("{}") }, 50, noted[:], 151, 150, "not what was written"},
		"cut behind known":            {func(l *ledger) { l.rows = l.rows[:60] }, 50, noted[:], 61, 60, "missing"},
		"cut, the head damaged":       {func(l *ledger) { l.headErr = damagedHead; l.rows = l.rows[:49] }, 50, noted[:], 50, 49, "whose hash was noted"},
		"known, the head damaged":     {func(l *ledger) { l.headErr = damagedHead }, 50, noted[:], n + 1, n, "the tag is not ours"},
		"nothing":                     {func(l *ledger) { *l = ledger{} }, 0, nil, 0, 0, ""},
		"changed":                     {func(l *ledger) { l.rows[99].Text = bytes.Replace(l.rows[99].Text, []byte("ann"), []byte("bob"), 1) }, 0, nil, 100, 99, "not what was written"},
		"removed":                     {func(l *ledger) { l.rows = slices.Delete(l.rows, 99, 100) }, 0, nil, 100, 99, "missing"},
		"removed, the last but one":   {func(l *ledger) { l.rows = slices.Delete(l.rows, n-2, n-1) }, 0, nil, n - 1, n - 2, "missing"},
		"swapped":                     {func(l *ledger) { r := l.rows; r[99].Text, r[100].Text = r[100].Text, r[99].Text }, 0, nil, 100, 99, "not what was written"},
		"put in":                      {func(l *ledger) { l.rows[99] = audit.Chain(99, l.rows[98].Hash, audit.Entry{Kind: audit.Login}) }, 0, nil, 101, 100, "does not follow"},
		"no JSON":                     {func(l *ledger) { l.rows[99].Text = []byte("x") }, 0, nil, 100, 99, "not what was written"},
		"the end cut":                 {func(l *ledger) { l.rows = l.rows[:n-9] }, 0, nil, n - 8, n - 9, "missing"},
		"the end cut where it pages":  {func(l *ledger) { l.rows = l.rows[:2*chainStep] }, 0, nil, 2*chainStep + 1, 2 * chainStep, "missing"},
		"all removed":                 {func(l *ledger) { l.rows = nil }, 0, nil, 1, 0, "missing"},
		"the end changed":             {anew(n), 0, nil, n, n - 1, "not the last row"},
		"written anew":                {anew(60), 0, nil, n, n - 1, "not the last row"},
		"a row put behind":            {func(l *ledger) { h := l.head; l.tell(audit.Entry{Kind: audit.Login}); l.head = h }, 0, nil, n + 1, n, "not written by the service"},
		"a row put in front":          {func(l *ledger) { l.rows = slices.Insert(l.rows, 0, audit.Row{Seq: 0, Text: []byte("{}")}) }, 0, nil, 1, 0, "stands row 0"},
		"the head damaged":            {func(l *ledger) { l.headErr = damagedHead }, 0, nil, n + 1, n, "the tag is not ours"},
		"the head damaged, and a row": {func(l *ledger) { l.headErr = damagedHead; l.rows[9].Hash[0]++ }, 0, nil, 10, 9, "not what was written"},
		"the head damaged, cut":       {func(l *ledger) { l.headErr = damagedHead; l.rows = l.rows[:9] }, 0, nil, 10, 9, "cannot be told"},
		"another than the known row":  {nil, 50, badHash, 50, 49, "hash was noted"},
		"anew, by the key's holder":   {anewWithKey(40), 50, noted[:], 50, 49, "hash was noted"},
		"anew behind the known row":   {anewWithKey(51), 50, noted[:], 0, n, ""},
		"the known row is not there":  {nil, n + 1, badHash, n + 1, n, "hash was noted"},
		"cut by the key's holder":     {func(l *ledger) { l.rows = l.rows[:40]; l.head = audit.Head{Seq: 40, Hash: l.rows[39].Hash} }, 50, noted[:], 41, 40, "hash was noted"},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLedger(n)
			if c.damage != nil {
				c.damage(l)
			}
			got, err := NewAdmin(Info{}, &plant{}, nil, l, nil).VerifyAudit(asRoot(t), &telexecv1.VerifyAuditRequest{AfterSequence: c.sequence, AfterHash: c.hash})
			if err != nil {
				t.Fatal(err)
			}
			if got.GetIntact() != (c.broken == 0) || got.GetBrokenSequence() != c.broken || got.GetVerifiedRows() != max(0, c.last-c.sequence) || !strings.Contains(got.GetBrokenReason(), c.says) ||
				got.GetIntact() != (got.GetBrokenReason() == "") {
				t.Errorf("%v", got)
			}
			last := audit.Row{} // the last good one; none where not even the known one is
			if i := slices.IndexFunc(l.rows, func(r audit.Row) bool { return r.Seq == c.last }); c.last >= c.sequence && i >= 0 {
				last = l.rows[i]
			}
			if got.GetHeadSequence() != last.Seq || last.Seq > 0 && !bytes.Equal(got.GetHeadHash(), last.Hash[:]) || last.Seq == 0 && len(got.GetHeadHash()) > 0 {
				t.Errorf("head %d:%x, want %d:%x", got.GetHeadSequence(), got.GetHeadHash(), last.Seq, last.Hash)
			}
		})
	}
}

// What comes while it is read is no damage, and does not keep it from its end.
func TestTheAuditGrowsWhileItIsVerified(t *testing.T) {
	for name, damaged := range map[string]bool{"the head genuine": false, "the head damaged meanwhile": true} {
		t.Run(name, func(t *testing.T) {
			const n = chainStep
			l := newLedger(n)
			times := 0
			l.between = func() {
				if times++; times < 9 {
					for range chainStep / 2 {
						l.tell(audit.Entry{Time: noon, Kind: audit.Login})
					}
				}
				if damaged {
					l.headErr = fault.New(fault.DataLoss, fault.ReasonStoreDamaged, "not ours")
				}
			}
			got, err := NewAdmin(Info{}, &plant{}, nil, l, nil).VerifyAudit(asRoot(t), &telexecv1.VerifyAuditRequest{})
			if err != nil || got.GetIntact() == damaged || got.GetVerifiedRows() != n {
				t.Errorf("%v, %v", got, err)
			}
		})
	}
}

func TestVerifyAuditFails(t *testing.T) {
	broken := fault.New(fault.Unavailable, fault.ReasonStoreUnavailable, "closed")
	for name, damage := range map[string]func(*ledger){
		"rows": func(l *ledger) { l.fail = broken },
		"head": func(l *ledger) { l.headErr = broken },
		"head, meanwhile": func(l *ledger) {
			l.between = func() { l.tell(audit.Entry{Kind: audit.Login}); l.headErr = broken }
		},
	} {
		l := newLedger(3)
		damage(l)
		if got, err := NewAdmin(Info{}, &plant{}, nil, l, nil).VerifyAudit(asRoot(t), &telexecv1.VerifyAuditRequest{}); err != broken {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	// Half of what is known would be a false alarm, or none where there should be one.
	for _, half := range []*telexecv1.VerifyAuditRequest{{AfterSequence: 2}, {AfterHash: make([]byte, 32)}} {
		_, err := NewAdmin(Info{}, &plant{}, nil, newLedger(3), nil).VerifyAudit(asRoot(t), half)
		if e := fault.From(err); err == nil || e.Reason != fault.ReasonInvalidRequest || e.Hint == "" || len(e.Fields) != 1 {
			t.Errorf("%v: %v", half, err)
		}
	}
}

func TestExportAudit(t *testing.T) {
	const n = 2*chainStep + 3
	l := newLedger(n)
	svc := NewAdmin(Info{}, &plant{}, nil, l, nil)
	out := &exports{ctx: asRoot(t)}
	if err := svc.ExportAudit(&telexecv1.ExportAuditRequest{}, out); err != nil || len(out.sent) != n {
		t.Fatalf("%v: %d rows", err, len(out.sent))
	}
	// As the contract says that anybody can check it.
	previous := make([]byte, 32)
	for i, m := range out.sent {
		sum := sha256.Sum256(append(bytes.Clone(previous), m.GetText()...))
		if m.GetSequence() != int64(i+1) || !bytes.Equal(m.GetPreviousHash(), previous) || !bytes.Equal(m.GetHash(), sum[:]) {
			t.Fatalf("row %d: %v", i+1, m)
		}
		previous = m.GetHash()
	}
	out = &exports{ctx: asRoot(t)}
	if err := svc.ExportAudit(&telexecv1.ExportAuditRequest{AfterSequence: n - 2}, out); err != nil || len(out.sent) != 2 || out.sent[0].GetSequence() != n-1 {
		t.Errorf("%v: %v", err, out.sent)
	}
	out = &exports{ctx: asRoot(t), fail: io.ErrClosedPipe}
	if err := svc.ExportAudit(&telexecv1.ExportAuditRequest{}, out); err != io.ErrClosedPipe || len(out.sent) != 1 {
		t.Errorf("%v after %d", err, len(out.sent))
	}
	l.fail = errors.New("store")
	if err := svc.ExportAudit(&telexecv1.ExportAuditRequest{}, &exports{ctx: asRoot(t)}); err != l.fail {
		t.Error(err)
	}
}
