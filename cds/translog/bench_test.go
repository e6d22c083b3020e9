// SPDX-License-Identifier: Apache-2.0

package translog

import (
	"context"
	"fmt"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
)

// largeTree is a log of a million entries and some, made from its right edge
// alone.
func largeTree(b *testing.B) *Tree {
	b.Helper()
	const size = 1_000_000 + 100
	t := &Tree{size: size}
	for level := 0; size>>(tileHeight*level) > 0; level++ {
		e := edge{}
		for i := range size >> (tileHeight * level) % tileWidth {
			if e.part == nil {
				e.part = new(tile)
			}
			e.part.push(tlog.RecordHash(fmt.Append(nil, level, i)))
		}
		t.levels = append(t.levels, e)
	}
	root, err := tlog.TreeHash(size, memory{t})
	if err != nil {
		b.Fatal(err)
	}
	t.root = root
	return t
}

func issuance(b *testing.B) []byte {
	b.Helper()
	record, err := entries()[5].Marshal()
	if err != nil {
		b.Fatal(err)
	}
	return record
}

func BenchmarkAppend(b *testing.B) {
	for _, n := range []int{1, 64} {
		b.Run(fmt.Sprintf("batch=%d", n), func(b *testing.B) {
			record := issuance(b)
			batch := make([][]byte, n)
			for i := range batch {
				batch[i] = record
			}
			tree := largeTree(b)
			b.ReportAllocs()
			for b.Loop() {
				next, _, err := tree.Append(batch)
				if err != nil {
					b.Fatal(err)
				}
				tree = next
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/entry")
		})
	}
}

func BenchmarkProveRecordNewest(b *testing.B) {
	tree, _, err := largeTree(b).Append([][]byte{issuance(b)})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := tree.ProveRecord(context.Background(), nil, tree.Size()-1); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseEntry(b *testing.B) {
	record := issuance(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseEntry(record); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMarshalEntry(b *testing.B) {
	e := entries()[5]
	b.ReportAllocs()
	for b.Loop() {
		if _, err := e.Marshal(); err != nil {
			b.Fatal(err)
		}
	}
}
