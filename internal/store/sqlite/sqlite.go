// Package sqlite keeps commands, approvals, sessions, API keys and the audit in a SQLite file,
// and bulk output and recordings in plain files beside it: the driver of the store that telexec uses by default. What it
// promises is said in package store.
//
//	Create, Apply, Retain ─▶ queue ─▶ writer goroutine ─▶ one transaction for all
//	        │ bulk output first        │  that wait, one fsync, an answer for each
//	        ▼                          ▼
//	commands.db-output/           commands.db-wal ──checkpointer──▶ commands.db
//	        ▲                          ▲                              ▲
//	Get, List, ReadOutput ─▶ pool of read-only connections ───────────┘
//
// Readers never wait for the writer nor it for them (WAL). The writer's
// durability is synchronous=FULL: a commit is on the disk before its callers
// hear of it. While a commit is under way the next changes gather in the queue,
// so the more callers there are, the more share an fsync (group commit).
//
// Output that comes in bulk (bulkSize) would be written twice and push a database
// through its log: it goes into files (package bulk), which are on the disk before
// the transaction records with a row what lies there. A command of little output
// has no file and costs no more than its two commits. The files belong to the
// database: who copies one copies both, with telexecd stopped. Recordings of sessions
// (commands.db-recordings) are files whatever their size: they go on for days.
//
// The checkpointer copies the WAL into the database file beside the commits; only
// when the WAL has grown past walMost does it hold them up, for the rest of it.
//
// Freed pages are reused by later output and the file does not shrink: with
// auto_vacuum every page of output would cost an entry in the pointer map, and a
// file that grew to a size once will do so again. Whoever wants the space back
// stops telexecd and runs VACUUM.
//
// The audit is a chain that only the writer makes longer, in the transaction of what
// each row tells. What may be secret is sealed with a key that lies outside of the
// database, before it is written: see sealed.go.
//
// Measured on two shared cores and an ordinary disk (an fsync takes 0.3 ms): Create
// 0.4 ms, Apply 0.26 ms; 740, 4,200 and 8,200 short commands a second with 1, 10
// and 50 callers; bulk output 760 to 1,130 MB/s; a page of 50 of 100,000 commands
// 2 ms. What a change tells the audit adds 0.07 ms to it. The figures of a machine:
// go test -bench . in this directory.
//
// The room is larger than most, for one transaction touches all the tables: split
// by table, its parts would know each other's columns.
//
// Start with Open, then writer.go for the group commit, apply.go for what a
// change writes, audit.go for the chain, bulk.go and recording.go for what goes into files, list.go
// for how lists find their rows, and migrations for the tables.
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/seal"
	"github.com/telexec/telexec/internal/store"
	"github.com/telexec/telexec/internal/store/sqlite/bulk"
)

// What was measured to be best; see bench_test.go.
const (
	// pageSize: pages of 8 KiB take bulk output as fast as larger ones and keep the
	// commit of a short command, which touches some ten pages, small.
	pageSize = 8 << 10
	// pieceSize is the most that one row of output holds. A read from the middle of
	// a row costs the whole row, and rows of 64 KiB are written as fast as rows of
	// 1 MiB.
	pieceSize = 64 << 10

	readers     = 4       // connections; more only queue for two cores
	readerCache = 1 << 20 // bytes per connection
	writerCache = 4 << 20
	lockWait    = 5 * time.Second // for a lock that another program holds
)

// errClosed is the cause inside after Close.
var errClosed = errors.New("sqlite: store is closed")

// Options are what Open can be told.
type Options struct {
	// Logger hears of what no caller hears of, such as a failed checkpoint; nil
	// discards it.
	Logger *slog.Logger

	// Key seals what may be secret and signs the end of the audit. It must be the
	// one that was used before: what was sealed with another cannot be read.
	Key *seal.Key
}

// Store is the store in a file, with its output files. Use Open.
type Store struct {
	log    *slog.Logger
	key    *seal.Key
	path   string
	lock   *os.File // holds the process lock
	read   *sql.DB
	writer *writer
	files  *bulk.Dir // of output
	casts  *bulk.Dir // of recordings
	lists  listings

	getOne     *sql.Stmt
	readOutput *sql.Stmt
	readOrder  *sql.Stmt
	readWhere  *sql.Stmt

	getSession    *sql.Stmt
	recordingEnd  *sql.Stmt
	readRecording *sql.Stmt

	mu      sync.Mutex     // guards closed, and calls while closed is false
	closed  bool           // no call enters any more
	calls   sync.WaitGroup // those that entered
	closing chan struct{}  // closed with closed, to end what takes long
	noSweep func()         // ends the sweep; called with it
	release func() error   // abandon, once
}

var _ store.Store = (*Store)(nil)

