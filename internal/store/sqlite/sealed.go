package sqlite

import (
	"database/sql"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/seal"
	"github.com/telexec/telexec/internal/secret"
)

// What of a command may be secret lies sealed. To remove it after the start is not
// enough: the write-ahead log holds what a page had before until it is written
// over, and so does a backup that was made meanwhile.

// The purposes of what is sealed; each value is bound to its command.
const (
	purposeEnv    = "command env"
	purposeStdin  = "command stdin"
	purposeRedact = "command redact"
)

// sealedSpec is the secret part of a spec as it is stored; nil for what is empty.
type sealedSpec struct {
	env, stdin []byte // of command_start
	redact     []byte // of command_redact
}

// sealSpec seals what a command in this state still needs.
func sealSpec(key *seal.Key, id string, state command.State, spec *command.Spec) (s sealedSpec) {
	put := func(to *[]byte, purpose string, plain []byte) {
		if len(plain) > 0 {
			*to = key.Seal(purpose, plain, []byte(id))
		}
	}
	if needsStart(state) {
		put(&s.env, purposeEnv, packMap(spec.Env))
		put(&s.stdin, purposeStdin, spec.Stdin)
	}
	if !state.Ended() {
		values := make([]string, len(spec.Redact))
		for i, v := range spec.Redact {
			values[i] = v.Reveal()
		}
		put(&s.redact, purposeRedact, packStrings(values))
	}
	return s
}

// open gives a spec its secret part. plain says that env and stdin are of a version
// that did not seal them.
func (s sealedSpec) open(key *seal.Key, id string, plain bool, spec *command.Spec, envNames []byte) (err error) {
	get := func(purpose string, sealed []byte) []byte {
		if len(sealed) == 0 || err != nil {
			return nil
		}
		var value []byte
		value, err = key.Open(purpose, sealed, []byte(id))
		return value
	}
	env, stdin := s.env, s.stdin
	if !plain {
		env, stdin = get(purposeEnv, s.env), get(purposeStdin, s.stdin)
	}
	redact := get(purposeRedact, s.redact)
	if err != nil { // it was sealed with another key: the rest of the command is as it was
		spec.SecretsLost = true
		env, stdin, redact, err = nil, nil, nil, nil
	}
	if spec.Env, err = unpackEnv(envNames, env); err != nil {
		return err
	}
	if len(stdin) > 0 {
		spec.Stdin = stdin
	}
	values, err := unpackStrings(redact)
	for _, v := range values {
		spec.Redact = append(spec.Redact, secret.New(v))
	}
	return err
}

// isPlain reads command_start.sealed of a row that may not be there.
func isPlain(sealed sql.NullInt64) bool { return sealed.Valid && sealed.Int64 == 0 }
