package sqlite

import (
	"context"

	"github.com/telexec/telexec/internal/command"
)

// Replay is store.Store's. It asks on the writer's connection, so that what was
// accepted just before is seen.
func (s *Store) Replay(ctx context.Context, c command.Command, hash []byte) (stored command.Command, found bool, err error) {
	const op = "sqlite.Replay"
	leave, err := s.enter(op)
	if err != nil {
		return command.Command{}, false, err
	}
	defer leave()
	// The writer may still work on it when ctx has ended this call.
	var old *command.Command
	if err := s.writer.do(ctx, 0, func() (err error) {
		old, err = s.writer.replay(context.Background(), &c, hash)
		return err
	}); err != nil || old == nil {
		return command.Command{}, false, failed(op, err)
	}
	return *old, true, nil
}
