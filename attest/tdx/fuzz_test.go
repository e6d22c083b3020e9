// SPDX-License-Identifier: Apache-2.0

package tdx_test

import (
	"testing"
	"time"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/tdx"
)

func realQuotes() []string {
	return []string{"quote_v4_baremetal.dat", "quote_v4_debug_td.dat", "quote_v5.dat", "quote_v4_b0c06f.dat"}
}

func FuzzParseQuote(f *testing.F) {
	for _, name := range realQuotes() {
		f.Add(readFile(f, name))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		q, err := tdx.ParseQuote(b)
		if err != nil {
			if attest.FailureCode(err) == "" {
				t.Errorf("a refusal without a code: %v", err)
			}
			return
		}
		_, _ = q.CheckBinding(), q.VerifySignature()
		if c, err := tdx.ParseChain(q.PCKChain); err == nil {
			_ = q.VerifyQE(c)
		}
	})
}

func FuzzParseChain(f *testing.F) {
	for _, name := range realQuotes() {
		f.Add(quoteOf(f, name).PCKChain)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := tdx.ParseChain(b)
		if err != nil && attest.FailureCode(err) == "" {
			t.Errorf("a refusal without a code: %v", err)
		}
		if err == nil {
			_, _ = c.Verify(), c.CheckDates(time.Unix(1_800_000_000, 0))
		}
	})
}

// FuzzCollateral changes one of the four pieces.
func FuzzCollateral(f *testing.F) {
	q := quoteOf(f, "quote_v4_b0c06f.dat")
	c := chainOf(f, q)
	good := b0c06f(f)
	for i := range good {
		f.Add(i, good[i].Body)
	}
	now := time.Date(2025, 7, 1, 0, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, i int, body []byte) {
		items := append([]attest.Collateral{}, good...)
		items[uint(i)%4].Body = body
		if _, err := tdx.NewCache(1).Evaluate(q, c, items, now); err != nil && attest.FailureCode(err) == "" {
			t.Errorf("a refusal without a code: %v", err)
		}
	})
}

func FuzzParseEventLog(f *testing.F) {
	f.Add(tdx.TrimEventLog(readFile(f, "ccel_baremetal.dat")))
	f.Add(tdx.TrimEventLog(readFile(f, "ccel_other_boot.dat")))
	f.Fuzz(func(t *testing.T, b []byte) {
		events, err := tdx.ParseEventLog(b)
		if err != nil {
			if attest.FailureCode(err) == "" {
				t.Errorf("a refusal without a code: %v", err)
			}
			return
		}
		again, err := tdx.ParseEventLog(tdx.TrimEventLog(b))
		if err != nil || len(again) != len(events) || tdx.Replay(again) != tdx.Replay(events) {
			t.Errorf("padding changes a log: %v", err)
		}
	})
}
