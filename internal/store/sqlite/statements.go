package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"strings"

	"github.com/telexec/telexec/internal/session"
)

// statements are the writer's, prepared once on its connection.
type statements struct {
	begin, end, rollback *sql.Stmt

	findRequest, putRequest                             *sql.Stmt
	insertCommand, insertSpec, insertStart, insertLabel *sql.Stmt
	getOne                                              *sql.Stmt

	insertRedact *sql.Stmt

	update, where, insertPiece, insertOrder, deleteStart, deleteRedact *sql.Stmt

	insertAudit, putHead, indexAudit                                        *sql.Stmt
	insertApproval, approvalVersion, updateApproval, updateSpec, updateHost *sql.Stmt
	insertRole, deleteRoles                                                 *sql.Stmt
	insertKey, validKey, revokeKey, useKey                                  *sql.Stmt

	pieceAt, pieceAfter, deletePieces, deleteOrder, setEarliest           *sql.Stmt
	belongings, deleteCommand, deleteLabel, deleteRequest, forgetRequests *sql.Stmt
	raiseFloor                                                            *sql.Stmt

	sessionOpen, insertSession, updateSession, sessionVersion *sql.Stmt
	recordingEnd, putRecording, deleteSession                 *sql.Stmt

	findTaskRequest, putTaskRequest, forgetTaskRequests         *sql.Stmt
	insertTask, insertTaskLabel, insertStep, insertRun          *sql.Stmt
	taskVersion, updateTask, updateStep, updateRun, insertEvent *sql.Stmt
	deleteTask                                                  *sql.Stmt

	all []*sql.Stmt
}

