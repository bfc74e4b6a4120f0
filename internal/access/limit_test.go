package access_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/fault"
)

// from makes a caller of a name at an address.
func from(name, address string) access.Caller {
	return access.Caller{Principal: access.Principal{Name: name}, Address: address}
}

// burst takes until it is refused, and gives how often it was let through.
func burst(l *access.Limiter, c access.Caller, class access.Class) (n int, err error) {
	for ; n < 100_000; n++ {
		if err = l.Take(c, class); err != nil {
			return n, err
		}
	}
	return n, nil
}

func TestRatesOfAPrincipal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := access.NewLimiter(access.Settings{Principal: access.Limits{Start: 2, Read: 0.05, List: 5}})
		ann := from("ann", "192.0.2.1")
		n, err := burst(l, ann, access.ClassStart)
		e := refused(t, err, fault.Exhausted, fault.ReasonRateLimited)
		if n != 20 || e.RetryAfter != 500*time.Millisecond || e.Metadata["limit"] != "principal" || e.Metadata["class"] != "start" || !strings.Contains(e.Message, "ann has used up its start calls, of which it has 2 per second") {
			t.Errorf("%d at once, then %+v", n, e)
		}
		// When it says so, and not before.
		<-time.After(e.RetryAfter - time.Millisecond)
		e = refused(t, l.Take(ann, access.ClassStart), fault.Exhausted, fault.ReasonRateLimited)
		if e.RetryAfter != time.Millisecond {
			t.Errorf("another %v", e.RetryAfter)
		}
		<-time.After(e.RetryAfter)
		if err := l.Take(ann, access.ClassStart); err != nil {
			t.Error(err)
		}
		// Less than one in ten seconds: one at once.
		n, err = burst(l, ann, access.ClassRead)
		if e := refused(t, err, fault.Exhausted, fault.ReasonRateLimited); n != 1 || e.RetryAfter != 20*time.Second {
			t.Errorf("%d, then %+v", n, e)
		}
		// Other classes, other principals, and what has no limit.
		if n, _ := burst(l, ann, access.ClassList); n != 50 {
			t.Errorf("%d lists", n)
		}
		if n, _ := burst(l, from("bob", "192.0.2.1"), access.ClassStart); n != 20 {
			t.Errorf("%d calls of another one", n)
		}
		if n, err := burst(l, ann, access.ClassStream); err != nil || n < 100_000 {
			t.Errorf("%d streams, %v", n, err)
		}
		if n, err := burst(l, from("", ""), access.ClassStart); err != nil || n < 100_000 {
			t.Errorf("nobody in particular: %d, %v", n, err)
		}
	})
}

func TestAPrincipalWithLimitsOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := access.NewLimiter(access.Settings{Principal: access.Limits{Start: 2, Read: 2}})
		ann := from("ann", "")
		ann.Limits = access.Limits{Start: 10}
		if n, _ := burst(l, ann, access.ClassStart); n != 100 {
			t.Errorf("%d at once", n)
		}
		if n, _ := burst(l, ann, access.ClassRead); n != 20 {
			t.Errorf("%d of a class without one", n)
		}
		// New ones are no new bucket.
		ann.Limits.Start = 1
		if n, _ := burst(l, ann, access.ClassStart); n != 0 {
			t.Errorf("%d after a change", n)
		}
		<-time.After(time.Hour)
		if n, _ := burst(l, ann, access.ClassStart); n != 10 {
			t.Errorf("%d at once with new limits", n)
		}
	})
}

func TestRatesOfAnAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := access.NewLimiter(access.Settings{Principal: access.Limits{Start: 3}, Address: access.Limits{Start: 4}})
		// Who is refused for its own limit costs its neighbours nothing.
		if n, err := burst(l, from("ann", "192.0.2.1"), access.ClassStart); n != 30 || fault.From(err).Metadata["limit"] != "principal" {
			t.Errorf("%d, %v", n, err)
		}
		burst(l, from("ann", "192.0.2.1"), access.ClassStart)
		n, err := burst(l, from("bob", "192.0.2.1"), access.ClassStart)
		if e := fault.From(err); n != 10 || e.Metadata["limit"] != "address" || !strings.Contains(e.Message, "192.0.2.1") {
			t.Errorf("%d, %v", n, err)
		}
		for first, second := range map[string]string{
			"2001:db8::1": "2001:db8:0:0:ffff::2", "192.0.2.9": "::ffff:192.0.2.9", "fe80::1%eth0": "fe80::2%eth1", "what": "ever",
		} {
			burst(l, from("x"+first, first), access.ClassStart)
			burst(l, from("y"+first, first), access.ClassStart)
			if n, _ := burst(l, from("z"+first, second), access.ClassStart); n != 0 {
				t.Errorf("%s is not counted as %s", second, first)
			}
		}
		for _, other := range []string{"192.0.2.2", "2001:db8:0:1::1"} {
			if n, _ := burst(l, from("n"+other, other), access.ClassStart); n != 30 {
				t.Errorf("%d from %s", n, other)
			}
		}
	})
}

