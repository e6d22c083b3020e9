// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/c8s-dev/c8s/agent"
	"github.com/c8s-dev/c8s/agent/handover"
	"github.com/c8s-dev/c8s/datapath/flow"
	"github.com/c8s-dev/c8s/kube/kubetest"
	"github.com/c8s-dev/c8s/test/cluster"
	"github.com/c8s-dev/c8s/test/lab"
)

// upgrade has another daemon take the node over.
func upgrade(t *testing.T, n *cluster.Node, instance string) {
	t.Helper()
	if err := n.Succeed("--instance=" + instance); err != nil {
		t.Fatal(err)
	}
	if err := n.WaitInstance(t.Context(), instance); err != nil {
		t.Fatal(err)
	}
}

// What a pod was told before an upgrade counts after it, for that pod alone;
// after a crash the pod has to ask again.
func TestUpgradeKeepsWhatPodsWereAnswered(t *testing.T) {
	k := newKubernetes(t, externals, func(o *cluster.Options) {
		o.NodeFlags = append(o.NodeFlags, "--dns-private", outside6+"/128", "--instance=first")
	})
	host := k.Lab.Outside("outside")
	upstream := startOutsideDNSWith(t, host, outside6)
	serveOutside(t, host)
	a := k.Nodes[0]
	client, server := k.pod(a, "client", lab.Routed), k.pod(a, "server", lab.Bridged)
	ways := map[netip.AddrPort]netip.Addr{
		netip.AddrPortFrom(host.Addr4, namedPort): a.Lab.Addr4, netip.AddrPortFrom(host.Addr6, namedPort): a.Lab.Addr6,
	}
	resolved := func() {
		t.Helper()
		r := resolver(client, "udp", netip.AddrPortFrom(host.Addr4, 53))
		if addrs, err := lookup(t, r, listedName+"."); err != nil || !slices.Equal(addrs, []string{outsideAddr, outside6}) {
			t.Fatalf("%s has the addresses %v, %v", listedName, addrs, err)
		}
	}
	pass := func() {
		t.Helper()
		for to, node := range ways {
			passes(t, client, to, node, "external/named")
		}
	}
	resolved()
	pass()
	asked := upstream.questions()
	for _, instance := range []string{"second", "third"} {
		upgrade(t, a, instance)
		pass()
		for to := range ways {
			refused(t, server, to, "external-name-not-answered")
		}
	}
	if now := upstream.questions(); len(now) != len(asked) {
		t.Errorf("the name was asked for again: %q, then %q", asked, now)
	}

	if err := a.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := client.WaitState(t.Context(), agent.StateOpen, ""); err != nil {
		t.Fatal(err)
	}
	for to := range ways {
		refused(t, client, to, "external-name-not-answered")
	}
	resolved()
	pass()
}

// Whoever asks for a name and connects, at any moment of an upgrade, gets
// through: no answer is lost between the daemons.
func TestUpgradeFailsNobodyWhoAsksForNames(t *testing.T) {
	k := newKubernetes(t, externals, func(o *cluster.Options) {
		o.NodeFlags = append(o.NodeFlags, "--dns-private", outside6+"/128", "--instance=first")
	})
	host := k.Lab.Outside("outside")
	startOutsideDNSWith(t, host, outside6)
	serveOutside(t, host)
	client := k.pod(k.Nodes[0], "client", lab.Routed)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var mu sync.Mutex
	var failed []error
	made := 0
	var all sync.WaitGroup
	for _, network := range []string{"udp", "tcp"} {
		r := resolver(client, network, netip.AddrPortFrom(host.Addr4, 53))
		for range hammerWorkers {
			all.Go(func() {
				for ctx.Err() == nil {
					err := byName(ctx, client, func(ctx context.Context) ([]string, error) { return r.LookupHost(ctx, listedName+".") })
					mu.Lock()
					if made++; err != nil && ctx.Err() == nil {
						failed = append(failed, fmt.Errorf("over %s: %w", network, err))
					}
					mu.Unlock()
				}
			})
		}
	}
	goOn := func() {
		t.Helper()
		mu.Lock()
		want := made + 60
		mu.Unlock()
		for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
			mu.Lock()
			enough := made >= want
			mu.Unlock()
			if enough {
				return
			}
			if time.Now().After(end) {
				t.Fatal("fewer than 60 connections in a minute")
			}
		}
	}
	goOn()
	failedHandover(t, client, netip.AddrPortFrom(host.Addr4, 53))
	goOn()
	for _, instance := range []string{"second", "third"} {
		upgrade(t, k.Nodes[0], instance)
		goOn()
	}
	cancel()
	all.Wait()
	if len(failed) > 0 {
		t.Errorf("%d of %d failed: %v", len(failed), made, errors.Join(failed[:min(5, len(failed))]...))
	}
	t.Logf("%d times asked and connected", made)
}

