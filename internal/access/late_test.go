package access_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/telexec/telexec/internal/access"
)

func TestLateness(t *testing.T) {
	tooMany := errors.New("too many")
	for name, c := range map[string]struct {
		refused error
		steps   string // b: Begin, e: End
		want    []string
	}{
		"in time":               {nil, "e", nil},
		"late":                  {nil, "be", []string{"counted", "released"}},
		"there as it is late":   {nil, "eb", nil},
		"late, and may not be":  {tooMany, "be", []string{"counted", "given up"}},
		"in time, and may not":  {tooMany, "e", nil},
		"there as it would not": {tooMany, "eb", nil},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			l := &access.Lateness{
				Count: func() (func(), error) {
					got = append(got, "counted")
					return func() { got = append(got, "released") }, c.refused
				},
				GiveUp: func(why error) {
					if got = append(got, "given up"); why != tooMany {
						t.Errorf("because of %v", why)
					}
				},
			}
			var why error
			for _, step := range c.steps {
				if step == 'b' {
					l.Begin()
				} else {
					why = l.End()
				}
			}
			if !slices.Equal(got, c.want) || (why != nil) != slices.Contains(c.want, "given up") {
				t.Errorf("%q, %v", got, why)
			}
		})
	}
}
