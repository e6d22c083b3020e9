// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/c8s-dev/c8s/attest"
	cds "github.com/c8s-dev/c8s/cds/client"
	"github.com/c8s-dev/c8s/cds/trust"
	"github.com/c8s-dev/c8s/client/proof"
	"github.com/c8s-dev/c8s/policy"
)

// word is the operators' word as the CDS has it: everything in it was traced to
// the anchor.
type word struct {
	manifest      *policy.Signed
	manifestSince time.Time
	denyList      *policy.SignedDenyList // nil: there never was one
	denyListSince time.Time
	bundle        *trust.Bundle
	operators     []string // digests: for whom the CDS may have been launched
	at            time.Time

	steps     []proof.Step
	documents []Document
}

// reading is one attempt to establish the word.
type reading struct {
	c           *Client
	get         cds.Getter
	r           *Report
	w           *word
	known       *seen  // nil: nothing
	newest      []byte // envelope
	endorsement *trust.Endorsement
	verdict     *attest.Verdict // of the CDS's evidence, under the manifest in force
	launchedFor string          // HOST_DATA of a CDS that the anchor accepts
	checkpoint  string
	size        int64
}

// readWord verifies the chain of trust from the anchor down to what is in
// force, with documents from strangers. Its steps are in r also when it fails.
func (c *Client) readWord(ctx context.Context, get cds.Getter, r *Report) (*word, error) {
	v := &reading{c: c, get: get, r: r, w: &word{at: c.cfg.Now()}}
	for _, step := range []func(context.Context) error{v.fetch, v.anchor, v.cds, v.inForce, v.denied, v.log, v.witnesses, v.remember} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	return v.w, nil
}

// fetch reads the two documents that everything begins with.
func (v *reading) fetch(ctx context.Context) error {
	const expected = "the manifest in force and the CDS's keys"
	raw, err := v.get(ctx, "/v1/manifest")
	if err != nil {
		return v.r.refute(StepAnchor, expected, err)
	}
	v.newest = raw
	e, err := policy.ParseEnvelope(raw)
	if err != nil {
		return v.r.refute(StepAnchor, expected, err)
	}
	m, err := policy.Parse(e.Payload)
	if err != nil {
		return v.r.refute(StepAnchor, expected, err)
	}
	// Not signed yet, but a name to look under; what is found is compared by
	// digest with what is signed.
	v.r.TrustDomain = m.TrustDomain
	memory, err := v.c.memoryOf(m.TrustDomain)
	if err == nil {
		v.known, err = memory.recall()
	}
	if err != nil {
		return v.r.refute(StepMemory, "what was seen before", err)
	}
	text, err := v.get(ctx, "/v1/endorsement")
	if err == nil {
		v.endorsement, err = trust.ParseEndorsement(text)
	}
	if err != nil {
		return v.r.refute(StepCDS, expected, err)
	}
	return nil
}