// failedHandover is a successor that dies when it has been told everything: the
// node's daemon answers again. In between it gives the pod no answer, also on a
// connection that it has: nobody would know of it.
func failedHandover(t *testing.T, client *cluster.Pod, server netip.AddrPort) {
	t.Helper()
	n := client.On
	conn, err := client.Dial(t.Context(), "tcp", server.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ask := func() (*dns.Msg, error) {
		c := dns.Client{Net: "tcp", Timeout: 10 * time.Second}
		m, _, err := c.ExchangeWithConn(new(dns.Msg).SetQuestion(listedName+".", dns.TypeA), &dns.Conn{Conn: conn})
		return m, err
	}
	if m, err := ask(); err != nil || len(m.Answer) != 1 {
		t.Fatalf("before: %v, %v", m, err)
	}
	s, err := handover.Dial(t.Context(), filepath.Join(n.RunDir(), agent.HandoverSocket), "test", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	taken, err := s.Take("answers/1", "later/1")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range taken.Sockets {
		f.Close()
	}
	if m, err := ask(); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("while it stands still it answers %v, or holds the pod up: %v", m, err)
	}
	if len(taken.Memory) != 1 || !strings.Contains(string(taken.Memory[0].Data), listedName) || !strings.Contains(string(taken.Memory[0].Data), outside6) {
		t.Errorf("it was told %s", taken.Memory)
	}
}

// byName looks a name up and connects to each of its addresses.
func byName(ctx context.Context, from *cluster.Pod, lookup func(context.Context) ([]string, error)) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	addrs, err := lookup(ctx)
	if err != nil {
		return err
	}
	for _, a := range addrs {
		addr, err := netip.ParseAddr(a)
		if err != nil {
			return err
		}
		conn, err := greeted(ctx, from, netip.AddrPortFrom(addr, namedPort))
		if err != nil {
			return fmt.Errorf("connecting to %s: %w", addr, err)
		}
		conn.Close()
	}
	return nil
}

// Two Services with session affinity have one endpoint each when the client
// finds them, and then both have both. Hashing alone would lead the client to
// the same endpoint of both.
func TestUpgradeKeepsSessionAffinity(t *testing.T) {
	k := newKubernetes(t, func(o *cluster.Options) { o.NodeFlags = append(o.NodeFlags, "--instance=first") })
	a := k.Nodes[0]
	client := k.pod(a, "client", lab.Routed)
	one, two := k.twin(a, "one", "server"), k.twin(k.Nodes[1], "two", "server")
	serveEcho(t, one)
	serveEcho(t, two)
	say := func(name, vip4, vip6 string, endpoints ...*cluster.Pod) {
		var four, six []string
		for _, p := range endpoints {
			four, six = append(four, p.Addr4.String()), append(six, p.Addr6.String())
		}
		service := kubetest.Service("default/"+name, servicePort, vip4, vip6)
		service["spec"].(object)["sessionAffinity"] = "ClientIP"
		k.api.Set(service, kubetest.Slice("default/"+name+"-4", name, echoPort, four...), kubetest.Slice("default/"+name+"-6", name, echoPort, six...))
	}
	const first4, first6, second4, second6 = "10.96.0.11", "fd96::11", "10.96.0.12", "fd96::12"
	want := map[netip.AddrPort]netip.Addr{}
	for vip, endpoint := range map[string]netip.Addr{first4: one.Addr4, first6: one.Addr6, second4: two.Addr4, second6: two.Addr6} {
		want[netip.AddrPortFrom(netip.MustParseAddr(vip), servicePort)] = endpoint
	}
	keeps := func(when string, times int) {
		t.Helper()
		for to, endpoint := range want {
			for range times {
				before := len(k.led(client, to))
				conn, _, err := connect(t, client, to)
				if err != nil {
					t.Fatalf("%s: %s: %v", when, to, err)
				}
				conn.Close()
				if led := k.led(client, to); len(led) != before+1 || led[before].Endpoint.Addr() != endpoint {
					t.Errorf("%s: %s led to %+v, want %s", when, to, led[before:], endpoint)
				}
			}
		}
	}
	say("first", first4, first6, one)
	say("second", second4, second6, two)
	k.routes(3, 4)
	keeps("with one endpoint each", 1)
	say("first", first4, first6, one, two)
	say("second", second4, second6, one, two)
	k.routes(3, 8)
	for _, instance := range []string{"second", "third"} {
		upgrade(t, a, instance)
		k.routes(3, 8)
		keeps("after the upgrade to the "+instance, 2)
	}
}

// led are the records of connections that a pod was allowed to a Service.
func (k *kubernetes) led(from *cluster.Pod, to netip.AddrPort) (all []flow.Record) {
	k.t.Helper()
	flows, err := from.On.Flows(k.t.Context())
	if err != nil {
		k.t.Fatal(err)
	}
	for _, r := range flows {
		if r.Verdict == flow.Allowed && r.Direction == flow.Egress && r.Dst == to {
			all = append(all, r)
		}
	}
	return all
}
