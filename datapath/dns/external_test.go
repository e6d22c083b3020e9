// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	miekg "github.com/miekg/dns"
)

func TestListedNamesAreAskedOutsideOnceForAllPods(t *testing.T) {
	o := newOutsider(t, records(t, "api.example.com. 60 IN A 192.0.2.1", "api.example.com. 300 IN A 192.0.2.2"))
	s := newSite(t, o.use)
	for i, want := range []struct {
		after time.Duration
		ttl   uint32
		asked int
	}{{0, 60, 1}, {0, 60, 1}, {20 * time.Second, 40, 1}, {39 * time.Second, 1, 1}, {time.Second, 60, 2}} {
		s.pass(want.after)
		m := s.ask("API.example.com.", miekg.TypeA)
		if got := short(m); got != "NOERROR; A 192.0.2.1; A 192.0.2.2" {
			t.Fatal(got)
		}
		for _, rr := range m.Answer {
			if h := rr.Header(); h.Ttl != want.ttl || h.Name != "API.example.com." {
				t.Errorf("%d: %v", i, rr)
			}
		}
		if m.Authoritative || len(o.questions()) != want.asked {
			t.Errorf("%d: upstream heard %q", i, o.questions())
		}
		l := s.lessons()
		if len(l) != i+1 || l[i].uid != "pod" || l[i].name != "api.example.com" || l[i].ttl != time.Duration(want.ttl)*time.Second || !slices.Equal(l[i].addrs, addrs("192.0.2.1", "192.0.2.2")) {
			t.Errorf("%d: learned %+v", i, l)
		}
	}
	if s.count(FromUpstream) != 2 || s.count(FromCache) != 3 {
		t.Errorf("%v", s.server.Status())
	}
}

func TestQuestionOutsideHoldsNothingOfThePods(t *testing.T) {
	o := newOutsider(t, records(t))
	s := newSite(t, o.use)
	q := question("aPi.eXample.cOm.", miekg.TypeA)
	q.Id = 0xbeef
	q.CheckingDisabled, q.AuthenticatedData, q.Zero = true, true, true
	q.SetEdns0(4321, true)
	q.IsEdns0().Option = append(q.IsEdns0().Option, &miekg.EDNS0_LOCAL{Code: 65001, Data: []byte("secret")})
	ids := map[uint16]bool{}
	for range 8 {
		s.exchange(q, false)
		s.pass(maxNegative)
	}
	for _, wire := range o.sent() {
		var m miekg.Msg
		if err := m.Unpack(wire); err != nil {
			t.Fatal(err)
		}
		ids[m.Id] = true
		want, err := ownQuestion(m.Id, key{"api.example.com", miekg.TypeA})
		if err != nil || string(want) != string(wire) {
			t.Errorf("the node sent %x", wire)
		}
	}
	if len(ids) < 7 || ids[0xbeef] {
		t.Errorf("ids %v", ids)
	}
}

func TestOnlyTypesOfUseAreAskedOutside(t *testing.T) {
	o := newOutsider(t, records(t))
	s := newSite(t, o.use)
	for name, code := range miekg.StringToType {
		if meta(code) || code == miekg.TypeNone {
			continue
		}
		if got := short(s.ask("api.example.com.", code)); got != "NOERROR" {
			t.Errorf("%s: %s", name, got)
		}
	}
	s.ask("api.example.com.", 65280)
	heard := o.questions()
	slices.Sort(heard)
	want := []string{"A", "AAAA", "CNAME", "MX", "SRV", "TXT"}
	for i := range want {
		want[i] = "api.example.com. " + want[i]
	}
	if !slices.Equal(heard, want) {
		t.Errorf("upstream heard %q", heard)
	}
}

