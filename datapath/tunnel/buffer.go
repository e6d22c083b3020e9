// SPDX-License-Identifier: Apache-2.0

package tunnel

import "sync"

// Buffer classes. The small one holds a request, the large one 16 TLS
// records with what TLS adds to them.
const (
	classSmall = iota
	classMedium
	classLarge
	classCount
)

// slack is what a buffer has beyond its class: frame headers in front of the
// payload and 22 bytes for each TLS record.
const slack = 1024

func classSize(class int) int { return [classCount]int{4 << 10, 32 << 10, 256 << 10}[class] }

// classFor returns the smallest class that holds n bytes, or the largest.
func classFor(n int) int {
	for c := range classLarge {
		if n <= classSize(c)+slack {
			return c
		}
	}
	return classLarge
}

// Buffers lends the memory of all tunnels of a process. The zero value is
// ready to use.
type Buffers struct {
	// Budget bounds what tunnels hold beyond small buffers. Set it first.
	Budget *Budget
	pools  [classCount]sync.Pool
}

type buffer struct {
	b       []byte
	class   int
	charged bool   // to the budget
	owner   string // for whom
}

// get lends a buffer that is held for no longer than a system call takes, which
// needs no budget.
func (p *Buffers) get(class int) *buffer {
	if b, ok := p.pools[class].Get().(*buffer); ok {
		return b
	}
	return &buffer{b: make([]byte, classSize(class)+slack), class: class}
}

func (p *Buffers) put(b *buffer) {
	if b == nil {
		return
	}
	if b.charged {
		p.Budget.Give(b.owner, int64(len(b.b)))
		b.charged, b.owner = false, ""
	}
	p.pools[b.class].Put(b)
}

// account is what one tunnel borrows from: its owner's part of the budget.
type account struct {
	*Buffers
	owner string
}

// take lends a buffer, or nil where that needs more than the budget has.
func (a *account) take(class int) *buffer {
	charged := class > classSmall && a.Budget != nil
	if charged && !a.Budget.Take(a.owner, int64(classSize(class)+slack)) {
		return nil
	}
	b := a.Buffers.get(class)
	b.charged, b.owner = charged, a.owner
	return b
}

// get lends a buffer of the class or, where that needs more than the budget
// has, a smaller one.
func (a *account) get(class int) *buffer {
	for ; class > classSmall; class-- {
		if b := a.take(class); b != nil {
			return b
		}
	}
	return a.take(classSmall)
}
