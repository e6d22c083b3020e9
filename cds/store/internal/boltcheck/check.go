// SPDX-License-Identifier: Apache-2.0

// Package boltcheck decides whether bbolt may open a file. Bbolt maps the file
// and follows what it says without looking at bounds; the file is the host's
// to write. One made for it could have memory next to the mapping, or next to
// a copy on the heap, taken for data and written to the host's disk. So
// nothing is opened in which a length, an offset or a page number leads
// outside its page or the file, or a page is used twice.
package boltcheck

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// The format of bbolt 1.x, in the machine's byte order.
const (
	branchPage   = 0x01
	leafPage     = 0x02
	freelistPage = 0x10
	bucketFlag   = 0x01

	pageHeader    = 16 // id, flags, count, overflow
	elementSize   = 16 // of a leaf and of a branch
	bucketHeader  = 16 // root page, sequence
	manyFree      = 0xffff
	firstDataPage = 2

	// maxDepth is far above what a balanced tree of any size has; bbolt calls
	// itself once for every level.
	maxDepth = 64
	// maxPage is far above what the largest transaction puts into one page.
	maxPage = 64 << 20
)

var order = binary.NativeEndian

// checker walks one file.
type checker struct {
	file     io.ReaderAt
	pageSize uint64
	pages    uint64 // in use or free; beyond them nothing is ever read
	used     map[uint64]bool
}

// Check reads all that can be reached from the meta page bbolt would use.
func Check(file io.ReaderAt, size int64) error {
	m, err := findMeta(file, size)
	if err != nil {
		return err
	}
	if m.pages > uint64(size)/m.pageSize {
		return fmt.Errorf("%d pages of %d bytes in a file of %d", m.pages, m.pageSize, size)
	}
	c := &checker{file: file, pageSize: m.pageSize, pages: m.pages, used: make(map[uint64]bool)}
	if err := c.freelist(m.freelist); err != nil {
		return fmt.Errorf("free list: %w", err)
	}
	return c.tree(m.root, true, 0)
}

// page reads a page and those it overflows into, and marks them used.
func (c *checker) page(id uint64) (data []byte, flags, count uint16, err error) {
	if id < firstDataPage || id >= c.pages {
		return nil, 0, 0, fmt.Errorf("page %d of %d", id, c.pages)
	}
	var h [pageHeader]byte
	if _, err := c.file.ReadAt(h[:], int64(id*c.pageSize)); err != nil {
		return nil, 0, 0, fmt.Errorf("page %d: %w", id, err)
	}
	self, span := order.Uint64(h[:]), 1+uint64(order.Uint32(h[12:]))
	if self != id || span > c.pages-id || span*c.pageSize > maxPage {
		return nil, 0, 0, fmt.Errorf("page %d says it is %d and %d pages long", id, self, span)
	}
	for i := id; i < id+span; i++ {
		if err := c.use(i); err != nil {
			return nil, 0, 0, err
		}
	}
	data = make([]byte, span*c.pageSize)
	if _, err := c.file.ReadAt(data, int64(id*c.pageSize)); err != nil {
		return nil, 0, 0, fmt.Errorf("page %d: %w", id, err)
	}
	return data, order.Uint16(data[8:]), order.Uint16(data[10:]), nil
}

func (c *checker) use(id uint64) error {
	if c.used[id] {
		return fmt.Errorf("page %d is used twice", id)
	}
	c.used[id] = true
	return nil
}

// freelist: a page both free and in use would be overwritten while others
// still point to it.
func (c *checker) freelist(id uint64) error {
	data, flags, count, err := c.page(id)
	if err != nil {
		return err
	}
	if flags != freelistPage {
		return fmt.Errorf("page %d has type %#x", id, flags)
	}
	ids, n := data[pageHeader:], uint64(count)
	if count == manyFree {
		n, ids = order.Uint64(ids), ids[8:]
	}
	if n > uint64(len(ids)/8) {
		return fmt.Errorf("%d entries in %d bytes", n, len(ids))
	}
	for i := range n {
		free := order.Uint64(ids[8*i:])
		if free < firstDataPage || free >= c.pages {
			return fmt.Errorf("page %d of %d", free, c.pages)
		}
		if err := c.use(free); err != nil {
			return err
		}
	}
	return nil
}

// tree walks a bucket from its root page. Only the outermost holds buckets.
func (c *checker) tree(id uint64, outermost bool, depth int) error {
	if depth > maxDepth {
		return errors.New("the tree is too deep")
	}
	data, flags, count, err := c.page(id)
	if err != nil {
		return err
	}
	switch flags {
	case leafPage:
		err = c.leaf(data, count, outermost)
	case branchPage:
		err = c.branch(data, count, outermost, depth)
	default:
		err = fmt.Errorf("type %#x", flags)
	}
	if err != nil {
		return fmt.Errorf("page %d: %w", id, err)
	}
	return nil
}

func (c *checker) branch(data []byte, count uint16, outermost bool, depth int) error {
	elements, err := elementsOf(data, count)
	if err != nil {
		return err
	}
	if count == 0 {
		return errors.New("a branch without children")
	}
	for i := range int(count) {
		e := elements[i*elementSize:] // position, key size, page
		if err := inside(e, order.Uint32(e), order.Uint32(e[4:]), 0); err != nil {
			return err
		}
		if err := c.tree(order.Uint64(e[8:]), outermost, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (c *checker) leaf(data []byte, count uint16, outermost bool) error {
	elements, err := elementsOf(data, count)
	if err != nil {
		return err
	}
	for i := range int(count) {
		e := elements[i*elementSize:] // flags, position, key size, value size
		pos, key, value := order.Uint32(e[4:]), order.Uint32(e[8:]), order.Uint32(e[12:])
		if err := inside(e, pos, key, value); err != nil {
			return err
		}
		switch order.Uint32(e) {
		case 0:
		case bucketFlag:
			if !outermost {
				return errors.New("a bucket inside a bucket")
			}
			from := uint64(pos) + uint64(key)
			if err := c.bucket(e[from : from+uint64(value)]); err != nil {
				return fmt.Errorf("bucket: %w", err)
			}
		default:
			return fmt.Errorf("an element with flags %#x", order.Uint32(e))
		}
	}
	return nil
}

// bucket is a page of its own or, while it is small, all inside its value.
func (c *checker) bucket(value []byte) error {
	if len(value) < bucketHeader {
		return fmt.Errorf("%d bytes", len(value))
	}
	if root := order.Uint64(value); root != 0 {
		return c.tree(root, false, 0)
	}
	inline := value[bucketHeader:]
	if len(inline) < pageHeader || order.Uint64(inline) != 0 || order.Uint16(inline[8:]) != leafPage {
		return errors.New("not a leaf")
	}
	return c.leaf(inline, order.Uint16(inline[10:]), false)
}

// elementsOf is the page from its first element on: positions count from the
// element that has them.
func elementsOf(data []byte, count uint16) ([]byte, error) {
	if rest := len(data) - pageHeader; int(count)*elementSize > rest {
		return nil, fmt.Errorf("%d elements in %d bytes", count, rest)
	}
	return data[pageHeader:], nil
}

// inside wants an element's key and value within what is left of its page.
func inside(e []byte, pos, key, value uint32) error {
	if end := uint64(pos) + uint64(key) + uint64(value); end > uint64(len(e)) {
		return fmt.Errorf("an element reaches %d bytes beyond its page", end-uint64(len(e)))
	}
	return nil
}