func TestOtherRecordsOfUsePass(t *testing.T) {
	all := map[uint16][2]string{
		miekg.TypeMX:    {"10 mail.example.com.", "MX 10 mail.example.com."},
		miekg.TypeTXT:   {`"v=spf1 -all" "x"`, `TXT "v=spf1 -all" "x"`},
		miekg.TypeSRV:   {"1 2 27017 Node0.Example.com.", "SRV 1 2 27017 node0.example.com."},
		miekg.TypeCNAME: {"edge.example.net.", "CNAME edge.example.net."},
	}
	for qtype, tt := range all {
		name := "api.example.com."
		if qtype == miekg.TypeSRV {
			name = "_mongodb._tcp.example.com."
		}
		o := newOutsider(t, records(t, name+" 60 IN "+miekg.TypeToString[qtype]+" "+tt[0]))
		s := newSite(t, o.use)
		if got := short(s.ask(name, qtype)); got != "NOERROR; "+tt[1] {
			t.Errorf("%s", got)
		}
		if l := s.lessons(); len(l) != 0 {
			t.Errorf("learned %+v", l)
		}
	}
}

func TestNamesThatAreNotListedStayHere(t *testing.T) {
	o := newOutsider(t, records(t))
	s := newSite(t, o.use)
	secret := strings.Repeat("c2VjcmV0", 7)
	for name, want := range map[string]string{
		"example.com.": "REFUSED", "x.api.example.com.": "REFUSED", "wild.example.com.": "REFUSED", secret + ".evil.example.net.": "REFUSED",
		`\000.api.example.com.`: "REFUSED", "*.wild.example.com.": "REFUSED", `a\.b.wild.example.com.`: "REFUSED", ".": "REFUSED", "8.8.8.8.in-addr.arpa.": "REFUSED",
		// what resolvers try on their way does not exist
		"com.": "NXDOMAIN", "web.": "NXDOMAIN", "api.example.com.corp.example.": "NXDOMAIN", "CORP.example.": "NXDOMAIN",
	} {
		for _, qtype := range []uint16{miekg.TypeA, miekg.TypeTXT, miekg.TypeNULL} {
			if got := short(s.ask(name, qtype)); got != want {
				t.Errorf("%s: %s, want %s", name, got, want)
			}
		}
	}
	if q := o.questions(); len(q) != 0 {
		t.Errorf("upstream heard %q", q)
	}
	refused := s.asker("other")
	refused.Workload = "stranger"
	var m miekg.Msg
	if err := m.Unpack(s.server.Answer(t.Context(), refused, packed(t, question("api.example.com.", miekg.TypeA)), true)); err != nil || m.Rcode != miekg.RcodeRefused {
		t.Errorf("another workload: %v, %v", &m, err)
	}
}

func TestRefusalSaysWhyAndIsLimitedPerPod(t *testing.T) {
	s := newSite(t)
	long := strings.Repeat(strings.Repeat("x", 60)+".", 3) + "example.net."
	s.ask(long, miekg.TypeA)
	r := s.refusals()[0]
	if r.Reason != "dns-name-not-allowed" || r.Rule != "workloads[0].dns" || r.Expected != "api.example.com" || r.Pod != "default/pod" || r.SrcWorkload != "client" ||
		r.Src.String() != "10.1.0.5:4711" || r.Dst.String() != "10.96.0.10:53" || r.Node != "node-a" || len(r.Actual) > maxShown+30 || !strings.Contains(r.Actual, "xxx") {
		t.Errorf("%+v", r)
	}
	for range recordsBurst + 100 {
		s.ask("evil.example.net.", miekg.TypeA)
	}
	if n := len(s.refusals()); n != recordsBurst {
		t.Errorf("%d records", n)
	}
	s.pass(time.Second)
	s.ask("evil.example.net.", miekg.TypeA)
	if all := s.refusals(); all[len(all)-1].Suppressed != 101 {
		t.Errorf("%+v", all[len(all)-1])
	}
	if n := s.count(Refused); n != recordsBurst+102 {
		t.Errorf("counted %d", n)
	}
}

func TestNoUpstreamIsSaid(t *testing.T) {
	s := newSite(t)
	if got := short(s.ask("api.example.com.", miekg.TypeA)); got != "REFUSED" {
		t.Error(got)
	}
	if r := s.refusals(); len(r) != 1 || r[0].Reason != "dns-no-upstream" {
		t.Errorf("%+v", r)
	}
}

