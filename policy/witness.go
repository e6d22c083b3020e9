// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// Caps on witnesses.
const (
	maxWitnesses  = 64
	maxWitnessKey = 512 // bytes of the text
)

// cosignatureV1 is the key type of a witness's Ed25519 key
// (c2sp.org/tlog-cosignature).
const cosignatureV1 = 0x04

// Witness cosigns the checkpoints of the CDS's log, and never two that do not
// extend each other.
type Witness struct {
	Name string `json:"name"` // for people; printable ASCII, at most 63 characters
	Key  string `json:"key"`  // C2SP verifier key: "<key name>+<hash>+<base64>"
}

// WitnessKey is a read verifier key (c2sp.org/signed-note).
type WitnessKey struct {
	Name   string // in the signature's line
	Hash   [4]byte
	Public ed25519.PublicKey
}

// Decode reads the verifier key. The hash is the one that belongs to it.
func (w Witness) Decode() (WitnessKey, error) {
	if len(w.Key) > maxWitnessKey {
		return WitnessKey{}, fmt.Errorf("the key is longer than %d characters", maxWitnessKey)
	}
	name, rest, _ := strings.Cut(w.Key, "+")
	hash, text, ok := strings.Cut(rest, "+") // base64 may have further ones
	if !ok || !isPrintableUpTo(name, maxWitnessKey) || strings.Contains(name, " ") {
		return WitnessKey{}, errors.New(`not "<key name>+<hash>+<base64>"`)
	}
	key, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil {
		return WitnessKey{}, errors.New("the key is not standard base64")
	}
	if len(key) != 1+ed25519.PublicKeySize || key[0] != cosignatureV1 {
		return WitnessKey{}, fmt.Errorf("not a key of type %d, a byte, and %d bytes of Ed25519", cosignatureV1, ed25519.PublicKeySize)
	}
	sum := sha256.Sum256(append([]byte(name+"\n"), key...))
	k := WitnessKey{Name: name, Hash: [4]byte(sum[:4]), Public: ed25519.PublicKey(key[1:])}
	if want := hex.EncodeToString(k.Hash[:]); hash != want {
		return WitnessKey{}, fmt.Errorf("the hash is %s, the name and key give %s", quote(hash), want)
	}
	return k, nil
}

// NewWitness describes a witness by its key's name and public key.
func NewWitness(name, keyName string, public ed25519.PublicKey) (Witness, error) {
	key := append([]byte{cosignatureV1}, public...)
	sum := sha256.Sum256(append([]byte(keyName+"\n"), key...))
	w := Witness{Name: name, Key: fmt.Sprintf("%s+%x+%s", keyName, sum[:4], base64.StdEncoding.EncodeToString(key))}
	if _, err := w.Decode(); err != nil {
		return Witness{}, fmt.Errorf("describing the witness %q: %w", name, err)
	}
	return w, nil
}

func readWitnesses(f *fields) []Witness {
	if !f.has("witnesses") {
		return nil
	}
	var witnesses []Witness
	f.list("witnesses", func(n *node, path string) {
		w := object(n, path, f.report)
		witnesses = append(witnesses, Witness{Name: w.text("name"), Key: w.text("key")})
		w.done()
	})
	return witnesses
}

func (m *Manifest) validateWitnesses(r *report) {
	const path = "$.witnesses"
	n := len(m.Witnesses)
	if n > maxWitnesses {
		r.add(CodeListTooLong, path, fmt.Sprintf("at most %d witnesses", maxWitnesses), fmt.Sprint(n), "")
		return
	}
	if m.WitnessQuorum < 0 || m.WitnessQuorum > n {
		r.add(CodeWitnessQuorum, "$.witnessQuorum", fmt.Sprintf("from 0 to the number of witnesses, %d", n), fmt.Sprint(m.WitnessQuorum), "")
	}
	names, keys := map[string]bool{}, map[string]bool{}
	for i, w := range m.Witnesses {
		at := elementPath(path, i)
		checkUnique(w.Name, isPrintable, "a name of 1 to 63 printable ASCII characters", at+".name", names, r)
		k, err := w.Decode()
		switch {
		case err != nil:
			r.add(CodeWitnessKeyInvalid, at+".key", "a C2SP verifier key for cosignatures", err.Error(), "ask the witness for its key of c2sp.org/tlog-cosignature")
		case keys[string(k.Public)]:
			r.add(CodeValueDuplicate, at+".key", "each key once", "a key that is already listed", "one key cannot count as two witnesses")
		default:
			keys[string(k.Public)] = true
		}
	}
}
