package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

var noon = time.Date(2030, 1, 2, 12, 0, 0, 123456000, time.UTC)

// chainOf makes a chain of n rows that tell of different things.
func chainOf(n int) (rows []Row, head Head) {
	for i := range n {
		code := i
		row := Chain(head.Seq, head.Hash, Entry{
			Time: noon.Add(time.Duration(i) * time.Second), Kind: Kinds[i%len(Kinds)], Principal: "ann",
			Command: fmt.Sprintf("echo %d", i), ExitCode: &code, Stdout: &Output{Size: int64(i), Digest: []byte{1, 2}, Head: []byte("h")},
		})
		rows = append(rows, row)
		head = Head{Seq: row.Seq, Hash: row.Hash}
	}
	return rows, head
}

// verify checks rows as a whole, and gives where they break; 0 for nowhere.
func verify(t *testing.T, rows []Row, head Head) (int64, string) {
	t.Helper()
	var c Checker
	var err error
	for _, r := range rows {
		if err = c.Next(r); err != nil {
			break
		}
	}
	if again := c.End(head); err != nil && again != err {
		t.Errorf("the first break is %v, then %v", err, again)
	} else {
		err = again
	}
	if err == nil {
		if c.Head() != head {
			t.Errorf("the head is %v", c.Head())
		}
		return 0, ""
	}
	b, ok := errors.AsType[*Break](err)
	if !ok || !strings.Contains(err.Error(), fmt.Sprintf("row %d", b.Seq)) || c.Head().Seq >= b.Seq {
		t.Errorf("%v; good up to %d", err, c.Head().Seq)
	}
	if next := c.Next(Row{Seq: c.Head().Seq + 1}); next != err {
		t.Errorf("after a break: %v", next)
	}
	return b.Seq, b.Why
}

func TestAnEntryIsGivenBackAsItWas(t *testing.T) {
	code := 0
	out := &Output{Size: 3, Digest: []byte{1}, Head: []byte("a\xffb"), Tail: []byte{0}}
	e := Entry{
		Time: noon, Kind: CommandEnded, Principal: "ann", Origin: "cli", Address: "192.0.2.1", Call: "c", Method: "m",
		CommandID: "id", Session: "s", Task: "t", Host: "h", Command: "echo <&> \u2028 \x00 €", SudoUser: "root", RequestHash: []byte{2}, Subject: "s",
		Decision: "allow", Rule: "r", Outcome: "COMPLETED", Reason: "X", Detail: "d", ExitCode: &code, Signal: "KILL",
		Stdout: out, Stderr: out, Count: 4,
	}
	for i, v := 0, reflect.ValueOf(e); i < v.NumField(); i++ {
		if v.Field(i).IsZero() {
			t.Errorf("the test leaves out %s", v.Type().Field(i).Name)
		}
	}
	r := Chain(0, Hash{}, e)
	got, err := r.Entry()
	if err != nil || !reflect.DeepEqual(got, e) {
		t.Errorf("%v\n got %+v\nwant %+v", err, got, e)
	}
	// What does not apply takes no room.
	if r := Chain(0, Hash{}, Entry{Time: noon, Kind: Login}); string(r.Text) != `{"time":"2030-01-02T12:00:00.123456Z","kind":"login"}` {
		t.Errorf("%s", r.Text)
	}
}

// Times are kept as the store keeps them, so that both tell the same.
func TestTimesAreOfMicrosecondsInUTC(t *testing.T) {
	e, err := Chain(0, Hash{}, Entry{Time: noon.Add(999).In(time.FixedZone("x", 3600))}).Entry()
	if err != nil || !e.Time.Equal(noon) || e.Time.Location() != time.UTC {
		t.Errorf("%v, %v", e.Time, err)
	}
}

func TestEveryEntryCanBeWritten(t *testing.T) {
	for name, e := range map[string]Entry{
		"nothing":            {},
		"a year too late":    {Time: time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC), Principal: "p"},
		"a year too early":   {Time: time.Date(-1, 1, 1, 0, 0, 0, 0, time.UTC), Principal: "p"},
		"bytes that are not": {Time: noon, Principal: "p\xff", Host: "\xc3\x28", Command: "\xf0\x9f", Detail: "\xed\xa0\x80"},
		"a huge command":     {Time: noon, Command: strings.Repeat("x", 200_000), Detail: strings.Repeat("€", 200_000)},
		"a huge nothing":     {Time: noon, Command: strings.Repeat("\xff", 200_000), Detail: strings.Repeat("\xff", 200_000)},
	} {
		t.Run(name, func(t *testing.T) {
			r := Chain(41, Hash{1}, e)
			got, err := r.Entry()
			if err != nil || r.Seq != 42 || r.Prev != (Hash{1}) || !utf8.Valid(r.Text) {
				t.Fatalf("%v: %+v", err, r)
			}
			if len(got.Command) > MaxCommand || len(got.Detail) > MaxDetail {
				t.Errorf("a command of %d and a detail of %d bytes", len(got.Command), len(got.Detail))
			}
			if err := NewChecker(Head{Seq: 41, Hash: Hash{1}}).Next(r); err != nil {
				t.Error(err)
			}
			if year := e.Time.Year(); (year < 0 || year > 9999) != got.Time.Equal(time.Unix(0, 0)) {
				t.Errorf("the time is %v", got.Time)
			}
		})
	}
}