func TestNothingIsKeptAsLongAsItsZoneSays(t *testing.T) {
	for what, tt := range map[string]struct {
		soa   []string
		rcode int
		kept  time.Duration
		zone  string
	}{
		"NXDOMAIN":       {[]string{"example.com. 60 IN SOA ns.example.com. h.example.com. 1 2 3 4 30"}, miekg.RcodeNameError, 30 * time.Second, "example.com."},
		"no data":        {[]string{"example.com. 20 IN SOA ns.example.com. h.example.com. 1 2 3 4 3000"}, miekg.RcodeSuccess, 20 * time.Second, "example.com."},
		"for ever":       {[]string{"example.com. 99999 IN SOA ns.example.com. h.example.com. 1 2 3 4 99999"}, miekg.RcodeNameError, maxNegative, "example.com."},
		"not at all":     {[]string{"example.com. 0 IN SOA ns.example.com. h.example.com. 1 2 3 4 0"}, miekg.RcodeNameError, minTTL, "example.com."},
		"no SOA":         {nil, miekg.RcodeNameError, minTTL, ""},
		"a foreign zone": {[]string{"example.net. 60 IN SOA ns.example.com. h.example.com. 1 2 3 4 30"}, miekg.RcodeNameError, minTTL, ""},
	} {
		t.Run(what, func(t *testing.T) {
			o := newOutsider(t, func(q *miekg.Msg, _ bool) [][]byte {
				m := respond(t, q, tt.soa...)
				m.Rcode = tt.rcode
				return [][]byte{packed(t, m)}
			})
			s := newSite(t, o.use)
			for _, pass := range []time.Duration{0, tt.kept - time.Second} {
				s.pass(pass)
				m := s.ask("api.example.com.", miekg.TypeA)
				if m.Rcode != tt.rcode || len(m.Answer) != 0 || len(o.questions()) != 1 {
					t.Fatalf("%v; upstream heard %q", m, o.questions())
				}
				if tt.zone == "" && len(m.Ns) != 0 || tt.zone != "" && m.Ns[0].Header().Name != tt.zone {
					t.Errorf("%v", m.Ns)
				}
				if left := uint32((tt.kept - pass) / time.Second); tt.zone != "" && m.Ns[0].Header().Ttl != left {
					t.Errorf("%v, want %d", m.Ns[0], left)
				}
			}
			s.pass(time.Second)
			if s.ask("api.example.com.", miekg.TypeA); len(o.questions()) != 2 {
				t.Errorf("upstream heard %q", o.questions())
			}
		})
	}
}

func TestCacheIsBounded(t *testing.T) {
	s := store{most: 100, entries: map[key]*entry{}}
	for i := range 1000 {
		s.put(key{name: fmt.Sprint(i)}, &entry{until: time.Unix(int64(i), 0)})
	}
	if len(s.entries) != 100 || s.entries[key{name: "999"}] == nil {
		t.Errorf("%d entries", len(s.entries))
	}
	sum := 0
	for k := range s.entries {
		var i int
		fmt.Sscan(k.name, &i)
		sum += i
	}
	if sum/100 < 700 { // those that are over first go first, roughly
		t.Errorf("the average is %d", sum/100)
	}
}

func TestAddressesThatNoNameOutsideMayHave(t *testing.T) {
	s := newSite(t, func(c *Config) {
		c.Private = []netip.Prefix{netip.MustParsePrefix("10.20.0.0/16"), netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("fd20::/16")}
	})
	s.cluster.verdicts[netip.MustParseAddr("10.20.0.99")] = 1
	for a, want := range map[string]bool{
		"192.0.2.1": true, "8.8.8.8": true, "2001:4860:4860::8888": true, "64:ff9b::808:808": true,
		"10.20.0.1": true, "fd20::1": true, // the node was told so
		"10.20.0.99": false, "203.0.113.5": false, "203.0.113.6": false, "203.0.113.7": false, // of the cluster
		"198.51.100.1": false, // this node
		"10.21.0.1":    false, "172.16.0.1": false, "192.168.1.1": false, "100.64.0.1": false, "fd21::1": false, "64:ff9b:1::1": false,
		"127.0.0.1": false, "::1": false, "169.254.169.254": false, "fe80::1": false, "224.0.0.1": false, "ff02::1": false, "0.0.0.0": false,
		"::": false, "0.1.2.3": false, "255.255.255.255": false, "240.0.0.1": false, "192.0.0.8": false, "198.18.0.1": false, "100::1": false, "fec0::1": false,
		"168.63.129.16": false, "fd20:ce::254": false, "64:ff9b::a83f:8110": false, "2002:a83f:8110::1": false, // clouds' services
		"::ffff:10.0.0.1": false, "::ffff:8.8.8.8": false, "::10.0.0.1": false, "64:ff9b::a00:1": false, "64:ff9b::7f00:1": false, "2002:a00:1::1": false, "2002:808:808::1": true,
	} {
		if got := s.server.recursor.outside(netip.MustParseAddr(a)); got != want {
			t.Errorf("%s: %t", a, got)
		}
	}
}

