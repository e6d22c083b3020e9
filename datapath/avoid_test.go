// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/datapath/flow"
	"github.com/c8s-dev/c8s/datapath/resolve"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

const goneAddr = "127.20.0.66"

// silence is a node that takes connections and never says a word.
func (w *world) silence(addr string) *atomic.Int32 {
	w.t.Helper()
	ln, err := net.Listen("tcp", netip.AddrPortFrom(netip.MustParseAddr(addr), w.port).String())
	must(w.t, err)
	var taken atomic.Int32
	var conns []net.Conn
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			taken.Add(1)
			conns = append(conns, c)
		}
	}()
	w.t.Cleanup(func() {
		ln.Close()
		<-done
		for _, c := range conns {
			c.Close()
		}
	})
	return &taken
}

func (w *world) route(pod, node string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.routes[netip.MustParseAddr(pod)] = netip.MustParseAddr(node)
}

// count is how many records there are of a verdict and reason.
func (n *node) count(v flow.Verdict, reason string) int {
	return int(n.flows.Counts()[flow.CountKey{Verdict: v, Reason: reason}])
}

// A node that is known to be dead costs new connections nothing: only one at a
// time tries it again when the time is over.
func TestDeadNodeIsTriedOnce(t *testing.T) {
	w := newWorld(t)
	a, b := w.node("127.0.0.1", Limits{DialTimeout: 600 * time.Millisecond}), w.node("127.0.0.2", Limits{})
	a.pod(policytest.Web, webAddr)
	b.pod(policytest.DB, dbAddr)
	echo(t, dbApp)
	taken := w.silence("127.0.0.78")
	w.route(goneAddr, "127.0.0.78")
	w.service(vip, goneAddr+":6379", dbApp)
	for range 5 {
		talk(t, a.dial(webAddr, vip))
	}
	if n := taken.Load(); n != 1 {
		t.Errorf("the dead node was asked %d times by five connections", n)
	}
	if n := a.count(flow.Avoided, reasonNodeTimeout); n != 1 {
		t.Errorf("%d records say that it is passed over", n)
	}
	list := a.proxy.Stats().Avoided
	if len(list) != 1 || list[0].Node.String() != "127.0.0.78" || list[0].Workload != policytest.Web || list[0].Reason != reasonNodeTimeout {
		t.Errorf("%+v", list)
	}
	// The dial that nobody waits for any more must have ended.
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for a.proxy.pool.Stats().DialErrors == 0 {
		<-tick.C
	}
	w.ahead.Add(int64(avoidFirst * 5 / 4))
	for range 3 {
		talk(t, a.dial(webAddr, vip))
	}
	if n := taken.Load(); n != 2 {
		t.Errorf("after a while, the dead node was asked %d times more by three connections", n-1)
	}
	if n := a.count(flow.Avoided, reasonNodeTimeout); n != 1 {
		t.Errorf("%d records for one episode", n)
	}
}

func TestEndpointThatWorksAgainIsUsedAgain(t *testing.T) {
	w, a, b := pair(t)
	echo(t, dbApp)
	echo(t, goneAddr+":6379")
	w.route(goneAddr, "127.0.0.2")
	w.service(vip, goneAddr+":6379", dbApp)
	used := func() string {
		t.Helper()
		before := a.count(flow.Allowed, "")
		talk(t, a.dial(webAddr, vip))
		sub := a.flows.Subscribe(1000, flow.Filter{})
		defer sub.Close()
		var last flow.Record
		for _, r := range sub.History() {
			if r.Verdict == flow.Allowed {
				last = r
			}
		}
		if a.count(flow.Allowed, "") != before+1 {
			t.Fatal("there is no record of the connection")
		}
		return last.Endpoint.Addr().String()
	}
	if got := used(); got != dbAddr {
		t.Fatalf("%s was used", got)
	}
	b.pod(policytest.DB, goneAddr)
	w.route(goneAddr, "127.0.0.2")
	if got := used(); got != dbAddr {
		t.Errorf("%s was used at once", got)
	}
	w.ahead.Add(int64(avoidFirst * 5 / 4))
	if got := used(); got != goneAddr {
		t.Errorf("%s was used after a while", got)
	}
	if list := a.proxy.Stats().Avoided; len(list) != 0 {
		t.Errorf("%+v", list)
	}
}

// It never comes to nothing being left: the last one is tried each time.
func TestAllEndpointsPassedOverAreTriedAllTheSame(t *testing.T) {
	w, a, b := pair(t)
	echo(t, dbApp)
	w.route(goneAddr, "127.0.0.2")
	w.route("127.20.0.67", "127.0.0.2")
	w.service(vip, goneAddr+":6379", "127.20.0.67:6379")
	for i := range 3 {
		a.dialRefused(webAddr, vip)
		if n := a.count(flow.Refused, reasonPeerRefused); n != i+1 {
			t.Errorf("%d of %d connections were refused for what they met", n, i+1)
		}
	}
	if n := a.count(flow.Avoided, reasonPeerRefused); n != 2 {
		t.Errorf("%d episodes for two endpoints", n)
	}
	b.pod(policytest.DB, goneAddr)
	echo(t, goneAddr+":6379")
	talk(t, a.dial(webAddr, vip)) // long before its time
}

