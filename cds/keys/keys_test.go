// SPDX-License-Identifier: Apache-2.0

package keys_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math/big"
	"os"
	"testing"
	"testing/iotest"

	"github.com/c8s-dev/c8s/cds/internal/secret/secrettest"
	"github.com/c8s-dev/c8s/cds/keys"
)

// vector is one entry of docs/vectors/keys.json. Public keys are
// SubjectPublicKeyInfo in base64; the store's key is shown by its SHA-256.
type vector struct {
	Name        string `json:"name"`
	Seed        string `json:"seed"`
	TrustDomain string `json:"trustDomain"`
	Root        string `json:"root"`
	Log         string `json:"log"`
	Beacon      string `json:"beacon"`
	Countersign string `json:"countersign"`
	StoreSHA256 string `json:"storeSha256"`
}

func spki(t *testing.T, s crypto.Signer) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(s.Public())
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(der)
}

func describe(t *testing.T, v vector) vector {
	t.Helper()
	var seed keys.Seed
	if n, err := hex.Decode(seed[:], []byte(v.Seed)); err != nil || n != len(seed) {
		t.Fatal(n, err)
	}
	k, err := keys.Derive(seed, v.TrustDomain)
	if err != nil {
		t.Fatal(err)
	}
	store := sha256.Sum256(k.Store[:])
	v.Root, v.Log, v.Beacon, v.Countersign = spki(t, k.Root), spki(t, k.Log), spki(t, k.Beacon), spki(t, k.Countersign)
	v.StoreSHA256 = hex.EncodeToString(store[:])
	return v
}

func TestKeysMatchPublishedVectors(t *testing.T) {
	b, err := os.ReadFile("../../docs/vectors/keys.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors []vector
	if err := json.Unmarshal(b, &vectors); err != nil {
		t.Fatal(err)
	}
	if len(vectors) < 3 {
		t.Fatalf("only %d vectors", len(vectors))
	}
	for _, v := range vectors {
		if got := describe(t, v); got != v {
			t.Errorf("%s:\n got %+v\nwant %+v", v.Name, got, v)
		}
	}
}

func TestKeysOfDifferentUsesSeedsAndDomainsDiffer(t *testing.T) {
	seen := map[string]string{}
	check := func(key []byte, name string) {
		if other, twice := seen[string(key)]; twice {
			t.Errorf("%s is %s", name, other)
		}
		seen[string(key)] = name
	}
	for range 20 {
		seed, err := keys.NewSeed(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		check(seed[:], "seed")
		for _, domain := range []string{"a.test", "b.test"} {
			k, err := keys.Derive(seed, domain)
			if err != nil {
				t.Fatal(err)
			}
			root, err := k.Root.Bytes()
			if err != nil {
				t.Fatal(err)
			}
			for use, key := range map[string][]byte{
				"root": root, "log": k.Log.Seed(), "beacon": k.Beacon.Seed(), "countersign": k.Countersign.Seed(), "store": k.Store[:],
			} {
				check(key, use+" of "+domain)
			}
		}
	}
}

func TestDeriveRefuses(t *testing.T) {
	good := keys.Seed{1}
	for name, c := range map[string]struct {
		seed   keys.Seed
		domain string
	}{
		"no seed":           {keys.Seed{}, "c8s.test"},
		"no domain":         {good, ""},
		"another spelling":  {good, "C8S.test"},
		"a whole SPIFFE ID": {good, "spiffe://c8s.test"},
		"a zero byte":       {good, "c8s\x00.test"},
	} {
		if k, err := keys.Derive(c.seed, c.domain); err == nil || k != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNoSeedWithoutRandomness(t *testing.T) {
	broken := errors.New("no entropy")
	if s, err := keys.NewSeed(iotest.ErrReader(broken)); !errors.Is(err, broken) || s != (keys.Seed{}) {
		t.Error(err)
	}
	if _, err := keys.NewSeed(bytes.NewReader(make([]byte, 31))); err == nil {
		t.Error("a short read made a seed")
	}
}

func TestSeedAndKeysAreNotShown(t *testing.T) {
	seed := keys.Seed([]byte("a seed that nobody may ever see!"))
	k, err := keys.Derive(seed, "c8s.test")
	if err != nil {
		t.Fatal(err)
	}
	root, err := k.Root.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	canaries := [][]byte{seed[:], k.Store[:], k.Log.Seed(), k.Beacon.Seed(), k.Countersign.Seed(), root, []byte(new(big.Int).SetBytes(root).String())}
	for _, value := range []any{seed, &seed, k, *k, k.Store, &k.Store, []keys.Seed{seed}, map[keys.Seed]int{seed: 1}} {
		secrettest.Check(t, value, canaries...)
	}
}

func BenchmarkDerive(b *testing.B) {
	for b.Loop() {
		if _, err := keys.Derive(keys.Seed{1}, "c8s.test"); err != nil {
			b.Fatal(err)
		}
	}
}
