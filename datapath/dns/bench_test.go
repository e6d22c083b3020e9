// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"testing"

	miekg "github.com/miekg/dns"
)

func benchmark(b *testing.B, s *site, name string, qtype uint16) {
	q := question(name, qtype)
	q.SetEdns0(1232, false)
	wire := packed(b, q)
	asker := s.asker("pod")
	s.server.Answer(b.Context(), asker, wire, false)
	b.ReportAllocs()
	for b.Loop() {
		if s.server.Answer(b.Context(), asker, wire, false) == nil {
			b.Fatal("no answer")
		}
	}
}

func unlimited(c *Config) { c.Limits.QueriesPerSecond = 1 << 30 }

// BenchmarkNoQuery is the worst that a pod can send.
func BenchmarkNoQuery(b *testing.B) {
	s := newSite(b, unlimited)
	wire := questions(b, 65507)
	b.ReportAllocs()
	for b.Loop() {
		if s.server.Answer(b.Context(), s.asker("pod"), wire, false) == nil {
			b.Fatal("no answer")
		}
	}
}

func BenchmarkServiceName(b *testing.B) {
	benchmark(b, newSite(b, unlimited), "web.default.svc.cluster.local.", miekg.TypeA)
}

func BenchmarkSearchPath(b *testing.B) {
	benchmark(b, newSite(b, unlimited), "api.example.com.default.svc.cluster.local.", miekg.TypeA)
}

func BenchmarkHeadless100(b *testing.B) {
	s := newSite(b, unlimited)
	crowd(s, 100)
	benchmark(b, s, "crowd.default.svc.cluster.local.", miekg.TypeA)
}

func BenchmarkCachedName(b *testing.B) {
	o := newOutsider(b, records(b, "api.example.com. 60 IN A 192.0.2.1"))
	s := newSite(b, o.use, unlimited, func(c *Config) { c.Learner = nil })
	benchmark(b, s, "api.example.com.", miekg.TypeA)
}

func BenchmarkRefusedName(b *testing.B) {
	benchmark(b, newSite(b, unlimited), "evil.example.net.", miekg.TypeA)
}
