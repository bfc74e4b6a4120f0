package main

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

// TestOutbox: what is typed comes out in order, and who types too much waits.
func TestOutbox(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOutbox()
		ctx := t.Context()
		typed := []byte("a")
		o.put(ctx, parcel{keys: typed})
		typed[0] = 'x' // it was taken
		o.put(ctx, parcel{keys: []byte("b")})
		o.add(parcel{action: telexecv1.KeyboardAction_KEYBOARD_ACTION_TAKE})
		o.put(ctx, parcel{keys: make([]byte, mostKeys+1)})
		full := true
		go func() {
			o.put(ctx, parcel{keys: []byte("c")})
			full = false
		}()
		synctest.Wait()
		if !full {
			t.Error("it takes more than it should")
		}
		var got []string
		for range 3 {
			p, ok := o.take(ctx)
			got = append(got, fmt.Sprintf("%q %v %v", p.keys[:min(len(p.keys), 2)], p.action, ok))
		}
		synctest.Wait()
		p, _ := o.take(ctx)
		want := []string{`"ab" KEYBOARD_ACTION_UNSPECIFIED true`, `"" KEYBOARD_ACTION_TAKE true`, `"\x00\x00" KEYBOARD_ACTION_UNSPECIFIED true`}
		if !slices.Equal(got, want) || full || string(p.keys) != "c" {
			t.Errorf("%q, then %q", got, p.keys)
		}
		over, stop := context.WithCancel(ctx)
		stop()
		if _, ok := o.take(over); ok {
			t.Error("it gives what nobody typed")
		}
	})
}
