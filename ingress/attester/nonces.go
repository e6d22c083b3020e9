// SPDX-License-Identifier: Apache-2.0

package attester

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/c8s-dev/c8s/client/proof"
)

// queueFull is when to come again if others wait already.
const queueFull = 10 * time.Second

// nonces lets clients ask the TEE themselves, one at a time.
type nonces struct {
	rates    *rates
	places   chan struct{} // of those who wait or are served
	one      chan struct{} // holds one token: only one of them stands before the TEE, so that the next proof need not wait for all
	answered atomic.Uint64
	limited  atomic.Uint64
}

func newNonces(l Limits) *nonces {
	n := &nonces{
		rates:  newRates(rate.Every(l.NonceEvery), l.NonceBurst, rate.Every(l.ClientNonceEvery), l.ClientNonceBurst),
		places: make(chan struct{}, l.NonceQueue+1), one: make(chan struct{}, 1),
	}
	n.one <- struct{}{}
	return n
}

// tooManyError tells a client when to come again.
type tooManyError struct{ wait time.Duration }

func (e *tooManyError) Error() string {
	return fmt.Sprintf("too many requests, come again in %s", e.wait)
}

// parseNonce reads base64url without padding, in its one spelling.
func parseNonce(text string) ([]byte, error) {
	if len(text) > base64.RawURLEncoding.EncodedLen(proof.MaxNonce) {
		return nil, fmt.Errorf("reading a nonce: %d characters", len(text))
	}
	nonce, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("reading a nonce: %w", err)
	}
	if n := len(nonce); n < proof.MinNonce || n > proof.MaxNonce {
		return nil, fmt.Errorf("reading a nonce: %d bytes, expected %d to %d", n, proof.MinNonce, proof.MaxNonce)
	}
	return nonce, nil
}

// withNonce makes a proof for one client. It has the beacon of the proof shown
// and is not kept.
func (a *Attester) withNonce(ctx context.Context, client netip.Prefix, p *keyProof, nonce []byte) ([]byte, error) {
	n := a.nonces
	giveBack, wait := n.rates.take(client, a.cfg.Now())
	if wait > 0 {
		n.limited.Add(1)
		return nil, &tooManyError{wait}
	}
	select {
	case n.places <- struct{}{}:
		defer func() { <-n.places }()
	default:
		giveBack()
		n.limited.Add(1)
		return nil, &tooManyError{queueFull}
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-n.one:
		defer func() { n.one <- struct{}{} }()
	}
	at := *p.attestation
	at.Nonce = nonce
	transcript, err := proof.Transcript(&at.Statement, nonce, p.proven.Beacon)
	if err != nil {
		return nil, err
	}
	if at.Evidence, err = a.ask(ctx, transcript); err != nil {
		return nil, fmt.Errorf("asking for the evidence of a nonce: %w", err)
	}
	body, err := at.Encode()
	if err == nil {
		n.answered.Add(1)
	}
	return body, err
}
