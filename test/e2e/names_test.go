// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/c8s-dev/c8s/datapath/flow"
	"github.com/c8s-dev/c8s/kube/kubetest"
	"github.com/c8s-dev/c8s/test/cluster"
	"github.com/c8s-dev/c8s/test/lab"
)

const (
	listedName  = "api.example.com"
	wildName    = "wild.example.com" // what is below it is listed
	outsideAddr = "10.80.0.202"      // of the second host outside (lab's address plan); the first is the CDS's
	outsideAAAA = "2001:db8::1"
)

// The addresses at which the DNS of the cluster is asked, and others that pods
// may ask: all are answered by the node.
func servers(k *kubernetes) map[string]netip.AddrPort {
	outside, node := k.Lab.Outside("outside"), k.Nodes[0].Lab
	all := map[string]netip.AddrPort{}
	for name, addr := range map[string]netip.Addr{
		"the cluster's address": netip.MustParseAddr("10.96.0.53"), "the cluster's IPv6 address": netip.MustParseAddr("fd96::53"),
		"the resolver outside": outside.Addr4, "it over IPv6": outside.Addr6, "the node": node.Addr4, "the node over IPv6": node.Addr6,
	} {
		all[name] = netip.AddrPortFrom(addr, 53)
	}
	return all
}

// outsideDNS is the resolver next door, which answers whatever it is asked.
type outsideDNS struct {
	six     string // every name's IPv6 address
	mu      sync.Mutex
	heard   []string
	running []*dns.Server
}

func startOutsideDNS(t *testing.T, host *lab.Host) *outsideDNS {
	t.Helper()
	return startOutsideDNSWith(t, host, outsideAAAA)
}

func startOutsideDNSWith(t *testing.T, host *lab.Host, six string) *outsideDNS {
	t.Helper()
	o := &outsideDNS{six: six}
	for _, addr := range []netip.Addr{host.Addr4, host.Addr6} {
		at := netip.AddrPortFrom(addr, 53).String()
		pc, err := host.ListenPacket("udp", at)
		if err != nil {
			t.Fatal(err)
		}
		ln, err := host.Listen("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range []*dns.Server{{PacketConn: pc, Handler: o}, {Listener: ln, Handler: o}} {
			began := make(chan struct{})
			s.NotifyStartedFunc = func() { close(began) }
			go func() { _ = s.ActivateAndServe() }()
			<-began
			o.running = append(o.running, s)
		}
	}
	t.Cleanup(o.stop)
	return o
}

func (o *outsideDNS) stop() {
	for _, s := range o.running {
		_ = s.Shutdown()
	}
	o.running = nil
}

func (o *outsideDNS) questions() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.heard)
}

// ServeDNS implements dns.Handler.
func (o *outsideDNS) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	name := q.Question[0].Name
	o.mu.Lock()
	o.heard = append(o.heard, name+" "+dns.TypeToString[q.Question[0].Qtype])
	o.mu.Unlock()
	m := new(dns.Msg).SetReply(q)
	hdr := dns.RR_Header{Name: name, Rrtype: q.Question[0].Qtype, Class: dns.ClassINET, Ttl: 300}
	switch q.Question[0].Qtype {
	case dns.TypeA:
		m.Answer = []dns.RR{&dns.A{Hdr: hdr, A: net.ParseIP(outsideAddr)}}
	case dns.TypeAAAA:
		m.Answer = []dns.RR{&dns.AAAA{Hdr: hdr, AAAA: net.ParseIP(o.six)}}
	case dns.TypeTXT:
		m.Answer = []dns.RR{&dns.TXT{Hdr: hdr, Txt: []string{"command"}}}
	}
	_ = w.WriteMsg(m)
}

// namesCluster is a cluster with a resolver next door and a client that may
// resolve a few names.
func namesCluster(t *testing.T) (*kubernetes, *outsideDNS) {
	t.Helper()
	k := newKubernetes(t, func(o *cluster.Options) {
		o.Workloads[0].DNS = []string{listedName, "*." + wildName}
		o.NodeFlags = append(o.NodeFlags, "--dns-upstream", outsideAddr, "--dns-private", outsideAddr+"/32")
	})
	o := startOutsideDNS(t, k.Lab.Outside("outside"))
	k.api.Set(kubetest.Service("kube-system/kube-dns", 53, "10.96.0.53", "fd96::53"))
	return k, o
}

// resolver is the one of Go's standard library, in a pod.
func resolver(p *cluster.Pod, network string, server netip.AddrPort) *net.Resolver {
	return &net.Resolver{PreferGo: true, StrictErrors: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return p.Dial(ctx, network, server.String())
	}}
}

func lookup(t *testing.T, r *net.Resolver, name string) ([]string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	addrs, err := r.LookupHost(ctx, name) // A and AAAA at once
	slices.Sort(addrs)
	return addrs, err
}

// raw asks one question and returns the answer.
func raw(t *testing.T, p *cluster.Pod, network string, server netip.AddrPort, name string, qtype uint16) (*dns.Msg, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	conn, err := p.Dial(ctx, network, server.String())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	c := dns.Client{Net: network, Timeout: 10 * time.Second}
	m, _, err := c.ExchangeWithConn(new(dns.Msg).SetQuestion(name, qtype), &dns.Conn{Conn: conn})
	return m, err
}

