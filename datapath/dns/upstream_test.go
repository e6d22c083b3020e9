// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	miekg "github.com/miekg/dns"
)

const (
	good = "api.example.com. 60 IN A 192.0.2.1"
	bad  = "api.example.com. 60 IN A 192.0.2.66"
)

// What an upstream, or somebody on the way to it, may say, and what the pod is
// told then.
func TestLiesOfUpstreams(t *testing.T) {
	forged := func(change func(m *miekg.Msg)) func(q *miekg.Msg) []byte {
		return func(q *miekg.Msg) []byte {
			m := respond(t, q, bad)
			change(m)
			return packed(t, m)
		}
	}
	before := func(strays ...func(q *miekg.Msg) []byte) script {
		return func(q *miekg.Msg, _ bool) (out [][]byte) {
			for _, s := range strays {
				out = append(out, s(q))
			}
			return append(out, packed(t, respond(t, q, good)))
		}
	}
	var manyNames []string
	for i := range maxChain + 1 {
		owner := "api.example.com."
		if i > 0 {
			owner = fmt.Sprintf("n%d.example.com.", i)
		}
		manyNames = append(manyNames, fmt.Sprintf("%s 60 IN CNAME n%d.example.com.", owner, i+1))
	}
	var manyAddrs []string
	for i := range 200 {
		manyAddrs = append(manyAddrs, fmt.Sprintf("api.example.com. 60 IN A 192.0.2.%d", i))
	}
	for name, tt := range map[string]struct {
		script script
		want   string
		reason string // of a flow record
	}{
		"wrong id":               {script: before(forged(func(m *miekg.Msg) { m.Id++ })), want: "NOERROR; A 192.0.2.1"},
		"a query":                {script: before(forged(func(m *miekg.Msg) { m.Response = false })), want: "NOERROR; A 192.0.2.1"},
		"another name":           {script: before(forged(func(m *miekg.Msg) { m.Question[0].Name = "api.example.net." })), want: "NOERROR; A 192.0.2.1"},
		"another spelling":       {script: before(forged(func(m *miekg.Msg) { m.Question[0].Name = "API.example.com." })), want: "NOERROR; A 192.0.2.1"},
		"another type":           {script: before(forged(func(m *miekg.Msg) { m.Question[0].Qtype = miekg.TypeAAAA })), want: "NOERROR; A 192.0.2.1"},
		"another class":          {script: before(forged(func(m *miekg.Msg) { m.Question[0].Qclass = miekg.ClassCHAOS })), want: "NOERROR; A 192.0.2.1"},
		"no question":            {script: before(forged(func(m *miekg.Msg) { m.Question = nil })), want: "NOERROR; A 192.0.2.1"},
		"another kind":           {script: before(forged(func(m *miekg.Msg) { m.Opcode = miekg.OpcodeUpdate })), want: "NOERROR; A 192.0.2.1"},
		"noise":                  {script: before(func(*miekg.Msg) []byte { return []byte("noise") }, func(*miekg.Msg) []byte { return nil }), want: "NOERROR; A 192.0.2.1"},
		"records of others":      {script: records(t, "evil.example.com. 60 IN A 192.0.2.66", good, "api.example.com. 60 IN AAAA 2001:db8::1", "api.example.com. 60 CH A 192.0.2.66"), want: "NOERROR; A 192.0.2.1"},
		"only records of others": {script: records(t, "evil.example.com. 60 IN A 192.0.2.66"), want: "NOERROR"},
		"a chain":                {script: records(t, "b.example.net. 60 IN A 192.0.2.1", "A.example.net. 60 IN CNAME B.example.net.", "api.example.com. 60 IN CNAME a.example.net."), want: "NOERROR; A 192.0.2.1; CNAME a.example.net.; CNAME b.example.net."},
		"a chain and a stray":    {script: records(t, "api.example.com. 60 IN CNAME a.example.net.", "a.example.net. 60 IN A 192.0.2.1", bad), want: "NOERROR; A 192.0.2.1; CNAME a.example.net."},
		"a loop":                 {script: records(t, "api.example.com. 60 IN CNAME a.example.net.", "a.example.net. 60 IN CNAME api.example.com."), want: "SERVFAIL"},
		"a loop further on":      {script: records(t, "api.example.com. 60 IN CNAME a.example.net.", "a.example.net. 60 IN CNAME b.example.net.", "b.example.net. 60 IN CNAME a.example.net."), want: "SERVFAIL"},
		"a name for itself":      {script: records(t, "api.example.com. 60 IN CNAME api.example.com."), want: "SERVFAIL"},
		"an endless chain":       {script: records(t, manyNames...), want: "SERVFAIL"},
		"a chain to no name":     {script: records(t, `api.example.com. 60 IN CNAME a\000b.example.net.`), want: "SERVFAIL"},
		"many addresses":         {script: records(t, manyAddrs...), want: "NOERROR" + strings.Repeat(".", maxRecords)},
		"refused":                {script: failing(t, miekg.RcodeRefused), want: "SERVFAIL"},
		"failed":                 {script: failing(t, miekg.RcodeServerFailure), want: "SERVFAIL"},
		"leads to loopback":      {script: records(t, "api.example.com. 60 IN A 127.0.0.1"), want: "REFUSED", reason: "dns-answer-blocked"},
		"leads to metadata":      {script: records(t, "api.example.com. 60 IN CNAME a.example.net.", "a.example.net. 60 IN A 169.254.169.254"), want: "REFUSED", reason: "dns-answer-blocked"},
		"leads to a neighbour":   {script: records(t, "api.example.com. 60 IN A 10.0.0.1"), want: "REFUSED", reason: "dns-answer-blocked"},
		"leads to a pod":         {script: records(t, "api.example.com. 60 IN A 203.0.113.5"), want: "REFUSED", reason: "dns-answer-blocked"},
		"leads to a node":        {script: records(t, "api.example.com. 60 IN A 203.0.113.6"), want: "REFUSED", reason: "dns-answer-blocked"},
		"leads there too":        {script: records(t, "api.example.com. 60 IN A 127.0.0.1", good, "api.example.com. 60 IN A 10.0.0.1"), want: "NOERROR; A 192.0.2.1"},
	} {
		t.Run(name, func(t *testing.T) {
			o := newOutsider(t, tt.script)
			s := newSite(t, o.use)
			m := s.exchange(question("api.example.com.", miekg.TypeA), true)
			got := short(m)
			if strings.HasSuffix(tt.want, "..") {
				got = "NOERROR" + strings.Repeat(".", len(m.Answer))
			}
			if got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			if strings.Contains(m.String(), "192.0.2.66") {
				t.Errorf("the lie got through: %v", m)
			}
			all := s.refusals()
			if tt.reason == "" && len(all) != 0 || tt.reason != "" && (len(all) != 1 || all[0].Reason != tt.reason) {
				t.Errorf("%+v", all)
			}
			for _, l := range s.lessons() {
				for _, a := range l.addrs {
					if !s.server.recursor.outside(a) {
						t.Errorf("learned %+v", l)
					}
				}
			}
		})
	}
}

