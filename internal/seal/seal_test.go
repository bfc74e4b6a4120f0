package seal_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/seal"
)

// key is one with bytes that are easy to find again.
func key(first byte) *seal.Key {
	return seal.NewKey(bytes.Repeat([]byte{first, 'K', 'e', 'y'}, seal.KeySize/4))
}

func refused(t testing.TB, what string, plain []byte, err error) {
	t.Helper()
	if e := fault.From(err); err == nil || e.Kind != fault.DataLoss || e.Reason != fault.ReasonSealBroken || e.Hint == "" {
		t.Errorf("%s: opened as %q, %v; want %s with a hint", what, plain, err, fault.ReasonSealBroken)
	}
	if plain != nil {
		t.Errorf("%s: a refused value gave %q", what, plain)
	}
}

func TestWhatIsSealedOpens(t *testing.T) {
	k := key(1)
	large := bytes.Repeat([]byte("0123456789abcdef"), 1<<16) // the most that stdin may have: 1 MiB
	for _, plain := range [][]byte{nil, {}, {0}, []byte("PATH=/bin\x00TOKEN=hunter2"), large} {
		for _, bound := range [][]byte{nil, []byte("commands/01J"), large[:5000]} {
			sealed := k.Seal("env", plain, bound)
			if len(sealed) != len(plain)+seal.Overhead {
				t.Errorf("%d bytes are %d sealed, want %d more", len(plain), len(sealed), seal.Overhead)
			}
			if len(plain) > 4 && bytes.Contains(sealed, plain[:5]) {
				t.Error("the value shows in what is sealed")
			}
			got, err := k.Open("env", sealed, bound)
			if err != nil || !bytes.Equal(got, plain) {
				t.Errorf("%d bytes bound to %d: opened as %d bytes, %v", len(plain), len(bound), len(got), err)
			}
		}
	}
}

// What the first version made of "TOKEN=hunter2" and of "web".
const (
	sealedBefore = "AW0DD0b2KT189mz7F0sjqpbl2P/II8jwVGj76GWFRRiU/nCl/bHFjsT2"
	tagBefore    = "ddec2b72d3487c5451a226b394b76ffb9fe42caa4a331cd5e724f435adaa4d2b"
)

// Form and derivation are on disk: a change of either loses what is sealed, so
// it must be made on purpose, with a new version.
func TestTheFormIsKept(t *testing.T) {
	sealed, err := base64.StdEncoding.DecodeString(sealedBefore)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := key(1).Open("env", sealed, []byte("commands/1")); err != nil || string(got) != "TOKEN=hunter2" {
		t.Errorf("opened as %q, %v", got, err)
	}
	if got := hex.EncodeToString(key(1).Tag("login", []byte("web"))); got != tagBefore {
		t.Errorf("the tag is %s, was %s", got, tagBefore)
	}
}

func TestTheSameValueIsNeverSealedTheSame(t *testing.T) {
	k, seen := key(1), map[string]bool{}
	for range 1000 {
		seen[string(k.Seal("env", []byte("same"), []byte("id")))] = true
	}
	if len(seen) != 1000 {
		t.Errorf("1000 seals gave %d values", len(seen))
	}
}

func TestEveryChangeIsFound(t *testing.T) {
	k, bound := key(1), []byte("commands/1")
	sealed := k.Seal("stdin", []byte("hunter2"), bound)
	for i := range sealed {
		for _, bit := range []byte{1, 0x80, 0xff} {
			bad := bytes.Clone(sealed)
			bad[i] ^= bit
			plain, err := k.Open("stdin", bad, bound)
			refused(t, fmt.Sprintf("byte %d changed by %#x", i, bit), plain, err)
		}
	}
	for n := range sealed {
		plain, err := k.Open("stdin", sealed[:n], bound)
		refused(t, fmt.Sprintf("cut to %d bytes", n), plain, err)
	}
	plain, err := k.Open("stdin", append(bytes.Clone(sealed), 0), bound)
	refused(t, "a byte longer", plain, err)
}

