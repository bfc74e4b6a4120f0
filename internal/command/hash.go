package command

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"maps"
	"math"
	"slices"
)

// ContentHash is the SHA-256 of everything that makes two requests the same
// request, so all of the Spec but RequestID, and sudo's password and the values to
// be masked, which a stored hash would let somebody guess: of these it has the
// number. Every field is written with its length in
// front, so that no two Specs give the same bytes.
func (s *Spec) ContentHash() []byte {
	h := hasher{sha256.New()}
	h.strings(s.Host, s.Line)
	h.list(s.Argv)
	h.strings(string(s.Stdin))
	h.bools(s.StdinOpen, s.LoginShell, s.Pty != nil)
	h.mapping(s.Env)
	h.strings(s.WorkingDirectory)
	if s.Pty != nil {
		h.strings(s.Pty.Term)
		h.numbers(uint64(s.Pty.Columns), uint64(s.Pty.Rows))
	}
	h.numbers(uint64(s.Timeout), uint64(s.QueueTimeout), uint64(s.Priority))
	h.strings(string(s.Durability), s.ActionType)
	h.mapping(s.Labels)
	if s.Sudo != nil {
		h.strings(s.Sudo.User)
		h.bools(s.Sudo.NeedsPassword)
	}
	if len(s.Redact) > 0 || s.SecretsLost { // else the hashes of those before there was any would be others
		h.numbers(uint64(len(s.Redact)))
		h.bools(s.SecretsLost)
	}
	if s.Session != "" || s.SessionID != "" || s.SessionOwner != "" || s.Typed != 0 { // for the same reason
		h.numbers(math.MaxUint64) // no length and no count is so large: nothing else ends like this
		h.strings(s.Session, s.SessionID, s.SessionOwner)
		h.numbers(uint64(s.Typed))
	}
	if t := s.Task; t != nil { // and again
		h.numbers(math.MaxUint64 - 1)
		h.strings(t.ID, t.Name, t.Undo, t.Under)
		h.numbers(uint64(t.Step), uint64(t.Gate))
		h.list(t.Hosts)
		h.list(t.Places)
		h.bools(t.Undoes)
	}
	return h.Sum(nil)
}

type hasher struct{ hash.Hash }

func (h hasher) numbers(ns ...uint64) {
	for _, n := range ns {
		h.Write(binary.BigEndian.AppendUint64(nil, n))
	}
}

func (h hasher) bools(bs ...bool) {
	for _, b := range bs {
		var n uint64
		if b {
			n = 1
		}
		h.numbers(n)
	}
}

func (h hasher) strings(ss ...string) {
	for _, s := range ss {
		h.numbers(uint64(len(s)))
		h.Write([]byte(s))
	}
}

func (h hasher) list(ss []string) {
	h.numbers(uint64(len(ss)))
	h.strings(ss...)
}

func (h hasher) mapping(m map[string]string) {
	h.numbers(uint64(len(m)))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		h.strings(k, m[k])
	}
}
