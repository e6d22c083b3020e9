// SPDX-License-Identifier: Apache-2.0

package client

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"

	"github.com/c8s-dev/c8s/cds/api"
	"github.com/c8s-dev/c8s/cds/kept"
	"github.com/c8s-dev/c8s/cds/translog"
	"github.com/c8s-dev/c8s/cds/trust"
	"github.com/c8s-dev/c8s/policy"
)

// memory is what this machine knows of the CDS's past: whose keys it had, and
// how far its log went. A CDS whose store was rolled back is found out by it.
type memory struct {
	c    *Client
	note *kept.Note // the largest checkpoint; nil without a state folder

	mu   sync.Mutex
	cds  acquaintance
	last []byte // checkpoint, where there is no note
	size int64
}

// acquaintance is the CDS this machine knows, and the manifest it knew when it
// met it.
type acquaintance struct {
	Bundle  policy.Digest `json:"bundle"`
	Version uint64        `json:"manifestVersion"`
}

func newMemory(c *Client) (*memory, error) {
	m := &memory{c: c}
	if c.cfg.StateDir == "" {
		return m, nil
	}
	var err error
	if m.note, err = kept.OpenNote(c.path(checkpointFile)); err != nil {
		return nil, err
	}
	raw, err := os.ReadFile(c.path(bundleFile))
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err == nil {
		err = json.Unmarshal(raw, &m.cds)
	}
	if err == nil && !m.cds.Bundle.Valid() {
		err = errors.New("it names no CDS")
	}
	if err != nil {
		return nil, fmt.Errorf("reading which CDS this machine knows from %s: %w", c.path(bundleFile), err)
	}
	return m, nil
}

// recognise accepts the CDS this machine knows, and the first one it meets.
// Another one, with other keys and an empty log, is accepted only under a
// manifest that the operators signed after this machine met the last: whoever
// holds the store could make an empty one, but not that.
func (m *memory) recognise(b *trust.Bundle) error {
	digest := b.Digest()
	now := m.c.Manifest().Manifest
	if b.TrustDomain != now.TrustDomain {
		return &RefusedError{Code: CodeReplaced, Detail: fmt.Sprintf("the CDS is of trust domain %q, want %q", b.TrustDomain, now.TrustDomain)}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cds.Bundle == digest {
		return m.holdsUnder(now.Version)
	}
	if m.cds.Bundle != "" && now.Version <= m.cds.Version {
		return &RefusedError{Code: CodeReplaced, Detail: fmt.Sprintf(
			"the CDS has other keys (%s) than the one this machine knows (%s): its store was lost or exchanged; if the operators made it anew, they publish a manifest of a higher version than %d to say so",
			digest, m.cds.Bundle, m.cds.Version)}
	}
	return m.meet(acquaintance{digest, now.Version}, m.cds.Bundle != "")
}

// under notes, before a manifest comes into force, that the CDS which this
// machine knows has it.
func (m *memory) under(b *trust.Bundle, version uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cds.Bundle != b.Digest() {
		return nil // the machine met another meanwhile
	}
	return m.holdsUnder(version)
}

// holdsUnder needs m.mu.
func (m *memory) holdsUnder(version uint64) error {
	if version <= m.cds.Version {
		return nil
	}
	return m.meet(acquaintance{m.cds.Bundle, version}, false)
}

// meet keeps the acquaintance. The log of a CDS that was replaced is
// forgotten: it is another log.
func (m *memory) meet(a acquaintance, replaced bool) error {
	if replaced {
		m.c.cfg.Log.Warn("the CDS was made anew", "was", m.cds.Bundle, "is", a.Bundle, "manifest", a.Version)
		m.last, m.size = nil, 0
		if m.note != nil {
			if err := m.note.Forget(); err != nil {
				return err
			}
		}
	}
	if path := m.c.path(bundleFile); path != "" {
		raw, err := json.Marshal(a)
		if err != nil {
			return err
		}
		if err := kept.Replace(path, raw); err != nil {
			return fmt.Errorf("keeping which CDS this machine knows: %w", err)
		}
	}
	m.cds = a
	return nil
}

// checkpoint is the largest this machine was given, nil for none.
func (m *memory) checkpoint() []byte {
	if m.note != nil {
		_, text := m.note.Largest()
		return text
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.last
}

// remember verifies a checkpoint of the log and keeps it if it is the largest.
func (m *memory) remember(b *trust.Bundle, signed []byte) (*translog.Checkpoint, error) {
	verifier, err := b.LogVerifier()
	if err != nil {
		return nil, err
	}
	origin := trust.LogOrigin(b.TrustDomain)
	cp, err := translog.OpenCheckpoint(signed, origin, verifier)
	if err != nil {
		return nil, &RefusedError{Code: CodeReceipt, Detail: err.Error()}
	}
	if old, err := translog.OpenCheckpoint(m.checkpoint(), origin, verifier); err == nil && old.Size == cp.Size && old.Root != cp.Root {
		return nil, &RefusedError{Code: CodeLogForked, Detail: fmt.Sprintf("the log has two roots for %d entries, %s and %s: keep this machine's state folder, it is the proof", cp.Size, old.Root, cp.Root)}
	}
	if m.note != nil {
		_, err := m.note.Keep(uint64(cp.Size), signed) //nolint:gosec // not negative
		return cp, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if cp.Size >= m.size {
		m.size, m.last = cp.Size, signed
	}
	return cp, nil
}

// verifyReceipt checks that the certificate is in the log.
func (m *memory) verifyReceipt(b *trust.Bundle, r *api.Receipt, chain []*x509.Certificate) error {
	entry, err := m.verifyLogged(b, r)
	if err != nil {
		return err
	}
	if entry.Type != translog.TypeIssuance || entry.Certificate != policy.DigestOf(chain[0].Raw) || entry.Issuer != policy.DigestOf(chain[1].Raw) {
		return &RefusedError{Code: CodeReceipt, Detail: "the log's entry is about another certificate"}
	}
	return nil
}

// verifyLogged checks that the entry is in the log.
func (m *memory) verifyLogged(b *trust.Bundle, r *api.Receipt) (*translog.Entry, error) {
	cp, err := m.remember(b, r.GetCheckpoint())
	if err != nil {
		return nil, err
	}
	entry, err := translog.ParseEntry(r.GetEntry())
	if err != nil {
		return nil, &RefusedError{Code: CodeReceipt, Detail: err.Error()}
	}
	proof := make([]translog.Hash, len(r.GetProof()))
	for i, h := range r.GetProof() {
		if len(h) != sha256.Size {
			return nil, &RefusedError{Code: CodeReceipt, Detail: fmt.Sprintf("hash %d of the proof has %d bytes", i, len(h))}
		}
		proof[i] = translog.Hash(h)
	}
	if err := translog.VerifyInclusion(r.GetEntry(), r.GetIndex(), *cp, proof); err != nil {
		return nil, &RefusedError{Code: CodeReceipt, Detail: err.Error()}
	}
	return entry, nil
}