// anchor follows the manifests from the first that the anchor opens to the one
// in force, each signed by the operators of the one before.
func (v *reading) anchor(ctx context.Context) error {
	expected := v.c.cfg.Anchor.String()
	if p := v.c.cfg.Anchor.cds; p != nil {
		verdict, err := v.endorsement.Appraise(p, v.c.cfg.Now())
		if err != nil {
			return v.r.refute(StepAnchor, expected, err)
		}
		v.launchedFor = verdict.HostData
	}
	trusted := v.known != nil && v.known.Anchor == v.c.cfg.Anchor.id()
	chain, err := v.get.Chain(ctx, v.newest, func(m *policy.Manifest) bool {
		return trusted && m.Version <= v.known.Manifest.Version
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // a CDS that was made anew lacks the older ones
		return v.r.refute(StepManifest, "the manifests before the one in force", err)
	}
	first, rest, err := v.start(chain, trusted)
	if err != nil {
		return v.r.refute(StepAnchor, expected, err)
	}
	v.r.proven(StepAnchor, expected, "stands behind manifest %d", first.Manifest.Version)
	now, err := cds.Follow(first, rest, false)
	if err != nil {
		return v.r.refute(StepManifest, "each manifest signed by the operators of the one before", err)
	}
	if err := v.asKnown(chain, now); err != nil {
		return v.r.refute(StepMemory, "what was seen before", err)
	}
	if err := v.note(first, rest); err != nil {
		return v.r.refute(StepManifest, "each manifest as it was signed", err)
	}
	v.w.manifest = now
	v.r.Manifest = &proof.Followed{Version: now.Manifest.Version, Digest: now.Digest}
	v.r.proven(StepManifest, "signed by the operators, in succession", "version %d of %s, %s, %d steps", now.Manifest.Version, now.Manifest.TrustDomain, now.Digest, len(rest))
	return nil
}

// start finds the manifest to follow from: the one that was verified before, or
// the oldest that the anchor opens.
func (v *reading) start(chain [][]byte, trusted bool) (first *policy.Signed, rest [][]byte, err error) {
	if trusted {
		before, err := unopened(chain[0])
		if err != nil {
			return nil, nil, err
		}
		if before.Digest == v.known.Manifest.Digest {
			return before, chain[1:], nil
		}
	}
	for i, envelope := range chain {
		operators, ok := v.anchorOf(envelope)
		if !ok {
			continue
		}
		signed, open := policy.Open(envelope, operators)
		if open == nil {
			return signed, chain[i+1:], nil
		}
		err = open
	}
	if err == nil {
		err = refusal(CodeAnchor, "a manifest with the operators whom the CDS was launched for, "+v.launchedFor, "none", "do not use this CDS")
	}
	return nil, nil, err
}

// anchorOf returns the operators that must have signed the envelope for it to be
// the first.
func (v *reading) anchorOf(envelope []byte) (policy.Operators, bool) {
	if o := v.c.cfg.Anchor.operators; o != nil {
		return *o, true
	}
	m, err := unopened(envelope)
	if err != nil || !trust.DigestBound(v.launchedFor, operatorsHex(m.Manifest.Operators)) {
		return policy.Operators{}, false
	}
	return m.Manifest.Operators, true
}

// unopened reads a manifest whose signatures are not checked: it is compared by
// its digest.
func unopened(envelope []byte) (*policy.Signed, error) {
	e, err := policy.ParseEnvelope(envelope)
	if err != nil {
		return nil, err
	}
	m, err := policy.Parse(e.Payload)
	if err != nil {
		return nil, err
	}
	return &policy.Signed{Manifest: m, Payload: e.Payload, Digest: m.Digest(), Envelope: envelope}, nil
}

// asKnown refuses what is older than, or beside, what was seen before.
func (v *reading) asKnown(chain [][]byte, now *policy.Signed) error {
	if v.known == nil {
		return nil
	}
	if err := notOlder("manifest", v.known.Manifest, proof.Followed{Version: now.Manifest.Version, Digest: now.Digest}); err != nil {
		return err
	}
	oldest := now.Manifest.Version
	for _, envelope := range chain {
		m, err := unopened(envelope)
		if err != nil {
			return err
		}
		if m.Digest == v.known.Manifest.Digest {
			return nil
		}
		oldest = min(oldest, m.Manifest.Version)
	}
	if oldest > v.known.Manifest.Version { // the CDS has none that far back
		return nil
	}
	return refusal(CodeForked, "a successor of the manifest seen before, "+v.known.Manifest.String(), fmt.Sprintf("version %d, which does not descend from it", now.Manifest.Version),
		"somebody signed two successors of one manifest: keep this machine's state folder, it is the proof")
}

// note remembers all operators that were ever in force: the CDS may have been
// launched for any of them.
func (v *reading) note(first *policy.Signed, rest [][]byte) error {
	add := func(hex string) {
		if !slices.Contains(v.w.operators, hex) {
			v.w.operators = append(v.w.operators, hex)
		}
	}
	if o := v.c.cfg.Anchor.operators; o != nil {
		add(operatorsHex(*o))
	}
	if v.known != nil && v.known.Anchor == v.c.cfg.Anchor.id() {
		for _, o := range v.known.Operators {
			add(o)
		}
	}
	add(operatorsHex(first.Manifest.Operators))
	for _, envelope := range rest {
		m, err := unopened(envelope)
		if err != nil {
			return err
		}
		add(operatorsHex(m.Manifest.Operators))
	}
	return nil
}
