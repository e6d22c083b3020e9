// SPDX-License-Identifier: Apache-2.0

package client

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/cds/kept"
	"github.com/c8s-dev/c8s/cds/translog"
	"github.com/c8s-dev/c8s/client/proof"
	"github.com/c8s-dev/c8s/policy"
)

const (
	memorySchema = "c8s.dev/client-memory/v1"
	// maxMemory bounds the file: a checkpoint and the digests of operators.
	maxMemory = 2*translog.MaxNote + 512<<10
	// maxOperatorSets is how often operators may have changed.
	maxOperatorSets = 4096
)

// seen is what was verified of a trust domain before. What comes later must not
// be older.
type seen struct {
	Schema      string         `json:"schema"`
	TrustDomain string         `json:"trustDomain"`
	Anchor      string         `json:"anchor"`    // under which the manifest was verified
	Operators   []string       `json:"operators"` // digests of all that were ever in force, from the anchor on
	Manifest    proof.Followed `json:"manifest"`
	DenyList    proof.Followed `json:"denyList"`
	CDS         policy.Digest  `json:"cds"`   // of its bundle
	MetAt       uint64         `json:"metAt"` // manifest version under which it was last recognised
	Checkpoint  string         `json:"checkpoint"`
	Size        int64          `json:"size"` // of the log at the checkpoint
}

func parseSeen(raw []byte, trustDomain string) (*seen, error) {
	s := &seen{}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	err := d.Decode(s)
	if err == nil {
		if _, more := d.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("something follows it")
		}
	}
	if err == nil {
		err = s.check(trustDomain)
	}
	if err != nil {
		return nil, fmt.Errorf("it is damaged, or of another version of this program: %w; remove it only if an older manifest or log can be ruled out", err)
	}
	return s, nil
}

func (s *seen) check(trustDomain string) error {
	none := proof.Followed{}
	switch {
	case s.Schema != memorySchema:
		return fmt.Errorf("schema %.64q, expected %q", s.Schema, memorySchema)
	case s.TrustDomain != trustDomain:
		return fmt.Errorf("trust domain %.64q, expected %q", s.TrustDomain, trustDomain)
	case s.Anchor == "" || s.Manifest.Version == 0 || !s.Manifest.Digest.Valid() || !s.CDS.Valid() || s.MetAt == 0:
		return errors.New("an anchor, manifest or CDS is missing")
	case s.DenyList != none && (s.DenyList.Version == 0 || !s.DenyList.Digest.Valid()):
		return errors.New("the deny list has no version or digest")
	case s.Size < 0 || s.Checkpoint == "" || len(s.Operators) == 0 || len(s.Operators) > maxOperatorSets:
		return errors.New("the checkpoint or the operators are missing")
	}
	return nil
}

// memory keeps what was seen of one trust domain: in a file that processes
// share, or for this process alone.
type memory struct {
	path        string
	trustDomain string

	mu   sync.Mutex
	last *seen
}

func newMemory(dir, trustDomain string) (*memory, error) {
	m := &memory{trustDomain: trustDomain}
	if dir == "" {
		return m, nil
	}
	name := trustDomain + ".json"
	if filepath.Base(name) != name || !filepath.IsLocal(name) {
		return nil, fmt.Errorf("keeping what is known of trust domain %.64q: it is no file name", trustDomain)
	}
	m.path = filepath.Join(dir, name)
	return m, nil
}

// recall returns what is known, nil for nothing.
func (m *memory) recall() (*seen, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.path == "" {
		return m.last, nil
	}
	f, err := os.Open(m.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading what is known of %s: %w", m.trustDomain, err)
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxMemory+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", m.path, err)
	}
	s, err := parseSeen(raw, m.trustDomain)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", m.path, err)
	}
	return s, nil
}

// advance makes next what is known, unless it is older than what is known by
// now, to whomever.
func (m *memory) advance(next seen) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.path == "" {
		merged, err := merge(m.last, next)
		if err == nil {
			m.last = merged
		}
		return err
	}
	return kept.Update(m.path, maxMemory, func(raw []byte) ([]byte, error) {
		var old *seen
		if raw != nil {
			var err error
			if old, err = parseSeen(raw, m.trustDomain); err != nil {
				return nil, fmt.Errorf("reading %s: %w", m.path, err)
			}
		}
		merged, err := merge(old, next)
		if err != nil {
			return nil, err
		}
		return json.Marshal(merged)
	})
}

// merge refuses what is older than old, and returns what is known with both.
func merge(old *seen, next seen) (*seen, error) {
	if old == nil {
		return &next, nil
	}
	if err := notOlder("manifest", old.Manifest, next.Manifest); err != nil {
		return nil, err
	}
	if err := notOlder("deny list", old.DenyList, next.DenyList); err != nil {
		return nil, err
	}
	if old.CDS != next.CDS {
		return &next, recognise(old, next.CDS, next.Manifest.Version)
	}
	if old.Size > next.Size { // another replica may be ahead
		next.Size, next.Checkpoint = old.Size, old.Checkpoint
	}
	if old.Anchor == next.Anchor {
		for _, o := range old.Operators {
			if !slices.Contains(next.Operators, o) {
				next.Operators = append(next.Operators, o)
			}
		}
	}
	return &next, nil
}

func notOlder(what string, old, next proof.Followed) error {
	switch {
	case next.Version < old.Version:
		return attest.NewFailure(CodeOlder, fmt.Sprintf("a %s not older than version %d, which was seen before", what, old.Version), next.String(),
			"the ingress or its CDS is behind, or was rolled back: try again in a minute; if it stays so, ask the operators")
	case next.Version == old.Version && next.Digest != old.Digest:
		return attest.NewFailure(CodeForked, fmt.Sprintf("the %s seen before, %s", what, old), next.String(),
			"the operators signed two of one version: keep this machine's state folder, it is the proof")
	}
	return nil
}

// recognise accepts another CDS than the known one only under a manifest that
// the operators signed after it was last met: whoever holds the store could make
// an empty one, but not that.
func recognise(old *seen, cds policy.Digest, version uint64) error {
	if old == nil || old.CDS == cds || version > old.MetAt {
		return nil
	}
	return attest.NewFailure(CodeReplaced, fmt.Sprintf("the CDS known under manifest %d, with the keys %s", old.MetAt, old.CDS), string(cds),
		"if the operators made the CDS anew, they publish a manifest of a higher version to say so")
}