// Open opens the store in the file at path and brings its tables up to date. It
// makes the file, for its owner alone, and its directory where they are missing.
// Files that a process left behind when it was killed are removed in the
// background.
//
// One process at a time has a store open: Open fails with Unavailable while
// another one does. It fails with FailedPrecondition where the file was written
// by a newer telexec or is no store of telexec at all. ctx bounds Open alone.
func Open(ctx context.Context, path string, o Options) (_ *Store, err error) {
	const op = "sqlite.Open"
	s := &Store{log: o.Logger, key: o.Key, closing: make(chan struct{})}
	s.release = sync.OnceValue(s.abandon)
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.key == nil {
		return nil, fault.New(fault.Internal, fault.ReasonInternal, "the store was given no key").WithOp(op)
	}
	if path, err = filepath.Abs(path); err != nil {
		return nil, fault.Wrap(err, fault.Internal, fault.ReasonInternal, "the working directory is unknown").WithOp(op)
	}
	s.path = path
	defer func() {
		if err != nil {
			_ = s.release()
			err = failed(op, err)
		}
	}()
	if err := prepareFile(path); err != nil {
		return nil, unavailable(err, "the store cannot be opened: "+message(err),
			"Check the data directory "+filepath.Dir(path)+": telexecd must own it and be able to write to it").WithOp(op)
	}
	if s.lock, err = lockFile(path + ".lock"); err != nil {
		return nil, err
	}
	if s.files, err = bulk.Open(path + "-output"); err != nil {
		return nil, notWritten(err)
	}
	if s.casts, err = bulk.Open(path+"-recordings", "cast"); err != nil {
		return nil, notWritten(err)
	}
	if s.writer, err = newWriter(ctx, path, s.key, s.log); err != nil {
		return nil, err
	}
	s.read, err = sql.Open("sqlite", dsn(path, "ro", readerCache, "query_only(1)"))
	if err != nil {
		return nil, err
	}
	s.read.SetMaxOpenConns(readers)
	s.read.SetMaxIdleConns(readers)
	s.read.SetConnMaxIdleTime(time.Minute) // an idle service needs one cache at most
	if s.getOne, err = s.read.PrepareContext(ctx, selectCommand+" WHERE c.id = ?"); err != nil {
		return nil, err
	}
	if s.readOutput, err = s.read.PrepareContext(ctx, selectOutput); err != nil {
		return nil, err
	}
	if s.readOrder, err = s.read.PrepareContext(ctx, selectOrder); err != nil {
		return nil, err
	}
	if s.readWhere, err = s.read.PrepareContext(ctx, selectWhere); err != nil {
		return nil, err
	}
	if s.getSession, err = s.read.PrepareContext(ctx, selectSession+"session s WHERE s.id = "+sessionOf); err != nil {
		return nil, err
	}
	if s.recordingEnd, err = s.read.PrepareContext(ctx, selectRecordingEnd); err != nil {
		return nil, err
	}
	if s.readRecording, err = s.read.PrepareContext(ctx, selectRecording); err != nil {
		return nil, err
	}
	s.writer.start()
	var sweeping context.Context
	sweeping, s.noSweep = context.WithCancel(context.Background())
	s.calls.Go(func() { s.sweep(sweeping) })
	return s, nil
}

// prepareFile makes the file with its mode before SQLite does, which would heed
// the umask; SQLite gives the -wal and -shm files the mode of this one.
func prepareFile(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Chmod(0o600), f.Close())
}

// message is what went wrong without the path, which the hint has.
func message(err error) string {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err.Error()
	}
	return err.Error()
}

// dsn names the database for one kind of connection. The pragmas of a DSN are
// set in alphabetical order; page_size, which must come before the journal mode,
// is set by newWriter.
func dsn(path, mode string, cache int, pragmas ...string) string {
	q := url.Values{"mode": {mode}}
	for _, p := range append(pragmas,
		"busy_timeout("+itoa(int(lockWait.Milliseconds()))+")",
		"cache_size(-"+itoa(cache>>10)+")",
		"foreign_keys(1)",
		"mmap_size(0)", // mapped pages would count as ours, as many as the file has
		"temp_store(2)",
		"trusted_schema(0)",
	) {
		q.Add("_pragma", p)
	}
	return (&url.URL{Scheme: "file", Path: path, RawQuery: q.Encode()}).String()
}

// enter begins a call; leave ends it. Close waits for the calls that entered.
func (s *Store) enter(op string) (leave func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, closedFault().WithOp(op)
	}
	s.calls.Add(1)
	return s.calls.Done, nil
}

// Ping is store.Store's. It writes what stands in the file's header anyway, so
// that a disk that is gone or full or a file that may not be written is noticed.
func (s *Store) Ping(ctx context.Context) error {
	const op = "sqlite.Ping"
	leave, err := s.enter(op)
	if err != nil {
		return err
	}
	defer leave()
	return failed(op, s.writer.do(ctx, 0, func() error {
		_, err := s.writer.conn.ExecContext(context.Background(), "PRAGMA application_id = "+itoa(applicationID))
		return err
	}))
}

// Close is store.Store's.
func (s *Store) Close() error {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.closing)
		s.noSweep()
	}
	s.mu.Unlock()
	s.calls.Wait()
	return failed("sqlite.Close", s.release())
}

// abandon lets go of what was opened, in the order that keeps the last
// connection, whose closing empties the WAL, under the lock.
func (s *Store) abandon() error {
	var errs []error
	if s.read != nil {
		errs = append(errs, s.read.Close())
	}
	if s.writer != nil {
		errs = append(errs, s.writer.close())
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
	}
	return errors.Join(errs...)
}
