// SPDX-License-Identifier: Apache-2.0

package cds

import (
	"testing"
	"testing/synctest"
	"time"

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
