// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	miekg "github.com/miekg/dns"

	"github.com/c8s-dev/c8s/datapath/resolve"
)

// short is an answer in one line: the code and the data of its records.
func short(m *miekg.Msg) string {
	out := []string{miekg.RcodeToString[m.Rcode]}
	for _, rr := range m.Answer {
		fields := strings.Fields(rr.String())
		out = append(out, strings.Join(append([]string{fields[3]}, fields[4:]...), " "))
	}
	slices.Sort(out[1:])
	return strings.Join(out, "; ")
}

// The table is the Kubernetes DNS specification, 1.1.0.
func TestNamesOfTheCluster(t *testing.T) {
	const z = "cluster.local."
	for _, tt := range []struct {
		name  string
		qtype uint16
		want  string
	}{
		{"dns-version." + z, miekg.TypeTXT, `NOERROR; TXT "1.1.0"`},
		{"dns-version." + z, miekg.TypeA, "NOERROR"},
		{z, miekg.TypeSOA, "NOERROR; SOA ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5"},
		{z, miekg.TypeA, "NOERROR"},
		// Services with addresses
		{"web.default.svc." + z, miekg.TypeA, "NOERROR; A 10.96.0.7"},
		{"web.default.svc." + z, miekg.TypeAAAA, "NOERROR; AAAA fd00:96::7"},
		{"wEb.DEFAULT.sVc.Cluster.LOCAL.", miekg.TypeA, "NOERROR; A 10.96.0.7"},
		{"web.default.svc." + z, miekg.TypeTXT, "NOERROR"},
		{"web.default.svc." + z, miekg.TypeHTTPS, "NOERROR"},
		{"_http._tcp.web.default.svc." + z, miekg.TypeSRV, "NOERROR; SRV 0 100 80 web.default.svc.cluster.local."},
		{"_quic._udp.web.default.svc." + z, miekg.TypeSRV, "NOERROR; SRV 0 100 443 web.default.svc.cluster.local."},
		{"_http._tcp.web.default.svc." + z, miekg.TypeA, "NOERROR"},
		{"_http._udp.web.default.svc." + z, miekg.TypeSRV, "NXDOMAIN"},
		{"_._tcp.web.default.svc." + z, miekg.TypeSRV, "NXDOMAIN"}, // a port without a name has no record
		{"http.tcp.web.default.svc." + z, miekg.TypeSRV, "NXDOMAIN"},
		{"_tcp.web.default.svc." + z, miekg.TypeSRV, "NOERROR"}, // something is below
		{"nosuch.default.svc." + z, miekg.TypeA, "NXDOMAIN"},
		{"pod-0.web.default.svc." + z, miekg.TypeA, "NXDOMAIN"},
		// headless ones
		{"db.default.svc." + z, miekg.TypeA, "NOERROR; A 10.1.0.5; A 10.1.0.6; A 10.1.0.7"},
		{"db.default.svc." + z, miekg.TypeAAAA, "NOERROR; AAAA fd00:1::5"},
		{"db-0.db.default.svc." + z, miekg.TypeA, "NOERROR; A 10.1.0.5"},
		{"db-1.db.default.svc." + z, miekg.TypeAAAA, "NOERROR"},
		{"10-1-0-7.db.default.svc." + z, miekg.TypeA, "NOERROR; A 10.1.0.7"},
		{"db-2.db.default.svc." + z, miekg.TypeA, "NXDOMAIN"},
		{"_sql._tcp.db.default.svc." + z, miekg.TypeSRV, "NOERROR; SRV 0 100 5432 db-0.db.default.svc.cluster.local.; SRV 0 100 5433 10-1-0-7.db.default.svc.cluster.local."},
		{"idle.default.svc." + z, miekg.TypeA, "NXDOMAIN"},
		{"_sql._tcp.idle.default.svc." + z, miekg.TypeSRV, "NXDOMAIN"},
		// pods
		{"10-1-0-5.default.pod." + z, miekg.TypeA, "NOERROR; A 10.1.0.5"},
		{"10-1-0-5.default.pod." + z, miekg.TypeAAAA, "NOERROR"},
		{"fd00-1--5.default.pod." + z, miekg.TypeAAAA, "NOERROR; AAAA fd00:1::5"},
		{"10-1-0-5.other.pod." + z, miekg.TypeA, "NXDOMAIN"},
		{"10-1-0-9.default.pod." + z, miekg.TypeA, "NXDOMAIN"},
		{"10.1.0.5.default.pod." + z, miekg.TypeA, "NXDOMAIN"},
		{"x.10-1-0-5.default.pod." + z, miekg.TypeA, "NXDOMAIN"},
		// Services that stand for a name
		{"other.default.svc." + z, miekg.TypeA, "NOERROR; A 10.96.0.7; CNAME web.default.svc.cluster.local."},
		{"other.default.svc." + z, miekg.TypeCNAME, "NOERROR; CNAME web.default.svc.cluster.local."},
		{"evil.default.svc." + z, miekg.TypeA, "REFUSED"},
		{"evil.default.svc." + z, miekg.TypeCNAME, "REFUSED"},
		{"ring.default.svc." + z, miekg.TypeA, "SERVFAIL"},
		{"broken.default.svc." + z, miekg.TypeA, "SERVFAIL"},
		{"x.api.default.svc." + z, miekg.TypeA, "NXDOMAIN"},
		// what namespaces there are is not told
		{"svc." + z, miekg.TypeA, "NOERROR"},
		{"pod." + z, miekg.TypeA, "NOERROR"},
		{"default.svc." + z, miekg.TypeA, "NOERROR"},
		{"nosuch.svc." + z, miekg.TypeA, "NOERROR"},
		{"nosuch.pod." + z, miekg.TypeA, "NOERROR"},
		{"web.nosuch.svc." + z, miekg.TypeA, "NXDOMAIN"},
		// search paths
		{"api.example.com.default.svc." + z, miekg.TypeA, "NXDOMAIN"},
		{"api.example.com.svc." + z, miekg.TypeA, "NXDOMAIN"},
		{"api.example.com." + z, miekg.TypeA, "NXDOMAIN"},
		{"notcluster.local.", miekg.TypeA, "REFUSED"}, // another domain
		// no name of ours has such bytes
		{`w\000b.default.svc.` + z, miekg.TypeA, "NXDOMAIN"},
		{`web\.default.svc.` + z, miekg.TypeA, "NXDOMAIN"},
		// names of addresses
		{"7.0.96.10.in-addr.arpa.", miekg.TypePTR, "NOERROR; PTR web.default.svc.cluster.local."},
		{"5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.0.0.d.f.ip6.arpa.", miekg.TypePTR, "NOERROR; PTR db-0.db.default.svc.cluster.local."},
		{"7.0.96.10.in-addr.arpa.", miekg.TypeA, "NOERROR"},
		{"8.0.96.10.in-addr.arpa.", miekg.TypePTR, "NXDOMAIN"},
		{"5.113.0.203.in-addr.arpa.", miekg.TypePTR, "NXDOMAIN"}, // public, but of the cluster
		{"8.8.8.8.in-addr.arpa.", miekg.TypePTR, "REFUSED"},
		{"08.0.96.10.in-addr.arpa.", miekg.TypePTR, "REFUSED"},
		{"96.10.in-addr.arpa.", miekg.TypePTR, "REFUSED"},
		{"300.0.96.10.in-addr.arpa.", miekg.TypePTR, "REFUSED"},
	} {
		t.Run(tt.name+" "+miekg.TypeToString[tt.qtype], func(t *testing.T) {
			s := newSite(t)
			m := s.ask(tt.name, tt.qtype)
			if got := short(m); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			own := m.Rcode == miekg.RcodeSuccess || m.Rcode == miekg.RcodeNameError
			if m.Authoritative != own {
				t.Errorf("authoritative: %t", m.Authoritative)
			}
			for _, rr := range m.Answer {
				if h := rr.Header(); h.Ttl != clusterTTL || rr == m.Answer[0] && len(m.Answer) == 1 && h.Name != tt.name {
					t.Errorf("%v", rr)
				}
			}
			if own && len(m.Answer) == 0 {
				if len(m.Ns) != 1 || m.Ns[0].(*miekg.SOA).Minttl != clusterTTL || !miekg.IsSubDomain(m.Ns[0].Header().Name, strings.ToLower(tt.name)) {
					t.Errorf("how long there is nothing is not told: %v", m.Ns)
				}
			} else if len(m.Ns) != 0 {
				t.Errorf("%v", m.Ns)
			}
		})
	}
}