func TestWhatIsTooLongIsCutBetweenCharacters(t *testing.T) {
	const n = 10
	for in, want := range map[string]string{
		"":                          "",
		"0123456789":                "0123456789",
		"01234567890":               "0123456…",
		"€€€":                       "€€€",
		"€€€€":                      "€€…",
		"012€567890":                "012€5…",
		"01234€7890":                "01234…",
		"0123456€":                  "0123456€",
		"01234567€":                 "0123456…",
		"0123456789😀":               "0123456…",
		"\xff\xff\xff":              "\uFFFD\uFFFD\uFFFD",
		"\xff\xff\xff\xff":          "\uFFFD\uFFFD…",
		strings.Repeat("\xff", 999): "\uFFFD\uFFFD…",
		"012345678\xe2":             "0123456…",
	} {
		if got := cut(in, n); got != want || len(got) > n || !utf8.ValidString(got) {
			t.Errorf("%q is cut to %q, not %q", in, got, want)
		}
	}
}

// An export is checked by these few lines, which know SHA-256 and nothing of this
// package: docs can show them in any language.
func TestAnExportIsCheckedWithSHA256Alone(t *testing.T) {
	type exported struct{ previous, hash, text string } // hex, hex, JSON
	rows, head := chainOf(30)
	var export []exported
	for _, r := range rows {
		export = append(export, exported{hex.EncodeToString(r.Prev[:]), hex.EncodeToString(r.Hash[:]), string(r.Text)})
	}
	check := func(export []exported) (last string, good bool) {
		last = strings.Repeat("0", 64)
		for _, row := range export {
			previous, err := hex.DecodeString(row.previous)
			if err != nil || row.previous != last || !json.Valid([]byte(row.text)) {
				return "", false
			}
			sum := sha256.Sum256(append(previous, row.text...))
			if last = hex.EncodeToString(sum[:]); last != row.hash {
				return "", false
			}
		}
		return last, true
	}
	if last, good := check(export); !good || last != hex.EncodeToString(head.Hash[:]) {
		t.Errorf("%s, %v", last, good)
	}
	export[7].text = strings.Replace(export[7].text, "echo", "ecko", 1)
	if _, good := check(export); good {
		t.Error("a changed row passes")
	}
}

func TestChecker(t *testing.T) {
	const n = 8
	_, head := chainOf(n)
	longer, _ := chainOf(n + 1)
	forged := func(rows []Row, from int64) []Row { // written anew from a row on, with another entry
		at := rows[from-2]
		for i := from; i <= int64(len(rows)); i++ {
			at = Chain(at.Seq, at.Hash, Entry{Time: noon, Kind: Login})
			rows[i-1] = at
		}
		return rows
	}
	for name, c := range map[string]struct {
		edit func([]Row) []Row
		seq  int64
		why  string
	}{
		"as it was":                {func(r []Row) []Row { return r }, 0, ""},
		"text changed":             {func(r []Row) []Row { r[2].Text = bytes.Replace(r[2].Text, []byte("ann"), []byte("bob"), 1); return r }, 3, "not what was written"},
		"text emptied":             {func(r []Row) []Row { r[2].Text = nil; return r }, 3, "not what was written"},
		"text and hash changed":    {func(r []Row) []Row { r[2] = Chain(r[1].Seq, r[1].Hash, Entry{Time: noon, Kind: Login}); return r }, 4, "does not follow"},
		"hash changed":             {func(r []Row) []Row { r[2].Hash[0]++; return r }, 3, "not what was written"},
		"link changed":             {func(r []Row) []Row { r[2].Prev[31]++; return r }, 3, "does not follow"},
		"first changed":            {func(r []Row) []Row { r[0].Prev[0]++; return r }, 1, "does not follow"},
		"last changed":             {func(r []Row) []Row { r[7] = Chain(r[6].Seq, r[6].Hash, Entry{Time: noon, Kind: Login}); return r }, 8, "not the last row"},
		"first removed":            {func(r []Row) []Row { return r[1:] }, 1, "missing; the next one there is 2"},
		"one removed":              {func(r []Row) []Row { return slices.Delete(r, 4, 5) }, 5, "missing; the next one there is 6"},
		"one removed and closed":   {func(r []Row) []Row { r = slices.Delete(r, 4, 5); r[4].Seq = 5; return r }, 5, "does not follow"},
		"two swapped":              {func(r []Row) []Row { r[3], r[4] = r[4], r[3]; return r }, 4, "missing; the next one there is 5"},
		"two swapped, numbers not": {func(r []Row) []Row { r[3], r[4] = r[4], r[3]; r[3].Seq, r[4].Seq = 4, 5; return r }, 4, "does not follow"},
		"one twice":                {func(r []Row) []Row { return slices.Insert(r, 3, r[2]) }, 4, "stands row 3"},
		"one put in":               {func(r []Row) []Row { return slices.Insert(r, 3, Chain(r[2].Seq, r[2].Hash, Entry{Kind: Login})) }, 5, "stands row 4"},
		"one put behind":           {func(r []Row) []Row { return append(r, longer[n]) }, 9, "not written by the service"},
		"the end cut":              {func(r []Row) []Row { return r[:5] }, 6, "up to row 8"},
		"all removed":              {func(r []Row) []Row { return nil }, 1, "up to row 8"},
		"written anew from 4 on":   {func(r []Row) []Row { return forged(r, 4) }, 8, "not the last row"},
		"no JSON, but hashed":      {func(r []Row) []Row { r[7].Text = []byte("x"); r[7].Hash = link(r[7].Prev, r[7].Text); return r }, 8, "cannot be read"},
	} {
		t.Run(name, func(t *testing.T) {
			rows, _ := chainOf(n)
			seq, why := verify(t, c.edit(rows), head)
			if seq != c.seq || !strings.Contains(why, c.why) {
				t.Errorf("row %d: %q", seq, why)
			}
		})
	}
	if seq, why := verify(t, nil, Head{}); seq != 0 {
		t.Errorf("nothing at all: %d %q", seq, why)
	}
}

