package sqlite

import (
	"encoding/binary"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/task"
)

// The packed forms of what a task has besides its columns. A time is its microseconds.

func packFailure(f *command.Failure) []byte {
	if f == nil {
		return nil
	}
	return packStrings([]string{f.Reason, f.Message, f.Hint})
}

func unpackFailure(b []byte) (*command.Failure, error) {
	list, err := unpackStrings(b)
	switch {
	case err != nil || b == nil:
		return nil, err
	case len(list) != 3:
		return nil, errPacked
	}
	return &command.Failure{Reason: list[0], Message: list[1], Hint: list[2]}, nil
}

func packWish(n *task.Cancellation) []byte {
	if n == nil {
		return nil
	}
	return appendWish(nil, n)
}

func appendWish(b []byte, n *task.Cancellation) []byte {
	b = appendString(b, n.By.Principal)
	b = appendString(b, string(n.By.Origin))
	b = binary.AppendVarint(b, micros(n.Time))
	return appendString(b, n.Reason)
}

func (u *unpacker) wish() *task.Cancellation {
	return &task.Cancellation{By: command.Actor{Principal: u.text(), Origin: command.Origin(u.text())}, Time: moment(u.number()), Reason: u.text()}
}

func unpackWish(b []byte) (*task.Cancellation, error) {
	if b == nil {
		return nil, nil
	}
	u := unpacker{rest: b}
	n := u.wish()
	return n, u.end()
}

func packUndo(n *task.Undo) []byte {
	if n == nil {
		return nil
	}
	b := appendString(nil, string(n.State))
	b = appendString(b, n.By.Principal)
	b = appendString(b, string(n.By.Origin))
	b = binary.AppendUvarint(b, uint64(len(n.Roles)))
	for _, role := range n.Roles {
		b = appendString(b, role)
	}
	b = binary.AppendVarint(b, micros(n.Time))
	b = appendString(b, n.Reason)
	var automatic int64
	if n.Automatic {
		automatic = 1
	}
	b = binary.AppendVarint(b, automatic)
	if n.Cancellation == nil {
		return binary.AppendVarint(b, 0)
	}
	return appendWish(binary.AppendVarint(b, 1), n.Cancellation)
}

func unpackUndo(b []byte) (*task.Undo, error) {
	if b == nil {
		return nil, nil
	}
	u := unpacker{rest: b}
	n := &task.Undo{State: task.UndoState(u.text()), By: command.Actor{Principal: u.text(), Origin: command.Origin(u.text())}}
	for range u.count() {
		n.Roles = append(n.Roles, u.text())
	}
	n.Time, n.Reason, n.Automatic = moment(u.number()), u.text(), u.number() == 1
	if u.number() == 1 {
		n.Cancellation = u.wish()
	}
	return n, u.end()
}
