// SPDX-License-Identifier: Apache-2.0

package translog

import (
	"bytes"
	"fmt"
	"slices"

	"golang.org/x/mod/sumdb/tlog"
)

// Tree is an immutable view of the log. It keeps the right edge in memory: for
// each level the tile that is not full yet and the full one before it where
// known, and the entries that are not in a full bundle. So appending, and
// proving what was appended last, needs no I/O.
type Tree struct {
	size   int64
	root   Hash
	levels []edge
	pieces [][]byte // of the bundle that is not full, each with some entries
}

// edge is the right end of one level. Its tiles are never modified once they
// are in a tree.
type edge struct {
	part *tile // 1 to 255 hashes, or nil
	full *tile // the tile before it, or nil where not known
}

// NewTree returns the tree without entries.
func NewTree() *Tree {
	t := new(Tree)
	t.root, _ = tlog.TreeHash(0, nil) // of no entries: reads nothing
	return t
}

// Size is the number of entries.
func (t *Tree) Size() int64 { return t.size }

// Root is the root hash.
func (t *Tree) Root() Hash { return t.root }

// Append returns the tree with the records added, and what has to be stored for
// it. The receiver stays valid: when the commit of the delta loses a race, the
// new tree is forgotten and the records are appended to whoever won.
func (t *Tree) Append(records [][]byte) (*Tree, Delta, error) {
	for i, r := range records {
		if len(r) == 0 || len(r) > MaxRecord {
			return nil, Delta{}, fmt.Errorf("appending to the log: record %d of %d has %d bytes, allowed are 1 to %d", i+1, len(records), len(r), MaxRecord)
		}
	}
	if len(records) == 0 {
		return t, Delta{}, nil
	}
	g := grow(t)
	d := Delta{}
	for len(records) > 0 {
		bundle, offset := g.size/tileWidth, int(g.size%tileWidth)
		n := min(len(records), tileWidth-offset)
		var piece []byte
		for _, r := range records[:n] {
			piece = appendRecord(piece, r)
		}
		for _, leaf := range leafHashes(records[:n]) {
			g.push(leaf)
		}
		records = records[n:]
		switch {
		case offset+n < tileWidth:
			d.Put = append(d.Put, File{pieceKey(bundle, offset), piece})
			g.pieces = append(g.pieces, piece)
		default:
			d.Put = append(d.Put, File{bundleKey(bundle), bytes.Join(append(g.pieces, piece), nil)})
			if offset > 0 {
				d.DeletePrefix = append(d.DeletePrefix, piecePrefix(bundle))
			}
			g.pieces = nil
		}
	}
	next, err := g.tree()
	if err != nil {
		return nil, Delta{}, err
	}
	d.Put = append(d.Put, g.changedTiles()...)
	return next, d, nil
}

// growth is a tree under construction: it copies what it changes.
type growth struct {
	Tree
	owned []bool // the level's part was copied
	done  []File // tiles that became full
}

func grow(t *Tree) *growth {
	g := &growth{Tree: *t, owned: make([]bool, len(t.levels), len(t.levels)+1)}
	g.levels = slices.Clone(t.levels)
	// A copy with room, so that two trees made from one do not share the rest
	// of its memory.
	g.pieces = append(make([][]byte, 0, len(t.pieces)+1), t.pieces...)
	return g
}

func (g *growth) push(leaf Hash) {
	g.size++
	g.pushAt(0, leaf)
}

func (g *growth) pushAt(level int, h Hash) {
	if level == len(g.levels) {
		g.levels = append(g.levels, edge{})
		g.owned = append(g.owned, false)
	}
	e := &g.levels[level]
	switch {
	case e.part == nil:
		e.part = new(tile)
	case !g.owned[level]:
		e.part = &tile{width: e.part.width, nodes: e.part.nodes}
	}
	g.owned[level] = true
	e.part.push(h)
	if e.part.width < tileWidth {
		return
	}
	n := g.size>>(tileHeight*(level+1)) - 1
	g.done = append(g.done, File{tileKey(level, n), e.part.data()})
	e.full, e.part = e.part, nil
	g.pushAt(level+1, e.full.root())
}

// tree ends the construction.
func (g *growth) tree() (*Tree, error) {
	t := g.Tree
	root, err := tlog.TreeHash(t.size, memory{&t})
	if err != nil {
		return nil, fmt.Errorf("computing the log's root: %w", err)
	}
	t.root = root
	return &t, nil
}

// changedTiles returns the hash tiles to be stored. Leaf hashes of a bundle
// that is not full are not: they follow from the entries, and would be written
// again with every append.
func (g *growth) changedTiles() []File {
	files := g.done
	for level, e := range g.levels {
		if level > 0 && g.owned[level] && e.part != nil {
			n := g.size >> (tileHeight * (level + 1))
			files = append(files, File{tileKey(level, n), e.part.data()})
		}
	}
	return files
}

// locate says where a node of the tree is kept: in which tile of which level,
// at which height inside it.
func locate(storedIndex int64) (level int, n int64, height, i int) {
	nodeLevel, node := tlog.SplitStoredHashIndex(storedIndex)
	level, height = nodeLevel/tileHeight, nodeLevel%tileHeight
	n = node >> (tileHeight - height)
	return level, n, height, int(node - n<<(tileHeight-height))
}

// edgeTile returns a tile of the right edge, or nil.
func (t *Tree) edgeTile(level int, n int64) *tile {
	if level >= len(t.levels) {
		return nil
	}
	switch t.size>>(tileHeight*(level+1)) - n {
	case 0:
		return t.levels[level].part
	case 1:
		return t.levels[level].full
	default:
		return nil
	}
}

// memory reads the hashes of the right edge: a tlog.HashReader.
type memory struct{ t *Tree }

func (m memory) ReadHashes(indexes []int64) ([]Hash, error) {
	hashes := make([]Hash, len(indexes))
	for j, index := range indexes {
		level, n, height, i := locate(index)
		e := m.t.edgeTile(level, n)
		if e == nil || !e.has(height, i) {
			return nil, fmt.Errorf("hash %d is not on the right edge of a log of %d entries", index, m.t.size)
		}
		hashes[j] = *e.node(height, i)
	}
	return hashes, nil
}
