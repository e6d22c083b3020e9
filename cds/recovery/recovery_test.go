// SPDX-License-Identifier: Apache-2.0

package recovery_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/bits"
	"strings"
	"sync"
	"testing"

	"github.com/c8s-dev/c8s/cds/internal/secret/secrettest"
	"github.com/c8s-dev/c8s/cds/keys"
	"github.com/c8s-dev/c8s/cds/recovery"
)

const domain = "c8s.test"

func seed() keys.Seed { return keys.Seed([]byte("this seed survives all replicas!")) }

type operator struct {
	recovery.Recipient
	private recovery.PrivateKey
}

func operators(t testing.TB, n int) []operator {
	t.Helper()
	var list []operator
	for i := range n {
		private, public, err := recovery.NewRecoveryKey()
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, operator{recovery.Recipient{Name: fmt.Sprintf("operator %d", i), Public: public}, private})
	}
	return list
}

func recipients(list []operator) []recovery.Recipient {
	var out []recovery.Recipient
	for _, o := range list {
		out = append(out, o.Recipient)
	}
	return out
}

// split makes a document and has been through its encoding.
func split(t testing.TB, threshold int, list []operator) *recovery.Document {
	t.Helper()
	d, err := recovery.Split(seed(), threshold, recipients(list), domain)
	if err != nil {
		t.Fatal(err)
	}
	text, err := d.Encode()
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := recovery.Parse(text)
	if err != nil || parsed.Digest() != d.Digest() {
		t.Fatal(err)
	}
	return parsed
}

