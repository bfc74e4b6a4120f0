package access

import (
	"math"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/telexec/telexec/internal/fault"
)

// Class is a class of calls that have a limit of their own.
type Class int

// The classes, as in Limits.
const (
	ClassStart  Class = iota // Execute and other calls that begin something
	ClassRead                // calls that ask and act on what runs
	ClassList                // lists
	ClassStream              // new streams
	failures                 // authentications that failed, of addresses alone
	bare                     // calls that show no credentials, of addresses alone
	classes
)

// String gives the class as in the configuration.
func (c Class) String() string {
	return [classes]string{"start", "read", "list", "stream", "failures", "bare"}[c]
}

const (
	// burstSeconds is how many seconds' worth of calls may come at once. So a
	// bucket that was left alone for as long is full, and as good as a new one.
	burstSeconds = 10
	// maxBuckets bounds those of all principals, and of all addresses.
	maxBuckets = 1 << 16
	// fewBuckets are not worth looking through.
	fewBuckets = 1024
	// bareTimes is how many calls without credentials count as much as one with bad
	// ones: probes and browsers that have not signed in send them and mean no harm.
	bareTimes = 20
	// sweepEvery bounds what looking for full buckets costs while there are many.
	sweepEvery = time.Second
)

// Unknown is what somebody does whose name nobody knows, or not yet. How many may
// do it at once is bounded for each address.
type Unknown int

// What the unknown do.
const (
	Asking    Unknown = iota // a call that needs no credentials
	Watching                 // a stream that needs none
	Proving                  // waiting for the proof of credentials that takes its time
	SigningIn                // sending the form of a login, which is late
	unknowns
)

// maxUnknown is how many of them one address may have at once. No setting: what
// they hold is little, and honest ones need less.
var maxUnknown = [unknowns]int{Asking: 16, Watching: 16, Proving: 64, SigningIn: 16}

// maxLate is how much the calls of one principal may weigh that wait for a message
// which is late: a principal with as many streams as it may have still has room for
// others. No setting, as for the unknown.
const maxLate = 256

// Settings are the limits of the service. 0 is no limit.
type Settings struct {
	Principal          Limits  // of each principal without limits of its own
	Address            Limits  // of each address
	FailuresPerAddress float64 // authentications that fail, per second; twenty times as many calls may show nothing
}

// Limiter bounds how often callers call and how many streams they hold open: for
// each class every principal and every address has a token bucket. An IPv6
// address stands for its /64, which one caller has whole. Ten seconds' worth of
// calls, at least one, may come at once. Its methods may be called from any
// goroutine.
//
// Only callers that are not idle are remembered, and never more than maxBuckets
// principals and addresses: beyond that, newcomers share one bucket. So nobody
// can make the service grow by calling from many addresses, and whoever was there
// before is not disturbed.
type Limiter struct {
	settings Settings
	address  perSecond // what settings say of addresses

	mu         sync.Mutex // held for well under a microsecond, but for a sweep
	principals buckets[string]
	addresses  buckets[netip.Addr]
}

// NewLimiter makes a limiter with these settings.
func NewLimiter(s Settings) *Limiter {
	l := &Limiter{settings: s, address: rates(Limits{}, s.Address, s.FailuresPerAddress)}
	l.principals.of = make(map[string]*bucket)
	l.addresses.of = make(map[netip.Addr]*bucket)
	return l
}

// Take counts a call of the class against the caller and against its address, or
// against neither. It fails with RATE_LIMITED, which says which of the two limits
// it is and when the next call would pass.
func (l *Limiter) Take(c Caller, class Class) error {
	now := time.Now()
	key, hasAddress := addressKey(c.Address)
	l.mu.Lock()
	defer l.mu.Unlock()
	var principal, address *bucket
	if c.Name != "" {
		principal = l.principals.get(c.Name, now)
		if limit, wait := principal.look(class, now, rates(c.Limits, l.settings.Principal, 0)); wait > 0 {
			return limited("principal", c.Name, class, limit, wait)
		}
	}
	if hasAddress {
		address = l.addresses.get(key, now)
		if limit, wait := address.look(class, now, l.address); wait > 0 {
			return limited("address", c.Address, class, limit, wait)
		}
	}
	principal.spend(class, now)
	address.spend(class, now)
	return nil
}

