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
	pools [classCount]sync.Pool
}

type buffer struct {
	b     []byte
	class int
}

func (p *Buffers) get(class int) *buffer {
	if b, ok := p.pools[class].Get().(*buffer); ok {
		return b
	}
	return &buffer{b: make([]byte, classSize(class)+slack), class: class}
}

func (p *Buffers) put(b *buffer) {
	if b != nil {
		p.pools[b.class].Put(b)
	}
}
