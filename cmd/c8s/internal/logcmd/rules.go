// SPDX-License-Identifier: Apache-2.0

package logcmd

import (
	"fmt"
	"slices"
	"time"

	"github.com/c8s-dev/c8s/cds/ca"
	"github.com/c8s-dev/c8s/cds/translog"
	"github.com/c8s-dev/c8s/cds/trust"
	"github.com/c8s-dev/c8s/policy"
)

// The rules that a log obeys, whatever its CDS did. docs/log.md explains them.
const (
	ruleFormat       = "entry-format"
	ruleFirst        = "first-bundle"
	ruleTime         = "time-order"
	ruleManifest     = "manifest-succession"
	ruleLock         = "manifest-lock"
	rulePending      = "pending-succession"
	ruleDenyList     = "denylist-succession"
	ruleIntermediate = "intermediate-root"
	ruleLife         = "certificate-life"
	ruleIssuer       = "issuance-issuer"
	ruleInForce      = "issuance-manifest"
	ruleRole         = "issuance-role"
)

// maxFindings is how many breaches are listed; all are counted.
const maxFindings = 100

// finding is a breach of a rule.
type finding struct {
	Index    int64  `json:"index"`
	Rule     string `json:"rule"`
	Expected string `json:"expected"`
	Actual   string `json:"actual"`
}

// ref is a version of a document.
type ref struct {
	Version uint64        `json:"version"`
	Digest  policy.Digest `json:"digest"`
	Index   int64         `json:"logIndex"`
	Since   time.Time     `json:"since"`
}

// rules reads a log from its first entry on and holds every entry against the
// ones before.
type rules struct {
	bundle *trust.Bundle // nil: the log's own word is taken

	counts        map[translog.Type]int64
	found         []finding
	breaches      int64
	last          time.Time
	root          policy.Digest // that intermediates are of; empty: not known yet
	manifest      ref
	denyList      ref
	locks         map[policy.Digest]time.Time // when pending manifests come into force
	pending       ref
	intermediates map[policy.Digest]time.Time // their ends
}

func newRules(b *trust.Bundle) *rules {
	r := &rules{bundle: b, counts: map[translog.Type]int64{}, found: []finding{}, locks: map[policy.Digest]time.Time{}, intermediates: map[policy.Digest]time.Time{}}
	if b != nil {
		r.root = policy.DigestOf(b.Root)
	}
	return r
}

// entry reads the next entry.
func (r *rules) entry(index int64, raw []byte) {
	e, err := translog.ParseEntry(raw)
	if err != nil {
		r.breach(index, ruleFormat, "an entry in its one spelling", err.Error())
		return
	}
	r.counts[e.Type]++
	r.want(!e.Time.Before(r.last), index, ruleTime, "not before "+stamp(r.last), stamp(e.Time))
	r.want((index == 0) == (e.Type == translog.TypeBundle), index, ruleFirst, "the CDS's keys in the first entry, and there only", string(e.Type))
	switch e.Type {
	case translog.TypeBundle:
		r.want(r.bundle == nil || e.Digest == r.bundle.Digest(), index, ruleFirst, "the keys that are trusted", string(e.Digest))
	case translog.TypeManifest:
		r.manifestInForce(index, e)
	case translog.TypePending:
		r.accepted(index, e)
	case translog.TypeDenylist:
		// A CDS that was made anew begins with any version.
		r.succeeds(index, ruleDenyList, r.denyList, e)
		r.denyList = refOf(index, e)
	case translog.TypeIntermediate:
		r.intermediate(index, e)
	case translog.TypeIssuance:
		r.issuance(index, e)
	}
	if e.Time.After(r.last) {
		r.last = e.Time
	}
}

func refOf(index int64, e *translog.Entry) ref { return ref{e.Version, e.Digest, index, e.Time} }

// succeeds holds a version against the one before, if there was one.
func (r *rules) succeeds(index int64, rule string, was ref, e *translog.Entry) {
	if was.Version == 0 {
		return
	}
	r.want(e.Version > was.Version, index, rule, fmt.Sprintf("a version above %d", was.Version), fmt.Sprint(e.Version))
	r.want(e.Previous == was.Digest, index, rule, "previous = "+string(was.Digest), string(e.Previous))
}

func (r *rules) manifestInForce(index int64, e *translog.Entry) {
	r.succeeds(index, ruleManifest, r.manifest, e)
	if at, locked := r.locks[e.Digest]; locked {
		r.want(!e.Time.Before(at), index, ruleLock, "not before "+stamp(at), stamp(e.Time))
	}
	r.manifest = refOf(index, e)
	clear(r.locks) // what follows another manifest cannot come into force any more
	r.pending = ref{}
}

func (r *rules) accepted(index int64, e *translog.Entry) {
	r.succeeds(index, rulePending, r.manifest, e)
	r.want(e.Version > r.pending.Version, index, rulePending, fmt.Sprintf("a version above %d, which waits", r.pending.Version), fmt.Sprint(e.Version))
	r.want(e.NotBefore.After(e.Time), index, rulePending, "a time lock after "+stamp(e.Time), stamp(e.NotBefore))
	r.locks[e.Digest], r.pending = e.NotBefore, refOf(index, e)
}

func (r *rules) intermediate(index int64, e *translog.Entry) {
	if r.root == "" {
		r.root = e.Issuer
	}
	r.want(e.Issuer == r.root, index, ruleIntermediate, "issued by the root "+string(r.root), string(e.Issuer))
	r.life(index, e, ca.IntermediateLife)
	r.intermediates[e.Certificate] = e.NotAfter
}

// life has no lower bound: a certificate may end while it waits to be logged.
func (r *rules) life(index int64, e *translog.Entry, longest time.Duration) {
	life := e.NotAfter.Sub(e.Time)
	r.want(life <= longest, index, ruleLife, "a life of at most "+longest.String(), life.String())
}

func (r *rules) issuance(index int64, e *translog.Entry) {
	end, known := r.intermediates[e.Issuer]
	switch {
	case !known:
		r.breach(index, ruleIssuer, "an issuing key that was logged before", string(e.Issuer))
	case e.Time.After(end):
		r.breach(index, ruleIssuer, "an issuing key that is valid until "+stamp(e.Time), "one that ended at "+stamp(end))
	case e.NotAfter.After(end):
		r.breach(index, ruleLife, "an end no later than the issuing key's, "+stamp(end), stamp(e.NotAfter))
	}
	r.life(index, e, ca.MaxLife)
	r.want(e.Manifest == r.manifest.Digest, index, ruleInForce, fmt.Sprintf("manifest %d, which was in force: %s", r.manifest.Version, r.manifest.Digest), string(e.Manifest))
	roles := []policy.Role{policy.RoleNode, policy.RoleWorkload, policy.RoleCDS, policy.RoleIngress}
	r.want(slices.Contains(roles, e.Role), index, ruleRole, fmt.Sprint(roles), string(e.Role))
}

// end says what can only be said of a whole log.
func (r *rules) end(size int64) {
	r.want(size == 0 || r.counts[translog.TypeManifest] > 0, size, ruleManifest, "a manifest in force", "none")
}

func (r *rules) want(ok bool, index int64, rule, expected, actual string) {
	if !ok {
		r.breach(index, rule, expected, actual)
	}
}

func (r *rules) breach(index int64, rule, expected, actual string) {
	r.breaches++
	if len(r.found) < maxFindings {
		r.found = append(r.found, finding{index, rule, expected, actual})
	}
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
