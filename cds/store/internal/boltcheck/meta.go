// SPDX-License-Identifier: Apache-2.0

package boltcheck

import (
	"errors"
	"hash/fnv"
	"io"
)

const (
	magic         = 0xED0CDAED
	formatVersion = 2

	metaChecked = 56 // the bytes its checksum is over
	metaSize    = metaChecked + 8

	minPageSize = 1 << 12
	maxPageSize = 1 << 16
)

// meta is what a meta page says.
type meta struct {
	pageSize, root, freelist, pages, txid uint64
}

// readMeta returns false for what bbolt does not take for a meta page. The
// checksum is against accidents; whoever writes the file can compute it.
func readMeta(file io.ReaderAt, at int64) (meta, bool) {
	var b [pageHeader + metaSize]byte
	if _, err := file.ReadAt(b[:], at); err != nil {
		return meta{}, false
	}
	m := b[pageHeader:]
	sum := fnv.New64a()
	sum.Write(m[:metaChecked])
	if order.Uint32(m) != magic || order.Uint32(m[4:]) != formatVersion || order.Uint64(m[metaChecked:]) != sum.Sum64() {
		return meta{}, false
	}
	return meta{
		pageSize: uint64(order.Uint32(m[8:])),
		root:     order.Uint64(m[16:]),
		freelist: order.Uint64(m[32:]),
		pages:    order.Uint64(m[40:]),
		txid:     order.Uint64(m[48:]),
	}, true
}

// findMeta returns the one of the two meta pages that bbolt will use. Bbolt
// takes the page size from the first, or else tries all sizes for the place of
// the second; a file is refused if any of that could be read in two ways.
func findMeta(file io.ReaderAt, size int64) (meta, error) {
	first, ok := readMeta(file, 0)
	pageSize := first.pageSize
	if !ok {
		for pageSize = minPageSize; pageSize <= maxPageSize; pageSize *= 2 {
			if m, ok := readMeta(file, int64(pageSize)); ok && m.pageSize == pageSize {
				break
			}
		}
		for at := int64(1024); at < int64(pageSize) && at < size; at *= 2 {
			if _, other := readMeta(file, at); other {
				return meta{}, errors.New("a second meta page in the wrong place")
			}
		}
	}
	if pageSize < minPageSize || pageSize > maxPageSize || pageSize&(pageSize-1) != 0 {
		return meta{}, errors.New("no meta page is valid")
	}
	second, secondOK := readMeta(file, int64(pageSize))
	if secondOK && second.pageSize != pageSize {
		return meta{}, errors.New("the meta pages differ in the size of a page")
	}
	if !ok || secondOK && second.txid > first.txid {
		first = second
	}
	return first, nil
}
