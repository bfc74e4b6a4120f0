package sqlite

import (
	"bytes"
	"testing"
	"time"

	"github.com/telexec/telexec/internal/approval"
)

// FuzzUnpack gives the unpackers any bytes: they must not panic nor allocate
// without bound, and what they accept must pack to something that reads alike.
func FuzzUnpack(f *testing.F) {
	f.Add([]byte{})
	f.Add(packStrings([]string{"", "a", "\xff\x00"}))
	f.Add(packMap(map[string]string{"a": "b", "": ""}))
	f.Add(packDecisions([]approval.Decision{{Verdict: approval.Modify, Hash: []byte{1}, Time: time.Unix(1, 0)}}))
	f.Add(bytes.Repeat([]byte{0xff}, 11))
	f.Fuzz(func(t *testing.T, b []byte) {
		if list, err := unpackStrings(b); err == nil {
			again, err := unpackStrings(packStrings(list))
			if err != nil || len(again) != len(list) {
				t.Fatalf("%q became %q, %v", list, again, err)
			}
		}
		if m, err := unpackMap(b); err == nil {
			if again, err := unpackMap(packMap(m)); err != nil || len(again) != len(m) {
				t.Fatalf("%q became %q, %v", m, again, err)
			}
		}
		if list, err := unpackDecisions(b); err == nil {
			if again, err := unpackDecisions(packDecisions(list)); err != nil || len(again) != len(list) {
				t.Fatalf("%+v became %+v, %v", list, again, err)
			}
		}
		if r, err := unpackReport(b); err == nil && r != nil {
			if again, err := unpackReport(packReport(r)); err != nil || len(again.Left) != len(r.Left) || again.Message != r.Message {
				t.Fatalf("%+v became %+v, %v", r, again, err)
			}
		}
	})
}
