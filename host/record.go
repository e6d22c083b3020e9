// SPDX-License-Identifier: Apache-2.0

package host

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

const recordVersion = 1

// kind says what to do with a file that somebody else changed after C8s did.
type kind string

const (
	kindOwn    kind = "own"    // C8s made it: it goes, a copy of what others wrote stays
	kindEdited kind = "edited" // others own it: it stays as they left it
	kindChain  kind = "chain"  // others own it, and c8s-cni must not stay in it
)

// state is what the record keeps of a file.
type state struct {
	Digest string      `json:"digest"`
	Mode   fs.FileMode `json:"mode"`
	UID    int         `json:"uid"`
	GID    int         `json:"gid"`
}

func stateOf(c *content) *state {
	if c == nil {
		return nil
	}
	return &state{c.digest(), c.mode, c.uid, c.gid}
}

// is reports whether the file has this state; nil is no file.
func (s *state) is(c *content) bool {
	if s == nil || c == nil {
		return s == nil && c == nil
	}
	return *s == *stateOf(c)
}

// entry is one file that C8s changed.
type entry struct {
	Path   string `json:"path"`
	Kind   kind   `json:"kind"`
	Before *state `json:"before"` // null: there was no file
	After  *state `json:"after"`  // null: C8s removed it
	// From is there while a change is under way: what the file was until then.
	From *pending `json:"from,omitempty"`
}

// pending wraps a state, so that "no file" differs from "nothing under way".
type pending struct {
	State *state `json:"state"`
}

// ours reports whether the file is as C8s left it, or as it was when a change
// that may not have happened began.
func (e *entry) ours(c *content) bool {
	return e.After.is(c) || e.From != nil && e.From.State.is(c)
}

// record is everything C8s changed, in the order in which it did.
type record struct {
	Version int      `json:"version"`
	Files   []*entry `json:"files"`
	Folders []string `json:"folders"` // that C8s made, parents first
}

func (r *record) find(path string) *entry {
	i := slices.IndexFunc(r.Files, func(e *entry) bool { return e.Path == path })
	if i < 0 {
		return nil
	}
	return r.Files[i]
}

// put replaces the entry of the same path, or appends it.
func (r *record) put(e *entry) {
	if i := slices.IndexFunc(r.Files, func(o *entry) bool { return o.Path == e.Path }); i >= 0 {
		r.Files[i] = e
		return
	}
	r.Files = append(r.Files, e)
}

func (r *record) drop(path string) {
	r.Files = slices.DeleteFunc(r.Files, func(e *entry) bool { return e.Path == path })
}

// readRecord returns an empty record where nothing is installed.
func readRecord(d disk) (*record, error) {
	c, err := d.read(RecordFile)
	if err != nil {
		return nil, err
	}
	if c == nil {
		return &record{Version: recordVersion}, nil
	}
	var r record
	if err := json.Unmarshal(c.data, &r); err != nil {
		return nil, fmt.Errorf("reading what was installed from %s: %w", RecordFile, err)
	}
	if r.Version != recordVersion {
		return nil, fmt.Errorf("reading what was installed from %s: version %d, expected %d; use the c8s that installed it", RecordFile, r.Version, recordVersion)
	}
	for _, e := range r.Files {
		if e == nil || !path.IsAbs(e.Path) {
			return nil, fmt.Errorf("reading what was installed from %s: a file has no path", RecordFile)
		}
	}
	return &r, nil
}

func (r *record) write(d disk) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("recording what is installed: %w", err)
	}
	return d.write(RecordFile, own(append(text, '\n'), modeFile))
}

// backupPath is named after the bytes, so that keeping them twice is the same
// as once.
func backupPath(digest string) string {
	return path.Join(backupDir, strings.TrimPrefix(digest, "sha256:"))
}

func keep(d disk, c *content) error {
	if c == nil {
		return nil
	}
	return d.write(backupPath(c.digest()), own(c.data, 0o600))
}

// restore returns what a state describes, from the copy that was kept of it.
func restore(d disk, s *state) (*content, error) {
	if s == nil {
		return nil, nil
	}
	c, err := d.read(backupPath(s.Digest))
	if err != nil {
		return nil, err
	}
	if c == nil || c.digest() != s.Digest {
		return nil, fmt.Errorf("the copy of the original in %s is gone or damaged", backupPath(s.Digest))
	}
	return &content{c.data, s.Mode, s.UID, s.GID}, nil
}