func failing(t testing.TB, rcode int) script {
	return func(q *miekg.Msg, _ bool) [][]byte {
		m := respond(t, q)
		m.Rcode = rcode
		return [][]byte{packed(t, m)}
	}
}

func TestNameThatAnUpstreamLeavesOpenIsAskedFor(t *testing.T) {
	o := newOutsider(t, func(q *miekg.Msg, tcp bool) [][]byte {
		return records(t, map[string]string{
			"api.example.com.": "api.example.com. 60 IN CNAME a.example.net.",
			"a.example.net.":   "a.example.net. 30 IN CNAME b.example.net.",
			"b.example.net.":   "b.example.net. 90 IN A 192.0.2.1",
		}[q.Question[0].Name])(q, tcp)
	})
	s := newSite(t, o.use)
	m := s.ask("api.example.com.", miekg.TypeA)
	if got := short(m); got != "NOERROR; A 192.0.2.1; CNAME a.example.net.; CNAME b.example.net." || m.Answer[0].Header().Ttl != 30 {
		t.Errorf("%v", m)
	}
	loop := records(t, "api.example.com. 60 IN CNAME a.example.net.")
	again := script(func(q *miekg.Msg, tcp bool) [][]byte {
		if q.Question[0].Name == "a.example.net." {
			return records(t, "a.example.net. 60 IN CNAME api.example.com.")(q, tcp)
		}
		return loop(q, tcp)
	})
	o.script.Store(&again)
	s.pass(time.Hour)
	s.pass(time.Hour) // beyond what is kept for when nobody answers
	if got := short(s.ask("api.example.com.", miekg.TypeA)); got != "SERVFAIL" {
		t.Errorf("a loop over two questions: %s", got)
	}
	if n := len(o.questions()); n != 5 {
		t.Errorf("upstream heard %q", o.questions())
	}
}