func TestPodsResolveNames(t *testing.T) {
	k, o := namesCluster(t)
	for _, kind := range []lab.Kind{lab.Routed, lab.Bridged} {
		client, server := k.pod(k.Nodes[0], "client", kind), k.pod(k.Nodes[1], "server", kind)
		k.service(server.Addr4, server.Addr6)
		k.api.Set(kubetest.Service("default/all", echoPort, "None"), kubetest.Slice("default/all-4", "all", echoPort, server.Addr4.String()))
		k.routes(2, 3)
		for where, at := range servers(k) {
			for _, network := range []string{"udp", "tcp"} {
				t.Run(fmt.Sprintf("%s, %s of %s", kind, network, where), func(t *testing.T) { namesOf(t, resolver(client, network, at), server) })
			}
		}
		k.service()
		k.api.Delete(kubetest.Service("default/all", echoPort, "None"))
		for _, p := range []*cluster.Pod{client, server} {
			k.api.Delete(kubetest.Pod("default/"+p.Name, ""))
			if err := p.On.RemovePod(p); err != nil {
				t.Fatal(err)
			}
		}
	}
	// Once for each type, though two pods asked dozens of times.
	heard := o.questions()
	slices.Sort(heard)
	if want := []string{listedName + ". A", listedName + ". AAAA"}; !slices.Equal(heard, want) {
		t.Errorf("the resolver outside heard %q", heard)
	}
}

func namesOf(t *testing.T, r *net.Resolver, server *cluster.Pod) {
	for name, want := range map[string][]string{
		"echo.default.svc.cluster.local.": {vip4, vip6}, "all.default.svc.cluster.local.": {server.Addr4.String()},
		strings.ReplaceAll(server.Addr4.String(), ".", "-") + ".default.pod.cluster.local.": {server.Addr4.String()},
		listedName + ".": {outsideAddr, outsideAAAA},
	} {
		if got, err := lookup(t, r, name); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %q, %v; want %q", name, got, err, want)
		}
	}
	if got, err := r.LookupAddr(t.Context(), vip4); err != nil || !slices.Equal(got, []string{"echo.default.svc.cluster.local."}) {
		t.Errorf("the name of %s: %q, %v", vip4, got, err)
	}
	if _, got, err := r.LookupSRV(t.Context(), "main", "tcp", "all.default.svc.cluster.local."); err != nil || len(got) != 1 || got[0].Port != echoPort {
		t.Errorf("ports: %v, %v", got, err)
	}
	var failed *net.DNSError
	if _, err := lookup(t, r, "nosuch.default.svc.cluster.local."); !errors.As(err, &failed) || !failed.IsNotFound {
		t.Errorf("a Service that is none: %v", err)
	}
	if got, err := lookup(t, r, "evil.example.net."); err == nil {
		t.Errorf("a name that is not listed: %q", got)
	}
}

// Every name of a search path that does not exist is answered here.
func TestSearchPathsAskNobodyOutside(t *testing.T) {
	k, o := namesCluster(t)
	client := openPod(t, k.Nodes[0], "client", lab.Routed)
	at := netip.MustParseAddrPort("10.96.0.53:53")
	for _, name := range []string{listedName, "x." + wildName} { // ndots:5, as the kubelet writes it
		for _, suffix := range []string{".default.svc.cluster.local.", ".svc.cluster.local.", ".cluster.local."} {
			for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
				m, err := raw(t, client, "udp", at, name+suffix, qtype)
				if err != nil || m.Rcode != dns.RcodeNameError || len(m.Ns) != 1 {
					t.Errorf("%s%s: %v, %v", name, suffix, m, err)
				}
			}
		}
	}
	if heard := o.questions(); len(heard) != 0 {
		t.Errorf("the resolver outside heard %q", heard)
	}
}

func TestNamesOutliveTheResolverOutside(t *testing.T) {
	k, o := namesCluster(t)
	client, stranger := k.pod(k.Nodes[0], "client", lab.Routed), k.pod(k.Nodes[0], "stranger", lab.Bridged)
	k.service(client.Addr4)
	k.routes(2, 1)
	at := netip.MustParseAddrPort("10.96.0.53:53")
	r := resolver(client, "udp", at)
	if _, err := lookup(t, r, listedName+"."); err != nil {
		t.Fatal(err)
	}
	o.stop()
	if _, err := lookup(t, r, listedName+"."); err != nil {
		t.Errorf("an answer that is still valid: %v", err)
	}
	if m, err := raw(t, client, "tcp", at, "new."+wildName+".", dns.TypeA); err != nil || m.Rcode != dns.RcodeServerFailure {
		t.Errorf("a name that nobody can be asked for: %v, %v", m, err)
	}
	if got, err := lookup(t, r, "echo.default.svc.cluster.local."); err != nil || len(got) != 2 {
		t.Errorf("a name of the cluster: %q, %v", got, err)
	}
	s, err := k.Nodes[0].Status(t.Context())
	if err != nil || s.DNS == nil || len(s.DNS.Upstreams) != 1 || !s.DNS.Upstreams[0].Failing() {
		t.Errorf("status: %+v, %v", s.DNS, err)
	}
	// Who lists no name resolves none.
	if m, err := raw(t, stranger, "udp", at, listedName+".", dns.TypeA); err != nil || m.Rcode != dns.RcodeRefused {
		t.Errorf("another pod: %v, %v", m, err)
	}
	flows, err := k.Nodes[0].Flows(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(flows, func(r flow.Record) bool {
		return r.Reason == "dns-name-not-allowed" && r.SrcWorkload == "stranger" && strings.Contains(r.Actual, listedName) && r.Dst == at
	}) {
		t.Errorf("no record says so: %+v", flows)
	}
}
