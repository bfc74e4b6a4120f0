package sshconn

import "context"

// overtake gives what open gives. When open tells that it is slow, which it does
// on the caller's goroutine, it is run once more beside, with slow nil, and the
// first success counts: a wedged connection is left while it matters, and a slow
// server is still waited for. Not more than once, for a slow server is not helped
// by an ever growing number of logins. undo gives back what came second.
func overtake[T any](ctx context.Context, p *Pool, open func(ctx context.Context, slow func()) (T, error), undo func(T)) (T, error) {
	type outcome struct {
		got T
		err error
	}
	first, overtaken := context.WithCancel(ctx)
	defer overtaken()
	tooLate := func() {}
	defer func() { tooLate() }()
	var other chan outcome // capacity 1, for the one outcome of the second; nil: there is none
	got, err := open(first, func() {
		if other != nil {
			return
		}
		outcomes := make(chan outcome, 1)
		second, cancel := context.WithCancel(ctx)
		tooLate = cancel
		if p.spawn(func() {
			got, err := open(second, nil)
			if err == nil {
				overtaken()
			}
			outcomes <- outcome{got, err}
		}) {
			other = outcomes
		}
	})
	if other == nil {
		return got, err
	}
	if err == nil {
		tooLate()
		if o := <-other; o.err == nil {
			undo(o.got)
		}
		return got, nil
	}
	// Where both fail, the second is the newer, unless its time was merely shorter.
	if o := <-other; o.err == nil || !outOfTime(o.err) {
		return o.got, o.err
	}
	return got, err
}
