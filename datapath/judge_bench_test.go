// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/datapath/flow"
	"github.com/c8s-dev/c8s/datapath/tunnel"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

// accepted is a tunnel from web to db as its acceptor sees it, without the
// sockets, and a connection that it carries.
func accepted(tb testing.TB) (*node, *inboundSession, tunnel.Header) {
	w := newWorld(tb)
	n := &node{w: w, pods: map[netip.Addr]*LocalPod{}, flows: flow.NewRing(1)}
	var err error
	n.proxy, err = New(Config{Mesh: n, Marks: unmarked, NodeAddr: netip.MustParseAddr("127.0.0.1"), Flows: n.flows, Now: time.Now, Log: slog.New(slog.DiscardHandler)})
	must(tb, err)
	web, db := netip.MustParseAddr(webAddr), netip.MustParseAddr(dbAddr)
	cert := w.ca.issue(policytest.Peer(w.fixture.Signed, policytest.Web), time.Hour, web)
	peer, why := n.proxy.identify([]*x509.Certificate{cert.Leaf}, opens)
	if why != nil {
		tb.Fatal(why)
	}
	pod := n.pod(policytest.DB, dbAddr)
	s := &inboundSession{dst: db, pod: pod, self: pod.Credential(), peer: peer}
	return n, s, tunnel.Header{Proto: tunnel.ProtoTCP, Src: netip.AddrPortFrom(web, 40000), Dst: netip.AddrPortFrom(db, policytest.DBPort)}
}

// denials is a long deny list that denies nobody in the test.
func denials() []policy.Denial {
	var list []policy.Denial
	for i := range 2000 {
		list = append(
			list, policytest.Deny(policy.DenySerial, fmt.Sprintf("f%07x", i)), policytest.Deny(policy.DenyKey, string(policytest.Digest(fmt.Sprint(i)))),
			policytest.Deny(policy.DenyMachine, fmt.Sprintf("%0128x", i)), policytest.Deny(policy.DenyMeasurement, fmt.Sprintf("%096x", i)),
			policytest.Deny(policy.DenyWorkload, fmt.Sprintf("w%d", i)),
		)
	}
	return list
}

// BenchmarkJudge is all that is decided for one connection over a tunnel that
// exists, on the node that accepts it.
func BenchmarkJudge(b *testing.B) {
	n, s, h := accepted(b)
	judge := func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, why := n.proxy.judge(s, h); why != nil {
				b.Fatal(why)
			}
		}
	}
	b.Run("denials=none", judge)
	n.deny(denials()...)
	b.Run("denials=10000", judge)
}

// BenchmarkRecheckOne is what a change of the manifest or of the deny list
// costs for each tunnel: how many can be closed in time.
func BenchmarkRecheckOne(b *testing.B) {
	n, s, _ := accepted(b)
	n.deny(denials()...)
	b.ReportAllocs()
	for b.Loop() {
		if why := n.proxy.sessionGone(s); why != nil {
			b.Fatal(why)
		}
	}
}

// A connection over a tunnel that exists costs no memory to judge, and Recheck
// no cryptography: it reaches every tunnel of a full node in time.
func TestJudgingAllocatesNothing(t *testing.T) {
	n, s, h := accepted(t)
	for _, list := range [][]policy.Denial{nil, denials()} {
		if list != nil {
			n.deny(list...)
		}
		for name, fn := range map[string]func() *Refusal{
			"judge":   func() *Refusal { _, why := n.proxy.judge(s, h); return why },
			"recheck": func() *Refusal { return n.proxy.sessionGone(s) },
		} {
			if allocs := testing.AllocsPerRun(100, func() {
				if why := fn(); why != nil {
					t.Error(why)
				}
			}); allocs != 0 {
				t.Errorf("%s with %d denials: %v allocations", name, len(list), allocs)
			}
		}
	}
}
