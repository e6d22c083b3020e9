// SPDX-License-Identifier: Apache-2.0

package recovery

import (
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hpke"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/cloudflare/circl/group"
	"github.com/cloudflare/circl/secretsharing"
	"golang.org/x/crypto/chacha20poly1305"

	"github.com/c8s-dev/c8s/cds/keys"
)

// Split makes a document from which any threshold of the recipients can bring
// the seed back. Splitting again makes another document; the first stays good
// for as long as its shares can be opened, so that replacing an operator takes
// a new seed.
//
// The library's arithmetic on P-256 takes a time that depends on the scalar. It
// runs once in a trust domain's life, inside the boundary, on a scalar that is
// used for nothing else.
func Split(seed keys.Seed, threshold int, to []Recipient, trustDomain string) (*Document, error) {
	d, err := split(seed, threshold, to, trustDomain)
	if err != nil {
		return nil, fmt.Errorf("splitting the seed: %w", err)
	}
	return d, nil
}

func split(seed keys.Seed, threshold int, to []Recipient, trustDomain string) (*Document, error) {
	if seed == (keys.Seed{}) {
		return nil, errNoSeed
	}
	if err := checkRecipients(threshold, to); err != nil {
		return nil, err
	}
	scalar := p256().RandomNonZeroScalar(rand.Reader)
	sharing := secretsharing.New(rand.Reader, uint(threshold-1), scalar) //nolint:gosec // 1 to MaxRecipients
	d := &Document{Schema: Schema, TrustDomain: trustDomain, Threshold: threshold, Seed: []byte{}}
	for _, e := range sharing.CommitSecret() {
		b, err := e.MarshalBinaryCompress()
		if err != nil {
			return nil, err
		}
		d.Commitments = append(d.Commitments, b)
	}
	for _, r := range to {
		d.Shares = append(d.Shares, SealedShare{Name: r.Name, Public: r.Public[:]})
	}
	for i, share := range sharing.Share(uint(len(to))) {
		if err := d.sealShare(i+1, share.Value); err != nil {
			return nil, fmt.Errorf("for %q: %w", to[i].Name, err)
		}
	}
	if err := d.sealSeed(scalar, seed); err != nil {
		return nil, err
	}
	return d, d.check()
}

func (d *Document) sealShare(index int, value group.Scalar) error {
	s := &d.Shares[index-1]
	info, err := d.shareInfo(index)
	if err != nil {
		return err
	}
	public, err := kem().NewPublicKey(s.Public)
	if err != nil {
		return err
	}
	plain, err := value.MarshalBinary()
	if err != nil {
		return err
	}
	enc, sender, err := hpke.NewSender(public, kdf(), aead(), info)
	if err != nil {
		return err
	}
	s.Enc = enc
	s.Sealed, err = sender.Seal(nil, plain)
	return err
}

func (d *Document) sealSeed(scalar group.Scalar, seed keys.Seed) error {
	aead, err := d.seedCipher(scalar)
	if err != nil {
		return err
	}
	data, err := d.seedData()
	if err != nil {
		return err
	}
	sealed := make([]byte, chacha20poly1305.NonceSizeX, sealedSeed)
	if _, err := rand.Read(sealed); err != nil {
		return err
	}
	d.Seed = aead.Seal(sealed, sealed, seed[:], data)
	return nil
}

func (d *Document) openSeed(scalar group.Scalar) (keys.Seed, error) {
	aead, err := d.seedCipher(scalar)
	if err != nil {
		return keys.Seed{}, err
	}
	data, err := d.seedData()
	if err != nil {
		return keys.Seed{}, err
	}
	nonce, ciphertext := d.Seed[:chacha20poly1305.NonceSizeX], d.Seed[chacha20poly1305.NonceSizeX:]
	plain, err := aead.Open(nil, nonce, ciphertext, data)
	if err != nil {
		return keys.Seed{}, errors.New("the shares are good, but the sealed seed or the document around it was changed")
	}
	return keys.Seed(plain), nil
}

// seedCipher makes the key of the scalar. The commitment to the scalar is in
// the associated data, so that no other scalar's key fits.
func (d *Document) seedCipher(scalar group.Scalar) (cipher.AEAD, error) {
	secret, err := scalar.MarshalBinary()
	if err != nil {
		return nil, err
	}
	key, err := hkdf.Key(sha256.New, secret, nil, seedTag+"\x00"+d.TrustDomain, chacha20poly1305.KeySize)
	if err != nil {
		return nil, err
	}
	return chacha20poly1305.NewX(key)
}