func (s *statements) prepare(ctx context.Context, c *sql.Conn) error {
	for _, p := range []struct {
		to   **sql.Stmt
		text string
	}{
		{&s.begin, "BEGIN IMMEDIATE"},
		{&s.end, "COMMIT"},
		{&s.rollback, "ROLLBACK"},

		{&s.findRequest, "SELECT command, hash, create_time FROM request WHERE principal = ? AND request_id = ?"},
		{&s.putRequest, "INSERT OR REPLACE INTO request (principal, request_id, command, hash, create_time) VALUES (?, ?, ?, ?, ?)"},
		{&s.insertCommand, "INSERT INTO command (" + strings.Join(fixed, ", ") + ", " + strings.Join(changing, ", ") +
			", changed, stored_stdout, stored_stderr, kept) VALUES (" + placeholders(len(fixed)+len(changing)+1) + ", 0, 0, 0) ON CONFLICT (id) DO NOTHING"},
		{&s.insertSpec, "INSERT INTO command_spec (command, " + strings.Join(asked, ", ") + ") VALUES (" + placeholders(1+len(asked)) + ")"},
		{&s.insertStart, "INSERT INTO command_start (command, env, stdin, sealed) VALUES (?, ?, ?, 1)"},
		{&s.insertRedact, "INSERT INTO command_redact (command, sealed) VALUES (?, ?)"},
		{&s.insertLabel, "INSERT INTO command_label (name, value, command) VALUES (?, ?, ?)"},
		{&s.getOne, selectCommand + " WHERE c.id = ?"},

		// stored_* move to the end of the new output, and stay where there is none
		// (-1); kept is set once the command has ended. Mere output is no change.
		{&s.update, "UPDATE command SET " + assignments(changing) + `,
			changed = iif(version <> ?, ?, changed),
			stored_stdout = max(stored_stdout, ?), stored_stderr = max(stored_stderr, ?),
			kept = iif(?, max(max(stored_stdout, ?) - earliest_stdout, max(stored_stderr, ?) - earliest_stderr), 0)
			WHERE id = ? AND state = ? AND fence = ? AND ? IN (-1, stored_stdout) AND ? IN (-1, stored_stderr)
			RETURNING changed`},
		{&s.where, selectWhere},
		{&s.insertPiece, "INSERT INTO output_chunk (command, stream, offset, data, filed) VALUES (?, ?, ?, ?, ?)"},
		{&s.insertOrder, "INSERT INTO output_order (command, position, stdout, points) VALUES (?, ?, ?, ?)"},
		{&s.deleteStart, "DELETE FROM command_start WHERE command = ?"},
		{&s.deleteRedact, "DELETE FROM command_redact WHERE command = ?"},

		{&s.insertAudit, "INSERT INTO audit (seq, prev, hash, text, time, kind, principal, host, command) VALUES (" + placeholders(9) + ")"},
		{&s.putHead, putHead},

		{&s.indexAudit, indexAudit},

		{&s.insertApproval, "INSERT INTO approval (" + strings.Join(approvalColumns, ", ") + ", command) VALUES (" + placeholders(len(approvalColumns)+1) + ")"},
		{&s.approvalVersion, "SELECT version FROM approval WHERE command = ?"},
		{&s.updateApproval, "UPDATE approval SET " + assignments(approvalColumns) + " WHERE command = ?"},
		{&s.insertRole, "INSERT INTO approval_role (role, command) VALUES (?, ?) ON CONFLICT DO NOTHING"},
		{&s.deleteRoles, "DELETE FROM approval_role WHERE command = ?"},
		{&s.updateSpec, "UPDATE command_spec SET " + assignments(asked) + " WHERE command = ?"},
		{&s.updateHost, "UPDATE command SET host = ?1, session = ?2, session_owner = ?3, task = ?4 WHERE id = ?5 AND (host, session, session_owner, task) <> (?1, ?2, ?3, ?4)"},

		{&s.insertKey, "INSERT INTO api_key (" + strings.Join(keyColumns, ", ") + ") VALUES (" + placeholders(len(keyColumns)) + ") ON CONFLICT DO NOTHING"},
		{&s.validKey, selectKey + " WHERE name = ? AND revoke_time = 0"},
		{&s.revokeKey, "UPDATE api_key SET revoke_time = ? WHERE id = ?"},
		{&s.useKey, "UPDATE api_key SET last_use = max(last_use, ?) WHERE id = ?"},

		{&s.pieceAt, "SELECT offset, data, filed FROM output_chunk WHERE command = ? AND stream = ? AND offset <= ? ORDER BY offset DESC LIMIT 1"},
		{&s.pieceAfter, "SELECT offset FROM output_chunk WHERE command = ? AND stream = ? AND offset < ? ORDER BY offset LIMIT 1 OFFSET ?"},
		{&s.deletePieces, "DELETE FROM output_chunk WHERE command = ? AND stream = ? AND offset < ?"},
		// What lies before a row that begins in trimmed output is of trimmed output
		// alone; of the first rows only, so that the cost is bounded.
		{&s.deleteOrder, `DELETE FROM output_order WHERE command = ?1 AND position <
			(SELECT max(position) FROM (SELECT position, stdout FROM output_order WHERE command = ?1 ORDER BY position LIMIT ?4)
				WHERE stdout <= ?2 AND position - stdout <= ?3)`},
		{&s.setEarliest, `UPDATE command SET earliest_stdout = ?2, earliest_stderr = ?3,
			kept = max(stored_stdout - ?2, stored_stderr - ?3) WHERE id = ?1`},
		{&s.belongings, "SELECT c.principal, s.request_id, s.labels FROM command c JOIN command_spec s ON s.command = c.id WHERE c.id = ?"},
		{&s.raiseFloor, "UPDATE change_floor SET number = c.changed FROM command c WHERE c.id = ? AND number < c.changed"},
		{&s.deleteCommand, "DELETE FROM command WHERE id = ?"},
		{&s.deleteLabel, "DELETE FROM command_label WHERE name = ? AND value = ? AND command = ?"},
		{&s.deleteRequest, "DELETE FROM request WHERE principal = ? AND request_id = ? AND command = ?"},
		{&s.forgetRequests, `DELETE FROM request WHERE (principal, request_id) IN
			(SELECT principal, request_id FROM request WHERE create_time <= ? ORDER BY create_time LIMIT ?)`},

		{&s.sessionOpen, "SELECT id FROM session WHERE name = ? AND state <> '" + string(session.Ended) + "'"},
		{&s.insertSession, "INSERT INTO session (" + strings.Join(sessionFixed, ", ") + ", " + strings.Join(sessionChanging, ", ") +
			") VALUES (" + placeholders(len(sessionFixed)+len(sessionChanging)) + ") ON CONFLICT (id) DO NOTHING"},
		{&s.updateSession, "UPDATE session SET " + assignments(sessionChanging) + " WHERE id = ? AND version < ? AND (? OR state <> '" + string(session.Ended) + "')"},
		{&s.sessionVersion, "SELECT version, state FROM session WHERE id = ?"},
		{&s.recordingEnd, selectRecordingEnd},
		{&s.putRecording, "INSERT OR REPLACE INTO session_recording (session, offset, length, sums) VALUES (?, ?, ?, ?)"},
		{&s.deleteSession, "DELETE FROM session WHERE id = ?"},

		{&s.findTaskRequest, "SELECT task, hash, create_time FROM task_request WHERE principal = ? AND request_id = ?"},
		{&s.putTaskRequest, "INSERT OR REPLACE INTO task_request (principal, request_id, task, hash, create_time) VALUES (" + placeholders(5) + ")"},
		{&s.forgetTaskRequests, `DELETE FROM task_request WHERE (principal, request_id) IN
			(SELECT principal, request_id FROM task_request WHERE create_time <= ? ORDER BY create_time LIMIT ?)`},
		{&s.insertTask, "INSERT INTO task (" + strings.Join(slices.Concat(taskFixed, taskChanging), ", ") + ") VALUES (" + placeholders(len(taskFixed)+len(taskChanging)) +
			") ON CONFLICT (id) DO NOTHING"},
		{&s.insertTaskLabel, "INSERT INTO task_label (name, value, task) VALUES (?, ?, ?)"},
		{&s.insertStep, "INSERT INTO task_step (" + strings.Join(slices.Concat(stepFixed, stepChanging), ", ") + ") VALUES (" + placeholders(len(stepFixed)+len(stepChanging)) + ")"},
		{&s.insertRun, "INSERT INTO task_run (" + strings.Join(slices.Concat(runFixed, runChanging), ", ") + ") VALUES (" + placeholders(len(runFixed)+len(runChanging)) + ")"},
		{&s.taskVersion, "SELECT version, sequence FROM task WHERE id = ?"},
		{&s.updateTask, "UPDATE task SET " + assignments(taskChanging) + " WHERE id = ?"},
		{&s.updateStep, "UPDATE task_step SET " + assignments(stepChanging) + " WHERE task = ? AND step = ?"},
		{&s.updateRun, "UPDATE task_run SET " + assignments(runChanging) + " WHERE task = ? AND step = ? AND run = ?"},
		{&s.insertEvent, "INSERT INTO task_event (" + strings.Join(eventColumns, ", ") + ") VALUES (" + placeholders(len(eventColumns)) + ")"},
		{&s.deleteTask, "DELETE FROM task WHERE id = ? AND end_time > 0 AND end_time <= ?"},
	} {
		stmt, err := c.PrepareContext(ctx, p.text)
		if err != nil {
			return err
		}
		*p.to = stmt
		s.all = append(s.all, stmt)
	}
	return nil
}

func (s *statements) close() error {
	var errs []error
	for _, stmt := range s.all {
		errs = append(errs, stmt.Close())
	}
	return errors.Join(errs...)
}
