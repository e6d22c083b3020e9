// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/c8s-dev/c8s/cds/translog"
	"github.com/c8s-dev/c8s/policy"
)

// HeadKey is the one key of the store that is ever replaced. It sorts before all
// others: a store in a file writes the values beside it along with it, so those
// must be small, as a bundle of the log is not.
const HeadKey = "HEAD"

// Ref names one version of a signed document; the zero Ref is none.
type Ref struct {
	Version uint64        `json:"version"`
	Digest  policy.Digest `json:"digest"`
}

// Recovery names the recovery shares of the seed, and whom they were made for.
type Recovery struct {
	For      policy.Digest `json:"for"`      // of the manifest's recovery section
	Document policy.Digest `json:"document"` // empty if there is none
}

// IsZero reports whether there is no such document.
func (r Ref) IsZero() bool { return r == Ref{} }

// Head is what all replicas agree on.
type Head struct {
	Size     int64         `json:"size"` // of the log, in entries
	Root     translog.Hash `json:"root"`
	Manifest Ref           `json:"manifest"` // in force
	Pending  Ref           `json:"pending"`  // accepted, and in force from NotBefore on
	// NotBefore is the pending manifest's, as a Unix time.
	NotBefore int64    `json:"notBefore"`
	DenyList  Ref      `json:"denyList"`
	Recovery  Recovery `json:"recovery"`
	Time      int64    `json:"time"` // of the last change, Unix time; never falls
	// Batches are random names of the last changes, newest first. A writer
	// that did not hear whether its change was made finds out by them.
	Batches []string `json:"batches"`
}

// maxBatches is how many changes the head remembers. A writer whose answer was
// lost for longer finds out by the log itself.
const maxBatches = 16

func (h Head) encode() ([]byte, error) { return json.Marshal(h) }

func decodeHead(raw []byte) (Head, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	var h Head
	if err := d.Decode(&h); err != nil {
		return Head{}, fmt.Errorf("reading the head: %w", err)
	}
	if d.More() {
		return Head{}, errors.New("reading the head: something follows it")
	}
	if h.Size < 1 || len(h.Batches) == 0 {
		return Head{}, errors.New("reading the head: it lacks a size or a batch name")
	}
	return h, nil
}

// same reports whether both are one and the same change. The version that the
// store gives is not asked: who puts back an old disk gives it out again.
func (h Head) same(other Head) bool {
	return h.Batches[0] == other.Batches[0] && h.Size == other.Size && h.Root == other.Root
}

// recalls reports whether the head remembers every change since base.
func (h Head) recalls(base Head) bool {
	if len(base.Batches) == 0 {
		return len(h.Batches) < maxBatches
	}
	return slices.Contains(h.Batches, base.Batches[0])
}

// follows checks that h may replace prev: nothing in it is older. The log's
// root is checked against the log itself.
func (h Head) follows(prev Head) error {
	older := func(what string, was, is any) error {
		return fmt.Errorf("%w: %s was %v and is %v", ErrRolledBack, what, was, is)
	}
	switch {
	case h.Size < prev.Size:
		return older("the log's size", prev.Size, h.Size)
	case h.Size == prev.Size && h.Root != prev.Root:
		return older("the log's root", prev.Root, h.Root)
	case h.Manifest.Version < prev.Manifest.Version, h.Manifest.Version == prev.Manifest.Version && h.Manifest != prev.Manifest:
		return older("the manifest", prev.Manifest, h.Manifest)
	case h.DenyList.Version < prev.DenyList.Version, h.DenyList.Version == prev.DenyList.Version && h.DenyList != prev.DenyList:
		return older("the deny list", prev.DenyList, h.DenyList)
	case h.Time < prev.Time:
		return older("the time", time.Unix(prev.Time, 0).UTC(), time.Unix(h.Time, 0).UTC())
	}
	return nil
}
