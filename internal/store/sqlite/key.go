package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"time"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/fault"
)

var keyColumns = []string{
	"id", "name", "hash", "roles", "limit_start", "limit_read", "limit_list", "limit_stream", "limit_streams",
	"created_by", "create_time", "expire_time", "revoke_time", "last_use",
}

var selectKey = "SELECT " + strings.Join(keyColumns, ", ") + " FROM api_key"

func keyValues(k *access.Key) []any {
	roles := make([]string, len(k.Roles))
	for i, r := range k.Roles {
		roles[i] = string(r)
	}
	return []any{
		k.ID, k.Name, k.Hash[:], packStrings(roles), k.Limits.Start, k.Limits.Read, k.Limits.List, k.Limits.Stream, int64(k.Limits.Streams),
		k.CreatedBy, micros(k.CreateTime), micros(k.ExpireTime), micros(k.RevokeTime), micros(k.LastUse),
	}
}

func scanKey(scan func(dest ...any) error) (k access.Key, err error) {
	var hash, packed []byte
	var created, expires, revoked, used int64
	err = scan(&k.ID, &k.Name, &hash, &packed, &k.Limits.Start, &k.Limits.Read, &k.Limits.List, &k.Limits.Stream, &k.Limits.Streams,
		&k.CreatedBy, &created, &expires, &revoked, &used)
	var roles []string
	if err == nil {
		roles, err = unpackStrings(packed)
	}
	if err == nil && len(hash) != len(k.Hash) {
		err = errors.New("its hash has another length")
	}
	if err != nil {
		if !ofDatabase(err) {
			err = fault.Wrap(err, fault.DataLoss, fault.ReasonStoreDamaged, "what is stored of the API key %q is damaged", k.Name).
				WithHint("Restore the database from a backup, or make a new key under another name")
		}
		return k, err
	}
	copy(k.Hash[:], hash)
	for _, r := range roles {
		k.Roles = append(k.Roles, access.Role(r))
	}
	k.CreateTime, k.ExpireTime, k.RevokeTime, k.LastUse = moment(created), moment(expires), moment(revoked), moment(used)
	return k, nil
}

// AddKey is of access.KeyStore.
func (s *Store) AddKey(ctx context.Context, k access.Key, told audit.Entry) error {
	const op = "sqlite.AddKey"
	leave, err := s.enter(op)
	if err != nil {
		return err
	}
	defer leave()
	values := keyValues(&k)
	return failed(op, s.writer.do(ctx, 0, func() error {
		ctx := context.Background()
		r, err := s.writer.insertKey.ExecContext(ctx, values...)
		if err != nil {
			return err
		}
		if n, err := r.RowsAffected(); err != nil {
			return err
		} else if n == 0 {
			return fault.New(fault.AlreadyExists, fault.ReasonTokenNameTaken, "there is an API key named %q", k.Name).
				WithHint("Choose another name, or revoke that key first")
		}
		return s.writer.tell(ctx, told)
	}))
}

// RevokeKey is of access.KeyStore.
func (s *Store) RevokeKey(ctx context.Context, name string, at time.Time, told audit.Entry) (access.Key, error) {
	const op = "sqlite.RevokeKey"
	leave, err := s.enter(op)
	if err != nil {
		return access.Key{}, err
	}
	defer leave()
	// The writer may still work on it when ctx has ended this call.
	var revoked access.Key
	if err := s.writer.do(ctx, 0, func() error {
		ctx := context.Background()
		k, err := scanKey(s.writer.validKey.QueryRowContext(ctx, name).Scan)
		if errors.Is(err, sql.ErrNoRows) {
			return fault.New(fault.NotFound, fault.ReasonUnknownToken, "there is no API key named %q that is not revoked", name).
				WithHint("List the API keys for their names")
		}
		if err != nil {
			return err
		}
		if _, err := s.writer.revokeKey.ExecContext(ctx, micros(at), k.ID); err != nil {
			return err
		}
		k.RevokeTime = moment(micros(at))
		revoked = k
		return s.writer.tell(ctx, told)
	}); err != nil {
		return access.Key{}, failed(op, err)
	}
	return revoked, nil
}

// UseKey is of access.KeyStore. A key that is not there was used by nobody.
func (s *Store) UseKey(ctx context.Context, id string, at time.Time) error {
	const op = "sqlite.UseKey"
	leave, err := s.enter(op)
	if err != nil {
		return err
	}
	defer leave()
	return failed(op, s.writer.do(ctx, 0, func() error {
		_, err := s.writer.useKey.ExecContext(context.Background(), micros(at), id)
		return err
	}))
}

// Keys is of access.KeyStore. A damaged key is left out and logged: the others must
// go on to open the door.
func (s *Store) Keys(ctx context.Context) ([]access.Key, error) {
	const op = "sqlite.Keys"
	leave, err := s.enter(op)
	if err != nil {
		return nil, err
	}
	defer leave()
	rows, err := s.read.QueryContext(ctx, selectKey+" ORDER BY name, create_time, id")
	if err != nil {
		return nil, failed(op, err)
	}
	defer rows.Close()
	var list []access.Key
	for rows.Next() {
		k, err := scanKey(rows.Scan)
		if _, damage := errors.AsType[*fault.Error](err); damage {
			s.log.Warn("an API key is damaged and lets nobody in", "name", k.Name, "error", err)
			continue
		}
		if err != nil {
			return nil, failed(op, err)
		}
		list = append(list, k)
	}
	return list, failed(op, rows.Err())
}