// While the daemon hands over, an answer that nobody would remember is not
// given; whoever asks again is answered by the successor.
func TestAnswersThatCannotBeLearnedAreNotGiven(t *testing.T) {
	o := newOutsider(t, records(t, "api.example.com. 60 IN A 192.0.2.1", "api.example.com. 60 IN TXT x"))
	s := newSite(t, o.use)
	s.ask("api.example.com.", miekg.TypeA)
	s.mu.Lock()
	s.deaf = true
	s.mu.Unlock()
	for _, tcp := range []bool{false, true} {
		if wire := s.server.Answer(t.Context(), s.asker("pod"), packed(t, question("api.example.com.", miekg.TypeA)), tcp); wire != nil {
			t.Errorf("answered with %x", wire)
		}
	}
	if n := s.count(Failed); n != 2 {
		t.Errorf("%d are counted", n)
	}
	for _, qtype := range []uint16{miekg.TypeTXT, miekg.TypeMX} { // no address is in them
		s.ask("api.example.com.", qtype)
	}
	s.ask("web.default.svc.cluster.local.", miekg.TypeA)
}

func TestOnlyWhatTheNodeCouldAnswerIsAdmitted(t *testing.T) {
	private := func(c *Config) {
		c.Private = []netip.Prefix{netip.MustParsePrefix("192.168.7.0/24"), netip.MustParsePrefix("fd00:7::/64")}
	}
	upstream := func(c *Config) { c.Upstreams = []netip.AddrPort{netip.MustParseAddrPort("192.0.2.53:53")} }
	s, mute := newSite(t, upstream, private), newSite(t, private)
	for _, tt := range []struct {
		workload, name, addr string
		want                 bool
	}{
		{"client", "api.example.com", "192.0.2.1", true},
		{"client", "api.example.com", "2001:db8::1", true},
		{"client", "x.wild.example.com", "192.0.2.1", true},
		{"client", "api.example.com", "192.168.7.1", true},
		{"client", "api.example.com", "fd00:7::1", true},
		{"other", "api.example.com", "192.0.2.1", false},
		{"client", "evil.example.net", "192.0.2.1", false},
		{"client", "wild.example.com", "192.0.2.1", false},
		{"client", "Api.example.com", "192.0.2.1", false},
		{"client", "api.example.com.", "192.0.2.1", false},
		{"client", "", "192.0.2.1", false},
		{"client", "api.example.com", "192.168.8.1", false},
		{"client", "api.example.com", "127.0.0.1", false},
		{"client", "api.example.com", "169.254.169.254", false},
		{"client", "api.example.com", "198.51.100.1", false}, // the node
		{"client", "api.example.com", "203.0.113.5", false},  // a pod
		{"client", "api.example.com", "::ffff:192.0.2.1", false},
		{"client", "api.example.com", "2001:db8::1%eth0", false},
	} {
		if got := s.server.Admits(tt.workload, tt.name, netip.MustParseAddr(tt.addr)); got != tt.want {
			t.Errorf("%s of %q for %s: %t", tt.addr, tt.name, tt.workload, got)
		}
		if mute.server.Admits(tt.workload, tt.name, netip.MustParseAddr(tt.addr)) {
			t.Errorf("%s of %q, without an upstream", tt.addr, tt.name)
		}
	}
	if s.server.Admits("client", "api.example.com", netip.Addr{}) {
		t.Error("no address")
	}
}
