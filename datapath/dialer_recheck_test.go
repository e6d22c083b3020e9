// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/datapath/tunnel"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

func TestIngressConnectionsEndWhenTheyAreNoLongerAllowed(t *testing.T) {
	noIngress := func(t *testing.T, g *gateway) {
		g.w.manifest.Store(g.w.fixture.Next(t, func(m *policy.Manifest) { m.Ingress[0].Backends[0].Ports[0]++ }).Signed)
	}
	for name, tt := range map[string]struct {
		change func(t *testing.T, g *gateway, b *node)
		reason tunnel.Reason
	}{
		"ingress rule gone, seen here":  {reason: tunnel.ReasonPolicyChanged, change: func(t *testing.T, g *gateway, _ *node) { noIngress(t, g); g.dialer.Recheck() }},
		"ingress rule gone, seen there": {reason: tunnel.ReasonPolicyChanged, change: func(t *testing.T, g *gateway, b *node) { noIngress(t, g); b.proxy.Recheck() }},
		"ingress denied here": {reason: tunnel.ReasonDenied, change: func(_ *testing.T, g *gateway, _ *node) {
			g.deny(policytest.Deny(policy.DenyMachine, g.cred.Load().Holder.Machine))
			g.dialer.Recheck()
		}},
		"ingress denied there": {reason: tunnel.ReasonDenied, change: func(_ *testing.T, g *gateway, b *node) {
			b.deny(policytest.Deny(policy.DenySerial, g.cred.Load().Holder.Serial))
			b.proxy.Recheck()
		}},
		"pod denied": {reason: tunnel.ReasonDenied, change: func(_ *testing.T, g *gateway, _ *node) {
			g.deny(policytest.Deny(policy.DenyWorkload, policytest.DB))
			g.dialer.Recheck()
		}},
		"other CA":         {reason: tunnel.ReasonPolicyChanged, change: func(t *testing.T, g *gateway, _ *node) { g.w.roots.Store(newCA(t).pool()); g.dialer.Recheck() }},
		"certificate lost": {reason: tunnel.ReasonPolicyChanged, change: func(_ *testing.T, g *gateway, _ *node) { g.cred.Store(nil); g.dialer.Recheck() }},
		"pod gone":         {reason: tunnel.ReasonPolicyChanged, change: func(_ *testing.T, _ *gateway, b *node) { b.remove(dbAddr); b.proxy.Recheck() }},
		"role gone": {reason: tunnel.ReasonPolicyChanged, change: func(t *testing.T, g *gateway, b *node) {
			g.w.manifest.Store(g.w.fixture.Next(t, func(m *policy.Manifest) {
				m.Substrates[0].Roles = m.Substrates[0].Roles[:2]
				m.Ingress = nil
			}).Signed)
			b.proxy.Recheck()
		}},
		"certificates over": {reason: tunnel.ReasonPolicyChanged, change: func(_ *testing.T, g *gateway, _ *node) {
			g.w.ahead.Store(int64(2 * time.Hour))
			g.dialer.Recheck()
		}},
	} {
		t.Run(name, func(t *testing.T) {
			g, _, b := ingressFront(t, Limits{})
			echo(t, dbApp)
			c := g.dial(dbApp)
			chat(t, c)
			g.dialer.Recheck()
			b.proxy.Recheck()
			chat(t, c) // nothing changed
			tt.change(t, g, b)
			_, err := c.Read(make([]byte, 1))
			var end *tunnel.ConnError
			if !errors.As(err, &end) || end.Reason != tt.reason {
				t.Errorf("got %v, want %s", err, tt.reason)
			}
			for b.proxy.Stats().Incoming != 0 || g.dialer.Stats().Conns != 0 {
				time.Sleep(time.Millisecond)
			}
		})
	}
}

// A host may lead to other workloads than a moment ago: only its connections
// end.
func TestRecheckAsksAgainWhoseConnectionItIs(t *testing.T) {
	g, _, _ := ingressFront(t, Limits{})
	echo(t, dbApp)
	var gone atomic.Bool
	moved, err := g.tryDial(dbApp, func(string) policy.Decision {
		return policy.Decision{Allowed: !gone.Load(), Code: "moved"}
	})
	must(t, err)
	stays := g.dial(dbApp)
	chat(t, moved)
	chat(t, stays)
	gone.Store(true)
	g.dialer.Recheck()
	_, err = moved.Read(make([]byte, 1))
	var end *tunnel.ConnError
	if !errors.As(err, &end) || end.Reason != tunnel.ReasonPolicyChanged {
		t.Errorf("%v", err)
	}
	var why *Refusal
	if !errors.As(err, &why) || why.Code != "moved" {
		t.Errorf("the connection does not say why it ended: %v", err)
	}
	chat(t, stays)
	must(t, stays.Close())
	for g.dialer.Stats().Busy != 0 {
		time.Sleep(time.Millisecond)
	}
	g.dialer.Recheck() // idle tunnels are nobody's
	chat(t, g.dial(dbApp))
}

func TestTunnelThatIsLostIsNoEnd(t *testing.T) {
	g, _, b := ingressFront(t, Limits{})
	echo(t, dbApp)
	c := g.dial(dbApp)
	chat(t, c)
	b.stop()
	_, err := c.Read(make([]byte, 1))
	var end *tunnel.ConnError
	if !errors.As(err, &end) || end.Reason != tunnel.ReasonShutdown && end.Reason != tunnel.ReasonTunnelLost {
		t.Errorf("%v", err)
	}
	_, err = g.tryDial(dbApp, anyWorkload)
	wantRefused(t, err, "node-unreachable", true)
}

// Whatever was being set up while a denial arrived, nothing is left after
// Recheck.
func TestNoIngressConnectionSlipsPastADenial(t *testing.T) {
	g, _, _ := ingressFront(t, Limits{})
	echo(t, dbApp)
	var wg sync.WaitGroup
	var stop atomic.Bool
	for range 8 {
		wg.Go(func() {
			for !stop.Load() {
				c, err := g.dialer.Dial(t.Context(), g.target(dbApp), anyWorkload)
				if err != nil {
					continue
				}
				_, _ = c.Write([]byte("x"))
				_, _ = c.Read(make([]byte, 1))
				_ = c.Close()
			}
		})
	}
	for g.dialer.Stats().Streams < 50 {
		time.Sleep(time.Millisecond)
	}
	g.deny(policytest.Deny(policy.DenyWorkload, policytest.DB))
	g.dialer.Recheck()
	after := g.dialer.Stats().Streams
	_, err := g.tryDial(dbApp, anyWorkload)
	wantRefused(t, err, "denied-workload", true)
	stop.Store(true)
	wg.Wait()
	for g.dialer.Stats().Conns != 0 {
		time.Sleep(time.Millisecond)
	}
	// Those that were judged just before may have been opened just after, and
	// died with their tunnels.
	if n := g.dialer.Stats().Streams - after; n > 8 {
		t.Errorf("%d connections after the denial", n)
	}
}