func open(t testing.TB, d *recovery.Document, o operator) recovery.Share {
	t.Helper()
	s, err := recovery.OpenShare(d, o.Name, o.private)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestExactlyTheThresholdBringsTheSeedBack(t *testing.T) {
	all := operators(t, 5)
	for n := 1; n <= 5; n++ {
		for k := 1; k <= n; k++ {
			d := split(t, k, all[:n])
			var shares []recovery.Share
			for _, o := range all[:n] {
				shares = append(shares, open(t, d, o))
			}
			for subset := range uint(1 << n) {
				var some []recovery.Share
				for i, s := range shares {
					if subset&(1<<i) != 0 {
						some = append(some, s)
					}
				}
				got, err := combine(d, some)
				if enough := bits.OnesCount(subset) >= k; enough != (err == nil) || enough && got != seed() || !enough && got != (keys.Seed{}) {
					t.Errorf("%d of %d, subset %b: %v", k, n, subset, err)
				}
			}
		}
	}
}

func TestOneShareTwiceIsOneShare(t *testing.T) {
	all := operators(t, 3)
	d := split(t, 2, all)
	s := open(t, d, all[0])
	if _, err := combine(d, []recovery.Share{s, s, s}); err == nil {
		t.Error("one operator recovered the seed alone")
	}
}

func TestCollectorTakesSharesFromManyAtOnce(t *testing.T) {
	all := operators(t, 5)
	d := split(t, 5, all)
	c, err := recovery.NewCollector(d)
	if err != nil {
		t.Fatal(err)
	}
	if c.Missing() != 5 {
		t.Errorf("%d missing", c.Missing())
	}
	var wg sync.WaitGroup
	for _, o := range all {
		s := open(t, d, o)
		wg.Go(func() {
			if err := c.Add(s); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got, err := c.Seed(); err != nil || got != seed() || c.Missing() != 0 {
		t.Error(err)
	}
}

func TestWrongSharesAreNamed(t *testing.T) {
	all := operators(t, 3)
	d, other := split(t, 2, all), split(t, 2, all)
	good := open(t, d, all[0])
	forge := func(edit func(fields map[string]any)) recovery.Share {
		text, err := open(t, d, all[1]).Encode()
		if err != nil {
			t.Fatal(err)
		}
		var f struct {
			Schema   string `json:"schema"`
			Document string `json:"document"`
			Name     string `json:"name"`
			Value    []byte `json:"value"`
		}
		if err := json.Unmarshal(text, &f); err != nil {
			t.Fatal(err)
		}
		fields := map[string]any{"document": f.Document, "name": f.Name, "value": f.Value}
		edit(fields)
		f.Document, f.Name, f.Value = fields["document"].(string), fields["name"].(string), fields["value"].([]byte)
		if text, err = json.Marshal(f); err != nil {
			t.Fatal(err)
		}
		s, err := recovery.ParseShare(text)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for name, c := range map[string]struct {
		share recovery.Share
		blame string
	}{
		"a changed value":           {forge(func(f map[string]any) { f["value"].([]byte)[31] ^= 1 }), all[1].Name},
		"a value of zeros":          {forge(func(f map[string]any) { f["value"] = make([]byte, 32) }), all[1].Name},
		"a value beyond the order":  {forge(func(f map[string]any) { f["value"] = bytes.Repeat([]byte{0xff}, 32) }), all[1].Name},
		"another operator's value":  {forge(func(f map[string]any) { f["name"] = all[2].Name }), all[2].Name},
		"a stranger":                {forge(func(f map[string]any) { f["name"] = "mallory" }), "mallory"},
		"a share of another split":  {open(t, other, all[1]), all[1].Name},
		"that, under this document": {forge(func(f map[string]any) { f["document"] = string(other.Digest()) }), all[1].Name},
	} {
		seed, err := combine(d, []recovery.Share{good, c.share})
		var bad *recovery.BadShareError
		if !errors.As(err, &bad) || bad.Name != c.blame || seed != (keys.Seed{}) {
			t.Errorf("%s: %v, want blame of %q", name, err, c.blame)
		}
	}
	// A bad share is no reason to lose the good ones.
	if got, err := combine(d, []recovery.Share{good, open(t, d, all[2])}); err != nil || got != seed() {
		t.Error(err)
	}
}

func TestChangedDocumentsGiveNoSeed(t *testing.T) {
	all := operators(t, 3)
	for name, edit := range map[string]func(d, other *recovery.Document){
		"seed":                  func(d, _ *recovery.Document) { d.Seed[30] ^= 1 },
		"nonce":                 func(d, _ *recovery.Document) { d.Seed[0] ^= 1 },
		"another's seed":        func(d, other *recovery.Document) { d.Seed = other.Seed },
		"trust domain":          func(d, _ *recovery.Document) { d.TrustDomain = "evil.test" },
		"an operator's name":    func(d, _ *recovery.Document) { d.Shares[2].Name = "mallory" },
		"an operator's key":     func(d, _ *recovery.Document) { d.Shares[2].Public[0] ^= 1 },
		"operators exchanged":   func(d, _ *recovery.Document) { d.Shares[0], d.Shares[1] = d.Shares[1], d.Shares[0] },
		"another's commitments": func(d, other *recovery.Document) { d.Commitments = other.Commitments },
		"an operator removed":   func(d, _ *recovery.Document) { d.Shares = d.Shares[:2] },
		"a sealed share":        func(d, _ *recovery.Document) { d.Shares[0].Sealed[0] ^= 1 },
		"another's share": func(d, other *recovery.Document) {
			d.Shares[0].Enc, d.Shares[0].Sealed = other.Shares[0].Enc, other.Shares[0].Sealed
		},
		"all shares, a lower bar": func(d, _ *recovery.Document) { d.Threshold, d.Commitments = 1, d.Commitments[:1] },
		"shares exchanged, not key": func(d, _ *recovery.Document) {
			d.Shares[0].Sealed, d.Shares[1].Sealed = d.Shares[1].Sealed, d.Shares[0].Sealed
		},
	} {
		d, other := split(t, 2, all), split(t, 2, all)
		edit(d, other)
		var shares []recovery.Share
		for _, o := range all {
			if s, err := recovery.OpenShare(d, o.Name, o.private); err == nil {
				shares = append(shares, s)
			}
		}
		if got, err := combine(d, shares); err == nil || got != (keys.Seed{}) {
			t.Errorf("%s: the seed came back, or another", name)
		}
	}
}

func TestOperatorOpensOnlyTheOwnShare(t *testing.T) {
	all := operators(t, 2)
	d := split(t, 1, all)
	for name, c := range map[string]struct {
		name string
		key  recovery.PrivateKey
	}{
		"another's": {all[1].Name, all[0].private}, "nobody's": {"mallory", all[0].private}, "without a key": {all[0].Name, recovery.PrivateKey{}},
	} {
		if s, err := recovery.OpenShare(d, c.name, c.key); err == nil || s.Name != "" {
			t.Errorf("%s: opened", name)
		}
	}
	if _, err := recovery.OpenShare(&recovery.Document{}, all[0].Name, all[0].private); err == nil {
		t.Error("opened a share of nothing")
	}
	if _, err := recovery.NewCollector(&recovery.Document{}); err == nil {
		t.Error("collects shares of nothing")
	}
}

func TestSplitRefuses(t *testing.T) {
	all := operators(t, 3)
	named := func(names ...string) []recovery.Recipient {
		r := recipients(all)
		for i, n := range names {
			r[i].Name = n
		}
		return r
	}
	twice := recipients(all)
	twice[2].Public = twice[0].Public
	lowOrder := recipients(all)
	lowOrder[1].Public = [32]byte{}
	many := recipients(operators(t, recovery.MaxRecipients+1))
	for name, c := range map[string]struct {
		seed      keys.Seed
		threshold int
		to        []recovery.Recipient
		domain    string
	}{
		"no seed":           {keys.Seed{}, 2, recipients(all), domain},
		"nobody":            {seed(), 0, nil, domain},
		"no threshold":      {seed(), 0, recipients(all), domain},
		"negative":          {seed(), -1, recipients(all), domain},
		"more than all":     {seed(), 4, recipients(all), domain},
		"too many":          {seed(), 2, many, domain},
		"no name":           {seed(), 2, named(""), domain},
		"one name twice":    {seed(), 2, named("a", "a"), domain},
		"a line end":        {seed(), 2, named("a\n"), domain},
		"a long name":       {seed(), 2, named(strings.Repeat("a", 64)), domain},
		"one key twice":     {seed(), 2, twice, domain},
		"a key of no order": {seed(), 2, lowOrder, domain},
		"no domain":         {seed(), 2, recipients(all), ""},
	} {
		if d, err := recovery.Split(c.seed, c.threshold, c.to, c.domain); err == nil || d != nil {
			t.Errorf("%s: split", name)
		}
	}
	if d, err := recovery.Split(seed(), 64, many[:64], domain); err != nil || len(d.Shares) != 64 {
		t.Errorf("64 of 64: %v", err)
	}
}

func TestRecoveryKeysSurviveTheirFile(t *testing.T) {
	private, public, err := recovery.NewRecoveryKey()
	if err != nil {
		t.Fatal(err)
	}
	again, err := recovery.PrivateKeyFrom(private.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if p, err := again.Public(); err != nil || p != public {
		t.Errorf("%x, want %x: %v", p, public, err)
	}
	for _, b := range [][]byte{nil, make([]byte, 31), make([]byte, 33)} {
		if _, err := recovery.PrivateKeyFrom(b); err == nil {
			t.Errorf("%d bytes read", len(b))
		}
	}
}

func TestSharesAndKeysAreNotShown(t *testing.T) {
	all := operators(t, 2)
	d := split(t, 2, all)
	s := open(t, d, all[0])
	text, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	var wire struct{ Value []byte }
	if err := json.Unmarshal(text, &wire); err != nil || len(wire.Value) != 32 {
		t.Fatal(err)
	}
	c, err := recovery.NewCollector(d)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Add(s); err != nil {
		t.Fatal(err)
	}
	hidden := seed()
	canaries := [][]byte{wire.Value, all[0].private.Bytes(), hidden[:]}
	_, bad := recovery.ParseShare(append(text, ' '))
	for _, v := range []any{s, &s, all[0].private, &all[0].private, c, d, bad} {
		secrettest.Check(t, v, canaries...)
	}
}

func BenchmarkSplit3of5(b *testing.B) {
	to := recipients(operators(b, 5))
	for b.Loop() {
		if _, err := recovery.Split(seed(), 3, to, domain); err != nil {
			b.Fatal(err)
		}
	}
}
