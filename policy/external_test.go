// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"bytes"
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

func TestParseRefusesWhatIsImpossibleOutside(t *testing.T) {
	long := make([]string, 257)
	for i := range long {
		long[i] = fmt.Sprintf("n%d.example.com", i)
	}
	ext := func(m *policy.Manifest) *policy.External { return &m.Workloads[0].External[0] }
	const e0, p0 = "$.workloads[0].external[0]", "$.workloads[0].publish[0]"
	for name, tt := range map[string]struct {
		edit func(m *policy.Manifest)
		code policy.Code
		path string
	}{
		"same node":            {func(m *policy.Manifest) { m.SameNode = "fast" }, policy.CodeSameNodeUnknown, "$.sameNode"},
		"peer's protocol":      {func(m *policy.Manifest) { m.Workloads[0].Peers.To[0].Protocol = "sctp" }, policy.CodeProtocolUnknown, "$.workloads[0].peers.to[0].protocol"},
		"dns name":             {func(m *policy.Manifest) { m.Workloads[0].DNS[0] = "Api.example.com" }, policy.CodeNameInvalid, "$.workloads[0].dns[0]"},
		"dns final dot":        {func(m *policy.Manifest) { m.Workloads[0].DNS[0] = "api.example.com." }, policy.CodeNameInvalid, "$.workloads[0].dns[0]"},
		"dns inner wildcard":   {func(m *policy.Manifest) { m.Workloads[0].DNS[0] = "api.*.com" }, policy.CodeNameInvalid, "$.workloads[0].dns[0]"},
		"dns half wildcard":    {func(m *policy.Manifest) { m.Workloads[0].DNS[0] = "a*.example.com" }, policy.CodeNameInvalid, "$.workloads[0].dns[0]"},
		"dns everything":       {func(m *policy.Manifest) { m.Workloads[0].DNS[0] = "*" }, policy.CodeNameInvalid, "$.workloads[0].dns[0]"},
		"dns any":              {func(m *policy.Manifest) { m.Workloads[0].DNS = []string{"any"} }, policy.CodeNameInvalid, "$.workloads[0].dns[0]"},
		"dns address":          {func(m *policy.Manifest) { m.Workloads[0].DNS[0] = "192.0.2.1" }, policy.CodeNameInvalid, "$.workloads[0].dns[0]"},
		"dns long label":       {func(m *policy.Manifest) { m.Workloads[0].DNS[0] = strings.Repeat("a", 64) + ".example" }, policy.CodeNameInvalid, "$.workloads[0].dns[0]"},
		"dns long name":        {func(m *policy.Manifest) { m.Workloads[0].DNS[0] = strings.Repeat("abc.", 63) + "ab" }, policy.CodeNameInvalid, "$.workloads[0].dns[0]"},
		"dns twice":            {func(m *policy.Manifest) { m.Workloads[0].DNS[1] = m.Workloads[0].DNS[0] }, policy.CodeValueDuplicate, "$.workloads[0].dns[1]"},
		"external name":        {func(m *policy.Manifest) { ext(m).Name = "No" }, policy.CodeNameInvalid, e0 + ".name"},
		"external twice":       {func(m *policy.Manifest) { ext(m).Name = "by-name" }, policy.CodeNameDuplicate, "$.workloads[0].external[1].name"},
		"cidrs and names":      {func(m *policy.Manifest) { ext(m).Names = []string{"a.example.com"} }, policy.CodeExternalInvalid, e0},
		"neither":              {func(m *policy.Manifest) { ext(m).CIDRs = nil }, policy.CodeExternalInvalid, e0},
		"cidr with host bits":  {func(m *policy.Manifest) { ext(m).CIDRs[0] = "192.0.2.1/24" }, policy.CodeCIDRInvalid, e0 + ".cidrs[0]"},
		"address":              {func(m *policy.Manifest) { ext(m).CIDRs[0] = "192.0.2.1" }, policy.CodeCIDRInvalid, e0 + ".cidrs[0]"},
		"mapped cidr":          {func(m *policy.Manifest) { ext(m).CIDRs[0] = "::ffff:192.0.2.0/120" }, policy.CodeCIDRInvalid, e0 + ".cidrs[0]"},
		"long spelling":        {func(m *policy.Manifest) { ext(m).CIDRs[0] = "2001:0db8::/32" }, policy.CodeCIDRInvalid, e0 + ".cidrs[0]"},
		"cidr twice":           {func(m *policy.Manifest) { ext(m).CIDRs[1] = ext(m).CIDRs[0] }, policy.CodeValueDuplicate, e0 + ".cidrs[1]"},
		"no port":              {func(m *policy.Manifest) { ext(m).Ports = nil }, policy.CodeListEmpty, e0 + ".ports"},
		"port 0":               {func(m *policy.Manifest) { ext(m).Ports[1] = 0 }, policy.CodePortInvalid, e0 + ".ports[1]"},
		"protocol":             {func(m *policy.Manifest) { ext(m).Protocol = "icmp" }, policy.CodeProtocolUnknown, e0 + ".protocol"},
		"udp with tls":         {func(m *policy.Manifest) { ext(m).Protocol, ext(m).TLS = "udp", true }, policy.CodeExternalInvalid, e0},
		"udp with sni":         {func(m *policy.Manifest) { ext(m).Protocol, ext(m).SNI = "udp", []string{"a.example.com"} }, policy.CodeExternalInvalid, e0},
		"sni":                  {func(m *policy.Manifest) { ext(m).SNI = []string{"a..example.com"} }, policy.CodeNameInvalid, e0 + ".sni[0]"},
		"too many":             {func(m *policy.Manifest) { ext(m).SNI = long }, policy.CodeListTooLong, e0 + ".sni"},
		"host network":         {func(m *policy.Manifest) { m.Workloads[0].HostNetwork = true }, policy.CodeHostNetworkRules, "$.workloads[0].hostNetwork"},
		"published port":       {func(m *policy.Manifest) { m.Workloads[0].Publish[0].Port = 0 }, policy.CodePortInvalid, p0 + ".port"},
		"host port":            {func(m *policy.Manifest) { m.Workloads[0].Publish[0].HostPort = 0 }, policy.CodePortInvalid, p0 + ".hostPort"},
		"the tunnel's port":    {func(m *policy.Manifest) { m.Workloads[0].Publish[0].HostPort = policy.TunnelPort }, policy.CodePortInvalid, p0 + ".hostPort"},
		"clients":              {func(m *policy.Manifest) { m.Workloads[0].Publish[0].From = nil }, policy.CodeListEmpty, p0 + ".from"},
		"client":               {func(m *policy.Manifest) { m.Workloads[0].Publish[0].From[0] = "10.0.0.0" }, policy.CodeCIDRInvalid, p0 + ".from[0]"},
		"any among clients":    {func(m *policy.Manifest) { m.Workloads[0].Publish[0].From[0] = policy.Any }, policy.CodeAnyNotAlone, p0 + ".from"},
		"host port twice":      {func(m *policy.Manifest) { m.Workloads[0].Publish[1].HostPort = 30080 }, policy.CodeValueDuplicate, "$.workloads[0].publish[1].hostPort"},
		"host port of another": {func(m *policy.Manifest) { m.Workloads[1].Publish = slices.Clone(m.Workloads[0].Publish) }, policy.CodeValueDuplicate, "$.workloads[1].publish[0].hostPort"},
		"peer twice":           {func(m *policy.Manifest) { to := &m.Workloads[0].Peers.To; *to = append(*to, (*to)[0]) }, policy.CodeValueDuplicate, "$.workloads[0].peers.to[1].workload"},
	} {
		t.Run(name, func(t *testing.T) {
			m := policytest.Manifest(policytest.New(t).Operators)
			outside(m)
			tt.edit(m)
			_, err := policy.Encode(m)
			wantProblem(t, err, tt.code, tt.path)
		})
	}
	for field, text := range map[string]string{"dns": "[]", "external": "[]", "publish": "[]"} {
		payload := bytes.Replace(sample(t), []byte(`"hostAccess": true`), []byte(`"hostAccess": true, "`+field+`": `+text), 1)
		_, err := policy.Parse(payload)
		wantProblem(t, err, policy.CodeListEmpty, "$.workloads[0]."+field)
	}
}