// An endpoint that is attested and that the rules do not allow is no reason to
// fail while another one is allowed; but it is said.
func TestEndpointThatRulesRefuseIsPassedOverAndNamed(t *testing.T) {
	w, a, b := pair(t)
	echo(t, dbApp)
	b.pod(policytest.Web, "127.20.0.9") // a listed pod that web may not reach
	w.route(goneAddr, "127.0.0.77")     // nobody there
	w.service(vip, "127.20.0.9:6379", dbApp)
	for range 3 {
		talk(t, a.dial(webAddr, vip))
	}
	r := a.waitFlow(func(r flow.Record) bool { return r.Verdict == flow.Avoided })
	if r.Reason != string(policy.CodePeerNotAllowedEgress) || r.Endpoint.String() != "127.20.0.9:6379" || r.DstWorkload != policytest.Web || r.Rule == "" || r.Service != "default/db" {
		t.Errorf("%+v", r)
	}
	if n := a.count(flow.Avoided, r.Reason); n != 1 {
		t.Errorf("it is said %d times", n)
	}
	// When none is left, the rule's word is what is reported, whoever fails beside.
	for _, order := range [][]string{{goneAddr + ":6379", "127.20.0.9:6379"}, {"127.20.0.9:6379", goneAddr + ":6379"}} {
		w.service(vip, order...)
		before := a.count(flow.Refused, r.Reason)
		a.dialRefused(webAddr, vip)
		if a.count(flow.Refused, r.Reason) != before+1 {
			t.Errorf("%v: refused for something else: %+v", order, a.flows.Counts())
		}
	}
	// Another manifest may allow it.
	a.proxy.Recheck()
	if slices.ContainsFunc(a.proxy.Stats().Avoided, func(e Avoided) bool { return e.Reason == r.Reason }) {
		t.Error("a verdict outlives what it rested on")
	}
}

// When the time of several is over at once, a connection tries one of them and
// then goes where it will be served.
func TestOneConnectionTriesOnlyOneAgain(t *testing.T) {
	w, a, _ := pair(t)
	echo(t, dbApp)
	var all []string
	for i := range attempts + 1 {
		addr := fmt.Sprintf("127.20.1.%d", i+1)
		w.route(addr, "127.0.0.2")
		all = append(all, addr+":6379")
	}
	w.service(vip, append(all, dbApp)...)
	a.dialRefused(webAddr, vip) // three attempts are all there are
	talk(t, a.dial(webAddr, vip))
	for range 3 {
		w.ahead.Add(int64(2 * avoidMost))
		talk(t, a.dial(webAddr, vip))
	}
}

// What is wrong on this side would be wrong with every endpoint.
func TestFaultsOfThisSideTryNoOtherEndpoint(t *testing.T) {
	w, a, b := pair(t)
	echo(t, dbApp)
	w.service(vip, dbApp, goneAddr+":6379")
	b.pod(policytest.DB, goneAddr)
	talk(t, a.dial(webAddr, vip))
	cred := a.pods[netip.MustParseAddr(webAddr)].Credential()
	a.deny(policytest.Deny(policy.DenySerial, cred.Holder.Serial))
	a.dialRefused(webAddr, vip)
	a.wantRefusal("denied-serial")
	if list := a.proxy.Stats().Avoided; len(list) != 0 {
		t.Errorf("%+v", list)
	}
}

// A pod cannot have an endpoint passed over for others by failing there.
func TestWhatOneWorkloadMeetsDoesNotDecideForOthers(t *testing.T) {
	a := newAvoided(netip.MustParseAddr("127.0.0.1"), func() time.Time { return time.Unix(0, 0) }, time.Second)
	target := resolve.Target{Pod: netip.MustParseAddrPort(dbApp), Node: netip.MustParseAddr("127.0.0.2"), Service: "d/db"}
	for i, code := range []string{reasonPeerRefused, reasonNodeTimeout} {
		if !a.failed(keysOf("hostile", resolve.TCP, target)[2-i], refuse(code, "", "", "")) {
			t.Fatal("it is not remembered")
		}
	}
	if _, ok := a.passes("hostile", resolve.TCP, target, true); !ok {
		t.Error("it is not passed over")
	}
	if what, ok := a.passes("other", resolve.TCP, target, true); ok {
		t.Errorf("%s is passed over for all", what)
	}
	a.failed(avoidKey{node: target.Node}, refuse(reasonNodeUnreachable, "", "", "")) // the node itself does not answer
	if what, ok := a.passes("other", resolve.UDP, target, true); !ok || what != target.Node {
		t.Errorf("%s, %v", what, ok)
	}
	if n := a.works("other", resolve.TCP, target); n != 1 {
		t.Errorf("%d failures ended", n)
	}
}