func TestAnswerThatDoesNotFitIsAskedForOverTCP(t *testing.T) {
	o := newOutsider(t, func(q *miekg.Msg, tcp bool) [][]byte {
		m := respond(t, q, good)
		if !tcp {
			m.Answer, m.Truncated = nil, true
		}
		return [][]byte{packed(t, m)}
	})
	s := newSite(t, o.use)
	if got := short(s.ask("api.example.com.", miekg.TypeA)); got != "NOERROR; A 192.0.2.1" {
		t.Error(got)
	}
	if q := o.questions(); !slices.Equal(q, []string{"api.example.com. A", "api.example.com. A tcp"}) {
		t.Errorf("upstream heard %q", q)
	}
}

func TestFloodOfForgeriesIsEscapedOverTCP(t *testing.T) {
	o := newOutsider(t, func(q *miekg.Msg, tcp bool) (out [][]byte) {
		if tcp {
			return [][]byte{packed(t, respond(t, q, good))}
		}
		for i := range maxStrays {
			m := respond(t, q, bad)
			m.Id += uint16(i) + 1
			out = append(out, packed(t, m))
		}
		return append(out, packed(t, respond(t, q, bad))) // guessed at last
	})
	s := newSite(t, o.use)
	if got := short(s.ask("api.example.com.", miekg.TypeA)); got != "NOERROR; A 192.0.2.1" {
		t.Error(got)
	}
}

func TestHugeAnswerIsTakenInBounds(t *testing.T) {
	o := newOutsider(t, func(q *miekg.Msg, tcp bool) [][]byte {
		m := respond(t, q)
		for range 200 {
			m.Answer = append(m.Answer, &miekg.TXT{Hdr: header("api.example.com.", miekg.TypeTXT, 60), Txt: []string{strings.Repeat("x", 240)}})
		}
		if !tcp {
			m.Answer, m.Truncated = nil, true
		}
		return [][]byte{packed(t, m)}
	})
	s := newSite(t, o.use)
	m := s.exchange(question("api.example.com.", miekg.TypeTXT), true)
	if n := len(m.Answer); n == 0 || n*240 > maxText {
		t.Errorf("%d records", n)
	}
}

func TestAnotherUpstreamIsAskedAndRemembered(t *testing.T) {
	broken, works := newOutsider(t, failing(t, miekg.RcodeServerFailure)), newOutsider(t, records(t, good))
	closed, err := net.ListenPacket("udp4", "127.0.0.1:0") // and nobody listens there
	if err != nil {
		t.Fatal(err)
	}
	dead := netip.MustParseAddrPort(closed.LocalAddr().String())
	closed.Close()
	s := newSite(t, func(c *Config) { c.Upstreams = []netip.AddrPort{dead} }, broken.use, works.use)
	for range 3 {
		if got := short(s.ask("api.example.com.", miekg.TypeA)); got != "NOERROR; A 192.0.2.1" {
			t.Error(got)
		}
		s.pass(time.Minute)
	}
	if b, w := len(broken.questions()), len(works.questions()); b != 1 || w != 3 {
		t.Errorf("the broken one heard %d, the other %d", b, w)
	}
	status := s.server.Status()
	if u := status.Upstreams; len(u) != 3 || !u[0].Answered.IsZero() || u[0].Error == "" || !strings.Contains(u[1].Error, "SERVFAIL") || u[2].Answered.IsZero() || !u[2].Failed.IsZero() {
		t.Errorf("%+v", u)
	}
	if status.Questions != 5 {
		t.Errorf("%d questions", status.Questions)
	}
}

func TestSilentUpstreamIsLeftAfterAWhile(t *testing.T) {
	silent, works := newOutsider(t, nothing), newOutsider(t, records(t, good))
	s := newSite(t, silent.use, works.use, func(c *Config) { c.Limits.Attempt = 50 * time.Millisecond; c.Limits.Total = time.Minute })
	if got := short(s.ask("api.example.com.", miekg.TypeA)); got != "NOERROR; A 192.0.2.1" {
		t.Error(got)
	}
}

