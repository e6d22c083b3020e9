// SPDX-License-Identifier: Apache-2.0

package translog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
	"golang.org/x/sync/errgroup"
)

var (
	// ErrForked says that the log signed two histories. The error is a
	// [ForkError], which proves it to others.
	ErrForked = errors.New("the log signed two histories")
	// ErrOlder says that a checkpoint is of a smaller tree than one seen before.
	// A stale copy does that, and so does a log that was rolled back.
	ErrOlder = errors.New("the checkpoint is older than one seen before")
	// ErrNotFound says that no entry matches.
	ErrNotFound = errors.New("no such entry in the log")
)

// Auditor reads a log and believes nothing of it but the signature. It may be
// used by several goroutines.
type Auditor struct {
	origin   string
	verifier note.Verifier
	fetch    Fetcher

	mu    sync.Mutex
	tiles map[tlog.Tile][]byte // each was part of a checkpoint's tree
}

const (
	// maxCachedTiles bounds the cache of an auditor to 8 MiB.
	maxCachedTiles = 1024
	// parallel is how many files an auditor fetches at once.
	parallel = 8
)

// NewAuditor returns an auditor of the log of that origin, whose key the
// verifier has.
func NewAuditor(origin string, v note.Verifier, fetch Fetcher) *Auditor {
	return &Auditor{origin: origin, verifier: v, fetch: fetch, tiles: map[tlog.Tile][]byte{}}
}

// Latest fetches the newest checkpoint, verifies the log's signature and returns
// it with its signed note. Whether it extends what was seen before is for
// [Auditor.Consistent] to say.
func (a *Auditor) Latest(ctx context.Context) (*Checkpoint, []byte, error) {
	signed, err := a.fetch(ctx, pathCheckpoint)
	if err != nil {
		return nil, nil, fmt.Errorf("fetching the checkpoint: %w", err)
	}
	c, err := OpenCheckpoint(signed, a.origin, a.verifier)
	if err != nil {
		return nil, nil, err
	}
	return c, signed, nil
}

// Consistent checks that the log at the newer checkpoint begins with all
// entries it had at the older one. Both must have been verified. It fails with
// [ErrForked] where they contradict each other, and with [ErrOlder] where newer
// is a beginning of older.
func (a *Auditor) Consistent(ctx context.Context, older, newer Checkpoint) error {
	doing := fmt.Sprintf("comparing the log at %d entries with the log at %d", newer.Size, older.Size)
	if older.Origin != a.origin || newer.Origin != a.origin {
		return fmt.Errorf("%s: the checkpoints are of %q and %q, expected %q", doing, clip(older.Origin), clip(newer.Origin), a.origin)
	}
	if err := errors.Join(older.valid(), newer.valid()); err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	if newer.Size < older.Size {
		err := a.begins(ctx, newer, older)
		switch {
		case errors.Is(err, ErrForked):
			return fmt.Errorf("%s: %w", doing, err)
		case err != nil:
			return fmt.Errorf("%s: %w; and comparing them failed: %w", doing, ErrOlder, err)
		default:
			return fmt.Errorf("%s: %w", doing, ErrOlder)
		}
	}
	if err := a.begins(ctx, older, newer); err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	return nil
}

// begins checks that the log at large, which is not the smaller one, begins
// with the log at small.
func (a *Auditor) begins(ctx context.Context, small, large Checkpoint) error {
	if small.Size == 0 || small == large {
		return nil
	}
	if small.Size == large.Size { // the two notes are proof enough
		return &ForkError{Smaller: small, Larger: large, Root: large.Root}
	}
	root, err := tlog.TreeHash(small.Size, a.hashes(ctx, large))
	if err != nil || root == small.Root {
		return err
	}
	proof, err := tlog.ProveTree(large.Size, small.Size, a.hashes(ctx, large))
	if err != nil {
		return err
	}
	return &ForkError{Smaller: small, Larger: large, Root: root, Proof: proof}
}

// ForkError is the proof that a log signed two histories, together with the
// signed notes of both checkpoints: the larger one has another root at the size
// of the smaller one than the log signed for it. Keep the notes.
type ForkError struct {
	Smaller, Larger Checkpoint
	Root            Hash   // that Larger has at the size of Smaller
	Proof           []Hash // that it does (RFC 6962 section 2.1.2)
}

func (e *ForkError) Error() string {
	return fmt.Sprintf("%v: for %d entries of %s it signed the root %s, and for %d entries %s, which has %s there; keep both signed checkpoints",
		ErrForked, e.Smaller.Size, e.Smaller.Origin, e.Smaller.Root, e.Larger.Size, e.Larger.Root, e.Root)
}