func TestACheckCanBeginBehindAKnownRow(t *testing.T) {
	rows, head := chainOf(6)
	c := NewChecker(Head{Seq: 3, Hash: rows[2].Hash})
	for _, r := range rows[3:] {
		if err := c.Next(r); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.End(head); err != nil {
		t.Error(err)
	}
	if err := NewChecker(Head{Seq: 3, Hash: rows[1].Hash}).Next(rows[3]); err == nil {
		t.Error("a row that follows another one passes")
	}
}

func TestARowIsTheOneThatWasNoted(t *testing.T) {
	rows, head := chainOf(6)
	c := Checker{}
	for _, r := range rows {
		if err := errors.Join(c.Next(r), c.Expect(r.Hash)); err != nil {
			t.Fatal(err)
		}
	}
	err := c.Expect(rows[4].Hash)
	if b, ok := errors.AsType[*Break](err); !ok || b.Seq != 6 || c.Head() != (Head{Seq: 5, Hash: rows[4].Hash}) {
		t.Errorf("%v, good up to %v", err, c.Head())
	}
	if again := c.Expect(head.Hash); again != err || c.End(head) != err {
		t.Errorf("after a break: %v", again)
	}
}

func TestKindsAreAllDifferent(t *testing.T) {
	if list := slices.Compact(slices.Sorted(slices.Values(Kinds))); len(list) != len(Kinds) || slices.Contains(list, "") {
		t.Errorf("%v", Kinds)
	}
}

// A row with one bit changed, wherever, never passes, and neither does one that was
// moved, left out or doubled.
func FuzzChecker(f *testing.F) {
	f.Add(uint8(0), uint8(0), uint16(0), uint8(1))
	f.Add(uint8(3), uint8(1), uint16(31), uint8(0x80))
	f.Add(uint8(11), uint8(2), uint16(9), uint8(0x20)) // a letter of another case
	f.Add(uint8(5), uint8(3), uint16(0), uint8(255))
	f.Add(uint8(5), uint8(4), uint16(2), uint8(1))
	f.Add(uint8(5), uint8(5), uint16(7), uint8(1))
	f.Add(uint8(11), uint8(6), uint16(0), uint8(1))
	f.Fuzz(func(t *testing.T, row, what uint8, where uint16, change uint8) {
		const n = 12
		rows, head := chainOf(n)
		i := int(row) % n
		r := &rows[i]
		change = max(change, 1)
		switch what % 7 {
		case 0:
			r.Prev[int(where)%len(r.Prev)] ^= change
		case 1:
			r.Hash[int(where)%len(r.Hash)] ^= change
		case 2:
			r.Text = bytes.Clone(r.Text)
			r.Text[int(where)%len(r.Text)] ^= change
		case 3:
			r.Seq ^= int64(change)
		case 4:
			j := int(where) % n
			if i == j {
				return
			}
			rows[i], rows[j] = rows[j], rows[i]
		case 5:
			rows = slices.Insert(rows, int(where)%(n+1), *r)
		case 6:
			rows = slices.Delete(rows, i, i+1)
		}
		if seq, _ := verify(t, rows, head); seq == 0 {
			t.Fatalf("row %d, change %d at %d passes", row, what%7, where)
		}
	})
}

func BenchmarkChain(b *testing.B) {
	e := Entry{Time: noon, Kind: CommandEnded, Principal: "ann", Command: strings.Repeat("x", 200), Stdout: &Output{Size: 1024, Head: make([]byte, 1024)}}
	var head Head
	for b.Loop() {
		r := Chain(head.Seq, head.Hash, e)
		head = Head{Seq: r.Seq, Hash: r.Hash}
	}
}

// Every kind is told of in the guide.
func TestEveryKindIsInTheGuide(t *testing.T) {
	guide, err := os.ReadFile("../../docs/audit.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range Kinds {
		if !bytes.Contains(guide, []byte("`"+string(k)+"`")) {
			t.Errorf("docs/audit.md says nothing of %s", k)
		}
	}
}
