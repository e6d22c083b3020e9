// SPDX-License-Identifier: Apache-2.0

package cds

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/c8s-dev/c8s/cds/store"
	"github.com/c8s-dev/c8s/cds/store/storetest"
	"github.com/c8s-dev/c8s/policy"
)

// A store that is away when the shares are to be made must not be the reason
// that there never are any.
func TestRecoverySharesAreMadeOnceTheStoreIsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLone(t)
		s := storetest.NewFaulty(storetest.NewMemory())
		r := l.mustRun(s)
		defer r.stop()
		next := l.f.Next(t, func(m *policy.Manifest) { m.Recovery = recoverySection(t, 3) })
		s.Crash(3, storetest.Write, storetest.Before) // the manifest takes two writes, the shares are the next
		if _, err := r.c.policies.publishManifest(t.Context(), next.Envelope); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if r.c.ledger.View().Head.Recovery.Document != "" {
			t.Fatal("the shares were made in spite of the store")
		}
		time.Sleep(time.Minute)
		s.Heal()
		time.Sleep(time.Minute)
		if r.c.ledger.View().Head.Recovery.Document == "" {
			t.Error("there are no recovery shares")
		}
	})
}

// refusing takes no documents.
type refusing struct {
	store.Store
	off atomic.Bool
}

func (r *refusing) Commit(ctx context.Context, t store.Txn) (store.Version, error) {
	if !r.off.Load() && slices.ContainsFunc(t.Put, func(i store.Item) bool { return strings.HasPrefix(i.Key, "document/") }) {
		return 0, errors.New("no more room")
	}
	return r.Store.Commit(ctx, t)
}

// The manifest that a replica is started with is not forgotten because the
// store was away at that moment.
func TestManifestGivenAtStartIsPutInForceOnceTheStoreIsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLone(t)
		memory := storetest.NewMemory()
		l.mustRun(memory).stop()
		old := l.f
		l.f = l.f.Next(t, func(m *policy.Manifest) { m.Workloads[0].HostAccess = !m.Workloads[0].HostAccess })
		s := &refusing{Store: memory}
		r := l.mustRun(s)
		defer r.stop()
		time.Sleep(time.Minute)
		if r.Manifest().Digest != old.Digest {
			t.Fatal("it was put in force in spite of the store")
		}
		s.off.Store(true)
		time.Sleep(time.Minute)
		if r.Manifest().Digest != l.f.Digest {
			t.Error("it is not in force")
		}
	})
}