func TestOpenStreams(t *testing.T) {
	l := access.NewLimiter(access.Settings{Principal: access.Limits{Streams: 2}, Address: access.Limits{Streams: 3}})
	open := func(c access.Caller) func() {
		t.Helper()
		release, err := l.OpenStream(c)
		if err != nil {
			t.Fatal(err)
		}
		return release
	}
	ann, bob := from("ann", "192.0.2.1"), from("bob", "192.0.2.1")
	first := open(ann)
	open(ann)
	_, err := l.OpenStream(ann)
	if e := refused(t, err, fault.Exhausted, fault.ReasonTooManyStreams); e.Metadata["limit"] != "principal" {
		t.Errorf("%+v", e)
	}
	third := open(bob)
	_, err = l.OpenStream(bob)
	if e := refused(t, err, fault.Exhausted, fault.ReasonTooManyStreams); e.Metadata["limit"] != "address" {
		t.Errorf("%+v", e)
	}
	first()
	first() // once is enough
	open(bob)
	if _, err = l.OpenStream(bob); err == nil {
		t.Error("a stream was given back twice")
	}
	third()
	open(ann)
	ann.Limits.Streams, ann.Address = 3, ""
	open(ann)
	_, err = l.OpenStream(ann)
	refused(t, err, fault.Exhausted, fault.ReasonTooManyStreams)

	free := access.NewLimiter(access.Settings{})
	for range 1000 {
		if _, err := free.OpenStream(bob); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAddressesThatGuess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := access.NewLimiter(access.Settings{FailuresPerAddress: 5})
		const here = "2001:db8::1"
		for i := range 50 {
			if err := l.MayTry(here); err != nil {
				t.Fatalf("after %d: %v", i, err)
			}
			l.Failed(here)
		}
		e := refused(t, l.MayTry("2001:db8::2"), fault.Exhausted, fault.ReasonRateLimited)
		if e.RetryAfter != 200*time.Millisecond || e.Metadata["class"] != "failures" || !strings.Contains(e.Message, "failed authentications") {
			t.Errorf("%+v", e)
		}
		if err := l.MayTry("2001:db8:0:1::"); err != nil {
			t.Error(err)
		}
		<-time.After(e.RetryAfter)
		if err := l.MayTry(here); err != nil {
			t.Error(err)
		}
		l.Failed("")
		if err := l.MayTry(""); err != nil {
			t.Error(err)
		}
	})
	off := access.NewLimiter(access.Settings{})
	for range 1000 {
		off.Failed("192.0.2.1")
	}
	if err := off.MayTry("192.0.2.1"); err != nil {
		t.Error(err)
	}
}

func TestCallsThatShowNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := access.NewLimiter(access.Settings{FailuresPerAddress: 5})
		for i := range 1000 { // twenty times as many as guesses
			if err := l.ShowsNothing("192.0.2.1"); err != nil {
				t.Fatalf("after %d: %v", i, err)
			}
		}
		e := refused(t, l.ShowsNothing("192.0.2.1"), fault.Exhausted, fault.ReasonRateLimited)
		if e.RetryAfter != 10*time.Millisecond || e.Metadata["class"] != "bare" || !strings.Contains(e.Message, "calls without credentials") {
			t.Errorf("%+v", e)
		}
		// They are no guesses.
		for _, err := range []error{l.MayTry("192.0.2.1"), l.ShowsNothing("192.0.2.2"), l.ShowsNothing("")} {
			if err != nil {
				t.Error(err)
			}
		}
	})
	off := access.NewLimiter(access.Settings{})
	for range 2000 {
		if err := off.ShowsNothing("192.0.2.1"); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTheUnknownAreFew(t *testing.T) {
	l := access.NewLimiter(access.Settings{})
	for what, most := range map[access.Unknown]int{access.Asking: 16, access.Watching: 16, access.Proving: 64, access.SigningIn: 16} {
		var releases []func()
		for range most {
			release, err := l.Admit("2001:db8::1", what)
			if err != nil {
				t.Fatal(err)
			}
			releases = append(releases, release)
		}
		_, err := l.Admit("2001:db8::2", what)
		refused(t, err, fault.Exhausted, fault.ReasonTooManyStreams)
		for _, elsewhere := range []string{"2001:db8:0:1::", ""} {
			release, err := l.Admit(elsewhere, what)
			if err != nil {
				t.Fatal(err)
			}
			release()
		}
		releases[0]()
		releases[0]()
		release, err := l.Admit("2001:db8::2", what)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.Admit("2001:db8::2", what); err == nil {
			t.Error("one was released twice")
		}
		release()
	}
}

// TestAnAddressThatIsRefusedCostsTheCallerNothing: who shares a busy address may
// call from another one.
func TestAnAddressThatIsRefusedCostsTheCallerNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := access.NewLimiter(access.Settings{Principal: access.Limits{Start: 2}, Address: access.Limits{Start: 1}})
		n, err := burst(l, from("ann", "192.0.2.1"), access.ClassStart)
		if n != 10 || fault.From(err).Metadata["limit"] != "address" {
			t.Errorf("%d, %v", n, err)
		}
		for range 50 {
			refused(t, l.Take(from("ann", "192.0.2.1"), access.ClassStart), fault.Exhausted, fault.ReasonRateLimited)
		}
		if n, err := burst(l, from("ann", "192.0.2.2"), access.ClassStart); n != 10 || fault.From(err).Metadata["limit"] != "principal" {
			t.Errorf("%d from elsewhere, %v", n, err)
		}
	})
}

