package sshexec

import "sync"

// Sizes of the buffers that a stream is read with. A stream that is silent
// holds a small one; one that fills it gets a large one, and with it the few
// large reads that throughput needs.
const (
	smallRead = 4 << 10
	largeRead = 128 << 10
)

var (
	smallReads = sync.Pool{New: func() any { return new([smallRead]byte) }}
	largeReads = sync.Pool{New: func() any { return new([largeRead]byte) }}
)

// readBuffer is the buffer of one stream. The zero value is ready; release it.
type readBuffer struct {
	data  []byte
	small *[smallRead]byte
	large *[largeRead]byte
}

// space gives the bytes to read into.
func (b *readBuffer) space() []byte {
	if b.data == nil {
		b.small = smallReads.Get().(*[smallRead]byte)
		b.data = b.small[:]
	}
	return b.data
}

// took tells how much the last read brought, once nobody needs it any more.
func (b *readBuffer) took(n int) {
	switch {
	case b.small != nil && n == smallRead:
		b.release()
		b.large = largeReads.Get().(*[largeRead]byte)
		b.data = b.large[:]
	case b.large != nil && n <= smallRead:
		b.release()
	}
}

// release gives the buffer back.
func (b *readBuffer) release() {
	if b.small != nil {
		smallReads.Put(b.small)
	}
	if b.large != nil {
		largeReads.Put(b.large)
	}
	*b = readBuffer{}
}
