// SPDX-License-Identifier: Apache-2.0

package translog

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// MaxNote is the largest signed note that is read, in bytes: room for a hundred
// signatures, some of them post-quantum.
const MaxNote = 64 << 10

// Checkpoint is the head of a log: its name, number of entries and root hash
// (C2SP tlog-checkpoint).
type Checkpoint struct {
	Origin string
	Size   int64
	Root   Hash
}

// text is the body of the signed note. There are no extension lines: nobody
// could audit them.
func (c Checkpoint) text() string {
	return fmt.Sprintf("%s\n%d\n%s\n", c.Origin, c.Size, c.Root)
}

// maxSize is more than any log will have. Package tlog computes positions in a
// tree with int64, and may not end for sizes close to the largest one.
const maxSize = 1 << 60

// valid checks that the root can be one of that size.
func (c Checkpoint) valid() error {
	if c.Size < 0 || c.Size > maxSize {
		return fmt.Errorf("a log of %d entries, must be 0 to %d", c.Size, int64(maxSize))
	}
	if empty := NewTree().Root(); c.Size == 0 && c.Root != empty {
		return fmt.Errorf("the root of no entries is %s, must be %s", c.Root, empty)
	}
	return nil
}

// Sign returns the signed note of the checkpoint. The signer's name must be the
// origin.
func Sign(c Checkpoint, signer note.Signer) ([]byte, error) {
	if signer.Name() != c.Origin {
		return nil, fmt.Errorf("signing a checkpoint: the key is that of %q, the checkpoint of %q", signer.Name(), c.Origin)
	}
	if _, err := parseCheckpoint(c.text()); err != nil {
		return nil, fmt.Errorf("signing a checkpoint: %w", err)
	}
	signed, err := note.Sign(&note.Note{Text: c.text()}, signer)
	if err != nil {
		return nil, fmt.Errorf("signing a checkpoint: %w", err)
	}
	return signed, nil
}

// OpenCheckpoint verifies a signed note and returns the checkpoint in it. The
// log's signature is required, others are ignored here ([Cosignatures] reads
// them). Extension lines are refused.
func OpenCheckpoint(signed []byte, origin string, v note.Verifier) (*Checkpoint, error) {
	n, err := openNote(signed, v)
	if err != nil {
		return nil, fmt.Errorf("opening a checkpoint: %w", err)
	}
	c, err := parseCheckpoint(n.Text)
	if err != nil {
		return nil, fmt.Errorf("opening a checkpoint: %w", err)
	}
	if c.Origin != origin || v.Name() != origin {
		return nil, fmt.Errorf("opening a checkpoint: it is of the log %q and signed by %q, expected is the log %q", clip(c.Origin), v.Name(), origin)
	}
	return c, nil
}

// openNote verifies that v signed the note, whoever else did.
func openNote(signed []byte, v note.Verifier) (*note.Note, error) {
	if len(signed) > MaxNote {
		return nil, fmt.Errorf("a signed note of %d bytes, at most %d", len(signed), MaxNote)
	}
	return note.Open(signed, note.VerifierList(v))
}

func parseCheckpoint(text string) (*Checkpoint, error) {
	lines := strings.Split(text, "\n")
	if len(lines) != 4 || lines[0] == "" || lines[3] != "" {
		return nil, fmt.Errorf("not three lines (origin, size, root)")
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		return nil, fmt.Errorf("the size is %q, must be a number", clip(lines[1]))
	}
	root, err := base64.StdEncoding.DecodeString(lines[2])
	if err != nil || len(root) != tlog.HashSize {
		return nil, fmt.Errorf("the root is %q, must be %d bytes in base64", clip(lines[2]), tlog.HashSize)
	}
	c := &Checkpoint{Origin: lines[0], Size: size, Root: Hash(root)}
	if c.text() != text { // 007, unused bits of base64
		return nil, fmt.Errorf("size or root are not in their one spelling")
	}
	if err := c.valid(); err != nil {
		return nil, err
	}
	return c, nil
}

// signer signs notes with Ed25519.
type signer struct {
	note.Verifier
	key ed25519.PrivateKey
}

func (s *signer) Sign(msg []byte) ([]byte, error) { return ed25519.Sign(s.key, msg), nil }

// NewSigner returns the log's signer. An origin has neither white space nor "+".
func NewSigner(origin string, key ed25519.PrivateKey) (note.Signer, error) {
	if len(key) != ed25519.PrivateKeySize {
		return nil, fmt.Errorf("making the log's signer: a key of %d bytes, expected %d", len(key), ed25519.PrivateKeySize)
	}
	v, err := NewVerifier(VerifierKey(origin, key.Public().(ed25519.PublicKey)))
	if err != nil {
		return nil, fmt.Errorf("making the log's signer for %q: %w", origin, err)
	}
	return &signer{Verifier: v, key: key}, nil
}

// VerifierKey returns the public key of a log as others write it down: the
// origin, the key's short hash, and the key (C2SP signed-note, "vkey"). It is
// empty, which [NewVerifier] refuses, when pub is not an Ed25519 key.
func VerifierKey(origin string, pub ed25519.PublicKey) string {
	vkey, err := note.NewEd25519VerifierKey(origin, pub)
	if err != nil {
		return ""
	}
	return vkey
}

// NewVerifier returns the verifier of a log's signatures.
func NewVerifier(vkey string) (note.Verifier, error) {
	v, err := note.NewVerifier(vkey)
	if err != nil {
		return nil, fmt.Errorf("reading the log's public key: %w", err)
	}
	return v, nil
}

// VerifyInclusion checks that the record is entry index of the log.
func VerifyInclusion(record []byte, index int64, c Checkpoint, proof []Hash) error {
	err := c.valid()
	if err == nil {
		err = tlog.CheckRecord(proof, c.Size, c.Root, index, tlog.RecordHash(record))
	}
	if err != nil {
		return fmt.Errorf("verifying that the record is entry %d of %s at %d entries: %w", index, clip(c.Origin), c.Size, err)
	}
	return nil
}

// VerifyConsistency checks that the log at the newer checkpoint begins with all
// entries it had at the older one.
func VerifyConsistency(older, newer Checkpoint, proof []Hash) error {
	err := errors.Join(older.valid(), newer.valid())
	switch {
	case err != nil:
	case older.Origin != newer.Origin:
		err = fmt.Errorf("the older one is of %s", clip(older.Origin))
	case older.Size == 0 && len(proof) > 0:
		err = fmt.Errorf("a proof of %d hashes where none is needed", len(proof))
	case older.Size > 0: // everything extends the empty log
		err = tlog.CheckTree(proof, newer.Size, newer.Root, older.Size, older.Root)
	}
	if err != nil {
		return fmt.Errorf("verifying that %s at %d entries extends it at %d: %w", clip(newer.Origin), newer.Size, older.Size, err)
	}
	return nil
}
