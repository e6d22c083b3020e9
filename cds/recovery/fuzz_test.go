// SPDX-License-Identifier: Apache-2.0

package recovery_test

import (
	"bytes"
	"testing"

	"github.com/c8s-dev/c8s/cds/keys"
	"github.com/c8s-dev/c8s/cds/recovery"
)

func FuzzParse(f *testing.F) {
	all := operators(f, 2)
	text, err := split(f, 2, all).Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Fuzz(func(t *testing.T, text []byte) {
		d, err := recovery.Parse(text)
		if err != nil {
			return
		}
		if again, err := d.Encode(); err != nil || !bytes.Equal(again, text) {
			t.Errorf("%q is written as %q", text, again)
		}
		var shares []recovery.Share
		for _, o := range all {
			if s, err := recovery.OpenShare(d, o.Name, o.private); err == nil {
				shares = append(shares, s)
			}
		}
		if got, err := combine(d, shares); err == nil && got != seed() {
			t.Error("another seed came back")
		}
	})
}

func FuzzParseShare(f *testing.F) {
	all := operators(f, 1)
	d := split(f, 1, all)
	good, err := open(f, d, all[0]).Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := recovery.ParseShare(text)
		if err != nil {
			return
		}
		if got, err := combine(d, []recovery.Share{s}); err == nil && (got != seed() || !bytes.Equal(text, good)) {
			t.Error("a forged share was taken")
		}
	})
}

// combine collects shares until one is refused, and asks for the seed.
func combine(d *recovery.Document, shares []recovery.Share) (keys.Seed, error) {
	c, err := recovery.NewCollector(d)
	if err != nil {
		return keys.Seed{}, err
	}
	for _, s := range shares {
		if err := c.Add(s); err != nil {
			return keys.Seed{}, err
		}
	}
	return c.Seed()
}
