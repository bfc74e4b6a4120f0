package terminal

import "sync"

// chunk is what was read from a shell, or why no more will be.
type chunk struct {
	data []byte
	err  error
}

// link is the connection to a shell: its reader, which the owner takes chunks from, and
// its writer.
type link struct {
	shell   Shell
	answers bool // the keeper answers what programs ask their terminal
	keys    *keys
	intake  chan chunk    // from the reader, unbuffered; its last chunk has an error
	rest    []byte        // of the last chunk, which the owner goes on with before the next
	quit    chan struct{} // closed by cut
	once    sync.Once
}

func newLink(sh Shell, goroutines *sync.WaitGroup) *link {
	k := &link{shell: sh, answers: sh.Facts().Answers, keys: newKeys(), intake: make(chan chunk), quit: make(chan struct{})}
	goroutines.Go(k.read)
	goroutines.Go(func() { k.keys.run(sh, k.quit) })
	return k
}

// read reads until the end. There are two buffers: while the owner works on one, the
// other is filled.
func (k *link) read() {
	var buffers [2][]byte
	for i := 0; ; i = 1 - i {
		if buffers[i] == nil {
			buffers[i] = make([]byte, readSize)
		}
		n, err := k.shell.Read(buffers[i])
		if n > 0 {
			select {
			case k.intake <- chunk{data: buffers[i][:n]}:
			case <-k.quit:
				return
			}
		}
		if err != nil {
			select {
			case k.intake <- chunk{err: err}:
			case <-k.quit:
			}
			return
		}
	}
}

// cut ends the connection. It may be called twice.
func (k *link) cut() {
	k.once.Do(func() {
		close(k.quit)
		k.keys.close()
		_ = k.shell.Close() // whatever it says, nobody reads on
	})
}

// atOnce is always ready.
var atOnce = func() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// ready gives what is to be taken next: a chunk, or the rest of the last one.
func (k *link) ready() (intake <-chan chunk, rest <-chan struct{}) {
	if len(k.rest) > 0 {
		return nil, atOnce
	}
	return k.intake, nil
}

// hangUp gives the connection up.
func (l *live) hangUp() {
	if l.link != nil {
		l.link.cut()
		l.link = nil
	}
}
