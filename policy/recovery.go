// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bytes"
	"crypto/ecdh"
	"encoding/base64"
	"errors"
	"fmt"
)

const (
	maxRecoveryKeys = 16
	x25519Len       = 32
)

// Recovery names the people among whom the CDS's root secret may be split: any
// Threshold of the Keys can bring it back.
type Recovery struct {
	Threshold int           `json:"threshold"` // in production at least 2
	Keys      []RecoveryKey `json:"keys"`      // at most 16
}

// RecoveryKey is the key that one share of the secret is sealed to.
type RecoveryKey struct {
	Name      string `json:"name"`      // for people; printable ASCII, at most 63 characters
	PublicKey string `json:"publicKey"` // base64 of an X25519 public key, for HPKE (RFC 9180)
}

// Public returns the key. There is one encoding of each, and none of small
// order, to which everybody could open.
func (k RecoveryKey) Public() (*ecdh.PublicKey, error) {
	b, err := base64.StdEncoding.Strict().DecodeString(k.PublicKey)
	if err != nil || len(b) != x25519Len {
		return nil, fmt.Errorf("not the base64 of %d bytes", x25519Len)
	}
	if !isCanonicalX25519(b) {
		return nil, errors.New("the key is not in its canonical encoding")
	}
	public, err := ecdh.X25519().NewPublicKey(b)
	if err != nil {
		return nil, fmt.Errorf("reading the key: %w", err)
	}
	// X25519 of any scalar and a point of small order is zero, which ECDH
	// refuses (RFC 7748 section 6.1).
	probe, err := ecdh.X25519().NewPrivateKey(bytes.Repeat([]byte{1}, x25519Len))
	if err != nil {
		return nil, fmt.Errorf("checking the key: %w", err)
	}
	if _, err := probe.ECDH(public); err != nil {
		return nil, errors.New("the key is of small order: it keeps nothing secret")
	}
	return public, nil
}

// isCanonicalX25519: less than 2^255-19, little-endian.
func isCanonicalX25519(b []byte) bool {
	if b[31] != 0x7f {
		return b[31] < 0x7f
	}
	for _, v := range b[1:31] {
		if v != 0xff {
			return true
		}
	}
	return b[0] < 0xed
}

func readRecovery(f *fields) *Recovery {
	if !f.has("recovery") {
		return nil
	}
	o := f.object("recovery")
	rec := &Recovery{Threshold: int(o.number("threshold", 16)), Keys: []RecoveryKey{}}
	o.list("keys", func(n *node, path string) {
		k := object(n, path, f.report)
		rec.Keys = append(rec.Keys, RecoveryKey{Name: k.text("name"), PublicKey: k.text("publicKey")})
		k.done()
	})
	o.done()
	return rec
}

func (rec *Recovery) validate(path string, production bool, r *report) {
	keys, threshold := memberPath(path, "keys"), memberPath(path, "threshold")
	n := len(rec.Keys)
	if n == 0 || n > maxRecoveryKeys {
		code := CodeListEmpty
		if n > 0 {
			code = CodeListTooLong
		}
		r.add(code, keys, fmt.Sprintf("1 to %d keys", maxRecoveryKeys), fmt.Sprint(n), "leave recovery out to have none")
		return
	}
	switch {
	case rec.Threshold < 1 || rec.Threshold > n:
		r.add(CodeThresholdInvalid, threshold, fmt.Sprintf("from 1 to the number of keys, %d", n), fmt.Sprint(rec.Threshold), "")
	case production && rec.Threshold < 2:
		r.add(CodeProductionRecovery, threshold, "2 or more in a production manifest", fmt.Sprint(rec.Threshold), "one person alone could rebuild the CDS's root")
	}
	names, seen := map[string]bool{}, map[string]bool{}
	for i, k := range rec.Keys {
		at := elementPath(keys, i)
		checkUnique(k.Name, isPrintable, "a name of 1 to 63 printable ASCII characters", memberPath(at, "name"), names, r)
		_, err := k.Public()
		switch {
		case err != nil:
			r.add(CodeRecoveryKeyInvalid, memberPath(at, "publicKey"), "base64 of an X25519 public key", err.Error(), "")
		case seen[k.PublicKey]:
			r.add(CodeValueDuplicate, memberPath(at, "publicKey"), "each key once", "a key that is already listed", "one key cannot hold two shares")
		}
		seen[k.PublicKey] = true
	}
}
