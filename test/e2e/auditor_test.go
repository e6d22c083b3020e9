// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"testing"

	"github.com/c8s-dev/c8s/cds/translog"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/test/cluster"
)

// auditor follows the CDS's log as anybody may: what it has seen once must stay.
type auditor struct {
	c    *cluster.Cluster
	keys policy.Digest // of the CDS it met first
	last *translog.Checkpoint
	read int64 // entries

	issued    map[policy.Digest]int // how often a certificate is in the log
	bundles   int
	manifests uint64 // the last version
	denyLists uint64
}

func newAuditor(t *testing.T, c *cluster.Cluster) *auditor {
	t.Helper()
	return &auditor{c: c, issued: map[policy.Digest]int{}}
}

// audit reads what is new in the log and checks that it only grew, that every
// version follows the one before, and that the CDS is still the same.
func (a *auditor) audit(t *testing.T) {
	t.Helper()
	log, err := a.c.Log(t.Context())
	if err != nil {
		t.Fatalf("reading the log: %v", err)
	}
	defer log.Close()
	if err := a.follow(t.Context(), log); err != nil {
		t.Fatalf("auditing the log: %v", err)
	}
}

func (a *auditor) follow(ctx context.Context, log *cluster.Log) error {
	if a.keys == "" {
		a.keys = log.Bundle().Digest()
	}
	if got := log.Bundle().Digest(); got != a.keys {
		return fmt.Errorf("the CDS's keys are %s, they were %s", got, a.keys)
	}
	now, _, err := log.Latest(ctx)
	if err != nil {
		return err
	}
	if a.last != nil {
		if err := log.Consistent(ctx, *a.last, *now); err != nil {
			return err
		}
	}
	if err := log.Entries(ctx, *now, a.read, now.Size, func(index int64, raw []byte) error {
		e, err := translog.ParseEntry(raw)
		if err != nil {
			return fmt.Errorf("entry %d: %w", index, err)
		}
		return a.entry(index, e)
	}); err != nil {
		return err
	}
	a.last, a.read = now, now.Size
	return nil
}

func (a *auditor) entry(index int64, e *translog.Entry) error {
	next := func(what string, last *uint64) error {
		if e.Version != *last+1 {
			return fmt.Errorf("entry %d: %s %d follows %d", index, what, e.Version, *last)
		}
		*last = e.Version
		return nil
	}
	switch e.Type {
	case translog.TypeBundle:
		if a.bundles++; a.bundles > 1 {
			return fmt.Errorf("entry %d: another CDS begins", index)
		}
	case translog.TypeManifest:
		return next("manifest", &a.manifests)
	case translog.TypeDenylist:
		return next("deny list", &a.denyLists)
	case translog.TypeIssuance:
		if a.issued[e.Certificate]++; a.issued[e.Certificate] > 1 {
			return fmt.Errorf("entry %d: certificate %s was logged before", index, e.Certificate)
		}
	}
	return nil
}

// mustHaveAll checks that what was handed out is in the log, once.
func (a *auditor) mustHaveAll(t *testing.T, certificates []policy.Digest) {
	t.Helper()
	for _, c := range certificates {
		if a.issued[c] != 1 {
			t.Errorf("certificate %s was handed out and is in the log %d times", c, a.issued[c])
		}
	}
}