func TestAddressesOfPortsAreTold(t *testing.T) {
	s := newSite(t)
	m := s.ask("_sql._tcp.db.default.svc.cluster.local.", miekg.TypeSRV)
	var beside []string
	for _, rr := range m.Extra {
		beside = append(beside, strings.Join(strings.Fields(rr.String()), " "))
	}
	want := []string{
		"10-1-0-7.db.default.svc.cluster.local. 5 IN A 10.1.0.7", "db-0.db.default.svc.cluster.local. 5 IN A 10.1.0.5",
		"db-0.db.default.svc.cluster.local. 5 IN AAAA fd00:1::5",
	}
	if !slices.Equal(beside, want) {
		t.Errorf("%q", beside)
	}
}

func TestExternalNameLeadsOutOnlyWhereThePodMayGo(t *testing.T) {
	o := newOutsider(t, records(t, "api.example.com. 60 IN A 192.0.2.1"))
	s := newSite(t, o.use)
	m := s.ask("API.default.svc.cluster.local.", miekg.TypeA)
	if got := short(m); got != "NOERROR; A 192.0.2.1; CNAME api.example.com." || m.Answer[0].Header().Name != "API.default.svc.cluster.local." {
		t.Errorf("%v", m)
	}
	if l := s.lessons(); len(l) != 1 || l[0].name != "api.example.com" {
		t.Errorf("learned %+v: rules name what is outside", l)
	}
	if got := short(s.ask("evil.default.svc.cluster.local.", miekg.TypeA)); got != "REFUSED" {
		t.Error(got)
	}
	if r := s.refusals(); len(r) != 1 || r[0].Reason != "dns-name-not-allowed" || r[0].Actual != `"evil.example.net"` {
		t.Errorf("%+v", r)
	}
	if q := o.questions(); !slices.Equal(q, []string{"api.example.com. A"}) {
		t.Errorf("upstream heard %q", q)
	}
}

