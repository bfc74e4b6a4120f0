package sqlite

import (
	"errors"
	"testing"
	"time"

	"github.com/telexec/telexec/internal/command"
)

// TestNumbersOfWhatIsRolledBack has a group fail at one change, which is then made
// one by one, and one fail as a whole: no number is given twice, and none to what
// was not stored.
func TestNumbersOfWhatIsRolledBack(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	creation := func(c command.Command) *change {
		return &change{do: func() error {
			_, _, err := s.writer.create(c, nil, sealedSpec{}, nil, accepted(c))
			return err
		}}
	}
	first, second := benchCommand(time.Now()), benchCommand(time.Now())
	group := []*change{creation(first), {do: func() error { return errors.New("disk I/O error") }}, creation(second)}
	s.writer.turn.Lock()
	s.writer.commit(group)
	s.writer.turn.Unlock()
	if group[0].err != nil || group[1].err == nil || group[2].err != nil {
		t.Fatalf("%v, %v, %v", group[0].err, group[1].err, group[2].err)
	}

	onWriter(t, s, "PRAGMA busy_timeout = 1")
	unlock := lockOut(t, s)
	third := benchCommand(time.Now())
	if _, _, err := s.Create(t.Context(), third, nil, nil, accepted(third)); err == nil {
		t.Error("a command was stored although the file is locked")
	}
	unlock()
	if _, _, err := s.Create(t.Context(), third, nil, nil, accepted(third)); err != nil {
		t.Fatal(err)
	}
	list, err := s.Changes(t.Context(), 0, 10)
	if err != nil || len(list) != 3 {
		t.Fatalf("%+v, %v", list, err)
	}
	for i, c := range []command.Command{first, second, third} {
		if list[i].Number != int64(i+1) || list[i].Command.ID != c.ID {
			t.Errorf("change %d is number %d of %s, want of %s", i, list[i].Number, list[i].Command.ID, c.ID)
		}
	}
}

// TestChangesPassOverDamage has a record that cannot be read: its number is told, so
// that nobody asks for it again and again, and those behind it come.
func TestChangesPassOverDamage(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	var ids []string
	for range 3 {
		c := benchCommand(time.Now())
		if _, _, err := s.Create(t.Context(), c, nil, nil, accepted(c)); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, c.ID)
	}
	onWriter(t, s, "UPDATE command SET state = 'ASLEEP' WHERE id = '"+ids[1]+"'")
	list, err := s.Changes(t.Context(), 0, 10)
	if err != nil || len(list) != 3 || list[1].Number != 2 || list[1].Command.ID != ids[1] || list[1].Command.State != "" || list[2].Command.State == "" {
		t.Fatalf("%+v, %v", list, err)
	}
}