// OpenStream counts an open stream of the caller, or a call that waits as long as
// one, until release is called, which may be done more than once. It fails with
// TOO_MANY_STREAMS. That new streams come too fast is Take's.
func (l *Limiter) OpenStream(c Caller) (release func(), err error) {
	now := time.Now()
	key, hasAddress := addressKey(c.Address)
	l.mu.Lock()
	defer l.mu.Unlock()
	var held []*bucket
	if c.Name != "" {
		b, limit := l.principals.get(c.Name, now), l.settings.Principal.Streams
		if c.Limits.Streams > 0 {
			limit = c.Limits.Streams
		}
		if limit > 0 && b.streams >= limit {
			return nil, tooManyStreams("principal", c.Name, limit)
		}
		held = append(held, b)
	}
	if hasAddress {
		b, limit := l.addresses.get(key, now), l.settings.Address.Streams
		if limit > 0 && b.streams >= limit {
			return nil, tooManyStreams("address", c.Address, limit)
		}
		held = append(held, b)
	}
	for _, b := range held {
		b.streams++
	}
	return sync.OnceFunc(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, b := range held {
			b.streams--
		}
	}), nil
}

func tooManyStreams(whose, name string, limit int) error {
	return fault.New(fault.Exhausted, fault.ReasonTooManyStreams, "the %s %s has %d streams and waiting calls open, and may have no more", whose, name, limit).
		WithHint("Close some, or ask for less waiting").With("limit", whose)
}

// Late counts a call of the caller whose message is late, until release is called,
// which may be done more than once. The weight is 1 for one that is kept off
// until it is wanted, and more where what has arrived is in memory. It fails with
// TOO_MANY_STREAMS.
func (l *Limiter) Late(c Caller, weight int) (release func(), err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.principals.get(c.Name, time.Now())
	if b.late+weight > maxLate {
		return nil, fault.New(fault.Exhausted, fault.ReasonTooManyStreams, "the principal %s has as many calls open as it may whose messages have not arrived", c.Name).
			WithHint("Send the messages, or close some").With("limit", "principal")
	}
	b.late += weight
	return sync.OnceFunc(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		b.late -= weight
	}), nil
}

// Admit counts what somebody unknown does at an address until release is called,
// which may be done more than once. It fails with TOO_MANY_STREAMS.
func (l *Limiter) Admit(address string, what Unknown) (release func(), err error) {
	key, ok := addressKey(address)
	if !ok {
		return func() {}, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.addresses.get(key, time.Now())
	if b.unknown[what] >= maxUnknown[what] {
		return nil, fault.New(fault.Exhausted, fault.ReasonTooManyStreams, "the address %s has %d calls open whose callers are not known, and may have no more", address, maxUnknown[what]).
			WithHint("Close some, or try again in a moment").With("limit", "address")
	}
	b.unknown[what]++
	return sync.OnceFunc(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		b.unknown[what]--
	}), nil
}

// Failed counts an authentication that failed from an address.
func (l *Limiter) Failed(address string) {
	key, ok := addressKey(address)
	if !ok || l.settings.FailuresPerAddress <= 0 {
		return
	}
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.addresses.get(key, now).take(failures, now, l.address)
}

