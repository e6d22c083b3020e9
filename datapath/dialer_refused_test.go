// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"net/netip"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

func TestIngressDialIsRefused(t *testing.T) {
	refused := func(string) policy.Decision { return policy.Decision{Code: "wrong-host", Rule: "ingress[bank]"} }
	for name, tt := range map[string]struct {
		to        string
		may       func(string) policy.Decision
		code, far string
		elsewhere bool
		arrange   func(t *testing.T, g *gateway, a, b *node)
	}{
		"no certificate yet": {code: "not-enrolled", arrange: func(_ *testing.T, g *gateway, _, _ *node) { g.cred.Store(nil) }},
		"certificate of a node": {code: "not-an-ingress", arrange: func(_ *testing.T, g *gateway, _, _ *node) {
			facts := g.w.ingressFacts()
			facts.Role = policy.RoleNode
			g.cred.Store(g.w.credential(facts, time.Hour))
		}},
		"certificate of a workload": {code: "not-an-ingress", arrange: func(_ *testing.T, g *gateway, _, _ *node) {
			g.cred.Store(g.w.credential(policytest.Peer(g.w.fixture.Signed, policytest.DB), time.Hour, netip.MustParseAddr("127.0.0.1")))
		}},
		"certificate is over": {code: "certificate-expired", arrange: func(_ *testing.T, g *gateway, _, _ *node) {
			g.cred.Store(g.w.credential(g.w.ingressFacts(), -time.Second))
		}},
		"ingress denied here": {code: "denied-machine", arrange: func(t *testing.T, g *gateway, _, _ *node) {
			g.deny(policytest.Deny(policy.DenyMachine, g.cred.Load().Holder.Machine))
		}},
		"ingress denied there": {code: "peer-refused-certificate", far: "denied-machine", elsewhere: true, arrange: func(_ *testing.T, g *gateway, _, b *node) {
			b.deny(policytest.Deny(policy.DenyMachine, g.cred.Load().Holder.Machine))
		}},
		"pod denied": {code: "denied-workload", elsewhere: true, arrange: func(_ *testing.T, g *gateway, _, _ *node) {
			g.deny(policytest.Deny(policy.DenyWorkload, policytest.DB))
		}},
		"no manifest":                 {code: "no-manifest", arrange: func(_ *testing.T, g *gateway, _, _ *node) { g.w.manifest.Store(nil) }},
		"nobody says who may answer":  {code: "no-route", may: func() func(string) policy.Decision { return nil }()},
		"not for this host":           {may: refused, code: "wrong-host", elsewhere: true},
		"undecided":                   {may: func(string) policy.Decision { return policy.Decision{} }, code: string(policy.CodeUndecided), elsewhere: true},
		"workload that no rule lists": {to: webAddr + ":6379", code: "ingress-workload-not-allowed", elsewhere: true},
		"port that no rule lists":     {to: dbAddr + ":22", code: "ingress-port-not-allowed", elsewhere: true},
		"node is not there": {code: "node-unreachable", elsewhere: true, arrange: func(_ *testing.T, g *gateway, _, _ *node) {
			g.w.routes[netip.MustParseAddr(dbAddr)] = netip.MustParseAddr("127.0.0.77")
		}},
		"node does not have the pod": {code: "peer-refused-certificate", far: "destination-not-enrolled", elsewhere: true, arrange: func(_ *testing.T, g *gateway, a, _ *node) {
			g.w.routes[netip.MustParseAddr(dbAddr)] = a.addr
		}},
		"node shows another pod": {code: "peer-address", elsewhere: true, arrange: func(_ *testing.T, g *gateway, _, b *node) {
			b.podWith(policytest.DB, netip.MustParseAddr(dbAddr), g.w.ca.issue(policytest.Peer(g.w.fixture.Signed, policytest.DB), time.Hour, netip.MustParseAddr("127.20.0.9")))
		}},
		"node shows a node": {code: "peer-role", elsewhere: true, arrange: func(_ *testing.T, g *gateway, _, b *node) {
			facts := g.w.ingressFacts()
			facts.Role = policy.RoleNode
			addr := netip.MustParseAddr(dbAddr)
			b.podWith(policytest.DB, addr, g.w.ca.issue(facts, time.Hour, addr))
		}},
		"node shows an ingress": {code: "peer-role", elsewhere: true, arrange: func(_ *testing.T, g *gateway, _, b *node) {
			addr := netip.MustParseAddr(dbAddr)
			b.podWith(policytest.DB, addr, g.w.ca.issue(g.w.ingressFacts(), time.Hour, addr))
		}},
		"node shows another workload at the address": {code: "ingress-workload-not-allowed", elsewhere: true, arrange: func(_ *testing.T, g *gateway, _, b *node) {
			addr := netip.MustParseAddr(dbAddr)
			b.podWith(policytest.DB, addr, g.w.ca.issue(policytest.Peer(g.w.fixture.Signed, policytest.Web), time.Hour, addr))
		}},
		"pod of another CA": {code: "peer-chain", elsewhere: true, arrange: func(t *testing.T, g *gateway, _, b *node) {
			addr := netip.MustParseAddr(dbAddr)
			b.podWith(policytest.DB, addr, newCA(t).issue(policytest.Peer(g.w.fixture.Signed, policytest.DB), time.Hour, addr))
		}},
		"ingress of another CA": {code: "peer-refused-certificate", far: "peer-chain", elsewhere: true, arrange: func(t *testing.T, g *gateway, _, _ *node) {
			ca := g.w.ca
			g.w.ca = newCA(t)
			g.cred.Store(g.w.credential(g.w.ingressFacts(), time.Hour))
			g.w.ca = ca
		}},
	} {
		t.Run(name, func(t *testing.T) {
			g, a, b := ingressFront(t, Limits{})
			if tt.to == "" {
				tt.to = dbApp
			}
			target := g.target(tt.to)
			if tt.may == nil && name != "nobody says who may answer" {
				tt.may = anyWorkload
			}
			if tt.arrange != nil {
				tt.arrange(t, g, a, b)
				target = g.target(tt.to)
			}
			_, err := g.dialer.Dial(t.Context(), target, tt.may)
			wantRefused(t, err, tt.code, tt.elsewhere)
			if tt.far != "" {
				n := b
				if target.Node == a.addr {
					n = a
				}
				n.wantRefusal(tt.far)
			}
			for g.dialer.Stats().Conns != 0 || g.dialer.Stats().Busy != 0 {
				time.Sleep(time.Millisecond)
			}
		})
	}
}

func TestIngressHearsOfTheOtherNodesRefusal(t *testing.T) {
	g, _, b := ingressFront(t, Limits{})
	c := g.dial(dbApp) // nobody listens
	_, err := c.Read(make([]byte, 1))
	wantRefused(t, err, "connection-refused", true)
	if _, err := c.Write([]byte("x")); err == nil {
		t.Error("written")
	} else {
		wantRefused(t, err, "connection-refused", true)
	}
	b.wantRefusal("connection-refused")
	echo(t, dbApp)
	chat(t, g.dial(dbApp)) // over the same tunnel
	if s := g.dialer.Stats(); s.Reused == 0 {
		t.Errorf("%+v", s)
	}
}
