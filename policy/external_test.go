// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

// outside gives the entry Web one rule of every kind.
func outside(m *policy.Manifest) {
	w := &m.Workloads[0]
	w.DNS = []string{"only.example.net", "*.svc.example.net"}
	w.External = []policy.External{
		{Name: "by-address", CIDRs: []string{"192.0.2.0/24", "2001:db8::/32"}, Ports: []uint16{443, 80}, Protocol: "tcp"},
		{Name: "by-name", Names: []string{"api.example.com", "*.wide.example.com"}, Ports: []uint16{443}, Protocol: "tcp"},
		{Name: "tls", CIDRs: []string{"198.51.100.0/24"}, Ports: []uint16{443}, Protocol: "tcp", TLS: true},
		{Name: "sni-a", CIDRs: []string{"203.0.113.0/24"}, Ports: []uint16{443, 8443}, Protocol: "tcp", SNI: []string{"a.example.com", "*.b.example.com"}},
		{Name: "sni-c", CIDRs: []string{"203.0.113.7/32"}, Ports: []uint16{443}, Protocol: "tcp", SNI: []string{"c.example.com"}},
		{Name: "ntp", CIDRs: []string{"192.0.2.0/24"}, Ports: []uint16{123}, Protocol: "udp"},
		{Name: "everywhere", CIDRs: []string{"0.0.0.0/0", "::/0"}, Ports: []uint16{9}, Protocol: "tcp"},
		{Name: "metadata", CIDRs: []string{"169.254.169.254/32", "10.0.0.1/32"}, Ports: []uint16{80}, Protocol: "tcp"},
	}
	w.Publish = []policy.Publish{
		{Port: 8080, HostPort: 30080, From: []string{"192.0.2.0/24", "2001:db8::/32"}},
		{Port: 8081, HostPort: 30081, From: []string{policy.Any}},
	}
	m.SameNode = policy.SameNodeLocal
}

// outsideAgrees: what the entry lists is allowed, in the words it lists.
func outsideAgrees(t *testing.T, m *policy.Manifest, w *policy.Workload) {
	for _, name := range w.DNS {
		if !m.NameAllowed(w.Name, strings.Replace(name, "*", "x", 1)).Allowed {
			t.Fatalf("%s lists the name %s and may not resolve it", w.Name, name)
		}
	}
	for i := range w.External {
		e := &w.External[i]
		for _, text := range e.CIDRs {
			p := netip.MustParsePrefix(text)
			to := policy.Destination{Protocol: e.Protocol, Addr: netip.AddrPortFrom(p.Addr(), e.Ports[0])}
			if got, d := m.ExternalAllowed(w.Name, to); p.IsSingleIP() && (got == nil || !d.Allowed) {
				t.Fatalf("%s lists %s and may not connect to it: %v", w.Name, text, d)
			}
		}
	}
	for _, p := range w.Publish {
		if got, _ := m.PublishAllowed(w.Name, p.HostPort, netip.MustParseAddr("192.0.2.1")); got != nil && got.HostPort != p.HostPort {
			t.Fatalf("%s publishes %d and answers with %d", w.Name, p.HostPort, got.HostPort)
		}
	}
}