func TestMessagesThatAreLateAreFew(t *testing.T) {
	l := access.NewLimiter(access.Settings{})
	ann := from("ann", "192.0.2.1")
	var releases []func()
	for range 256 {
		release, err := l.Late(ann, 1)
		if err != nil {
			t.Fatal(err)
		}
		releases = append(releases, release)
	}
	_, err := l.Late(from("ann", "192.0.2.2"), 1)
	if e := refused(t, err, fault.Exhausted, fault.ReasonTooManyStreams); e.Metadata["limit"] != "principal" {
		t.Errorf("%+v", e)
	}
	if _, err := l.Late(from("bob", "192.0.2.1"), 1); err != nil {
		t.Error(err)
	}
	if _, err := l.OpenStream(ann); err != nil {
		t.Errorf("streams are counted apart: %v", err)
	}
	releases[0]()
	releases[0]()
	if _, err := l.Late(ann, 1); err != nil {
		t.Error(err)
	}
	if _, err := l.Late(ann, 1); err == nil {
		t.Error("one was released twice")
	}
}

func TestWhatIsRememberedIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := access.NewLimiter(access.Settings{Principal: access.Limits{Start: 1}, Address: access.Limits{Start: 1}, FailuresPerAddress: 1})
		release, err := l.OpenStream(from("streams", "198.51.100.1"))
		if err != nil {
			t.Fatal(err)
		}
		burst(l, from("busy", "198.51.100.2"), access.ClassStart)
		address := func(i int) string { return fmt.Sprintf("2001:db8:%x:%x::1", i>>16, i&0xffff) }
		for i := range 3 * access.MaxBuckets {
			l.Failed(address(i))
			if i%1000 == 0 {
				<-time.After(time.Millisecond)
			}
		}
		if _, n := l.Remembered(); n > access.MaxBuckets {
			t.Errorf("%d addresses are remembered", n)
		}
		// Those beyond share a bucket, which is empty; who was there has its own.
		refused(t, l.MayTry(address(1<<30)), fault.Exhausted, fault.ReasonRateLimited)
		if err := l.MayTry("198.51.100.1"); err != nil {
			t.Error(err)
		}
		if n, _ := burst(l, from("busy", "198.51.100.2"), access.ClassStart); n != 0 {
			t.Errorf("a flood has given %d calls back", n)
		}
		// When it is over, all is as before.
		<-time.After(time.Minute)
		l.Failed(address(1 << 30))
		for i := range 2000 {
			if err := l.Take(from(fmt.Sprint("p", i), ""), access.ClassStart); err != nil {
				t.Error(err)
			}
			<-time.After(time.Second)
		}
		principals, addresses := l.Remembered()
		if principals > 1100 || addresses > 2 {
			t.Errorf("%d principals and %d addresses are remembered", principals, addresses)
		}
		// Open streams are not forgotten.
		release()
		if err := l.Take(from("streams", "198.51.100.1"), access.ClassStart); err != nil {
			t.Error(err)
		}
	})
}

func TestAKnownCallerCostsNoMemory(t *testing.T) {
	l := access.NewLimiter(access.Settings{
		Principal: access.Limits{Start: 1e9}, Address: access.Limits{Start: 1e9}, FailuresPerAddress: 5,
	})
	ann := from("ann", "2001:db8::1")
	if n := testing.AllocsPerRun(1000, func() {
		if l.MayTry(ann.Address) != nil || l.Take(ann, access.ClassStart) != nil {
			t.Error("refused")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestLimitsFromManyGoroutines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := access.NewLimiter(access.Settings{Principal: access.Limits{Start: 10, Streams: 8}})
		var wg sync.WaitGroup
		var mu sync.Mutex
		passed := 0
		for range 8 {
			wg.Go(func() {
				n, _ := burst(l, from("ann", "192.0.2.1"), access.ClassStart)
				mu.Lock()
				passed += n
				mu.Unlock()
				for range 100 {
					release, err := l.OpenStream(from("ann", "192.0.2.1"))
					if err != nil {
						t.Error(err)
						return
					}
					release()
					l.Failed("192.0.2.1")
				}
			})
		}
		wg.Wait()
		if passed != 100 {
			t.Errorf("%d were let through", passed)
		}
	})
}

func BenchmarkTake(b *testing.B) {
	l := access.NewLimiter(access.Settings{Principal: access.Limits{Start: 1e9}, Address: access.Limits{Start: 1e9}})
	ann := from("ann", "192.0.2.1")
	b.ReportAllocs()
	for b.Loop() {
		if err := l.Take(ann, access.ClassStart); err != nil {
			b.Fatal(err)
		}
	}
}
