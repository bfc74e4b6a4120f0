package sqlite

import (
	"database/sql"
	"errors"
	"strings"
	"time"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/seal"
)

// How a command.Command lies in the tables. The columns of one kind, the values
// for them and the places they are read into stand in the same order; a test
// that fills every field of a Command proves that none is forgotten.

// changing are the columns of command that every Apply writes.
var changing = []string{
	"version", "state", "node", "fence",
	"start_time", "end_time", "last_activity",
	"exit_code", "exit_signal", "core_dumped",
	"failure_reason", "failure_message", "failure_hint",
	"completion", "connection", "durability", "durability_reason",
	"cancel_principal", "cancel_origin", "cancel_time", "cancel_reason", "cancel_grace", "cancel_report",
	"progress_percent", "progress_label", "progress_time",
	"truncated_stdout", "truncated_stderr", "truncated_reason",
	"size_stdout", "size_stderr", "stdin_closed", "rule", "gated", "session_offset",
}

func changingValues(c *command.Command) []any {
	v := []any{
		c.Version, string(c.State), c.Node, c.Fence,
		micros(c.StartTime), micros(c.EndTime), micros(c.LastActivity),
	}
	if c.Exit.Code != nil {
		v = append(v, int64(*c.Exit.Code))
	} else {
		v = append(v, nil)
	}
	v = append(v, c.Exit.Signal, c.Exit.CoreDumped)
	if f := c.Failure; f != nil {
		v = append(v, f.Reason, f.Message, f.Hint)
	} else {
		v = append(v, nil, nil, nil)
	}
	v = append(v, string(c.Completion), string(c.Connection), string(c.Durability), c.DurabilityReason)
	if x := c.Cancellation; x != nil {
		v = append(v, x.By.Principal, string(x.By.Origin), micros(x.Time), x.Reason, int64(x.Grace), packReport(x.Report))
	} else {
		v = append(v, nil, nil, nil, nil, nil, nil)
	}
	if p := c.Progress; p != nil {
		v = append(v, p.Percent, p.Label, micros(p.Time))
	} else {
		v = append(v, nil, nil, nil)
	}
	if t := c.Truncation; t != nil {
		v = append(v, t.Offset[command.Stdout], t.Offset[command.Stderr], t.Reason)
	} else {
		v = append(v, nil, nil, nil)
	}
	return append(v, c.Size[command.Stdout], c.Size[command.Stderr], c.StdinClosed, c.Rule, c.Gated, c.SessionOffset)
}

// fixed are the columns of command that only Create writes.
var fixed = []string{
	"id", "host", "principal", "origin", "create_time", "earliest_stdout", "earliest_stderr", "session", "session_owner", "task",
}

func fixedValues(c *command.Command) []any {
	return []any{
		c.ID, c.Spec.Host, c.CreatedBy.Principal, string(c.CreatedBy.Origin), micros(c.CreateTime),
		c.Earliest[command.Stdout], c.Earliest[command.Stderr], c.Spec.SessionID, c.Spec.SessionOwner,
		taskID(&c.Spec),
	}
}

func taskID(s *command.Spec) string {
	if s.Task == nil {
		return ""
	}
	return s.Task.ID
}

// asked are the columns of command_spec, besides its key.
var asked = []string{
	"request_id", "line", "argv", "stdin_open", "env_names", "working_directory", "login_shell",
	"pty_term", "pty_columns", "pty_rows",
	"timeout", "queue_timeout", "priority", "durability", "labels", "action_type",
	"sudo_user", "sudo_needs_password", "session", "typed", "task",
}

func askedValues(s *command.Spec) []any {
	v := []any{
		s.RequestID, s.Line, packStrings(s.Argv), s.StdinOpen, packStrings(s.EnvNames()),
		s.WorkingDirectory, s.LoginShell,
	}
	if p := s.Pty; p != nil {
		v = append(v, p.Term, int64(p.Columns), int64(p.Rows))
	} else {
		v = append(v, nil, nil, nil)
	}
	v = append(v, int64(s.Timeout), int64(s.QueueTimeout), int64(s.Priority), string(s.Durability),
		packMap(s.Labels), s.ActionType)
	if sudo := s.Sudo; sudo != nil {
		v = append(v, sudo.User, sudo.NeedsPassword) // the password is nobody's to keep
	} else {
		v = append(v, nil, nil)
	}
	return append(v, s.Session, s.Typed, packTaskRef(s.Task))
}

// selectCommand reads whole commands; a condition on c.id follows.
var selectCommand = "SELECT " + qualified("c", fixed) + ", " + qualified("c", changing) + ", " + qualified("s", asked) + `, t.env, t.stdin, t.sealed, r.sealed
	FROM command c CROSS JOIN command_spec s ON s.command = c.id
	LEFT JOIN command_start t ON t.command = c.id
	LEFT JOIN command_redact r ON r.command = c.id`

func qualified(table string, columns []string) string {
	return table + "." + strings.Join(columns, ", "+table+".")
}

func placeholders(n int) string { return strings.TrimSuffix(strings.Repeat("?, ", n), ", ") }