// What is judged at every connection is not part of an entry's digest: no
// certificate ends because of it.
func TestRulesForOutsideVoidNoCertificate(t *testing.T) {
	f := policytest.New(t)
	next := f.Next(t, outside)
	was, _ := f.Manifest.Workload(policytest.Web)
	is, _ := next.Manifest.Workload(policytest.Web)
	if was.Digest() != is.Digest() {
		t.Error("the digest changed")
	}
	if again, err := policy.Encode(next.Manifest); err != nil || !bytes.Equal(again, next.Payload) {
		t.Errorf("encoding twice differs (%v)", err)
	}
}

func TestDiffAffectedAndLintKnowWhatIsOutside(t *testing.T) {
	f := policytest.New(t)
	with := f.Next(t, outside)
	const web = "workloads[web]"
	for path, edit := range map[string]func(m *policy.Manifest){
		"sameNode":                        func(m *policy.Manifest) { m.SameNode = "" },
		web + ".dns[only.example.net]":    func(m *policy.Manifest) { m.Workloads[0].DNS = m.Workloads[0].DNS[1:] },
		web + ".external[by-address]":     func(m *policy.Manifest) { m.Workloads[0].External = m.Workloads[0].External[1:] },
		web + ".external[by-address].tls": func(m *policy.Manifest) { m.Workloads[0].External[0].TLS = true },
		web + ".external[by-address].sni": func(m *policy.Manifest) { m.Workloads[0].External[0].SNI = []string{"a.example.com"} },
		web + ".external[by-name].names[api.example.com]": func(m *policy.Manifest) {
			m.Workloads[0].External[1].Names = m.Workloads[0].External[1].Names[1:]
		},
		web + ".external[by-address].cidrs[192.0.2.0/24]": func(m *policy.Manifest) {
			m.Workloads[0].External[0].CIDRs = m.Workloads[0].External[0].CIDRs[1:]
		},
		web + ".external[by-address].ports[80]": func(m *policy.Manifest) { m.Workloads[0].External[0].Ports = []uint16{443} },
		web + ".publish[30080]":                 func(m *policy.Manifest) { m.Workloads[0].Publish = m.Workloads[0].Publish[1:] },
		web + ".publish[30081].from":            func(m *policy.Manifest) { m.Workloads[0].Publish[1].From = []string{"192.0.2.0/24"} },
	} {
		next := with.Next(t, edit)
		for effect, changes := range map[policy.Effect][]policy.Change{policy.Narrows: policy.Diff(with.Manifest, next.Manifest), policy.Widens: policy.Diff(next.Manifest, with.Manifest)} {
			i := slices.IndexFunc(changes, func(c policy.Change) bool { return c.Path == path })
			if i < 0 || changes[i].Effect != effect || changes[i].Before == changes[i].After {
				t.Errorf("want %s at %s among %+v", effect, path, changes)
			}
		}
		stops := policy.Affected(with.Manifest, next.Manifest, policytest.Now())
		if i := slices.IndexFunc(stops, func(i policy.Impact) bool { return i.Path == path }); (i < 0) != (path == "sameNode") {
			t.Errorf("what stops at %s: %+v", path, stops)
		}
	}
	found := policy.Lint(with.Manifest, policytest.Now())
	for code, path := range map[policy.Code]string{
		policy.LintSameNode:    "sameNode",
		policy.LintWideCIDR:    web + ".external[everywhere].cidrs[::/0]",
		policy.LintNodeAddress: web + ".external[metadata].cidrs[169.254.169.254/32]",
		policy.LintPublished:   web + ".publish[30081].from",
	} {
		if !slices.ContainsFunc(found, func(f policy.Finding) bool { return f.Code == code && f.Path == path }) {
			t.Errorf("lint does not say %s at %s", code, path)
		}
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

// outsideCases are what Lint says of rules for outside.
func outsideCases() []lintCase {
	external := func(e policy.External) func(m *policy.Manifest) {
		e.Name, e.Ports, e.Protocol = "e", []uint16{443}, policy.ProtocolTCP
		return func(m *policy.Manifest) { m.Workloads[0].External = []policy.External{e} }
	}
	cidr := func(text string) func(m *policy.Manifest) { return external(policy.External{CIDRs: []string{text}}) }
	publish := func(from string) func(m *policy.Manifest) {
		return func(m *policy.Manifest) {
			m.Workloads[0].Publish = []policy.Publish{{Port: 1, HostPort: 2, From: []string{from}}}
		}
	}
	const e = "workloads[web].external[e]"
	return []lintCase{
		{"good endpoint", cidr("192.0.2.0/24"), nil},
		{"good name", external(policy.External{Names: []string{"*.example.com"}}), nil},
		{"everywhere", cidr("0.0.0.0/0"), []string{"wide-cidr " + e + ".cidrs[0.0.0.0/0] warning"}},
		{"half of the world", cidr("8000::/1"), []string{"wide-cidr " + e + ".cidrs[8000::/1] warning"}},
		{"as wide as a network may be", cidr("10.0.0.0/8"), nil},
		{"metadata", cidr("169.254.169.254/32"), []string{"node-address " + e + ".cidrs[169.254.169.254/32] warning"}},
		{"link-local", cidr("169.254.0.0/16"), []string{"node-address " + e + ".cidrs[169.254.0.0/16] warning"}},
		{"public suffix", external(policy.External{Names: []string{"*.com"}}), []string{"wide-name " + e + ".names[*.com] warning"}},
		{"public suffix of dns", func(m *policy.Manifest) { m.Workloads[0].DNS = []string{"*.com"} }, []string{"wide-name workloads[web].dns[*.com] warning"}},
		{"published", publish("192.0.2.0/24"), nil},
		{"published to any", publish(policy.Any), []string{"published-to-any workloads[web].publish[2].from info"}},
		{"same node", func(m *policy.Manifest) { m.SameNode = policy.SameNodeLocal }, []string{"same-node-local sameNode info"}},
		{"same node over the mesh", func(m *policy.Manifest) { m.SameNode = policy.SameNodeMesh }, nil},
	}
}
