package audit

import "fmt"

// Break is the first row at which a chain is broken.
type Break struct {
	Seq int64  // number of the row; where one is missing, its number
	Why string // one sentence for people
}

// Error tells where and why.
func (b *Break) Error() string { return fmt.Sprintf("audit row %d: %s", b.Seq, b.Why) }

// Checker checks rows one after the other, from the first one on. The zero value
// is before the first row. It is for one goroutine.
type Checker struct {
	head   Head
	before Head // head before the last row
	broken *Break
}

// NewChecker checks from behind a row that is known to be good.
func NewChecker(after Head) *Checker { return &Checker{head: after} }

// Next checks the row that must follow. After the first break it gives that one
// again.
func (c *Checker) Next(r Row) error {
	if c.broken == nil {
		c.broken = c.check(r)
	}
	if c.broken != nil {
		return c.broken
	}
	c.before, c.head = Head{Seq: r.Seq - 1, Hash: r.Prev}, Head{Seq: r.Seq, Hash: r.Hash}
	return nil
}

func (c *Checker) check(r Row) *Break {
	due := c.head.Seq + 1
	switch {
	case r.Seq > due:
		return &Break{due, fmt.Sprintf("it is missing; the next one there is %d", r.Seq)}
	case r.Seq < due:
		return &Break{due, fmt.Sprintf("in its place stands row %d, for the second time or out of its order", r.Seq)}
	case r.Prev != c.head.Hash:
		return &Break{r.Seq, "it does not follow the row before it: one of the two was changed, swapped or put in"}
	case link(r.Prev, r.Text) != r.Hash:
		return &Break{r.Seq, "its text is not what was written"}
	}
	if _, err := r.Entry(); err != nil {
		return &Break{r.Seq, "its text cannot be read"}
	}
	return nil
}

// Head is how far the rows are good: the last one that nothing is known against.
func (c *Checker) Head() Head { return c.head }

// Expect checks the row that Next has just checked against its hash as it was noted
// elsewhere. A chain written anew from some row on is found so, also where the
// service's key was stolen with it.
func (c *Checker) Expect(noted Hash) error {
	if c.broken == nil && c.head.Hash != noted {
		c.reject("it is not the row whose hash was noted: the audit was written anew from there on, or before")
	}
	return c.err()
}

// End checks that the rows end where they should.
func (c *Checker) End(at Head) error {
	switch {
	case c.broken != nil:
	case c.head.Seq < at.Seq:
		c.broken = &Break{c.head.Seq + 1, fmt.Sprintf("it is missing, and so is all up to row %d, which is the last that was written", at.Seq)}
	case c.head.Seq > at.Seq:
		c.reject(fmt.Sprintf("it was not written by the service, whose last row is %d", at.Seq))
		c.broken.Seq = at.Seq + 1
	case c.head.Hash != at.Hash:
		c.reject("it is not the last row that the service has written")
	}
	return c.err()
}

// reject breaks the chain at the row that Next has taken.
func (c *Checker) reject(why string) {
	c.broken = &Break{c.head.Seq, why}
	c.head = c.before
}

// err is broken without the nil pointer that is no nil error.
func (c *Checker) err() error {
	if c.broken == nil {
		return nil
	}
	return c.broken
}