func TestExternalAllowed(t *testing.T) {
	m := policytest.New(t, policytest.With(outside)).Manifest
	hello := func(name string) *policy.ClientHello { return &policy.ClientHello{ServerName: name} }
	for _, tt := range []struct {
		to    string
		proto string
		names []string
		hello *policy.ClientHello
		local bool
		rule  string // empty: refused
		code  policy.Code
	}{
		{to: "192.0.2.1:443", proto: "tcp", rule: "by-address"},
		{to: "[::ffff:192.0.2.1]:443", proto: "tcp", rule: "by-address"},
		{to: "[2001:db8::1]:80", proto: "tcp", rule: "by-address"},
		{to: "192.0.2.1:22", proto: "tcp", code: policy.CodeExternalPort},
		{to: "192.0.2.1:443", proto: "udp", code: policy.CodeExternalPort},
		{to: "192.0.2.1:123", proto: "udp", rule: "ntp"},
		{to: "192.0.3.1:123", proto: "udp", code: policy.CodeExternalPort}, // everywhere has another,
		{to: "192.0.3.1:443", proto: "tcp", code: policy.CodeExternalName}, // the port is by-name's
		{to: "192.0.3.1:443", proto: "tcp", names: []string{"api.example.com"}, rule: "by-name"},
		{to: "192.0.3.1:443", proto: "tcp", names: []string{"evil.example", "x.y.wide.example.com"}, rule: "by-name"},
		{to: "192.0.3.1:443", proto: "tcp", names: []string{"wide.example.com"}, code: policy.CodeExternalName},
		{to: "192.0.3.1:443", proto: "tcp", names: []string{"api.example.com.evil.example"}, code: policy.CodeExternalName},
		{to: "198.51.100.1:443", proto: "tcp", rule: "tls"},
		{to: "198.51.100.1:443", proto: "tcp", hello: hello(""), rule: "tls"},
		{to: "203.0.113.1:443", proto: "tcp", rule: "sni-a"}, // to be asked again
		{to: "203.0.113.1:443", proto: "tcp", hello: hello("a.example.com"), rule: "sni-a"},
		{to: "203.0.113.1:443", proto: "tcp", hello: hello("x.b.example.com"), rule: "sni-a"},
		{to: "203.0.113.1:443", proto: "tcp", hello: hello("b.example.com"), code: policy.CodeExternalSNI},
		{to: "203.0.113.1:443", proto: "tcp", hello: hello(""), code: policy.CodeExternalSNI},
		{to: "203.0.113.1:443", proto: "tcp", hello: &policy.ClientHello{ServerName: "a.example.com", Encrypted: true}, code: policy.CodeExternalSNI},
		{to: "198.51.100.1:443", proto: "tcp", hello: &policy.ClientHello{Encrypted: true}, rule: "tls"}, // asks for no name
		{to: "203.0.113.1:443", proto: "tcp", hello: hello("c.example.com"), code: policy.CodeExternalSNI},
		{to: "203.0.113.7:443", proto: "tcp", hello: hello("c.example.com"), rule: "sni-c"}, // two rules for one address
		{to: "203.0.113.7:443", proto: "tcp", hello: hello("a.example.com"), rule: "sni-a"},
		{to: "8.8.8.8:9", proto: "tcp", rule: "everywhere"},
		// Addresses of the node: neither a wide prefix nor a name is enough.
		{to: "169.254.169.254:80", proto: "tcp", rule: "metadata"},
		{to: "169.254.169.254:9", proto: "tcp", code: policy.CodeExternalPort},
		{to: "169.254.169.253:9", proto: "tcp", code: policy.CodeExternalNotAllowed},
		{to: "168.63.129.16:9", proto: "tcp", code: policy.CodeExternalNotAllowed},
		{to: "168.63.129.16:443", proto: "tcp", names: []string{"api.example.com"}, code: policy.CodeExternalName},
		{to: "168.63.129.17:9", proto: "tcp", rule: "everywhere"},
		{to: "100.100.100.200:9", proto: "tcp", code: policy.CodeExternalNotAllowed},
		{to: "[fd00:ec2::254]:9", proto: "tcp", code: policy.CodeExternalNotAllowed},
		{to: "[fd20:ce::254]:9", proto: "tcp", code: policy.CodeExternalNotAllowed},
		{to: "127.0.0.1:9", proto: "tcp", code: policy.CodeExternalNotAllowed},
		{to: "127.0.0.1:443", proto: "tcp", names: []string{"api.example.com"}, code: policy.CodeExternalName},
		{to: "[::1]:9", proto: "tcp", code: policy.CodeExternalNotAllowed},
		{to: "[::ffff:127.0.0.1]:9", proto: "tcp", code: policy.CodeExternalNotAllowed},
		{to: "[fe80::1]:9", proto: "tcp", code: policy.CodeExternalNotAllowed},
		{to: "[fe80::1%eth0]:9", proto: "tcp", code: policy.CodeExternalNotAllowed},
		{to: "0.0.0.0:9", proto: "tcp", code: policy.CodeExternalNotAllowed},
		{to: "224.0.0.1:9", proto: "tcp", code: policy.CodeExternalNotAllowed},
		{to: "8.8.8.8:9", proto: "tcp", local: true, code: policy.CodeExternalNotAllowed},
		{to: "10.0.0.1:80", proto: "tcp", local: true, rule: "metadata"},
	} {
		t.Run(fmt.Sprintf("%s %s %v", tt.to, tt.proto, tt.names), func(t *testing.T) {
			e, d := m.ExternalAllowed(policytest.Web, policy.Destination{Protocol: tt.proto, Addr: netip.MustParseAddrPort(tt.to), Names: tt.names, Local: tt.local, Hello: tt.hello})
			if tt.rule == "" {
				wantDecision(t, d, tt.code)
				if e != nil {
					t.Errorf("a refusal with the rule %s", e.Name)
				}
				return
			}
			wantDecision(t, d, policy.CodeAllowed)
			if e == nil || e.Name != tt.rule || !strings.Contains(d.Rule, "external["+tt.rule+"]") {
				t.Errorf("rule = %+v (%s), want %s", e, d.Rule, tt.rule)
			}
		})
	}
	if _, d := m.ExternalAllowed(policytest.DB, policy.Destination{Protocol: "tcp", Addr: netip.MustParseAddrPort("192.0.2.1:443")}); d.Code != policy.CodeExternalNotAllowed {
		t.Errorf("another entry's rule counts: %v", d)
	}
	if _, d := m.ExternalAllowed("nobody", policy.Destination{}); d.Code != policy.CodeWorkloadUnlisted {
		t.Errorf("no entry: %v", d)
	}
	if _, d := m.ExternalAllowed(policytest.Web, policy.Destination{}); d.Allowed {
		t.Error("nowhere is allowed")
	}
}