func TestThatNobodyAnswersIsKeptToo(t *testing.T) {
	o := newOutsider(t, failing(t, miekg.RcodeServerFailure))
	s := newSite(t, o.use)
	for range 10 {
		if got := short(s.ask("api.example.com.", miekg.TypeA)); got != "SERVFAIL" {
			t.Error(got)
		}
	}
	if n := len(o.questions()); n != rounds {
		t.Errorf("upstream heard %d questions", n)
	}
	s.pass(failureTTL)
	works := records(t, good)
	o.script.Store(&works)
	if got := short(s.ask("api.example.com.", miekg.TypeA)); got != "NOERROR; A 192.0.2.1" {
		t.Error(got)
	}
}

func TestOldAnswersServeWhileNobodyAnswers(t *testing.T) {
	o := newOutsider(t, records(t, good))
	s := newSite(t, o.use)
	s.ask("api.example.com.", miekg.TypeA)
	broken := failing(t, miekg.RcodeServerFailure)
	o.script.Store(&broken)
	s.pass(time.Minute)
	for i := range 3 {
		m := s.ask("api.example.com.", miekg.TypeA)
		if got := short(m); got != "NOERROR; A 192.0.2.1" || m.Answer[0].Header().Ttl != staleTTL {
			t.Errorf("%d: %v", i, m)
		}
	}
	if n := len(o.questions()); n != 1+rounds {
		t.Errorf("upstream heard %d questions", n)
	}
	s.pass(time.Hour)
	if got := short(s.ask("api.example.com.", miekg.TypeA)); got != "SERVFAIL" {
		t.Errorf("an hour later: %s", got)
	}
}

func TestUpstreamInTheClusterIsNotAsked(t *testing.T) {
	s := newSite(t, func(c *Config) {
		c.Upstreams = []netip.AddrPort{netip.MustParseAddrPort("203.0.113.5:53"), netip.MustParseAddrPort("203.0.113.7:53")}
	})
	if got := short(s.ask("api.example.com.", miekg.TypeA)); got != "SERVFAIL" {
		t.Error(got)
	}
	status := s.server.Status()
	if status.Questions != 0 || !strings.Contains(status.Upstreams[0].Error, "--dns-upstream") {
		t.Errorf("%+v", status)
	}
}

func FuzzUpstreamAnswer(f *testing.F) {
	k := key{"api.example.com", miekg.TypeA}
	q := question("api.example.com.", miekg.TypeA)
	for _, rrs := range [][]string{
		{good},
		{"api.example.com. 60 IN CNAME a.example.net.", "a.example.net. 60 IN A 10.0.0.1"},
		{"api.example.com. 60 IN CNAME api.example.com."},
		{"example.com. 60 IN SOA ns.example.com. h.example.com. 1 2 3 4 30"},
		{"api.example.com. 60 IN MX 10 ."},
		{`api.example.com. 60 IN TXT "a" "b"`},
		{"api.example.com. 60 IN SRV 1 2 3 a.example.net."},
	} {
		m := respond(f, q, rrs...)
		f.Add(packed(f, m), uint16(miekg.TypeA))
		m.Compress = true
		for _, qtype := range askedTypes {
			m.Question[0].Qtype = qtype
			f.Add(packed(f, m), qtype)
		}
	}
	s := newSite(f)
	f.Fuzz(func(t *testing.T, wire []byte, qtype uint16) {
		k.qtype = qtype
		r, err := accept(wire, 4242, k, s.server.recursor.outside)
		if err != nil {
			return
		}
		if len(r.chain) > maxChain || len(r.rrs) > maxRecords || r.ttl > uint32(maxTTL.Seconds()) {
			t.Fatalf("%+v", r)
		}
		for _, name := range r.chain {
			if !plain(name) {
				t.Fatalf("%q", name)
			}
		}
		for _, a := range r.addrs {
			if !s.server.recursor.outside(a) {
				t.Fatalf("%s", a)
			}
		}
		out := &miekg.Msg{Answer: r.records("api.example.com.", 5)}
		if _, err := out.Pack(); err != nil && !strings.Contains(err.Error(), "buffer") {
			t.Fatalf("%v: %v", err, out)
		}
		for _, rr := range out.Answer {
			if h := rr.Header(); h.Rrtype != qtype && h.Rrtype != miekg.TypeCNAME || h.Ttl != 5 || h.Class != miekg.ClassINET {
				t.Fatalf("%v", rr)
			}
		}
	})
}
