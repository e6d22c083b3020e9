// SPDX-License-Identifier: Apache-2.0

package translog

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"

	"golang.org/x/mod/sumdb/tlog"
)

// ProveRecord returns the proof that the tree has the record with this index
// (RFC 6962 section 2.1.1).
func (t *Tree) ProveRecord(ctx context.Context, s Storage, index int64) ([]Hash, error) {
	proof, err := tlog.ProveRecord(t.size, index, t.reader(ctx, s))
	if err != nil {
		return nil, fmt.Errorf("proving entry %d of %d: %w", index, t.size, err)
	}
	return proof, nil
}

// ProveTree returns the proof that the tree extends the one it was at size old,
// which is at least 1 (RFC 6962 section 2.1.2).
func (t *Tree) ProveTree(ctx context.Context, s Storage, old int64) ([]Hash, error) {
	proof, err := tlog.ProveTree(t.size, old, t.reader(ctx, s))
	if err != nil {
		return nil, fmt.Errorf("proving that the log of %d entries extends that of %d: %w", t.size, old, err)
	}
	return proof, nil
}

// File returns what is behind a C2SP path, tile/... without a leading slash. It
// has every partial tile that some tree up to this one had. The error wraps
// fs.ErrNotExist where the tree has no such file and where path is none.
func (t *Tree) File(ctx context.Context, s Storage, path string) ([]byte, error) {
	p, err := parsePath(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	}
	level := max(p.L, 0)
	count := t.size >> (tileHeight * level)
	// N is at most 2^55 for a tile that there can be, so that this does not
	// overflow.
	if p.N > count/tileWidth || p.N*tileWidth+int64(p.W) > count {
		return nil, fmt.Errorf("%w: %s is not in a log of %d entries", fs.ErrNotExist, path, t.size)
	}
	if p.L == entriesLevel {
		return t.entries(ctx, s, p.N, p.W)
	}
	hashes, err := t.reader(ctx, s).tile(level, p.N)
	if err != nil {
		return nil, err
	}
	return hashes.data()[:p.W*tlog.HashSize], nil
}

// entries returns the first width entries of a bundle.
func (t *Tree) entries(ctx context.Context, s Storage, n int64, width int) ([]byte, error) {
	if n == t.size/tileWidth { // checked when it was loaded or appended
		bundle := bytes.Join(t.pieces, nil)
		records, err := ParseBundle(bundle)
		if err != nil {
			return nil, err
		}
		return bundlePrefix(bundle, records, width), nil
	}
	bundle, err := get(ctx, s, bundleKey(n))
	if err != nil {
		return nil, err
	}
	records, err := ParseBundle(bundle)
	if err != nil {
		return nil, fmt.Errorf("reading the log: %w: %s: %v", ErrDamaged, bundleKey(n), err)
	}
	want, err := t.reader(ctx, s).root(0, n)
	if err != nil {
		return nil, err
	}
	if len(records) != tileWidth || newTile(leafHashes(records)).root() != want {
		return nil, fmt.Errorf("reading the log: %w: %s has other entries", ErrDamaged, bundleKey(n))
	}
	return bundlePrefix(bundle, records, width), nil
}

// Record returns the record with this index. It is proven to be the tree's.
func (t *Tree) Record(ctx context.Context, s Storage, index int64) ([]byte, error) {
	if index < 0 || index >= t.size {
		return nil, fmt.Errorf("reading entry %d of %d: %w", index, t.size, fs.ErrNotExist)
	}
	width := int(min(t.size-index/tileWidth*tileWidth, tileWidth))
	bundle, err := t.entries(ctx, s, index/tileWidth, width)
	if err != nil {
		return nil, fmt.Errorf("reading entry %d of %d: %w", index, t.size, err)
	}
	records, err := ParseBundle(bundle)
	if err != nil {
		return nil, fmt.Errorf("reading entry %d of %d: %w", index, t.size, err)
	}
	return records[index%tileWidth], nil
}

// reader reads hashes of a tree, from the right edge where they are there and
// otherwise from storage: a tlog.HashReader. What it returns is part of the
// tree: a tile from storage is compared with its hash in the level above, up to
// the right edge, which hashes to the root.
type reader struct {
	ctx   context.Context //nolint:containedctx // one call: the interface has no place for it
	t     *Tree
	s     Storage
	tiles map[tileID]*tile // read so far
}

type tileID struct {
	level int
	n     int64
}

func (t *Tree) reader(ctx context.Context, s Storage) *reader {
	return &reader{ctx: ctx, t: t, s: s}
}

func (r *reader) ReadHashes(indexes []int64) ([]Hash, error) {
	hashes := make([]Hash, len(indexes))
	for j, index := range indexes {
		level, n, height, i := locate(index)
		from, err := r.tile(level, n)
		if err != nil {
			return nil, err
		}
		if !from.has(height, i) {
			return nil, fmt.Errorf("hash %d is not in a log of %d entries", index, r.t.size)
		}
		hashes[j] = *from.node(height, i)
	}
	return hashes, nil
}

// root returns the hash over a full tile.
func (r *reader) root(level int, n int64) (Hash, error) {
	parent, err := r.tile(level+1, n/tileWidth)
	if err != nil {
		return Hash{}, err
	}
	if !parent.has(0, int(n%tileWidth)) {
		return Hash{}, fmt.Errorf("tile %d of level %d is not full in a log of %d entries", n, level, r.t.size)
	}
	return *parent.node(0, int(n%tileWidth)), nil
}

func (r *reader) tile(level int, n int64) (*tile, error) {
	if e := r.t.edgeTile(level, n); e != nil {
		return e, nil
	}
	if level >= len(r.t.levels) || n >= r.t.size>>(tileHeight*(level+1)) {
		return nil, fmt.Errorf("tile %d of level %d is not in a log of %d entries", n, level, r.t.size)
	}
	id := tileID{level, n}
	if known := r.tiles[id]; known != nil {
		return known, nil
	}
	want, err := r.root(level, n)
	if err != nil {
		return nil, err
	}
	key := tileKey(level, n)
	data, err := get(r.ctx, r.s, key)
	if err != nil {
		return nil, err
	}
	got, err := parseTile(data, tileWidth)
	if err != nil {
		return nil, fmt.Errorf("reading the log: %w: %s: %v", ErrDamaged, key, err)
	}
	if got.root() != want {
		return nil, fmt.Errorf("reading the log: %w: %s has other hashes", ErrDamaged, key)
	}
	if r.tiles == nil {
		r.tiles = map[tileID]*tile{}
	}
	r.tiles[id] = got
	return got, nil
}