// What asks for nothing goes first: the bytes of such a connection are not
// waited for.
func TestARuleWithoutAHelloGoesFirst(t *testing.T) {
	m := policytest.New(t, policytest.With(func(m *policy.Manifest) {
		m.Workloads[0].External = []policy.External{
			{Name: "sni", CIDRs: []string{"192.0.2.1/32"}, Ports: []uint16{443}, Protocol: "tcp", SNI: []string{"a.example.com"}},
			{Name: "plain", CIDRs: []string{"192.0.2.0/24"}, Ports: []uint16{443}, Protocol: "tcp"},
		}
	})).Manifest
	for _, hello := range []*policy.ClientHello{nil, {ServerName: "a.example.com"}, {}} {
		e, d := m.ExternalAllowed(policytest.Web, policy.Destination{Protocol: "tcp", Addr: netip.MustParseAddrPort("192.0.2.1:443"), Hello: hello})
		if !d.Allowed || e.Name != "plain" {
			t.Errorf("with %v the rule is %v (%v)", hello, e, d)
		}
	}
}

func TestNameAllowed(t *testing.T) {
	m := policytest.New(t, policytest.With(outside)).Manifest
	for name, code := range map[string]policy.Code{
		"only.example.net":       policy.CodeAllowed,
		"a.svc.example.net":      policy.CodeAllowed,
		"a.b.svc.example.net":    policy.CodeAllowed,
		"api.example.com":        policy.CodeAllowed, // an external rule implies it
		"x.wide.example.com":     policy.CodeAllowed,
		"svc.example.net":        policy.CodeNameNotAllowed,
		".svc.example.net":       policy.CodeNameNotAllowed,
		"example.net":            policy.CodeNameNotAllowed,
		"a.only.example.net":     policy.CodeNameNotAllowed,
		"xonly.example.net":      policy.CodeNameNotAllowed,
		"only.example.net.":      policy.CodeNameNotAllowed, // not the one spelling
		"ONLY.example.net":       policy.CodeNameNotAllowed,
		"a.example.com":          policy.CodeNameNotAllowed, // SNI is not DNS
		"":                       policy.CodeNameNotAllowed,
		".":                      policy.CodeNameNotAllowed,
		strings.Repeat("a.", 99): policy.CodeNameNotAllowed,
	} {
		wantDecision(t, m.NameAllowed(policytest.Web, name), code)
	}
	wantDecision(t, m.NameAllowed(policytest.DB, "only.example.net"), policy.CodeNameNotAllowed)
	wantDecision(t, m.NameAllowed("nobody", "only.example.net"), policy.CodeWorkloadUnlisted)
}

func TestNameListed(t *testing.T) {
	m := policytest.New(t, policytest.With(outside)).Manifest
	for name, want := range map[string]bool{
		"only.example.net": true, "api.example.com": true,
		"a.svc.example.net": false, "x.wide.example.com": false, ".svc.example.net": false, ".wide.example.com": false, "svc.example.net": false, "": false,
	} {
		if got := m.NameListed(policytest.Web, name); got != want {
			t.Errorf("%q: %t", name, got)
		}
	}
	var none *policy.Manifest
	if m.NameListed(policytest.DB, "only.example.net") || m.NameListed("nobody", "only.example.net") || none.NameListed(policytest.Web, "only.example.net") {
		t.Error("a name is listed that nobody lists")
	}
}

