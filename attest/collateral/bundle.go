// SPDX-License-Identifier: Apache-2.0

package collateral

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/c8s-dev/c8s/policy"
)

// PayloadType is the DSSE payload type of a bundle.
const PayloadType = "application/vnd.c8s.collateral.v1+json"

// Caps on a bundle.
const (
	MaxBundle      = 24 << 20 // bytes of the envelope
	MaxBundleItems = 4096

	bundleVersion = 1
)

// Bundle is collateral in one signed file, for sites without Internet access.
// The signature says who put it together; each item still has to stand on the
// vendor's own.
type Bundle struct {
	Created time.Time
	Items   []Item // in the order of their requests
	Signers []string
	Ignored []policy.IgnoredSignature

	index map[Request]int
}

// payload is what is signed. It is readable only in the exact form in which it
// is written, so that no two readers can take it differently.
type payload struct {
	Version int           `json:"version"`
	Created time.Time     `json:"created"`
	Items   []payloadItem `json:"items"`
}

type payloadItem struct {
	Request    string    `json:"request"`
	Body       []byte    `json:"body"`
	Certs      [][]byte  `json:"certs"`
	Fetched    time.Time `json:"fetched"`
	NextUpdate time.Time `json:"nextUpdate"`
}

// SealBundle writes a bundle with one signature for each key, Ed25519 or ECDSA
// P-256. Of several items for one request the newest is taken.
func SealBundle(items []Item, created time.Time, keys ...crypto.Signer) ([]byte, error) {
	sorted := slices.Clone(items)
	slices.SortStableFunc(sorted, func(a, b Item) int {
		return cmp.Or(cmp.Compare(a.Request.String(), b.Request.String()), b.NextUpdate.Compare(a.NextUpdate))
	})
	sorted = slices.CompactFunc(sorted, func(a, b Item) bool { return a.Request == b.Request })
	if len(sorted) == 0 || len(sorted) > MaxBundleItems {
		return nil, fail(CodeLimit, fmt.Sprintf("1 to %d items", MaxBundleItems), strconv.Itoa(len(sorted)), "")
	}
	text, err := encodePayload(sorted, created)
	if err != nil {
		return nil, err
	}
	if _, err := parsePayload(text); err != nil {
		return nil, err
	}
	envelope, err := policy.SignPayload(PayloadType, text, keys...)
	if err != nil {
		return nil, fail(CodeBundleSignature, "keys that can sign", short(err.Error()), "")
	}
	if len(envelope) > MaxBundle {
		return nil, fail(CodeTooLarge, fmt.Sprintf("at most %d bytes", MaxBundle), fmt.Sprintf("%d bytes", len(envelope)), "make several bundles")
	}
	return envelope, nil
}

func encodePayload(items []Item, created time.Time) ([]byte, error) {
	p := payload{Version: bundleVersion, Created: created.UTC().Truncate(time.Second), Items: []payloadItem{}}
	for _, i := range items {
		p.Items = append(p.Items, payloadItem{
			Request: i.Request.String(), Body: i.Body, Certs: append([][]byte{}, i.Certs...), Fetched: i.Fetched, NextUpdate: i.NextUpdate,
		})
	}
	text, err := json.Marshal(p)
	if err != nil {
		return nil, fail(CodeBundleFormat, "items with dates of four-digit years", short(err.Error()), "")
	}
	return text, nil
}

// OpenBundle checks the signatures first, so that nothing of an unsigned
// payload is interpreted, and then that every item is what it is said to be.
func OpenBundle(envelope []byte, trusted policy.Operators) (*Bundle, error) {
	signed, err := policy.OpenPayload(envelope, PayloadType, MaxBundle, trusted)
	if err != nil {
		code, remedy := CodeBundleFormat, "this is no bundle; make one with 'c8s collateral bundle'"
		switch policy.CodeOf(err) {
		case policy.CodeThresholdUnmet, policy.CodeOperatorKeyInvalid:
			code, remedy = CodeBundleSignature, "have it signed by those who are trusted here"
		}
		return nil, fail(code, "a bundle signed by the trusted keys", err.Error(), remedy)
	}
	b, err := parsePayload(signed.Payload)
	if err != nil {
		return nil, err
	}
	b.Signers, b.Ignored = signed.Signers, signed.Ignored
	return b, nil
}

// ReadBundle reads a bundle without judging its signatures. What it holds is
// signed by the vendors, so that is enough where a verifier follows.
func ReadBundle(envelope []byte) (*Bundle, error) {
	if len(envelope) > MaxBundle {
		return nil, fail(CodeTooLarge, fmt.Sprintf("at most %d bytes", MaxBundle), fmt.Sprintf("%d bytes", len(envelope)), "")
	}
	e, err := policy.ParseEnvelopeOf(envelope, MaxBundle)
	if err != nil {
		return nil, fail(CodeBundleFormat, "a bundle", short(err.Error()), "")
	}
	if e.PayloadType != PayloadType {
		return nil, fail(CodeBundleFormat, "an envelope with "+PayloadType, strconv.Quote(short(e.PayloadType)), "")
	}
	return parsePayload(e.Payload)
}

func parsePayload(text []byte) (*Bundle, error) {
	var p payload
	if err := json.Unmarshal(text, &p); err != nil {
		return nil, fail(CodeBundleFormat, "a bundle's JSON", short(err.Error()), "")
	}
	if p.Version != bundleVersion {
		return nil, fail(CodeBundleFormat, fmt.Sprintf("version %d", bundleVersion), strconv.Itoa(p.Version), "use a c8s version that knows this bundle")
	}
	if len(p.Items) == 0 || len(p.Items) > MaxBundleItems {
		return nil, fail(CodeBundleFormat, fmt.Sprintf("1 to %d items", MaxBundleItems), strconv.Itoa(len(p.Items)), "")
	}
	b := &Bundle{Created: p.Created, index: make(map[Request]int, len(p.Items))}
	for n, pi := range p.Items {
		if n > 0 && pi.Request <= p.Items[n-1].Request {
			return nil, fail(CodeBundleFormat, "items in order, each once", strconv.Quote(short(pi.Request)), "")
		}
		r, err := ParseRequest(pi.Request)
		if err != nil {
			return nil, err
		}
		i, err := NewItem(r, pi.Body, pi.Certs, pi.Fetched)
		if err != nil {
			return nil, err
		}
		b.index[r] = n
		b.Items = append(b.Items, i)
	}
	// Also refuses other dates than those the items have by their own words.
	if again, err := encodePayload(b.Items, b.Created); err != nil || !bytes.Equal(again, text) {
		return nil, fail(CodeBundleFormat, "JSON exactly as c8s writes it, with each item's own dates", "another spelling", "")
	}
	return b, nil
}

// Get implements Source.
func (b *Bundle) Get(_ context.Context, r Request) (Item, error) {
	n, ok := b.index[r]
	if !ok {
		return Item{}, missing(r)
	}
	return b.Items[n].clone(), nil
}