func TestTimesDoubleVaryAndEnd(t *testing.T) {
	now := time.Unix(0, 0)
	seen := map[time.Duration]bool{}
	for i := range 20 {
		a := newAvoided(netip.AddrFrom4([4]byte{127, 0, 0, byte(i)}), func() time.Time { return now }, time.Second)
		target := resolve.Target{Pod: netip.MustParseAddrPort(dbApp), Node: netip.MustParseAddr("127.0.0.2"), Service: "d/db"}
		key := keysOf("w", resolve.TCP, target)[2]
		for _, wait := range []time.Duration{avoidFirst, 2 * avoidFirst, 4 * avoidFirst, 8 * avoidFirst, avoidMost, avoidMost} {
			a.failed(key, refuse(reasonHandshake, "", "", ""))
			a.failed(key, refuse(reasonHandshake, "", "", "")) // at the same time
			until := a.entries[key].Until.Sub(now)
			if until < wait*3/4 || until > wait*5/4 {
				t.Fatalf("%s, want about %s", until, wait)
			}
			seen[until] = true
			now = now.Add(until)
			if _, ok := a.passes("w", resolve.TCP, target, true); ok {
				t.Fatal("its time is over")
			}
			if _, ok := a.passes("w", resolve.TCP, target, true); !ok {
				t.Fatal("two try at once")
			}
		}
		now = now.Add(time.Second)
		if _, ok := a.passes("w", resolve.TCP, target, false); !ok {
			t.Fatal("one that has failed elsewhere tries it")
		}
		if _, ok := a.passes("w", resolve.TCP, target, true); ok {
			t.Fatal("the one that tried is gone, and no other follows")
		}
		now = now.Add(avoidForget + time.Minute)
		if left := a.list(); len(left) != 0 || a.n.Load() != 0 {
			t.Fatalf("%+v", left)
		}
	}
	if len(seen) < 60 {
		t.Errorf("only %d different times", len(seen))
	}
}

func TestMemoryOfFailuresIsBounded(t *testing.T) {
	now := time.Unix(0, 0)
	a := newAvoided(netip.MustParseAddr("127.0.0.1"), func() time.Time { return now }, time.Second)
	why := refuse(reasonHandshake, "", "", "")
	for i := range maxAvoided + 100 {
		if began := a.failed(avoidKey{workload: fmt.Sprint(i)}, why); began != (i < maxAvoided) {
			t.Fatalf("episode %d: %v", i, began)
		}
	}
	now = now.Add(avoidForget + time.Minute)
	if !a.failed(avoidKey{workload: "new"}, why) || len(a.entries) != 1 {
		t.Errorf("%d entries", len(a.entries))
	}
}

// More endpoints that fail than one choice passes over: some are tried again.
func TestPassingOverIsBounded(t *testing.T) {
	w, a, _ := pair(t)
	var all []string
	for i := range 2 * sidesteps {
		addr := fmt.Sprintf("127.20.1.%d", i+1)
		w.route(addr, "127.0.0.2")
		all = append(all, addr+":6379")
		target := resolve.Target{Pod: netip.MustParseAddrPort(addr + ":6379"), Node: netip.MustParseAddr("127.0.0.2"), Service: "default/db"}
		a.proxy.avoid.failed(keysOf(policytest.Web, resolve.TCP, target)[2], refuse(reasonHandshake, "", "", ""))
	}
	w.service(vip, all...)
	target, v := a.proxy.choose(resolve.Query{Protocol: resolve.TCP, Dst: netip.MustParseAddrPort(vip)}, policytest.Web)
	if v != resolve.Found || target.Pod.String() != all[0] {
		t.Errorf("%v %+v", v, target)
	}
}

func BenchmarkChoose(b *testing.B) {
	n, _, _ := accepted(b)
	for i := range 10 {
		addr := fmt.Sprintf("127.20.1.%d", i+1)
		n.w.services[netip.MustParseAddrPort(vip)] = append(n.w.services[netip.MustParseAddrPort(vip)], netip.MustParseAddrPort(addr+":6379"))
		n.w.route(addr, "127.0.0.2")
	}
	q := resolve.Query{Protocol: resolve.TCP, Dst: netip.MustParseAddrPort(vip)}
	target := resolve.Target{Pod: netip.MustParseAddrPort("127.20.1.1:6379"), Node: netip.MustParseAddr("127.0.0.2"), Service: "default/db"}
	passes := func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			n.proxy.avoid.passes(policytest.DB, resolve.TCP, target, true)
		}
	}
	b.Run("nothing failed", passes)
	n.proxy.avoid.failed(avoidKey{node: netip.MustParseAddr("127.0.0.99")}, refuse(reasonNodeTimeout, "", "", ""))
	b.Run("something failed", passes)
	n.proxy.avoid.failed(keysOf(policytest.Web, resolve.TCP, target)[2], refuse(reasonHandshake, "", "", ""))
	b.Run("one of ten is passed over", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if got, _ := n.proxy.choose(q, policytest.Web); got.Pod == target.Pod {
				b.Fatal(got)
			}
		}
	})
}
