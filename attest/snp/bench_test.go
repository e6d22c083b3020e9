// SPDX-License-Identifier: Apache-2.0

package snp

import "testing"

func BenchmarkParseReport(b *testing.B) {
	raw := realCases()[1].raw(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseReport(raw); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkVerifyWarm is what a verifier does for each report of a machine it
// has seen before.
func BenchmarkVerifyWarm(b *testing.B) {
	for _, c := range realCases()[1:] {
		b.Run(c.name, func(b *testing.B) {
			raw, certs, cache := c.raw(b), c.certs(b), NewCache(4)
			b.ReportAllocs()
			for b.Loop() {
				verifyWith(b, raw, certs, cache)
			}
		})
	}
}

// BenchmarkVerifyCold is the same for a machine never seen before.
func BenchmarkVerifyCold(b *testing.B) {
	for _, c := range realCases()[1:] {
		b.Run(c.name, func(b *testing.B) {
			raw, certs := c.raw(b), c.certs(b)
			b.ReportAllocs()
			for b.Loop() {
				verifyWith(b, raw, certs, NewCache(1))
			}
		})
	}
}

func verifyWith(b *testing.B, raw []byte, certs [][]byte, cache *Cache) {
	r, err := ParseReport(raw)
	if err != nil {
		b.Fatal(err)
	}
	chain, err := cache.Chain(certs)
	if err != nil {
		b.Fatal(err)
	}
	if err := chain.VerifySignature(r); err != nil {
		b.Fatal(err)
	}
}
