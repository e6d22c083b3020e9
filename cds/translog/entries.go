// SPDX-License-Identifier: Apache-2.0

package translog

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/mod/sumdb/tlog"
	"golang.org/x/sync/errgroup"
)

// Entries calls fn for the entries from (inclusive) to to (exclusive) of the log
// at a checkpoint, in their order. Each is proven to be the log's. It ends with
// the first error of fn.
func (a *Auditor) Entries(ctx context.Context, c Checkpoint, from, to int64, fn func(index int64, raw []byte) error) error {
	if err := c.valid(); err != nil {
		return fmt.Errorf("reading entries: %w", err)
	}
	if from < 0 || from > to || to > c.Size {
		return fmt.Errorf("reading entries %d to %d of a log of %d", from, to, c.Size)
	}
	if from == to {
		return nil
	}
	return a.bundles(ctx, c, from/tileWidth, (to-1)/tileWidth+1, []Fetcher{a.fetch}, func(b *bundle) error {
		start := b.tile.N * tileWidth
		for i := max(from, start); i < min(to, start+int64(b.tile.W)); i++ {
			if err := fn(i, b.records[i-start]); err != nil {
				return err
			}
		}
		return nil
	})
}

// Find returns the first entry from index from on that matches, or
// [ErrNotFound].
func (a *Auditor) Find(ctx context.Context, c Checkpoint, from int64, match func(index int64, raw []byte) bool) (int64, []byte, error) {
	found, record := int64(-1), []byte(nil)
	stop := errors.New("found")
	err := a.Entries(ctx, c, from, c.Size, func(index int64, raw []byte) error {
		if !match(index, raw) {
			return nil
		}
		found, record = index, raw
		return stop
	})
	switch {
	case found >= 0:
		return found, record, nil
	case err != nil:
		return -1, nil, err
	default:
		return -1, nil, fmt.Errorf("searching the log from entry %d to %d: %w", from, c.Size, ErrNotFound)
	}
}

// FindLast returns the last entry that matches, or [ErrNotFound]. It reads the
// log from its end.
func (a *Auditor) FindLast(ctx context.Context, c Checkpoint, match func(index int64, raw []byte) bool) (int64, []byte, error) {
	const window = parallel * tileWidth
	for end := c.Size; end > 0; {
		start := (end - 1) / window * window
		found, record := int64(-1), []byte(nil)
		err := a.Entries(ctx, c, start, end, func(index int64, raw []byte) error {
			if match(index, raw) {
				found, record = index, raw
			}
			return nil
		})
		if err != nil || found >= 0 {
			return found, record, err
		}
		end = start
	}
	return -1, nil, fmt.Errorf("searching the log from entry %d back to 0: %w", c.Size, ErrNotFound)
}

// bundle is an entry bundle that is proven to be part of a tree.
type bundle struct {
	tile    tlog.Tile
	data    []byte
	records [][]byte
	leaves  []Hash
}

// bundles calls fn for the bundles first (inclusive) to end (exclusive) of the
// log at a checkpoint. Each comes from the first source whose copy is the log's.
func (a *Auditor) bundles(ctx context.Context, c Checkpoint, first, end int64, sources []Fetcher, fn func(*bundle) error) error {
	for n := first; n < end; n += parallel {
		tiles := bundleTiles(c.Size, n, min(n+parallel, end))
		want, err := a.bundleHashes(ctx, c, tiles)
		if err != nil {
			return fmt.Errorf("reading the log at %d entries: %w", c.Size, err)
		}
		got := make([]*bundle, len(tiles))
		g, gctx := errgroup.WithContext(ctx)
		for i, t := range tiles {
			g.Go(func() (err error) {
				got[i], err = fetchBundle(gctx, sources, t, want[i])
				return err
			})
		}
		if err := g.Wait(); err != nil {
			return fmt.Errorf("reading the log at %d entries: %w", c.Size, err)
		}
		for _, b := range got {
			if err := fn(b); err != nil {
				return err
			}
		}
	}
	return nil
}

// bundleTiles describes bundles of a log of that size, the last of which may be
// partial.
func bundleTiles(size, first, end int64) []tlog.Tile {
	var tiles []tlog.Tile
	for n := first; n < end; n++ {
		width := min(tileWidth, size-n*tileWidth)
		tiles = append(tiles, tlog.Tile{H: tileHeight, L: entriesLevel, N: n, W: int(width)})
	}
	return tiles
}

// bundleHashes returns what proves each of the bundles: for a full one the hash
// over it, so that its tile of leaf hashes need not be fetched, for a partial
// one the leaf hashes.
func (a *Auditor) bundleHashes(ctx context.Context, c Checkpoint, tiles []tlog.Tile) ([][]Hash, error) {
	var indexes []int64
	counts := make([]int, len(tiles))
	for i, t := range tiles {
		before := len(indexes)
		if t.W == tileWidth {
			indexes = append(indexes, tlog.StoredHashIndex(tileHeight, t.N))
		} else {
			for j := range int64(t.W) {
				indexes = append(indexes, tlog.StoredHashIndex(0, t.N*tileWidth+j))
			}
		}
		counts[i] = len(indexes) - before
	}
	hashes, err := a.hashes(ctx, c).ReadHashes(indexes)
	if err != nil {
		return nil, err
	}
	want := make([][]Hash, len(tiles))
	for i, n := range counts {
		want[i], hashes = hashes[:n], hashes[n:]
	}
	return want, nil
}

func fetchBundle(ctx context.Context, sources []Fetcher, t tlog.Tile, want []Hash) (*bundle, error) {
	var errs error
	for _, fetch := range sources {
		data, err := fetchWider(ctx, fetch, t)
		if err == nil {
			var b *bundle
			if b, err = openBundle(data, t, want); err == nil {
				return b, nil
			}
		}
		errs = err // that of the last source: the log itself
	}
	return nil, errs
}

func openBundle(data []byte, t tlog.Tile, want []Hash) (*bundle, error) {
	records, err := ParseBundle(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", tilePath(t), err)
	}
	if len(records) < t.W {
		return nil, fmt.Errorf("%s has %d entries, expected %d", tilePath(t), len(records), t.W)
	}
	records = records[:t.W]
	b := &bundle{tile: t, data: bundlePrefix(data, records, t.W), records: records, leaves: leafHashes(records)}
	got := b.leaves
	if t.W == tileWidth {
		got = []Hash{newTile(b.leaves).root()}
	}
	if !slices.Equal(got, want) {
		return nil, fmt.Errorf("%s has entries that are not those of the log", tilePath(t))
	}
	return b, nil
}