// MayTry reports whether an address may try to authenticate: nil, or
// RATE_LIMITED after too many that failed. It counts nothing.
func (l *Limiter) MayTry(address string) error {
	key, ok := addressKey(address)
	if !ok || l.settings.FailuresPerAddress <= 0 {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if wait := l.addresses.peek(key).wait(failures, time.Now()); wait > 0 {
		return limited("address", address, failures, l.settings.FailuresPerAddress, wait)
	}
	return nil
}

// ShowsNothing counts a call without credentials from an address; RATE_LIMITED
// where there were too many.
func (l *Limiter) ShowsNothing(address string) error {
	key, ok := addressKey(address)
	if !ok {
		return nil
	}
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if limit, wait := l.addresses.get(key, now).take(bare, now, l.address); wait > 0 {
		return limited("address", address, bare, limit, wait)
	}
	return nil
}

func limited(whose, name string, class Class, limit float64, wait time.Duration) error {
	per, what := strconv.FormatFloat(limit, 'g', 4, 64), class.String()+" calls"
	switch class {
	case failures:
		what = "failed authentications"
	case bare:
		what = "calls without credentials"
	}
	return fault.New(fault.Exhausted, fault.ReasonRateLimited, "the %s %s has used up its %s, of which it has %s per second", whose, name, what, per).
		WithHint("Try again in %s, and then more slowly", wait).WithRetry(wait).With("limit", whose).With("class", class.String())
}

// perSecond are the rates of the classes.
type perSecond [classes]float64

// rates gives own limits where they are set, else those of the service.
func rates(own, service Limits, failed float64) perSecond {
	or := func(a, b float64) float64 {
		if a > 0 {
			return a
		}
		return b
	}
	return perSecond{
		ClassStart: or(own.Start, service.Start), ClassRead: or(own.Read, service.Read),
		ClassList: or(own.List, service.List), ClassStream: or(own.Stream, service.Stream),
		failures: failed, bare: bareTimes * failed,
	}
}

// addressKey gives what an address is counted as; ok is false for none. What is
// not an IP address counts as one and the same.
func addressKey(address string) (key netip.Addr, ok bool) {
	if address == "" {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(address)
	if err != nil {
		return netip.Addr{}, true
	}
	if a = a.Unmap().WithZone(""); a.Is6() {
		p, _ := a.Prefix(64) // fails for more bits than the address has only
		a = p.Addr()
	}
	return a, true
}

// bucket is what is remembered of one principal or address. The Limiter's lock
// guards it.
type bucket struct {
	limiter [classes]*rate.Limiter // nil: none was needed yet
	streams int                    // that are open
	late    int                    // weight of the calls that wait for their message
	unknown [unknowns]int          // that are under way
}

// take takes a token; where there is none, wait is above 0 and says when there
// will be one. New rates come into force with it.
func (b *bucket) take(class Class, now time.Time, r perSecond) (limit float64, wait time.Duration) {
	if limit, wait = b.look(class, now, r); wait == 0 {
		b.spend(class, now)
	}
	return limit, wait
}

// look is take that takes nothing.
func (b *bucket) look(class Class, now time.Time, r perSecond) (limit float64, wait time.Duration) {
	limit = r[class]
	if !(limit > 0) {
		b.limiter[class] = nil
		return 0, 0
	}
	burst := int(min(max(1, math.Ceil(burstSeconds*limit)), math.MaxInt32))
	switch lim := b.limiter[class]; {
	case lim == nil:
		b.limiter[class] = rate.NewLimiter(rate.Limit(limit), burst)
	case lim.Limit() != rate.Limit(limit):
		lim.SetLimitAt(now, rate.Limit(limit))
		lim.SetBurstAt(now, burst)
	}
	return limit, b.wait(class, now)
}

// spend takes the token that look has found; there is none of nobody, nor where
// there is no limit.
func (b *bucket) spend(class Class, now time.Time) {
	if b != nil && b.limiter[class] != nil {
		b.limiter[class].AllowN(now, 1)
	}
}

// wait gives how long there is no token, in whole milliseconds up to a day; 0
// where there is one.
func (b *bucket) wait(class Class, now time.Time) time.Duration {
	if b == nil || b.limiter[class] == nil {
		return 0
	}
	lim := b.limiter[class]
	missing := 1 - lim.TokensAt(now)
	if missing <= 0 {
		return 0
	}
	ms := math.Ceil(missing/float64(lim.Limit())*1000 - 1e-6) // of which rounding may have added a trace
	return time.Duration(min(ms, float64(24*time.Hour/time.Millisecond))) * time.Millisecond
}

// idle reports whether a new bucket would be as good.
func (b *bucket) idle(now time.Time) bool {
	for _, lim := range b.limiter {
		if lim != nil && lim.TokensAt(now) < float64(lim.Burst()) {
			return false
		}
	}
	return b.streams == 0 && b.late == 0 && b.unknown == [unknowns]int{}
}

// buckets are those of all principals or of all addresses. The Limiter's lock
// guards them.
type buckets[K comparable] struct {
	of      map[K]*bucket
	sweepAt int       // look for idle ones when there are so many
	swept   time.Time // when that was done last
	others  bucket    // of those for whom there is no place
}

// get gives the bucket of key, which may be one that it shares. It is good until
// the lock is released, and for as long as it has streams or
// late calls.
func (s *buckets[K]) get(key K, now time.Time) *bucket {
	if b := s.of[key]; b != nil {
		return b
	}
	if len(s.of) >= max(s.sweepAt, fewBuckets) && now.Sub(s.swept) >= sweepEvery {
		for k, b := range s.of {
			if b.idle(now) {
				delete(s.of, k)
			}
		}
		// Only when there are twice as many is it worth looking again.
		s.sweepAt, s.swept = min(2*len(s.of), maxBuckets), now
	}
	if len(s.of) >= maxBuckets {
		return &s.others
	}
	b := new(bucket)
	s.of[key] = b
	return b
}

// peek gives the bucket that key has or shares; nil where it has none.
func (s *buckets[K]) peek(key K) *bucket {
	if b := s.of[key]; b != nil || len(s.of) < maxBuckets {
		return b
	}
	return &s.others
}
