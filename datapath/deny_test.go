// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"crypto/tls"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/datapath/flow"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

// apart is pair with each pod on a machine and a measurement of its own, so
// that a denial of either is of one pod alone.
func apart(t *testing.T) (w *world, a, b *node) {
	w = newWorld(t, policytest.With(func(m *policy.Manifest) {
		m.Substrates[0].Measurements = []string{policytest.Hex(0xaa, 48), policytest.Hex(0xbb, 48)}
	}))
	a, b = w.node("127.0.0.1", Limits{}), w.node("127.0.0.2", Limits{})
	a.pod(policytest.Web, webAddr)
	b.podWith(policytest.DB, netip.MustParseAddr(dbAddr), w.dbCert())
	return w, a, b
}

func (w *world) dbCert() *tls.Certificate {
	facts := policytest.Peer(w.fixture.Signed, policytest.DB)
	facts.Machine, facts.Measurement = policytest.Hex(0xdd, 64), policytest.Hex(0xbb, 48)
	return w.ca.issue(facts, time.Hour, netip.MustParseAddr(dbAddr))
}

func (n *node) holder(addr string) policy.Holder {
	pod, _ := n.Pod(netip.MustParseAddr(addr))
	return pod.Credential().Holder
}

// denial is an entry of the kind that hits the holder.
func denial(kind policy.DenyKind, h policy.Holder) policy.Denial {
	return policytest.Deny(kind, map[policy.DenyKind]string{
		policy.DenySerial: h.Serial, policy.DenyKey: string(h.Key), policy.DenyMachine: h.Machine,
		policy.DenyMeasurement: h.Measurement, policy.DenyWorkload: h.Workload,
	}[kind])
}

// everyDenial runs fn for each kind of denial, each denied pod and each node
// that knows the deny list.
func everyDenial(t *testing.T, fn func(t *testing.T, a, b, decides *node, entry policy.Denial)) {
	for _, kind := range policy.DenyKinds() {
		for _, denied := range []string{"web", "db"} {
			for _, decider := range []string{"dialler", "acceptor"} {
				t.Run(string(kind)+" of "+denied+" at the "+decider, func(t *testing.T) {
					_, a, b := apart(t)
					decides, holder := a, a.holder(webAddr)
					if decider == "acceptor" {
						decides = b
					}
					if denied == "db" {
						holder = b.holder(dbAddr)
					}
					fn(t, a, b, decides, denial(kind, holder))
				})
			}
		}
	}
}

func wantDenial(t *testing.T, r flow.Record, entry policy.Denial) {
	t.Helper()
	if !strings.HasPrefix(r.Rule, "denylist") || !strings.Contains(r.Actual, entry.Value) || !strings.Contains(r.Actual, entry.Reason) {
		t.Errorf("the record does not say which entry denies: %+v", r)
	}
}

func TestDeniedPodIsRefusedByEitherNode(t *testing.T) {
	everyDenial(t, func(t *testing.T, a, b, decides *node, entry policy.Denial) {
		decides.deny(entry)
		a.dialRefused(webAddr, dbApp)
		wantDenial(t, decides.wantRefusal("denied-"+string(entry.Kind)), entry)
		if decides == b {
			a.wantRefusal("peer-refused-certificate")
		}
	})
}

func TestDenialEndsLiveAndPooledTunnels(t *testing.T) {
	everyDenial(t, func(t *testing.T, a, b, decides *node, entry policy.Denial) {
		echo(t, dbApp)
		first, live := a.dial(webAddr, dbApp), a.dial(webAddr, dbApp)
		talk(t, first)
		talk(t, live)
		must(t, first.CloseWrite()) // its tunnel goes back to the pool
		a.waitFlow(func(r flow.Record) bool { return r.Verdict == flow.Closed })
		decides.deny(entry)
		decides.proxy.Recheck()
		wantReset(t, live)
		other := a
		if decides == a {
			other = b
		}
		ended := func(reason string) func(flow.Record) bool {
			return func(r flow.Record) bool { return r.Verdict == flow.Closed && r.Reason == reason }
		}
		wantDenial(t, decides.waitFlow(ended("denied-"+string(entry.Kind))), entry)
		if r := other.waitFlow(ended("denied")); r.Rule != "" {
			t.Errorf("the other side was told more than a code: %+v", r)
		}
		if s := decides.proxy.Stats(); decides == a && s.Idle+s.Busy != 0 || decides == b && s.Inbound != 0 {
			for s.Idle+s.Busy+s.Inbound != 0 { // ended, and about to be forgotten
				time.Sleep(time.Millisecond)
				s = decides.proxy.Stats()
			}
		}
	})
}

