// SPDX-License-Identifier: Apache-2.0

package translog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/mod/sumdb/tlog"
)

// ForkedCheckpoint is the file of a mirror that has the signed checkpoint which
// contradicts the mirror's own. It is evidence, and not served to clients of the
// log.
const ForkedCheckpoint = "checkpoint.forked"

// Mirror brings a directory to the newest checkpoint of the log. The directory
// has the log's files under their paths, and can be served as it is. Every file
// is proven to be the log's before it is written, and the checkpoint is written
// last: whatever ends a call early, the directory is a whole log, and the next
// call fetches what is missing. Only one call at a time may write a directory.
//
// A mirror does not go back: it fails with [ErrOlder] or [ErrForked] and keeps
// what it has when the newest checkpoint does not extend its own.
func (a *Auditor) Mirror(ctx context.Context, dir string) (*Checkpoint, error) {
	have, err := a.mirrored(ctx, dir)
	if err != nil {
		return nil, err
	}
	latest, signed, err := a.Latest(ctx)
	if err != nil {
		return nil, fmt.Errorf("mirroring the log: %w", err)
	}
	m := &mirror{dir: filepath.Clean(dir), dirs: map[string]bool{}}
	if err := a.Consistent(ctx, *have, *latest); err != nil {
		if errors.Is(err, ErrForked) {
			err = errors.Join(err, m.write(ForkedCheckpoint, signed), m.sync())
		}
		return nil, fmt.Errorf("mirroring the log: %w", err)
	}
	if err := a.copyTo(ctx, m, *have, *latest); err != nil {
		return nil, fmt.Errorf("mirroring the log: %w", err)
	}
	// The files are on disk before the checkpoint that needs them.
	if err := errors.Join(m.sync(), m.write(pathCheckpoint, signed), m.sync()); err != nil {
		return nil, fmt.Errorf("mirroring the log: %w", err)
	}
	if err := m.prune(have.Size, latest.Size); err != nil {
		return nil, fmt.Errorf("mirroring the log: removing partial tiles: %w", err)
	}
	return latest, nil
}

// Tiles reads every hash tile of the log at a checkpoint, so that a source that
// lacks one or has another is found out. It calls fn after each, with how many
// there are.
func (a *Auditor) Tiles(ctx context.Context, c Checkpoint, fn func(done, all int) error) error {
	if err := c.valid(); err != nil {
		return fmt.Errorf("reading tiles: %w", err)
	}
	tiles := tlog.NewTiles(tileHeight, 0, c.Size)
	for i, t := range tiles {
		if _, err := tlog.ReadTileData(t, a.hashes(ctx, c)); err != nil {
			return fmt.Errorf("reading the log at %d entries: %s: %w", c.Size, tilePath(t), err)
		}
		if err := fn(i+1, len(tiles)); err != nil {
			return err
		}
	}
	return nil
}

// mirrored returns the checkpoint of the directory: that of no entries where it
// has none.
func (a *Auditor) mirrored(ctx context.Context, dir string) (*Checkpoint, error) {
	signed, err := DirFetcher(dir)(ctx, pathCheckpoint)
	if errors.Is(err, fs.ErrNotExist) {
		return &Checkpoint{Origin: a.origin, Root: NewTree().Root()}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the mirror's checkpoint: %w", err)
	}
	c, err := OpenCheckpoint(signed, a.origin, a.verifier)
	if err != nil {
		return nil, fmt.Errorf("reading the mirror's checkpoint in %s: %w", dir, err)
	}
	return c, nil
}

// copyTo writes what the log at to has more than at from.
func (a *Auditor) copyTo(ctx context.Context, m *mirror, from, to Checkpoint) error {
	if from.Size == to.Size {
		return nil
	}
	// What an earlier call has written need not be fetched again.
	sources := []Fetcher{DirFetcher(m.dir), a.fetch}
	err := a.bundles(ctx, to, from.Size/tileWidth, (to.Size-1)/tileWidth+1, sources, func(b *bundle) error {
		leaves := b.tile
		leaves.L = 0
		return errors.Join(m.write(tilePath(b.tile), b.data), m.write(tilePath(leaves), newTile(b.leaves).data()))
	})
	if err != nil {
		return err
	}
	for _, t := range tlog.NewTiles(tileHeight, from.Size, to.Size) {
		if t.L == 0 {
			continue // made from the entries
		}
		data, err := tlog.ReadTileData(t, a.hashes(ctx, to))
		if err != nil {
			return err
		}
		if err := m.write(tilePath(t), data); err != nil {
			return err
		}
	}
	return nil
}

// mirror writes files and remembers in which directories.
type mirror struct {
	dir  string
	dirs map[string]bool
}

// write replaces a file as a whole.
func (m *mirror) write(path string, data []byte) (err error) {
	path = filepath.Join(m.dir, filepath.FromSlash(path))
	if err := m.mkdir(filepath.Dir(path)); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(tmp.Name())
		}
	}()
	_, err = tmp.Write(data)
	// 0644: a web server of another user serves it.
	if err = errors.Join(err, tmp.Chmod(0o644), tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}

// mkdir makes a directory below the mirror's, and marks it and those above it,
// which may be new, as changed.
func (m *mirror) mkdir(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for ; !m.dirs[dir]; dir = filepath.Dir(dir) {
		m.dirs[dir] = true
		if dir == m.dir {
			break
		}
	}
	return nil
}

// sync makes the names of the written files permanent.
func (m *mirror) sync() error {
	for dir := range m.dirs {
		d, err := os.Open(dir)
		if err != nil {
			return err
		}
		if err := errors.Join(d.Sync(), d.Close()); err != nil {
			return err
		}
		delete(m.dirs, dir)
	}
	return nil
}

// prune removes the partial tiles of tiles that became full: whoever looks for
// one finds the full tile (tlog-tiles, "Partial Tiles").
func (m *mirror) prune(from, to int64) error {
	for level := 0; from>>(tileHeight*level) > 0; level++ {
		n := from >> (tileHeight * (level + 1))
		if to>>(tileHeight*(level+1)) == n {
			continue
		}
		full := tlog.Tile{H: tileHeight, L: level, N: n, W: tileWidth}
		if err := os.RemoveAll(filepath.Join(m.dir, filepath.FromSlash(tilePath(full)+".p"))); err != nil {
			return err
		}
		if full.L = entriesLevel; level == 0 {
			if err := os.RemoveAll(filepath.Join(m.dir, filepath.FromSlash(tilePath(full)+".p"))); err != nil {
				return err
			}
		}
	}
	return nil
}