// scanCommand reads one row of selectCommand. What no Command can be is damage, and
// so is what the key does not open.
func scanCommand(scan func(dest ...any) error, key *seal.Key) (command.Command, error) {
	var (
		c                                    command.Command
		created, started, ended, active      int64
		exitCode, cancelTime, progressTime   sql.NullInt64
		reason, message, hint                sql.NullString
		cancelBy, cancelOrigin, cancelReason sql.NullString
		report, argv, envNames, labels       []byte
		start                                sealedSpec
		startSealed                          sql.NullInt64
		percent                              sql.NullFloat64
		label, cut, term, sudoUser           sql.NullString
		needsPassword                        sql.NullBool
		cutOut, cutErr, columns, rows, grace sql.NullInt64
		timeout, queueTimeout, priority      int64
		taskID                               string
		ref                                  []byte
	)
	err := scan(
		&c.ID, &c.Spec.Host, &c.CreatedBy.Principal, &c.CreatedBy.Origin, &created,
		&c.Earliest[command.Stdout], &c.Earliest[command.Stderr], &c.Spec.SessionID, &c.Spec.SessionOwner, &taskID,

		&c.Version, &c.State, &c.Node, &c.Fence,
		&started, &ended, &active,
		&exitCode, &c.Exit.Signal, &c.Exit.CoreDumped,
		&reason, &message, &hint,
		&c.Completion, &c.Connection, &c.Durability, &c.DurabilityReason,
		&cancelBy, &cancelOrigin, &cancelTime, &cancelReason, &grace, &report,
		&percent, &label, &progressTime,
		&cutOut, &cutErr, &cut,
		&c.Size[command.Stdout], &c.Size[command.Stderr], &c.StdinClosed, &c.Rule, &c.Gated, &c.SessionOffset,

		&c.Spec.RequestID, &c.Spec.Line, &argv, &c.Spec.StdinOpen, &envNames,
		&c.Spec.WorkingDirectory, &c.Spec.LoginShell,
		&term, &columns, &rows,
		&timeout, &queueTimeout, &priority, &c.Spec.Durability, &labels, &c.Spec.ActionType,
		&sudoUser, &needsPassword, &c.Spec.Session, &c.Spec.Typed, &ref,

		&start.env, &start.stdin, &startSealed, &start.redact,
	)
	if err != nil {
		if !ofDatabase(err) {
			err = damaged(c.ID, err) // a value that its column cannot have
		}
		return c, err
	}
	c.CreateTime, c.StartTime, c.EndTime, c.LastActivity = moment(created), moment(started), moment(ended), moment(active)
	c.Spec.Timeout, c.Spec.QueueTimeout = time.Duration(timeout), time.Duration(queueTimeout)
	c.Spec.Priority = int(priority)
	if exitCode.Valid {
		code := int(exitCode.Int64)
		c.Exit.Code = &code
	}
	if reason.Valid {
		c.Failure = &command.Failure{Reason: reason.String, Message: message.String, Hint: hint.String}
	}
	if label.Valid {
		c.Progress = &command.Progress{Percent: percent.Float64, Label: label.String, Time: moment(progressTime.Int64)}
	}
	if cut.Valid {
		c.Truncation = &command.Truncation{Offset: command.Sizes{cutOut.Int64, cutErr.Int64}, Reason: cut.String}
	}
	if term.Valid {
		c.Spec.Pty = &command.Pty{Term: term.String, Columns: uint32(columns.Int64), Rows: uint32(rows.Int64)}
	}
	if sudoUser.Valid {
		c.Spec.Sudo = &command.Sudo{User: sudoUser.String, NeedsPassword: needsPassword.Bool}
	}
	var damage [6]error
	if cancelBy.Valid {
		c.Cancellation = &command.Cancellation{
			By:     command.Actor{Principal: cancelBy.String, Origin: command.Origin(cancelOrigin.String)},
			Time:   moment(cancelTime.Int64),
			Reason: cancelReason.String,
			Grace:  command.DefaultGrace,
		}
		if grace.Valid {
			c.Cancellation.Grace = time.Duration(grace.Int64)
		}
		c.Cancellation.Report, damage[0] = unpackReport(report)
	}
	c.Spec.Argv, damage[1] = unpackStrings(argv)
	c.Spec.Labels, damage[2] = unpackMap(labels)
	damage[3] = start.open(key, c.ID, isPlain(startSealed), &c.Spec, envNames)
	if !c.State.Valid() {
		damage[4] = errors.New("unknown state " + string(c.State))
	}
	c.Spec.Task, damage[5] = unpackTaskRef(taskID, ref)
	if err := errors.Join(damage[:]...); err != nil {
		return c, damaged(c.ID, err)
	}
	return c, nil
}

// unpackEnv gives the variables with their values, or with empty values once
// those were removed.
func unpackEnv(names, values []byte) (map[string]string, error) {
	if values != nil {
		return unpackMap(values)
	}
	list, err := unpackStrings(names)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	env := make(map[string]string, len(list))
	for _, name := range list {
		env[name] = ""
	}
	return env, nil
}

// needsStart reports whether a command in this state may still be started, and
// so needs the values of its environment and its stdin.
func needsStart(s command.State) bool {
	switch s {
	case command.AwaitingApproval, command.Queued, command.Starting:
		return true
	}
	return false
}

// micros is a time as it is stored. The zero time is 0.
func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func moment(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}
