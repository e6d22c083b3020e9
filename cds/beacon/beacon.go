// SPDX-License-Identifier: Apache-2.0

// Package beacon says what time it was, in a way that can be put into evidence:
// a report over a beacon was made after it. Its invariant: a beacon is for one
// trust domain, and its signature means nothing else.
package beacon

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/internal/onejson"
)

// Schema is the only beacon schema this package reads.
const Schema = "c8s.dev/beacon/v1"

const (
	tag         = "c8s/beacon/v1"
	maxDocument = 2 << 10 // bytes
	maxClock    = 32
	maxPeriod   = 24 * time.Hour
	// maxAhead is how far a beacon may be ahead of its reader's clock.
	maxAhead = time.Minute
)

// Codes of refused beacons.
const (
	CodeMalformed   = "beacon-malformed"
	CodeSignature   = "beacon-signature"
	CodeTrustDomain = "beacon-trust-domain"
	CodeStale       = "beacon-stale"
	CodeFuture      = "beacon-future"
)

// Beacon is what the CDS says every Period.
type Beacon struct {
	TrustDomain string
	Time        time.Time     // to the second
	Period      time.Duration // until the next, in whole seconds
	Checkpoint  []byte        // SHA-256 of the log's signed checkpoint, or empty
	Clock       string        // who keeps the monotonic clock, see package clock
	Signature   []byte        // Ed25519, by Sign and Verify
}

// document is the beacon's text.
type document struct {
	Schema      string `json:"schema"`
	TrustDomain string `json:"trustDomain"`
	Time        int64  `json:"time"`       // Unix time, seconds
	Period      int64  `json:"period"`     // seconds
	Checkpoint  string `json:"checkpoint"` // hexadecimal
	Clock       string `json:"clock"`
	Signature   []byte `json:"signature"`
}

// transcript is what is signed: the tag, the trust domain, time and period in
// seconds as big-endian uint64, the checkpoint's hash and the clock's source,
// each preceded by its length in bytes as a big-endian uint64.
// docs/vectors/beacon.json has examples.
func (b *Beacon) transcript() []byte {
	var out []byte
	for _, field := range [][]byte{
		[]byte(tag), []byte(b.TrustDomain),
		seconds(b.Time.Unix()), seconds(int64(b.Period / time.Second)), b.Checkpoint, []byte(b.Clock),
	} {
		out = binary.BigEndian.AppendUint64(out, uint64(len(field)))
		out = append(out, field...)
	}
	return out
}

func seconds(n int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)) } //nolint:gosec // not negative

// Sign returns the beacon's document. What is not a whole second is cut.
func Sign(key ed25519.PrivateKey, b Beacon) ([]byte, error) {
	b.Time, b.Period, b.Signature = b.Time.Truncate(time.Second), b.Period.Truncate(time.Second), nil
	if err := b.check(); err != nil {
		return nil, fmt.Errorf("signing a beacon: %w", err)
	}
	if len(key) != ed25519.PrivateKeySize {
		return nil, errors.New("signing a beacon: there is no key")
	}
	return onejson.Encode(document{
		Schema: Schema, TrustDomain: b.TrustDomain, Time: b.Time.Unix(), Period: int64(b.Period / time.Second),
		Checkpoint: hex.EncodeToString(b.Checkpoint), Clock: b.Clock, Signature: ed25519.Sign(key, b.transcript()),
	})
}

// Verify reads a document and accepts it if the key signed it for the trust
// domain, at most maxAge before now and at most a minute after.
func Verify(doc []byte, public ed25519.PublicKey, trustDomain string, now time.Time, maxAge time.Duration) (*Beacon, error) {
	b, err := verify(doc, public, trustDomain, now, maxAge)
	if err != nil {
		return nil, fmt.Errorf("verifying a beacon: %w", err)
	}
	return b, nil
}

