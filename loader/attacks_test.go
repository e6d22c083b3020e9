// SPDX-License-Identifier: Apache-2.0

package loader_test

import (
	"testing"
	"time"

	"github.com/c8s-dev/c8s/loader"
	"github.com/c8s-dev/c8s/test/attacks"
	"github.com/c8s-dev/c8s/test/lab"
	"github.com/c8s-dev/c8s/test/lab/capture"
)

// Every attack delivers its canary on an unlocked lab (package attacks).
func TestNoAttackReachesItsVictim(t *testing.T) {
	for _, clsact := range attachments() {
		b := newBench(t, func(c *loader.Config) { c.ForceClsact = clsact })
		b.routing(t)
		b.daemon(t)
		for _, kind := range kinds {
			attacker, peer := b.pod(t, "attacker-"+kind.String(), kind, true), b.pod(t, "peer-"+kind.String(), kind, true)
			// The neighbours are resolved, so that no attack fails for want of one.
			for _, dst := range addrsOf(b.outside) {
				_, _ = hello(t, attacker.NS, withPort(dst))
			}
			spoof := b.pod(t, "spoofed-"+kind.String(), kind, true)
			canary := capture.NewCanary()
			victims := map[string]*attacks.Victim{}
			for name, v := range map[string]struct {
				ns    *lab.NS
				iface string
			}{"outside": {b.outside.NS, lab.Uplink}, "peer": {peer.NS, peer.Interface}} {
				victim, err := attacks.NewVictim(v.ns, v.iface, canary)
				if err != nil {
					t.Fatal(err)
				}
				victims[name] = victim
			}
			env := attacks.Env{
				Src4: attacker.Addr4, Src6: attacker.Addr6, Spoof4: spoof.Addr4, Spoof6: spoof.Addr6,
				Outside4: b.outside.Addr4, Outside6: b.outside.Addr6, Peer4: peer.Addr4, Peer6: peer.Addr6,
				Node4: b.Addr4, Node6: b.Addr6, Canary: canary, Wait: 50 * time.Millisecond,
			}
			for _, a := range attacks.All() {
				t.Run(kind.String()+"/"+a.Name, func(t *testing.T) {
					before := reasons(t, b)
					err := attacker.Do(func() error {
						_, err := a.Run(t.Context(), env)
						return err
					})
					if err != nil {
						t.Fatal(err)
					}
					if a.ExpectReason == "" {
						return
					}
					eventually(t, time.Second, a.ExpectReason+" counted", func() bool {
						return reasons(t, b)[a.ExpectReason] > before[a.ExpectReason]
					})
				})
			}
			time.Sleep(100 * time.Millisecond)
			for name, v := range victims {
				if err := v.Close(); err != nil {
					t.Error(err)
				}
				if n := v.Hits(); n != 0 {
					t.Errorf("clsact=%t/%s: the victim %s saw %d canaries: %v", clsact, kind, name, n, v.Report().Canaries)
				}
			}
		}
	}
}

func reasons(t testing.TB, b *bench) map[string]uint64 {
	t.Helper()
	drops, err := b.l.Drops()
	if err != nil {
		t.Fatal(err)
	}
	return nonzero(drops)
}
