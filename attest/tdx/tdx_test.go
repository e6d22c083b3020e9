// SPDX-License-Identifier: Apache-2.0

package tdx_test

import (
	"bytes"
	"crypto"
	"crypto/sha512"
	"encoding/binary"
	"strings"
	"testing"
	"time"

	"github.com/google/go-eventlog/register"
	"github.com/google/go-eventlog/tcg"
	"github.com/google/go-tdx-guest/abi"
	tdxverify "github.com/google/go-tdx-guest/verify"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/tdx"
)

// genuine makes every check that needs no collateral.
func genuine(b []byte, cache *tdx.Cache) error {
	q, err := tdx.ParseQuote(b)
	if err != nil {
		return err
	}
	c, err := cache.Chain(q.PCKChain)
	if err != nil {
		return err
	}
	for _, check := range []func() error{func() error { return q.VerifyQE(c) }, q.CheckBinding, q.VerifySignature, q.CheckAttributes} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

// Every byte of a quote is signed, or must be what it is: only white space in
// the PEM text may differ, which does not change a certificate.
func TestAnyChangedByteIsRefused(t *testing.T) {
	cache := tdx.NewCache(4)
	for _, name := range realQuotes() {
		b := readFile(t, name)
		q := quoteOf(t, name)
		pem := bytes.Index(b, []byte("-----BEGIN"))
		for i := range len(b) - q.Padding {
			if i >= pem && i%17 != 0 { // each is an RSA-free but slow chain
				continue
			}
			changed := bytes.Clone(b)
			changed[i] ^= 4
			err := genuine(changed, cache)
			if err == nil && !(i >= pem && (b[i] == '\n' || changed[i] == '\n')) {
				t.Errorf("%s: byte %d changed, and accepted", name, i)
			}
		}
		for i := len(b) - q.Padding; i < len(b); i++ {
			changed := bytes.Clone(b)
			changed[i] = 1
			if attest.FailureCode(genuine(changed, cache)) != tdx.CodeQuoteFormat {
				t.Errorf("%s: padding that is not zero, at %d", name, i)
			}
		}
	}
}

func TestTruncatedQuotesAreRefused(t *testing.T) {
	b := readFile(t, "quote_v5.dat")
	for n := range b {
		if _, err := tdx.ParseQuote(b[:n]); err == nil {
			t.Fatalf("%d of %d bytes were accepted", n, len(b))
		}
	}
}

// Both of these make go-tdx-guest panic.
func TestSizesThatLieAreRefused(t *testing.T) {
	for name, edit := range map[string]func(b []byte){
		"authentication data of 65,535 bytes": func(b []byte) { binary.LittleEndian.PutUint16(b[48+584+4+64+64+6+384+64:], 0xffff) },
		"signed data of 8 bytes":              func(b []byte) { binary.LittleEndian.PutUint32(b[48+584:], 8) },
		"signed data of 4 GB":                 func(b []byte) { binary.LittleEndian.PutUint32(b[48+584:], 0xffffffff) },
		"certification data of 4 GB":          func(b []byte) { binary.LittleEndian.PutUint32(b[48+584+4+64+64+2:], 0xffffffff) },
		"another quoting enclave's vendor":    func(b []byte) { b[12] ^= 1 },
		"another TEE":                         func(b []byte) { b[4] = 0 },
		"another key type":                    func(b []byte) { b[2] = 3 },
		"reserved bytes":                      func(b []byte) { b[8] = 1 },
	} {
		b := readFile(t, "quote_v4_debug_td.dat")
		edit(b)
		if _, err := tdx.ParseQuote(b); attest.FailureCode(err) != tdx.CodeQuoteFormat {
			t.Errorf("%s: %v", name, err)
		}
	}
	b := readFile(t, "quote_v4_debug_td.dat")
	b[0] = 6
	if _, err := tdx.ParseQuote(b); attest.FailureCode(err) != tdx.CodeQuoteVersion {
		t.Errorf("version 6: %v", err)
	}
	if _, err := tdx.ParseQuote(append(readFile(t, "quote_v5.dat"), make([]byte, tdx.MaxPadding+1)...)); err == nil {
		t.Error("endless padding")
	}
	if _, err := tdx.ParseQuote(make([]byte, attest.MaxReport+1)); err == nil {
		t.Error("a quote over the cap")
	}
}

func TestStatusesMergeAsIntelDocuments(t *testing.T) {
	all := []tdx.TCBStatus{tdx.UpToDate, tdx.SWHardeningNeeded, tdx.ConfigurationNeeded, tdx.ConfigurationAndSWHardeningNeeded, tdx.OutOfDate, tdx.OutOfDateConfigurationNeeded, tdx.Revoked}
	for _, c := range []struct{ a, b, want tdx.TCBStatus }{
		{tdx.UpToDate, tdx.OutOfDate, tdx.OutOfDate},
		{tdx.SWHardeningNeeded, tdx.OutOfDate, tdx.OutOfDate},
		{tdx.ConfigurationNeeded, tdx.OutOfDate, tdx.OutOfDateConfigurationNeeded},
		{tdx.ConfigurationAndSWHardeningNeeded, tdx.OutOfDate, tdx.OutOfDateConfigurationNeeded},
		{tdx.OutOfDate, tdx.OutOfDateConfigurationNeeded, tdx.OutOfDateConfigurationNeeded},
		{tdx.SWHardeningNeeded, tdx.ConfigurationNeeded, tdx.ConfigurationAndSWHardeningNeeded},
		{tdx.UpToDate, "Great", tdx.Revoked},
		{"", tdx.UpToDate, tdx.Revoked},
	} {
		if got := c.a.Merge(c.b); got != c.want {
			t.Errorf("%s and %s give %s, want %s", c.a, c.b, got, c.want)
		}
	}
	for _, a := range all {
		for _, b := range all {
			if a.Merge(b) != b.Merge(a) || a.Merge(a) != a || a.Merge(tdx.UpToDate) != a || a.Merge(tdx.Revoked) != tdx.Revoked {
				t.Errorf("%s and %s", a, b)
			}
		}
	}
}

func TestDocumentsOfTwoMeaningsAreRefused(t *testing.T) {
	q := quoteOf(t, "quote_v4_b0c06f.dat")
	c := chainOf(t, q)
	now := time.Date(2025, 7, 1, 0, 0, 0, 0, time.UTC)
	for name, edit := range map[string]func(s string) string{
		"re-serialised":      func(s string) string { return strings.Replace(s, `"version":3`, `"version": 3`, 1) },
		"tampered":           func(s string) string { return strings.Replace(s, `"OutOfDate"`, `"UpToDate"`, 1) },
		"key twice":          func(s string) string { return strings.Replace(s, `{"tcbInfo"`, `{"TCBINFO":{},"tcbInfo"`, 1) },
		"trailing data":      func(s string) string { return s + "{}" },
		"no signature":       func(s string) string { return s[:strings.LastIndex(s, `,"signature"`)] + "}" },
		"folded key":         func(s string) string { return strings.Replace(s, `"fmspc"`, `"fmſpc":"00","fmspc"`, 1) },
		"member more":        func(s string) string { return strings.Replace(s, `{"tcbInfo"`, `{"x":1,"tcbInfo"`, 1) },
		"number left out":    func(s string) string { return strings.Replace(s, `"svn":2`, `"nvs":2`, 1) },
		"of another version": func(s string) string { return strings.Replace(s, `"version":3`, `"version":2`, 1) },
	} {
		items := b0c06f(t)
		items[0].Body = []byte(edit(string(items[0].Body)))
		if string(items[0].Body) == string(b0c06f(t)[0].Body) {
			t.Fatalf("%s: nothing changed", name)
		}
		_, err := tdx.NewCache(4).Evaluate(q, c, items, now)
		if code := attest.FailureCode(err); code != tdx.CodeCollateralFormat && code != tdx.CodeCollateralSignature {
			t.Errorf("%s: %v", name, err)
		}
		// A good piece beside it is used.
		if _, err := tdx.NewCache(4).Evaluate(q, c, append(items, b0c06f(t)[0]), now); err != nil {
			t.Errorf("%s beside a good one: %v", name, err)
		}
	}
}

func TestCollateralOfTheWrongSignerIsRefused(t *testing.T) {
	q := quoteOf(t, "quote_v4_b0c06f.dat")
	c := chainOf(t, q)
	now := time.Date(2025, 7, 1, 0, 0, 0, 0, time.UTC)
	for name, certs := range map[string][][]byte{
		"none": nil, "the PCK CA": {c.CA.Raw, c.Root.Raw}, "the PCK": {c.Leaf.Raw, c.Root.Raw}, "the root": {c.Root.Raw}, "garbage": {{1}}, "too many": make([][]byte, 9),
	} {
		items := b0c06f(t)
		items[0].Certs = certs
		if _, err := tdx.NewCache(4).Evaluate(q, c, items, now); !strings.HasPrefix(attest.FailureCode(err), "collateral-") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for i := range 4 {
		items := b0c06f(t)
		items = append(items[:i], items[i+1:]...)
		if _, err := tdx.NewCache(4).Evaluate(q, c, items, now); attest.FailureCode(err) != tdx.CodeCollateralMissing {
			t.Errorf("without piece %d: %v", i, err)
		}
	}
}

func TestEventLogsThatLieAreRefused(t *testing.T) {
	log := tdx.TrimEventLog(readFile(t, "ccel_baremetal.dat"))
	events, err := tdx.ParseEventLog(log)
	if err != nil || len(events) == 0 {
		t.Fatal(err)
	}
	headerEnd := 32 + int(binary.LittleEndian.Uint32(log[28:]))
	for name, edit := range map[string]func(b []byte) []byte{
		"register 0":          func(b []byte) []byte { b[headerEnd] = 0; return b },
		"register 5":          func(b []byte) []byte { b[headerEnd] = 5; return b },
		"two digests":         func(b []byte) []byte { b[headerEnd+8] = 2; return b },
		"no digests":          func(b []byte) []byte { b[headerEnd+8] = 0; return b },
		"an unknown digest":   func(b []byte) []byte { b[headerEnd+12] = 0xb; return b },
		"an event of 4 GB":    func(b []byte) []byte { copy(b[headerEnd+14+48:], "\xff\xff\xff\xff"); return b },
		"a tail":              func(b []byte) []byte { return append(b, 1, 0, 0, 0) },
		"cut":                 func(b []byte) []byte { return b[:len(b)-1] },
		"no header":           func(b []byte) []byte { return b[headerEnd:] },
		"another signature":   func(b []byte) []byte { b[32] ^= 1; return b },
		"nothing":             func([]byte) []byte { return nil },
		"more after its end":  func(b []byte) []byte { return append(append(b, 0xff, 0xff, 0xff, 0xff), 1) },
		"larger than the cap": func([]byte) []byte { return make([]byte, attest.MaxEventLog+1) },
	} {
		if _, err := tdx.ParseEventLog(edit(bytes.Clone(log))); attest.FailureCode(err) != tdx.CodeEventLogFormat {
			t.Errorf("%s: %v", name, err)
		}
	}
	if again, err := tdx.ParseEventLog(append(bytes.Clone(log), bytes.Repeat([]byte{0xff}, 77)...)); err != nil || len(again) != len(events) {
		t.Errorf("padding: %v", err)
	}
}

// Data that ends in 0xFF is not padding.
func TestTrimmingKeepsTheLastEventWhole(t *testing.T) {
	log := bytes.Clone(tdx.TrimEventLog(readFile(t, "ccel_baremetal.dat")))
	log[len(log)-1] = 0xff
	padded := append(bytes.Clone(log), bytes.Repeat([]byte{0xff}, 100)...)
	if got := tdx.TrimEventLog(padded); !bytes.Equal(got, log) {
		t.Errorf("%d bytes, want %d", len(got), len(log))
	}
}

func TestReplayAgreesWithAnotherImplementation(t *testing.T) {
	for _, name := range []string{"ccel_baremetal.dat", "ccel_other_boot.dat"} {
		log := readFile(t, name)
		events, err := tdx.ParseEventLog(log)
		if err != nil {
			t.Fatal(err)
		}
		var bank []register.MR
		for i, digest := range tdx.Replay(events) {
			if digest != [sha512.Size384]byte{} {
				bank = append(bank, register.FakeMR{Index: i + 1, Digest: digest[:], DigestAlg: crypto.SHA384})
			}
		}
		if _, err := tcg.ParseAndReplay(log, bank, tcg.ParseOpts{AllowPadding: true}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Where we accept a changed quote of version 4, go-tdx-guest must too; it panics
// on some.
func TestNothingIsAcceptedThatGoTDXGuestRefuses(t *testing.T) {
	theirs := func(b []byte) (ok bool) {
		defer func() {
			if recover() != nil {
				ok = false
			}
		}()
		q, err := abi.QuoteToProto(b)
		return err == nil && tdxverify.TdxQuote(q, &tdxverify.Options{Now: &tdxverify.TimeSet{PckCertChain: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)}}) == nil
	}
	cache := tdx.NewCache(4)
	for _, name := range []string{"quote_v4_baremetal.dat", "quote_v4_debug_td.dat", "quote_v4_b0c06f.dat"} {
		b := readFile(t, name)
		q := quoteOf(t, name)
		whole := b[:len(b)-q.Padding]
		if !theirs(whole) || genuine(whole, cache) != nil {
			t.Errorf("%s: one of the two refuses the real quote: %v, %v", name, theirs(whole), genuine(whole, cache))
		}
		for i := 0; i < len(whole); i += 23 {
			changed := bytes.Clone(whole)
			changed[i] ^= 1 << (i % 8)
			if genuine(changed, cache) == nil && !theirs(changed) {
				t.Errorf("%s: byte %d: accepted here, refused there", name, i)
			}
		}
	}
}

func BenchmarkParseQuote(b *testing.B) {
	raw := readFile(b, "quote_v4_b0c06f.dat")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := tdx.ParseQuote(raw); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	raw, items, now := readFile(b, "quote_v4_b0c06f.dat"), b0c06f(b), time.Date(2025, 7, 1, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name       string
		warm, full bool
	}{{"cold", false, false}, {"warm", true, false}, {"collateral/cold", false, true}, {"collateral/warm", true, true}} {
		b.Run(c.name, func(b *testing.B) {
			cache := tdx.NewCache(4)
			b.ReportAllocs()
			for b.Loop() {
				if !c.warm {
					cache = tdx.NewCache(4)
				}
				if err := genuine(raw, cache); err != nil {
					b.Fatal(err)
				}
				if !c.full {
					continue
				}
				q, err := tdx.ParseQuote(raw)
				if err != nil {
					b.Fatal(err)
				}
				chain, err := cache.Chain(q.PCKChain)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := cache.Evaluate(q, chain, items, now); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
