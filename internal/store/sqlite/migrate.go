package sqlite

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/seal"
)

// The tables, as steps from nothing to what the program needs. A step that was
// ever released is never edited; a change is a new file with the next number.
//
//go:embed migrations/*.sql
var migrations embed.FS

// applicationID marks the file as ours ("tlx" and a 1), for file(1) and for the
// refusal below.
const applicationID = 0x746c7801

// steps gives the migrations in order; the first one leads to version 1.
func steps(from fs.FS) ([]string, error) {
	names, err := fs.Glob(from, "migrations/*.sql")
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	var all []string
	for i, name := range names {
		if !strings.HasPrefix(name, fmt.Sprintf("migrations/%04d_", i+1)) {
			return nil, fmt.Errorf("sqlite: migration %s does not have number %04d", name, i+1)
		}
		text, err := fs.ReadFile(from, name)
		if err != nil {
			return nil, err
		}
		all = append(all, string(text))
	}
	return all, nil
}

// auditVersion is the first version that has an audit.
const auditVersion = 5

// migrate brings the tables up to date, all steps in one transaction. It only
// goes forward. An audit that begins with it has its first head by key.
func migrate(ctx context.Context, c *sql.Conn, from fs.FS, key *seal.Key) (err error) {
	all, err := steps(from)
	if err != nil {
		return err
	}
	if _, err := c.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_, _ = c.ExecContext(context.WithoutCancel(ctx), "ROLLBACK")
		}
	}()
	var version, id, tables int
	for pragma, n := range map[string]*int{
		"PRAGMA user_version":                &version,
		"PRAGMA application_id":              &id,
		"SELECT count(*) FROM sqlite_schema": &tables,
	} {
		if err := c.QueryRowContext(ctx, pragma).Scan(n); err != nil {
			return err
		}
	}
	switch {
	case id != applicationID && (tables > 0 || id != 0):
		return fault.New(fault.FailedPrecondition, fault.ReasonStoreUnavailable, "the file is a database of another program").
			WithHint("Give telexecd another data directory with --data-dir; this file was not changed")
	case version > len(all):
		return fault.New(fault.FailedPrecondition, fault.ReasonStoreUnavailable,
			"the database was written by a newer telexecd (its version is %d, this program knows %d)", version, len(all)).
			WithHint("Run the newer telexecd, or restore the backup made before the upgrade; this file was not changed")
	}
	for _, step := range all[version:] {
		if _, err := c.ExecContext(ctx, step); err != nil {
			return err
		}
	}
	if version < auditVersion {
		if err := beginAudit(ctx, c, key); err != nil {
			return err
		}
	}
	if version < len(all) {
		if _, err := c.ExecContext(ctx, fmt.Sprintf("PRAGMA application_id = %d; PRAGMA user_version = %d", applicationID, len(all))); err != nil {
			return err
		}
	}
	_, err = c.ExecContext(ctx, "COMMIT")
	return err
}