func TestPublishAllowed(t *testing.T) {
	m := policytest.New(t, policytest.With(outside)).Manifest
	for _, tt := range []struct {
		port   uint16
		client string
		code   policy.Code
	}{
		{30080, "192.0.2.9", policy.CodeAllowed},
		{30080, "::ffff:192.0.2.9", policy.CodeAllowed},
		{30080, "2001:db8::9", policy.CodeAllowed},
		{30080, "192.0.3.9", policy.CodePublishClient},
		{30081, "192.0.3.9", policy.CodeAllowed},
		{30081, "", policy.CodePublishClient}, // nobody is not anybody
		{8080, "192.0.2.9", policy.CodePublishNotAllowed},
		{0, "192.0.2.9", policy.CodePublishNotAllowed},
	} {
		addr, _ := netip.ParseAddr(tt.client)
		p, d := m.PublishAllowed(policytest.Web, tt.port, addr)
		wantDecision(t, d, tt.code)
		if d.Allowed != (p != nil) || p != nil && p.HostPort != tt.port {
			t.Errorf("%+v answers %+v", tt, p)
		}
	}
	_, d := m.PublishAllowed(policytest.DB, 30080, netip.MustParseAddr("192.0.2.9"))
	wantDecision(t, d, policy.CodePublishNotAllowed)
}

// Neither is a name or an address taken for another protocol's rule.
func TestPeersAreAllowedByProtocol(t *testing.T) {
	both := func(m *policy.Manifest) {
		m.Workloads[0].Peers.To = append(m.Workloads[0].Peers.To, policy.PeerRule{Workload: "db", Ports: []uint16{53, 54}, Protocol: policy.ProtocolUDP})
		m.Workloads[1].Peers.From = append(m.Workloads[1].Peers.From, policy.PeerRule{Workload: "web", Ports: []uint16{53}, Protocol: policy.ProtocolUDP})
		m.Workloads[1].Peers.To = []policy.PeerRule{{Workload: "web", Ports: []uint16{1}, Protocol: policy.ProtocolUDP}}
	}
	m := policytest.New(t, policytest.With(both)).Manifest
	for _, tt := range []struct {
		from, to, protocol string
		port               uint16
		code               policy.Code
	}{
		{"web", "db", "tcp", policytest.DBPort, policy.CodeAllowed},
		{"web", "db", "udp", policytest.DBPort, policy.CodePortNotAllowed},
		{"web", "db", "udp", 53, policy.CodeAllowed},
		{"web", "db", "tcp", 53, policy.CodePortNotAllowed},
		{"web", "db", "udp", 54, policy.CodePortNotAllowed},
		{"db", "web", "tcp", 1, policy.CodeProtocolNotAllowed},
		{"db", "web", "udp", 1, policy.CodePeerNotAllowedIngress},
		{"web", "db", "", 53, policy.CodeProtocolNotAllowed},
		{"web", "db", "sctp", 53, policy.CodeProtocolNotAllowed},
	} {
		wantDecision(t, m.PeerAllowed(tt.from, tt.to, tt.protocol, tt.port), tt.code)
	}
	without := policytest.New(t).Manifest
	stopped := policy.Affected(m, without, policytest.Now())
	if !slices.ContainsFunc(stopped, func(i policy.Impact) bool {
		return i.Path == "workloads[web].peers.to[db/udp]" && i.Before == "ports 53/udp"
	}) {
		t.Errorf("what stops is %+v", stopped)
	}
}

func TestAllowingOutsideAllocatesNothing(t *testing.T) {
	m := policytest.New(t, policytest.With(outside)).Manifest
	to := policy.Destination{Protocol: "tcp", Addr: netip.MustParseAddrPort("192.0.3.1:443"), Names: []string{"x.wide.example.com"}}
	client := netip.MustParseAddr("192.0.2.9")
	if n := testing.AllocsPerRun(100, func() {
		m.ExternalAllowed(policytest.Web, to)
		m.NameAllowed(policytest.Web, "a.b.svc.example.net")
		m.PublishAllowed(policytest.Web, 30080, client)
	}); n != 0 {
		t.Errorf("allowing allocates %v times", n)
	}
}

func BenchmarkExternalAllowed(b *testing.B) {
	m := policytest.New(b, policytest.With(outside)).Manifest
	to := policy.Destination{Protocol: "tcp", Addr: netip.MustParseAddrPort("8.8.8.8:9")}
	b.ReportAllocs()
	for b.Loop() {
		if _, d := m.ExternalAllowed(policytest.Web, to); !d.Allowed {
			b.Fatal("refused")
		}
	}
}
