// SPDX-License-Identifier: Apache-2.0

package translog

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// algCosignature is the type of Ed25519 cosignatures in a key (C2SP
// tlog-cosignature).
const algCosignature = 0x04

// Cosignature says that a witness saw the checkpoint, at that time by its own
// clock, and that it extends all others the witness has cosigned for this log.
type Cosignature struct {
	Name string
	Time time.Time
}

// CosignerVerifier verifies the cosignatures of one witness: a note.Verifier.
type CosignerVerifier struct {
	name string
	pub  ed25519.PublicKey
}

// Cosigner makes cosignatures.
type Cosigner struct {
	CosignerVerifier
	key ed25519.PrivateKey
}

// NewCosigner returns the cosigner of a witness. Its key must be used for
// nothing else: cosignatures do not contain the witness's name.
func NewCosigner(name string, key ed25519.PrivateKey) (*Cosigner, error) {
	if len(key) != ed25519.PrivateKeySize {
		return nil, fmt.Errorf("making a cosigner: a key of %d bytes, expected %d", len(key), ed25519.PrivateKeySize)
	}
	c := &Cosigner{CosignerVerifier{name, key.Public().(ed25519.PublicKey)}, key}
	if _, err := NewCosignerVerifier(c.VerifierKey()); err != nil {
		return nil, fmt.Errorf("making a cosigner: %w", err)
	}
	return c, nil
}

// NewCosignerVerifier reads the public key of a witness in the form of
// [CosignerVerifier.VerifierKey].
func NewCosignerVerifier(vkey string) (*CosignerVerifier, error) {
	name, rest, _ := strings.Cut(vkey, "+")
	_, key64, _ := strings.Cut(rest, "+")
	key, err := base64.StdEncoding.DecodeString(key64)
	if err != nil || len(key) != 1+ed25519.PublicKeySize || key[0] != algCosignature {
		return nil, fmt.Errorf("reading a witness's public key: not NAME+HASH+KEY with an Ed25519 cosignature key (type 4)")
	}
	v := &CosignerVerifier{name, key[1:]}
	// The name's rules are those of all notes.
	if logKey := VerifierKey(name, v.pub); v.VerifierKey() != vkey || !validKey(logKey) {
		return nil, fmt.Errorf("reading a witness's public key: its name or hash is invalid")
	}
	return v, nil
}

func validKey(vkey string) bool {
	_, err := note.NewVerifier(vkey)
	return err == nil
}

// VerifierKey returns the public key as others write it down.
func (v *CosignerVerifier) VerifierKey() string {
	hash := binary.BigEndian.AppendUint32(nil, v.KeyHash())
	return v.name + "+" + hex.EncodeToString(hash) + "+" + base64.StdEncoding.EncodeToString(v.material())
}

func (v *CosignerVerifier) material() []byte { return append([]byte{algCosignature}, v.pub...) }

// Name is the witness's name.
func (v *CosignerVerifier) Name() string { return v.name }

// KeyHash is the short hash of name and key in a signature line.
func (v *CosignerVerifier) KeyHash() uint32 {
	sum := sha256.Sum256(append([]byte(v.name+"\n"), v.material()...))
	return binary.BigEndian.Uint32(sum[:])
}

// Verify reports whether sig is a time and the signature of msg at that time.
func (v *CosignerVerifier) Verify(msg, sig []byte) bool {
	if len(sig) != 8+ed25519.SignatureSize {
		return false
	}
	at := binary.BigEndian.Uint64(sig)
	return at <= math.MaxInt64 && ed25519.Verify(v.pub, cosigned(msg, at), sig[8:])
}

// cosigned is what is signed.
func cosigned(msg []byte, at uint64) []byte {
	return append(fmt.Appendf(nil, "cosignature/v1\ntime %d\n", at), msg...)
}

// timedSigner is a cosigner at one moment.
type timedSigner struct {
	*Cosigner
	at uint64
}

func (s timedSigner) Sign(msg []byte) ([]byte, error) {
	sig := binary.BigEndian.AppendUint64(nil, s.at)
	return append(sig, ed25519.Sign(s.key, cosigned(msg, s.at))...), nil
}

// AddCosignature adds a witness's cosignature to a checkpoint with the log's
// signature, which it verifies. It replaces an older one of the same witness.
//
// It does not remember: a witness first verifies that the checkpoint extends the
// last one it cosigned, and keeps this one before it hands it out.
func AddCosignature(signed []byte, origin string, log note.Verifier, c *Cosigner, at time.Time) ([]byte, error) {
	if at.Unix() < 0 {
		return nil, fmt.Errorf("cosigning a checkpoint: a time before 1970")
	}
	if _, err := OpenCheckpoint(signed, origin, log); err != nil {
		return nil, fmt.Errorf("cosigning: %w", err)
	}
	return resign(signed, log, timedSigner{c, uint64(at.Unix())})
}

// MergeCosignatures returns the checkpoint with the cosignatures that the
// witnesses made on another copy of it. Signatures in from that are of nobody
// else are left out.
func MergeCosignatures(signed, from []byte, origin string, log note.Verifier, witnesses []*CosignerVerifier) ([]byte, error) {
	into, err := OpenCheckpoint(signed, origin, log)
	if err != nil {
		return nil, fmt.Errorf("merging cosignatures: %w", err)
	}
	other, err := OpenCheckpoint(from, origin, log)
	if err != nil {
		return nil, fmt.Errorf("merging cosignatures: %w", err)
	}
	if *into != *other {
		return nil, fmt.Errorf("merging cosignatures: they are for %d entries with root %s, the checkpoint has %d with root %s", other.Size, other.Root, into.Size, into.Root)
	}
	for _, w := range witnesses {
		if sig, ok := cosignature(from, w); ok {
			if signed, err = resign(signed, log, fixedSigner{w, sig}); err != nil {
				return nil, err
			}
		}
	}
	return signed, nil
}

// fixedSigner adds a signature that exists.
type fixedSigner struct {
	*CosignerVerifier
	sig []byte
}

func (s fixedSigner) Sign([]byte) ([]byte, error) { return s.sig, nil }

func resign(signed []byte, log note.Verifier, s note.Signer) ([]byte, error) {
	n, err := openNote(signed, log)
	if err != nil {
		return nil, fmt.Errorf("adding a cosignature: %w", err)
	}
	out, err := note.Sign(n, s)
	if err != nil {
		return nil, fmt.Errorf("adding a cosignature: %w", err)
	}
	if len(out) > MaxNote {
		return nil, fmt.Errorf("adding a cosignature: the note has %d bytes then, at most %d", len(out), MaxNote)
	}
	return out, nil
}

// Cosignatures returns those of the witnesses that cosigned the note, in the
// order of witnesses. A signature that does not verify counts as none. The note
// itself is checked by [OpenCheckpoint].
func Cosignatures(signed []byte, witnesses []*CosignerVerifier) []Cosignature {
	var found []Cosignature
	for _, w := range witnesses {
		if sig, ok := cosignature(signed, w); ok {
			found = append(found, Cosignature{w.name, time.Unix(int64(binary.BigEndian.Uint64(sig)), 0).UTC()})
		}
	}
	return found
}

// cosignature returns the verified signature of one witness. Each is looked for
// alone: an invalid one must not hide those of others.
func cosignature(signed []byte, w *CosignerVerifier) ([]byte, bool) {
	n, err := openNote(signed, w)
	if err != nil {
		return nil, false
	}
	sig, err := base64.StdEncoding.DecodeString(n.Sigs[0].Base64)
	if err != nil {
		return nil, false
	}
	return sig[4:], true // after the key's hash
}