func TestAValueOpensOnlyInItsPlace(t *testing.T) {
	k, bound := key(1), []byte("commands/1")
	sealed := k.Seal("env", []byte("hunter2"), bound)
	for what, open := range map[string]func() ([]byte, error){
		"another row":                        func() ([]byte, error) { return k.Open("env", sealed, []byte("commands/2")) },
		"no row":                             func() ([]byte, error) { return k.Open("env", sealed, nil) },
		"another purpose":                    func() ([]byte, error) { return k.Open("stdin", sealed, bound) },
		"another key":                        func() ([]byte, error) { return key(2).Open("env", sealed, bound) },
		"purpose and row, split differently": func() ([]byte, error) { return k.Open("envcommands", sealed, []byte("/1")) },
	} {
		plain, err := open()
		refused(t, what, plain, err)
	}
}

func TestTag(t *testing.T) {
	k, data := key(1), []byte("session of web")
	tag := k.Tag("login", data)
	if len(tag) != seal.TagSize || !k.Check("login", data, tag) {
		t.Fatalf("a tag of %d bytes, checked: %v", len(tag), k.Check("login", data, tag))
	}
	for i := range tag {
		bad := bytes.Clone(tag)
		bad[i] ^= 1
		if k.Check("login", data, bad) {
			t.Errorf("a tag with byte %d changed is taken", i)
		}
	}
	for what, taken := range map[string]bool{
		"no tag":          k.Check("login", data, nil),
		"half a tag":      k.Check("login", data, tag[:16]),
		"other data":      k.Check("login", []byte("session of eve"), tag),
		"another purpose": k.Check("page", data, tag),
		"another key":     key(2).Check("login", data, tag),
	} {
		if taken {
			t.Errorf("%s: taken", what)
		}
	}
}

func TestNothingOfAKeyPrints(t *testing.T) {
	k := key('x')
	type holder struct {
		Key   *seal.Key
		Value seal.Key
		own   *seal.Key
		inner seal.Key
	}
	h := holder{k, *k, k, *k}
	var out strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
		fmt.Fprintf(&out, strings.Repeat(verb+"\n", 4), k, *k, h, &h)
	}
	fmt.Fprintln(&out, k, *k, h, &h)
	for _, handler := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(handler).Info("key", "key", k, "value", *k, "holder", h)
	}
	for _, v := range []any{k, *k, h, &h} {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(b)
	}
	raw := []byte("xKey")
	for _, form := range []string{"xKey", hex.EncodeToString(raw), strings.ToUpper(hex.EncodeToString(raw)), "120 75 101", base64.StdEncoding.EncodeToString([]byte("xKeyxK"))} {
		if strings.Contains(out.String(), form) {
			t.Errorf("the key shows as %q in\n%s", form, out.String())
		}
	}
}

func TestNewKeyTakesOnlyKeys(t *testing.T) {
	for _, n := range []int{0, 16, 31, 33} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("a key of %d bytes is taken", n)
				}
			}()
			seal.NewKey(make([]byte, n))
		}()
	}
}

// Whatever lies in the store, Open refuses it or gives what was sealed.
func FuzzOpen(f *testing.F) {
	k := key(1)
	// Not sealed here: the processes that fuzz must know the same one.
	good, err := base64.StdEncoding.DecodeString(sealedBefore)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good, []byte("commands/1"))
	f.Add(good[:20], []byte("commands/1"))
	f.Add([]byte{}, []byte{})
	f.Add(bytes.Repeat([]byte{1}, 64), []byte("commands/1"))
	f.Fuzz(func(t *testing.T, sealed, bound []byte) {
		plain, err := k.Open("env", sealed, bound)
		if err != nil {
			refused(t, "fuzzed", plain, err)
		} else if !bytes.Equal(sealed, good) || string(bound) != "commands/1" || string(plain) != "TOKEN=hunter2" {
			t.Errorf("%x bound to %x opened as %q", sealed, bound, plain)
		}
		again, err := k.Open("env", k.Seal("env", sealed, bound), bound)
		if err != nil || !bytes.Equal(again, sealed) {
			t.Errorf("%x came back as %x, %v", sealed, again, err)
		}
	})
}

func BenchmarkSealAndOpen(b *testing.B) {
	k, bound := key(1), []byte("commands/01J8ZQ4W5E6R7T8Y9V0ABCDEFG")
	for _, size := range []int{1 << 10, 120_000, 1 << 20} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			plain := make([]byte, size)
			b.SetBytes(int64(size))
			for b.Loop() {
				if _, err := k.Open("env", k.Seal("env", plain, bound), bound); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