// Between the arrival of a deny list and Recheck a tunnel may still be lent:
// each connection over it is judged.
func TestDenialHoldsForPooledTunnelsBeforeRecheck(t *testing.T) {
	everyDenial(t, func(t *testing.T, a, b, decides *node, entry policy.Denial) {
		echo(t, dbApp)
		first := a.dial(webAddr, dbApp)
		talk(t, first)
		must(t, first.CloseWrite())
		a.waitFlow(func(r flow.Record) bool { return r.Verdict == flow.Closed })
		decides.deny(entry)
		a.dialRefused(webAddr, dbApp)
		wantDenial(t, decides.wantRefusal("denied-"+string(entry.Kind)), entry)
		if decides == b {
			a.waitFlow(func(r flow.Record) bool {
				return r.Verdict == flow.Refused && (r.Reason == "denied" || r.Reason == "peer-refused-certificate")
			})
		}
	})
}

// A serial denies one certificate: the pod goes on with the next, and what the
// old one carried ends.
func TestRenewedCertificateOutlivesTheDenialOfTheOldOne(t *testing.T) {
	for _, renewed := range []string{"web", "db"} {
		t.Run(renewed, func(t *testing.T) {
			w, a, b := apart(t)
			echo(t, dbApp)
			old := a.dial(webAddr, dbApp)
			talk(t, old)
			holder, decides := a.holder(webAddr), a
			if renewed == "db" {
				holder, decides = b.holder(dbAddr), b
				b.podWith(policytest.DB, netip.MustParseAddr(dbAddr), w.dbCert())
			} else {
				a.pod(policytest.Web, webAddr)
			}
			for _, n := range []*node{a, b} {
				n.deny(denial(policy.DenySerial, holder))
			}
			decides.proxy.Recheck()
			wantReset(t, old)
			a.proxy.Recheck() // of the acceptor's renewal the dialler's pool knows only now
			talk(t, a.dial(webAddr, dbApp))
		})
	}
}

func TestLiftedDenialLetsPodsTalkAgain(t *testing.T) {
	_, a, _ := apart(t)
	echo(t, dbApp)
	a.deny(policytest.Deny(policy.DenyWorkload, policytest.DB))
	a.dialRefused(webAddr, dbApp)
	a.deny()
	talk(t, a.dial(webAddr, dbApp))
}

// Whatever was being set up while the list arrived, nothing is left after
// Recheck.
func TestNothingSlipsPastADenial(t *testing.T) {
	_, a, b := apart(t)
	echo(t, dbApp)
	to := netip.MustParseAddrPort(dbApp)
	a.target.Store(&to)
	var stop atomic.Bool
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for !stop.Load() {
				c, err := a.tryDial(webAddr, dbApp)
				if err != nil {
					continue
				}
				_, _ = c.Write([]byte("x"))
				_, _ = c.Read(make([]byte, 1))
				_ = c.Close()
			}
		})
	}
	b.waitFlow(func(r flow.Record) bool { return r.Verdict == flow.Closed })
	entry := policytest.Deny(policy.DenyWorkload, policytest.Web)
	b.deny(entry)
	b.proxy.Recheck()
	began := time.Now() // records carry the same clock
	b.waitFlow(func(r flow.Record) bool { return r.Reason == "denied-workload" && r.Time.After(began) })
	stop.Store(true)
	wg.Wait()
	for b.proxy.Stats().Incoming != 0 {
		time.Sleep(time.Millisecond)
	}
	for _, r := range b.flows.Subscribe(1000, flow.Filter{}).History() {
		// One that was judged just before may have reached its application
		// just after: it dies with its tunnel.
		if begun := r.Time.Add(-r.Duration); r.Verdict == flow.Closed && begun.After(began) && r.BytesSent+r.BytesReceived != 0 {
			t.Errorf("bytes passed after the denial: %+v", r)
		}
	}
}
