package terminal

import "context"

// Known tells whether it is known which process group runs in a session, and whether the
// host has told who has its terminal.
func (t *Terminals) Known(ctx context.Context, id string) (group, sure bool) {
	if l := t.find(id); l != nil {
		_ = l.do(ctx, func() { group, sure = l.turn.group != 0, !l.turn.unsure })
	}
	return group, sure
}
