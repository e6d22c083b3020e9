// SPDX-License-Identifier: Apache-2.0

package boltcheck

import (
	"bytes"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"testing"

	"go.etcd.io/bbolt"
)

const testPage = 4096

// file makes one with n keys of about 100 bytes and one of several pages; some
// were deleted, so that pages are free.
func file(t testing.TB, n int) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "bolt")
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{PageSize: testPage})
	if err != nil {
		t.Fatal(err)
	}
	put := func(from, to int) {
		err := db.Update(func(tx *bbolt.Tx) error {
			b, err := tx.CreateBucketIfNotExists([]byte("c8s"))
			if err != nil {
				return err
			}
			for i := from; i < to; i++ {
				if err := b.Put(fmt.Appendf(nil, "key%05d", i), bytes.Repeat([]byte{byte(i)}, 100)); err != nil {
					return err
				}
			}
			if to > 10 {
				return b.Put([]byte("large"), make([]byte, 3*testPage))
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	put(0, n/2)
	put(n/2, n)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestWhatBboltWritesPasses(t *testing.T) {
	for _, n := range []int{0, 1, 10, 100, 1000, 20_000} { // inline, one page, branches of branches
		data := file(t, n)
		if err := Check(bytes.NewReader(data), int64(len(data))); err != nil {
			t.Errorf("%d keys: %v", n, err)
		}
	}
}

// damaged is a file whose parts can be found and changed.
type damaged struct {
	t    *testing.T
	data []byte
	m    meta
}

func (d *damaged) page(id uint64) []byte { return d.data[id*testPage:] }

// bucketRoot follows the one element of the outermost bucket.
func (d *damaged) bucketRoot() (id uint64, value []byte) {
	e := d.page(d.m.root)[pageHeader:]
	value = e[order.Uint32(e[4:])+order.Uint32(e[8:]):]
	return order.Uint64(value), value
}

// metas changes both meta pages and corrects their checksums.
func (d *damaged) metas(change func(m []byte)) {
	for id := range uint64(2) {
		m := d.page(id)[pageHeader:]
		change(m)
		sum := fnv.New64a()
		sum.Write(m[:metaChecked])
		order.PutUint64(m[metaChecked:], sum.Sum64())
	}
}

func TestDamageIsRefused(t *testing.T) {
	original := file(t, 1000)
	firstLeaf := func(d *damaged) []byte {
		root, _ := d.bucketRoot()
		return d.page(order.Uint64(d.page(root)[pageHeader+8:]))
	}
	for name, damage := range map[string]func(d *damaged){
		"root page beyond the file":   func(d *damaged) { d.metas(func(m []byte) { order.PutUint64(m[16:], 1<<40) }) },
		"root page is a meta page":    func(d *damaged) { d.metas(func(m []byte) { order.PutUint64(m[16:], 0) }) },
		"root page is the free list":  func(d *damaged) { d.metas(func(m []byte) { order.PutUint64(m[16:], d.m.freelist) }) },
		"free list is the root page":  func(d *damaged) { d.metas(func(m []byte) { order.PutUint64(m[32:], d.m.root) }) },
		"free list to be rebuilt":     func(d *damaged) { d.metas(func(m []byte) { order.PutUint64(m[32:], ^uint64(0)) }) },
		"more pages than the file":    func(d *damaged) { d.metas(func(m []byte) { order.PutUint64(m[40:], 1<<50) }) },
		"page size zero":              func(d *damaged) { d.metas(func(m []byte) { order.PutUint32(m[8:], 0) }) },
		"page size of two pages":      func(d *damaged) { d.metas(func(m []byte) { order.PutUint32(m[8:], 2*testPage) }) },
		"page size no power of two":   func(d *damaged) { d.metas(func(m []byte) { order.PutUint32(m[8:], testPage+1) }) },
		"no meta page":                func(d *damaged) { clear(d.data[:2*testPage]) },
		"another meta page for bbolt": func(d *damaged) { copy(d.data[1024:], d.page(1)[:256]); clear(d.data[:256]) },
		"free list longer than its page": func(d *damaged) {
			order.PutUint16(d.page(d.m.freelist)[10:], 0x7fff)
		},
		"free list of any length": func(d *damaged) {
			order.PutUint16(d.page(d.m.freelist)[10:], manyFree)
			order.PutUint64(d.page(d.m.freelist)[pageHeader:], 1<<61)
		},
		"page in use is free": func(d *damaged) {
			root, _ := d.bucketRoot()
			order.PutUint64(d.page(d.m.freelist)[pageHeader:], root)
		},
		"meta page is free": func(d *damaged) { order.PutUint64(d.page(d.m.freelist)[pageHeader:], 1) },
		"page that is not itself": func(d *damaged) {
			root, _ := d.bucketRoot()
			order.PutUint64(d.page(root), root+1)
		},
		"page that overflows the file": func(d *damaged) {
			root, _ := d.bucketRoot()
			order.PutUint32(d.page(root)[12:], ^uint32(0))
		},
		"page of another type": func(d *damaged) {
			root, _ := d.bucketRoot()
			order.PutUint16(d.page(root)[8:], 0x04)
		},
		"more elements than its page": func(d *damaged) {
			root, _ := d.bucketRoot()
			order.PutUint16(d.page(root)[10:], 1000)
		},
		"branch without children": func(d *damaged) {
			root, _ := d.bucketRoot()
			order.PutUint16(d.page(root)[10:], 0)
		},
		"branch that is its own child": func(d *damaged) {
			root, _ := d.bucketRoot()
			order.PutUint64(d.page(root)[pageHeader+8:], root)
		},
		"key of a branch beyond its page": func(d *damaged) {
			root, _ := d.bucketRoot()
			order.PutUint32(d.page(root)[pageHeader+4:], testPage)
		},
		"key beyond its page":      func(d *damaged) { order.PutUint32(firstLeaf(d)[pageHeader+8:], testPage) },
		"value beyond its page":    func(d *damaged) { order.PutUint32(firstLeaf(d)[pageHeader+12:], testPage) },
		"position beyond its page": func(d *damaged) { order.PutUint32(firstLeaf(d)[pageHeader+4:], ^uint32(0)) },
		"sizes that overflow": func(d *damaged) {
			order.PutUint32(firstLeaf(d)[pageHeader+8:], ^uint32(0))
			order.PutUint32(firstLeaf(d)[pageHeader+12:], ^uint32(0))
		},
		"bucket inside the bucket": func(d *damaged) { order.PutUint32(firstLeaf(d)[pageHeader:], bucketFlag) },
		"element of another kind":  func(d *damaged) { order.PutUint32(firstLeaf(d)[pageHeader:], 2) },
		"bucket without a header":  func(d *damaged) { order.PutUint32(d.page(d.m.root)[pageHeader+12:], 4) },
		"bucket inline, but not":   func(d *damaged) { _, v := d.bucketRoot(); order.PutUint64(v, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			data := bytes.Clone(original)
			m, err := findMeta(bytes.NewReader(data), int64(len(data)))
			if err != nil {
				t.Fatal(err)
			}
			damage(&damaged{t, data, m})
			if err := Check(bytes.NewReader(data), int64(len(data))); err == nil {
				t.Error("passed")
			}
		})
	}
}

// An inline bucket is copied to the heap before it is read: what it points at
// would be the memory of others.
func TestInlineBucketBeyondItsValueIsRefused(t *testing.T) {
	for name, damage := range map[string]func(inline []byte){
		"key":      func(inline []byte) { order.PutUint32(inline[pageHeader+8:], 1<<20) },
		"value":    func(inline []byte) { order.PutUint32(inline[pageHeader+12:], 1<<20) },
		"elements": func(inline []byte) { order.PutUint16(inline[10:], 1000) },
		"type":     func(inline []byte) { order.PutUint16(inline[8:], branchPage) },
		"number":   func(inline []byte) { order.PutUint64(inline, 3) },
	} {
		t.Run(name, func(t *testing.T) {
			data := file(t, 2)
			m, err := findMeta(bytes.NewReader(data), int64(len(data)))
			if err != nil {
				t.Fatal(err)
			}
			root, value := (&damaged{t, data, m}).bucketRoot()
			if root != 0 {
				t.Fatal("the bucket is not inline")
			}
			damage(value[bucketHeader:])
			if err := Check(bytes.NewReader(data), int64(len(data))); err == nil {
				t.Error("passed")
			}
		})
	}
}

func TestSecondMetaPageAlone(t *testing.T) {
	data := file(t, 100)
	clear(data[:256])
	if err := Check(bytes.NewReader(data), int64(len(data))); err != nil {
		t.Errorf("the first was torn, the second is whole: %v", err)
	}
}

// What opening a store costs for each byte of it.
func BenchmarkCheck(b *testing.B) {
	data := file(b, 100_000)
	b.SetBytes(int64(len(bytes.TrimRight(data, "\x00")))) // the rest is not in use
	for b.Loop() {
		if err := Check(bytes.NewReader(data), int64(len(data))); err != nil {
			b.Fatal(err)
		}
	}
}