func verify(doc []byte, public ed25519.PublicKey, trustDomain string, now time.Time, maxAge time.Duration) (*Beacon, error) {
	b, err := Parse(doc)
	if err != nil {
		return nil, err
	}
	if len(public) != ed25519.PublicKeySize || !ed25519.Verify(public, b.transcript(), b.Signature) {
		return nil, attest.NewFailure(CodeSignature, "a signature of this CDS's beacon key", "another", "verify the CDS's bundle, and take the key from it")
	}
	if b.TrustDomain != trustDomain {
		return nil, attest.NewFailure(CodeTrustDomain, trustDomain, b.TrustDomain, "ask a CDS of this trust domain")
	}
	switch age := now.Sub(b.Time); {
	case age > maxAge:
		return nil, attest.NewFailure(CodeStale, "at most "+maxAge.String()+" old", age.String(), "fetch a newer beacon")
	case age < -maxAhead:
		return nil, attest.NewFailure(CodeFuture, "at most "+maxAhead.String()+" ahead of this machine's clock", (-age).String(), "set this machine's clock")
	}
	return b, nil
}

// Parse reads a beacon in its canonical encoding, and believes nothing of it.
func Parse(doc []byte) (*Beacon, error) {
	b, err := parse(doc)
	if err != nil {
		return nil, attest.NewFailure(CodeMalformed, "a beacon in its canonical encoding", err.Error(), "")
	}
	return b, nil
}

func parse(doc []byte) (*Beacon, error) {
	var d document
	if err := onejson.Decode(doc, maxDocument, &d); err != nil {
		return nil, err
	}
	checkpoint, err := hex.DecodeString(d.Checkpoint)
	if err != nil || hex.EncodeToString(checkpoint) != d.Checkpoint {
		return nil, errors.New("the checkpoint's hash is not in lower-case hexadecimal")
	}
	if d.Schema != Schema || len(d.Signature) != ed25519.SignatureSize {
		return nil, fmt.Errorf("schema %.64q and a signature of %d bytes, expected %q and %d", d.Schema, len(d.Signature), Schema, ed25519.SignatureSize)
	}
	if d.Period > int64(maxPeriod/time.Second) {
		return nil, fmt.Errorf("a period of %d seconds", d.Period)
	}
	b := &Beacon{
		TrustDomain: d.TrustDomain, Time: time.Unix(d.Time, 0), Period: time.Duration(d.Period) * time.Second,
		Checkpoint: checkpoint, Clock: d.Clock, Signature: d.Signature,
	}
	return b, b.check()
}

func (b *Beacon) check() error {
	if td, err := spiffeid.TrustDomainFromString(b.TrustDomain); err != nil || td.Name() != b.TrustDomain {
		return fmt.Errorf("%.64q is not the name of a trust domain", b.TrustDomain)
	}
	if b.Time.Unix() <= 0 || b.Period < time.Second || b.Period > maxPeriod {
		return fmt.Errorf("time %s and period %s, expected one after 1970 and one of a second to a day", b.Time.UTC(), b.Period)
	}
	if n := len(b.Checkpoint); n != 0 && n != sha256.Size {
		return fmt.Errorf("a checkpoint's hash of %d bytes, expected %d, or none", n, sha256.Size)
	}
	for _, c := range []byte(b.Clock) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return fmt.Errorf("a clock source %.64q, expected lower-case letters, digits and dashes", b.Clock)
		}
	}
	if b.Clock == "" || len(b.Clock) > maxClock {
		return fmt.Errorf("a clock source of %d bytes, expected 1 to %d", len(b.Clock), maxClock)
	}
	return nil
}

// Bytes is what evidence commits to (attest.Transcript.Beacon): the time as a
// big-endian uint64 and the signature. It is nil for a beacon that was not
// verified.
func (b *Beacon) Bytes() []byte {
	if len(b.Signature) != ed25519.SignatureSize {
		return nil
	}
	return append(seconds(b.Time.Unix()), b.Signature...)
}