// Is makes a ForkError an [ErrForked].
func (e *ForkError) Is(target error) bool { return target == ErrForked }

// Verify checks the proof: it needs nothing but the two checkpoints, whose
// signatures the caller checks.
func (e *ForkError) Verify() error {
	if e.Root == e.Smaller.Root {
		return fmt.Errorf("verifying a fork: the roots at %d entries are the same", e.Smaller.Size)
	}
	same := e.Smaller
	same.Root = e.Root
	if err := VerifyConsistency(same, e.Larger, e.Proof); err != nil {
		return fmt.Errorf("verifying a fork: %w", err)
	}
	return nil
}

// Prove returns the proof that the log at the checkpoint has entry index.
func (a *Auditor) Prove(ctx context.Context, c Checkpoint, index int64) ([]Hash, error) {
	err := c.valid()
	var proof []Hash
	if err == nil {
		proof, err = tlog.ProveRecord(c.Size, index, a.hashes(ctx, c))
	}
	if err != nil {
		return nil, fmt.Errorf("proving entry %d of %d: %w", index, c.Size, err)
	}
	return proof, nil
}

// hashes reads hashes of the log at a checkpoint: each is proven to be part of
// its tree.
func (a *Auditor) hashes(ctx context.Context, c Checkpoint) tlog.HashReader {
	return tlog.HashReaderFunc(func(indexes []int64) ([]Hash, error) {
		if len(indexes) == 0 {
			return nil, nil
		}
		if c.Size == 0 { // package tlog does not expect it
			return nil, ErrNotFound
		}
		tree := tlog.Tree{N: c.Size, Hash: c.Root}
		r := &tileReader{ctx: ctx, a: a}
		hashes, err := tlog.TileHashReader(tree, r).ReadHashes(indexes)
		if err != nil && r.cached {
			// Tiles of another history are no reason to doubt this one.
			a.forget()
			hashes, err = tlog.TileHashReader(tree, r).ReadHashes(indexes)
		}
		return hashes, err
	})
}

// tileReader is a tlog.TileReader for one call.
type tileReader struct {
	ctx    context.Context
	a      *Auditor
	cached bool // tiles came from the cache
}

func (r *tileReader) Height() int { return tileHeight }

func (r *tileReader) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	data := r.a.known(tiles)
	for _, d := range data {
		r.cached = r.cached || d != nil
	}
	g, ctx := errgroup.WithContext(r.ctx)
	g.SetLimit(parallel)
	for i := range tiles {
		if data[i] != nil {
			continue
		}
		g.Go(func() (err error) {
			data[i], err = fetchTile(ctx, r.a.fetch, tiles[i])
			return err
		})
	}
	return data, g.Wait()
}

func (r *tileReader) SaveTiles(tiles []tlog.Tile, data [][]byte) { r.a.save(tiles, data) }

// known returns the tiles of the cache, nil for others.
func (a *Auditor) known(tiles []tlog.Tile) [][]byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	data := make([][]byte, len(tiles))
	for i, t := range tiles {
		data[i] = a.tiles[t]
	}
	return data
}

func (a *Auditor) save(tiles []tlog.Tile, data [][]byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.tiles)+len(tiles) > maxCachedTiles {
		clear(a.tiles)
	}
	for i, t := range tiles {
		a.tiles[t] = data[i]
	}
}

func (a *Auditor) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	clear(a.tiles)
}

// fetchTile gets a hash tile of the right length. A log may have replaced a
// partial tile by the full one.
func fetchTile(ctx context.Context, fetch Fetcher, t tlog.Tile) ([]byte, error) {
	data, err := fetchWider(ctx, fetch, t)
	if err != nil {
		return nil, err
	}
	if len(data)%tlog.HashSize != 0 || len(data) < t.W*tlog.HashSize {
		return nil, fmt.Errorf("fetching %s: %d bytes, expected %d", tilePath(t), len(data), t.W*tlog.HashSize)
	}
	return data[:t.W*tlog.HashSize], nil
}

// fetchWider gets what is behind a tile's path, or the full tile instead.
func fetchWider(ctx context.Context, fetch Fetcher, t tlog.Tile) ([]byte, error) {
	data, err := fetch(ctx, tilePath(t))
	if t.W < tileWidth && errors.Is(err, fs.ErrNotExist) {
		t.W = tileWidth
		if full, errFull := fetch(ctx, tilePath(t)); errFull == nil {
			return full, nil
		}
	}
	return data, err
}
