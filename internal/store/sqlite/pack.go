package sqlite

import (
	"encoding/binary"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/telexec/telexec/internal/command"
)

// The packed form holds lists, maps and the report of a cancel in one column.
// JSON would not do: strings here are bytes that need not be UTF-8. A number is
// a varint, a string its length and its bytes, a list its length and its items.
// New fields go behind the old ones; what is missing at the end reads as zero.

var errPacked = errors.New("packed column is damaged")

func packStrings(list []string) []byte {
	if len(list) == 0 {
		return nil
	}
	b := binary.AppendUvarint(nil, uint64(len(list)))
	for _, s := range list {
		b = appendString(b, s)
	}
	return b
}

// packMap packs names and values in turn, by rising name.
func packMap(m map[string]string) []byte {
	list := make([]string, 0, 2*len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		list = append(list, k, m[k])
	}
	return packStrings(list)
}

func packReport(r *command.CancelReport) []byte {
	if r == nil {
		return nil
	}
	b := appendString(nil, string(r.Outcome))
	b = appendString(b, r.Signal)
	b = binary.AppendVarint(b, int64(r.Ended))
	b = binary.AppendVarint(b, int64(r.Duration))
	b = appendString(b, r.Message)
	b = binary.AppendUvarint(b, uint64(len(r.Left)))
	for _, p := range r.Left {
		b = binary.AppendVarint(b, p.PID)
		b = appendString(b, p.User)
		b = appendString(b, p.Command)
		b = appendString(b, p.Why)
	}
	return b
}

// packTaskRef packs all but the id of the task, which is in a column.
func packTaskRef(t *command.TaskRef) []byte {
	if t == nil {
		return nil
	}
	b := binary.AppendVarint(nil, int64(t.Step))
	for _, s := range []string{t.Name, t.Undo, t.Under} {
		b = appendString(b, s)
	}
	var undoes int64
	if t.Undoes {
		undoes = 1
	}
	b = binary.AppendVarint(binary.AppendVarint(b, undoes), int64(t.Gate))
	b = binary.AppendUvarint(b, uint64(len(t.Hosts)))
	for _, s := range t.Hosts {
		b = appendString(b, s)
	}
	return append(b, packStrings(t.Places)...)
}

func unpackTaskRef(id string, b []byte) (*command.TaskRef, error) {
	if b == nil {
		return nil, nil
	}
	u := unpacker{rest: b}
	t := &command.TaskRef{ID: id, Step: int(u.number()), Name: u.text(), Undo: u.text(), Under: u.text()}
	t.Undoes, t.Gate = u.number() == 1, time.Duration(u.number())
	for range u.count() {
		t.Hosts = append(t.Hosts, u.text())
	}
	if len(u.rest) > 0 {
		for range u.count() {
			t.Places = append(t.Places, u.text())
		}
	}
	return t, u.end()
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func unpackStrings(b []byte) ([]string, error) {
	if b == nil {
		return nil, nil
	}
	u := unpacker{rest: b}
	var list []string
	for range u.count() {
		list = append(list, u.text())
	}
	return list, u.end()
}

func unpackMap(b []byte) (map[string]string, error) {
	list, err := unpackStrings(b)
	if err != nil || len(list)%2 != 0 {
		return nil, errPacked
	}
	if len(list) == 0 {
		return nil, nil
	}
	m := make(map[string]string, len(list)/2)
	for pair := range slices.Chunk(list, 2) {
		m[pair[0]] = pair[1]
	}
	return m, nil
}

func unpackReport(b []byte) (*command.CancelReport, error) {
	if b == nil {
		return nil, nil
	}
	u := unpacker{rest: b}
	r := &command.CancelReport{
		Outcome:  command.Outcome(u.text()),
		Signal:   u.text(),
		Ended:    int(u.number()),
		Duration: time.Duration(u.number()),
		Message:  u.text(),
	}
	for range u.count() {
		r.Left = append(r.Left, command.Process{PID: u.number(), User: u.text(), Command: u.text(), Why: u.text()})
	}
	return r, u.end()
}

// unpacker reads a packed column. After the first thing that cannot be, it gives
// zeros only.
type unpacker struct {
	rest []byte
	bad  bool
}

func (u *unpacker) count() uint64 {
	n, size := binary.Uvarint(u.rest)
	// An item takes a byte at least, so a larger count is damage, not work to do.
	if size <= 0 || n > uint64(len(u.rest)-size) {
		u.bad, u.rest = true, nil
		return 0
	}
	u.rest = u.rest[size:]
	return n
}

func (u *unpacker) number() int64 {
	n, size := binary.Varint(u.rest)
	if size <= 0 {
		u.bad, u.rest = true, nil
		return 0
	}
	u.rest = u.rest[size:]
	return n
}

func (u *unpacker) text() string {
	n := u.count()
	s := string(u.rest[:n])
	u.rest = u.rest[n:]
	return s
}

func (u *unpacker) end() error {
	if u.bad || len(u.rest) > 0 {
		return errPacked
	}
	return nil
}
