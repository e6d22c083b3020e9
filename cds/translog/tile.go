// SPDX-License-Identifier: Apache-2.0

package translog

import (
	"fmt"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

// Hash is a node of the tree (RFC 6962 section 2.1, SHA-256).
type Hash = tlog.Hash

const (
	tileHeight = 8
	tileWidth  = 1 << tileHeight
)

// tile is one hash tile with the nodes above its hashes, so that neither
// appending nor proving hashes anything twice.
type tile struct {
	width int                   // hashes in it
	nodes [2*tileWidth - 1]Hash // all nodes of height 0, then of height 1, ...
}

func (t *tile) node(height, i int) *Hash {
	return &t.nodes[2*tileWidth-2*tileWidth>>height+i]
}

// has reports whether the node is there: only complete subtrees have one.
func (t *tile) has(height, i int) bool { return (i+1)<<height <= t.width }

func (t *tile) root() Hash { return *t.node(tileHeight, 0) }

func (t *tile) push(h Hash) {
	i := t.width
	t.width++
	*t.node(0, i) = h
	for height := 0; height < tileHeight && i&1 == 1; height++ {
		*t.node(height+1, i/2) = tlog.NodeHash(*t.node(height, i-1), *t.node(height, i))
		i /= 2
	}
}

func (t *tile) data() []byte {
	data := make([]byte, 0, t.width*tlog.HashSize)
	for i := range t.width {
		data = append(data, t.node(0, i)[:]...)
	}
	return data
}

func newTile(leaves []Hash) *tile {
	t := new(tile)
	for _, h := range leaves {
		t.push(h)
	}
	return t
}

// parseTile reads the first width hashes of a stored tile, which may have
// become wider since: tiles only grow.
func parseTile(data []byte, width int) (*tile, error) {
	if len(data)%tlog.HashSize != 0 || len(data) < width*tlog.HashSize || len(data) > tileWidth*tlog.HashSize {
		return nil, fmt.Errorf("a tile of %d bytes, needed are %d hashes of %d", len(data), width, tlog.HashSize)
	}
	t := new(tile)
	for i := range width {
		t.push(Hash(data[i*tlog.HashSize:][:tlog.HashSize]))
	}
	return t, nil
}

const (
	pathEntries = "tile/entries/"
	// maxPath is longer than the path of any tile of any log.
	maxPath = 64
	// entriesLevel is the level of entry bundles in a tlog.Tile.
	entriesLevel = -1
)

// tilePath is the C2SP path of a tile. It is that of package tlog but for the
// height, which is not part of it, and for the name of entry bundles.
func tilePath(t tlog.Tile) string {
	path := t.Path()
	if t.L == entriesLevel {
		return pathEntries + strings.TrimPrefix(path, "tile/8/data/")
	}
	return "tile/" + strings.TrimPrefix(path, "tile/8/")
}

// parsePath is the inverse of tilePath. It accepts no other spelling.
func parsePath(path string) (tlog.Tile, error) {
	rest, ok := strings.CutPrefix(path, "tile/")
	if ok && len(path) <= maxPath {
		if n, ok := strings.CutPrefix(path, pathEntries); ok {
			rest = "data/" + n
		}
		if t, err := tlog.ParseTilePath("tile/8/" + rest); err == nil && t.L < 64 && tilePath(t) == path {
			return t, nil
		}
	}
	if len(path) > maxPath {
		path = path[:maxPath] + "..."
	}
	return tlog.Tile{}, fmt.Errorf("%q is not the path of a tile: tile/LEVEL/N, tile/entries/N, either with .p/WIDTH", path)
}