func TestAnswersBeginWithAnotherAddress(t *testing.T) {
	s := newSite(t)
	first := map[string]int{}
	for range 200 {
		m := s.ask("db.default.svc.cluster.local.", miekg.TypeA)
		first[m.Answer[0].(*miekg.A).A.String()]++
	}
	if len(first) != 3 {
		t.Errorf("%v", first)
	}
}

// crowd is a headless Service with n endpoints.
func crowd(s *site, n int) {
	var all []netip.Addr
	for i := range n {
		all = append(all, netip.AddrFrom4([4]byte{10, 2, byte(i >> 8), byte(i)}))
	}
	s.cluster.services["default/crowd"] = resolve.ServiceView{Headless: true, Addrs: all}
}

func TestLongAnswersAreCutOverUDPAndWholeOverTCP(t *testing.T) {
	s := newSite(t)
	crowd(s, 1000)
	plain := question("crowd.default.svc.cluster.local.", miekg.TypeA)
	for size, most := range map[uint16]int{0: 512, 100: 512, 600: 600, 4096: udpSize, 65535: udpSize} {
		m := plain.Copy()
		if size > 0 {
			m.SetEdns0(size, true)
		}
		wire := s.server.Answer(t.Context(), s.asker("pod"), packed(t, m), false)
		out := s.exchange(m, false)
		if len(wire) > most || !out.Truncated || (out.IsEdns0() != nil) != (size > 0) {
			t.Errorf("EDNS %d: %d bytes, %v", size, len(wire), out.MsgHdr)
		}
	}
	if out := s.exchange(plain, true); out.Truncated || len(out.Answer) != 1000 {
		t.Errorf("over TCP: %d records", len(out.Answer))
	}
	crowd(s, 5000) // more than any message holds
	if out := s.exchange(plain, true); !out.Truncated || len(out.Answer) < 3000 {
		t.Errorf("over TCP: %d records, %v", len(out.Answer), out.MsgHdr)
	}
}

func TestAnotherClusterDomain(t *testing.T) {
	s := newSite(t, func(c *Config) { c.Domain = "K8s.Example.Org." })
	if got := short(s.ask("web.default.svc.k8s.example.org.", miekg.TypeA)); got != "NOERROR; A 10.96.0.7" {
		t.Error(got)
	}
	if got := short(s.ask("web.default.svc.cluster.local.", miekg.TypeA)); got != "REFUSED" {
		t.Error(got)
	}
	for _, bad := range []string{"no domain", "-..", strings.Repeat("a.", 130)} {
		if _, err := New(Config{
			Domain: bad, Cluster: s.cluster, Allowed: listed, Flows: s.flows, Rand: s.server.cfg.Rand, Now: s.now, Log: s.server.cfg.Log,
		}); err == nil {
			t.Errorf("%q is taken for a domain", bad)
		}
	}
	if _, err := New(Config{}); err == nil || !strings.Contains(fmt.Sprint(err), "lacks a part") {
		t.Error(err)
	}
}
