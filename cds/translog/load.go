// SPDX-License-Identifier: Apache-2.0

package translog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

// Load reads the right edge of a log from its storage. What it returns hashes to
// root; otherwise the error wraps [ErrDamaged]. The storage may already hold
// more than size entries.
func Load(ctx context.Context, s Storage, size int64, root Hash) (*Tree, error) {
	if err := (Checkpoint{Size: size, Root: root}).valid(); err != nil {
		return nil, fmt.Errorf("loading the log: %w", err)
	}
	t := &Tree{size: size, root: root}
	for level := 0; size>>(tileHeight*level) > 0; level++ {
		e, err := t.loadEdge(ctx, s, level)
		if err != nil {
			return nil, err
		}
		t.levels = append(t.levels, e)
	}
	got, err := tlog.TreeHash(size, memory{t})
	if err != nil {
		return nil, fmt.Errorf("loading the log: %w", err)
	}
	if got != root {
		return nil, fmt.Errorf("loading the log: %w: at %d entries the root is %s, stored is what hashes to %s", ErrDamaged, size, root, got)
	}
	return t, nil
}

func (t *Tree) loadEdge(ctx context.Context, s Storage, level int) (edge, error) {
	count := t.size >> (tileHeight * level)
	n, width := count/tileWidth, int(count%tileWidth)
	switch {
	case width == 0:
		return edge{}, nil
	case level == 0:
		records, err := t.loadPieces(ctx, s, n, width)
		if err != nil {
			return edge{}, err
		}
		return edge{part: newTile(leafHashes(records))}, nil
	}
	key := tileKey(level, n)
	data, err := get(ctx, s, key)
	if err != nil {
		return edge{}, err
	}
	part, err := parseTile(data, width)
	if err != nil {
		return edge{}, fmt.Errorf("loading the log: %w: %s: %v", ErrDamaged, key, err)
	}
	return edge{part: part}, nil
}

// loadPieces reads the first width entries of a bundle that is not full at the
// tree's size, and keeps them. The bundle may have become full since: its
// pieces are then gone, in the transaction that stored it whole, which is why
// the pieces are read first.
func (t *Tree) loadPieces(ctx context.Context, s Storage, n int64, width int) ([][]byte, error) {
	var records [][]byte
	prefix := piecePrefix(n)
	err := s.Scan(ctx, prefix, func(key string, data []byte) error {
		if len(records) == width || strings.TrimPrefix(key, prefix) != fmt.Sprintf("%02x", len(records)) {
			return nil // later than this tree, or after a gap
		}
		more, err := ParseBundle(data)
		if err != nil {
			return fmt.Errorf("%w: %s: %v", ErrDamaged, key, err)
		}
		more = more[:min(len(more), width-len(records))]
		t.pieces = append(t.pieces, bundlePrefix(data, more, len(more)))
		records = append(records, more...)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading the log: %w", err)
	}
	if len(records) == width {
		return records, nil
	}
	data, err := s.Get(ctx, bundleKey(n))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading the log: %w: bundle %d has %d entries, expected %d", ErrDamaged, n, len(records), width)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the log: %w", err)
	}
	records, err = ParseBundle(data)
	if err != nil || len(records) < width {
		return nil, fmt.Errorf("reading the log: %w: %s has %d entries, expected %d: %v", ErrDamaged, bundleKey(n), len(records), tileWidth, err)
	}
	t.pieces = [][]byte{bundlePrefix(data, records, width)}
	return records[:width], nil
}

// Extend returns the tree of another head of the same log, to which others
// have appended. It reads what is new only, and fails with [ErrNotExtension]
// when the head does not extend t.
func (t *Tree) Extend(ctx context.Context, s Storage, size int64, root Hash) (*Tree, error) {
	if size < t.size || size == t.size && root != t.root {
		return nil, t.notExtension(size, root, t.root)
	}
	if size == t.size {
		return t, nil
	}
	if next := t.follow(ctx, s, size); next != nil && next.root == root {
		return next, nil
	}
	// Either more than a bundle is new, or something is wrong: what exactly
	// follows from the head's own tree.
	next, err := Load(ctx, s, size, root)
	if err != nil {
		return nil, err
	}
	if t.size == 0 {
		return next, nil
	}
	was, err := tlog.TreeHash(t.size, next.reader(ctx, s))
	if err != nil {
		return nil, fmt.Errorf("comparing the log with the one known: %w", err)
	}
	if was != t.root {
		return nil, t.notExtension(size, root, was)
	}
	return next, nil
}

func (t *Tree) notExtension(size int64, root, was Hash) error {
	if size < t.size {
		return fmt.Errorf("extending the log: %w: known are %d entries with root %s, found %d with root %s", ErrNotExtension, t.size, t.root, size, root)
	}
	if size == t.size {
		was = root
	}
	return fmt.Errorf("extending the log: %w: at %d entries the known root is %s; the log of %d entries with root %s has %s there", ErrNotExtension, t.size, t.root, size, root, was)
}

// follow reads the pieces that others appended to the bundle that was not full,
// one after the other. It returns nil where that does not work: the pieces are
// in a full bundle by now, or damaged.
func (t *Tree) follow(ctx context.Context, s Storage, size int64) *Tree {
	bundle := t.size / tileWidth
	if size/tileWidth != bundle {
		return nil
	}
	g := grow(t)
	for g.size < size {
		data, err := s.Get(ctx, pieceKey(bundle, int(g.size%tileWidth)))
		if err != nil {
			return nil
		}
		records, err := ParseBundle(data)
		if err != nil || int64(len(records)) > size-g.size {
			return nil
		}
		for _, leaf := range leafHashes(records) {
			g.push(leaf)
		}
		g.pieces = append(g.pieces, data)
	}
	next, err := g.tree()
	if err != nil {
		return nil
	}
	return next
}
