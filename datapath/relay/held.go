// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"sync"

	"golang.org/x/sys/unix"

	"github.com/c8s-dev/c8s/datapath/tunnel"
)

const (
	// copySize is what is copied at once. A source that fills it is in bulk.
	copySize = 16 << 10
	// smallSize is what is copied at once by those who are over their budget.
	smallSize = 4 << 10
	// pipeSize is what one splice moves. The kernel may give less.
	pipeSize = 256 << 10
	// maxSparePipes bounds the pipes kept open for later.
	maxSparePipes = 64
)

// held is what was read and is not written yet, in a buffer or in a pipe. It
// has neither while a connection is idle.
type held struct {
	n    int
	bulk bool // take the next bytes into a pipe

	buf   []byte
	at    int
	pipe  *pipe
	from  *Pool
	owner string // whose budget counts
}

// pull reads once. Callers have written what was held before.
func (h *held) pull(fd int) (n int, full bool, err error) {
	if h.bulk && h.havePipe() {
		n, err = noIntr(func() (int, error) {
			n, err := unix.Splice(fd, nil, h.pipe.w, nil, pipeSize, unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
			return int(n), err
		})
		full = n >= copySize
	} else {
		h.dropPipe()
		if h.buf == nil {
			h.buf = h.from.buffer(h.owner)
		}
		h.at = 0
		n, err = noIntr(func() (int, error) { return unix.Read(fd, h.buf) })
		full = n == len(h.buf)
	}
	h.n = max(n, 0)
	return h.n, full, err
}

// push writes once.
func (h *held) push(fd int) (n int, err error) {
	if h.pipe != nil {
		n, err = noIntr(func() (int, error) {
			n, err := unix.Splice(h.pipe.r, nil, fd, nil, h.n, unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
			return int(n), err
		})
	} else {
		n, err = noIntr(func() (int, error) { return unix.Write(fd, h.buf[h.at:h.at+h.n]) })
	}
	n = max(n, 0)
	h.n, h.at = h.n-n, h.at+n
	return n, err
}

func (h *held) havePipe() bool {
	if h.pipe == nil {
		if h.pipe = h.from.pipe(h.owner); h.pipe == nil {
			return false // no descriptors or budget left: copying needs none
		}
	}
	h.dropBuffer()
	return true
}

func (h *held) dropBuffer() {
	if h.buf != nil {
		h.from.putBuffer(h.owner, h.buf)
		h.buf = nil
	}
}

func (h *held) dropPipe() {
	if h.pipe == nil {
		return
	}
	if h.n > 0 {
		h.pipe.close() // what is in it belongs to this connection
	} else {
		h.from.put(h.pipe)
	}
	h.from.Budget.Give(h.owner, pipeSize)
	h.pipe = nil
}

// drop gives all memory back.
func (h *held) drop() {
	h.dropPipe()
	h.dropBuffer()
	h.n, h.bulk = 0, false
}

func noIntr(call func() (int, error)) (int, error) {
	for {
		if n, err := call(); err != unix.EINTR { //nolint:errorlint // a bare errno
			return n, err
		}
	}
}

// Pool lends the memory and the pipes of all links of a process. The zero
// value is ready to use.
type Pool struct {
	// Budget bounds what links hold beyond small buffers. Set it first.
	Budget *tunnel.Budget

	small, large sync.Pool

	mu   sync.Mutex
	free []*pipe // empty
}

// pipe is two descriptors.
type pipe struct{ r, w int }

func (p *pipe) close() {
	_ = unix.Close(p.r)
	_ = unix.Close(p.w)
}

func (p *Pool) buffer(owner string) []byte {
	if p.Budget.Take(owner, copySize) {
		if b, ok := p.large.Get().(*[copySize]byte); ok {
			return b[:]
		}
		return make([]byte, copySize)
	}
	if b, ok := p.small.Get().(*[smallSize]byte); ok {
		return b[:]
	}
	return make([]byte, smallSize)
}

func (p *Pool) putBuffer(owner string, b []byte) {
	if len(b) == smallSize {
		p.small.Put((*[smallSize]byte)(b))
		return
	}
	p.Budget.Give(owner, copySize)
	p.large.Put((*[copySize]byte)(b))
}

// pipe returns nil when there are no descriptors or no budget left.
func (p *Pool) pipe(owner string) *pipe {
	if !p.Budget.Take(owner, pipeSize) {
		return nil
	}
	p.mu.Lock()
	if n := len(p.free); n > 0 {
		spare := p.free[n-1]
		p.free = p.free[:n-1]
		p.mu.Unlock()
		return spare
	}
	p.mu.Unlock()
	var fds [2]int
	if unix.Pipe2(fds[:], unix.O_NONBLOCK|unix.O_CLOEXEC) != nil {
		p.Budget.Give(owner, pipeSize)
		return nil
	}
	// Without it the pipe has the default size, which is only slower.
	_, _ = unix.FcntlInt(uintptr(fds[1]), unix.F_SETPIPE_SZ, pipeSize)
	return &pipe{fds[0], fds[1]}
}

func (p *Pool) put(spare *pipe) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.free) >= maxSparePipes {
		spare.close()
		return
	}
	p.free = append(p.free, spare)
}

// Close closes the pipes kept for later.
func (p *Pool) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, spare := range p.free {
		spare.close()
	}
	p.free = nil
}
