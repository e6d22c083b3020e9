// SPDX-License-Identifier: Apache-2.0

package receipt

import (
	"crypto/ed25519"
	"fmt"
	"net/http"
	"time"

	"github.com/dunglas/httpsfv"

	"github.com/c8s-dev/c8s/attest"
)

// maxSkew is how far the ingress's clock may be from the client's, the time on
// the way included.
const maxSkew = 5 * time.Minute

// Verify makes the receipt of an answer that http.Client or a RoundTripper
// returned: its header, status and request are what the key signed, now, for
// the nonce that the request asked with.
func Verify(resp *http.Response, key ed25519.PublicKey, now time.Time) (*Receipt, error) {
	r, err := verify(resp, key, now)
	if err != nil {
		return nil, fmt.Errorf("verifying the receipt: %w", err)
	}
	return r, nil
}

func verify(resp *http.Response, key ed25519.PublicKey, now time.Time) (*Receipt, error) {
	if resp.Request == nil {
		return nil, attest.NewFailure(CodeMissing, "an answer with its request", "none", "")
	}
	signature, input, err := signatureOf(resp.Header)
	if err != nil {
		return nil, err
	}
	r, err := read(resp.Header, resp.StatusCode, resp.Request)
	if err != nil {
		return nil, err
	}
	if err := r.readInput(input); err != nil {
		return nil, err
	}
	r.Signature = signature
	if err := r.Check(key); err != nil {
		return nil, err
	}
	if nonce, ok := asked(resp.Request.Header[headerAccept], r.KeyID); !ok {
		return nil, attest.NewFailure(CodeMissing, "a request that asks for a receipt", resp.Request.Header.Get(headerAccept), "set Accept-Signature with receipt.Ask")
	} else if nonce != r.Nonce {
		return nil, attest.NewFailure(CodeNonce, nonce, r.Nonce, "this is the answer to another request: do not use it")
	}
	if age := now.Sub(r.Created); age > maxSkew || age < -maxSkew {
		return nil, attest.NewFailure(CodeTime, fmt.Sprintf("made within %s of %s", maxSkew, now.UTC().Format(time.RFC3339)), r.Created.Format(time.RFC3339), "set the clock")
	}
	return r, nil
}

// signatureOf reads the one signature that counts. Others, of whoever, may
// stand beside it.
func signatureOf(h http.Header) ([]byte, *httpsfv.Dictionary, error) {
	if len(h[headerInput]) == 0 || len(h[headerSignature]) == 0 {
		return nil, nil, attest.NewFailure(CodeMissing, headerInput+" and "+headerSignature, "no signature", "only forwarded answers have one, of requests that ask for it: see docs/receipts.md")
	}
	input, err := httpsfv.UnmarshalDictionary(h[headerInput])
	if err != nil {
		return nil, nil, malformed(headerInput, "a dictionary", err.Error())
	}
	signatures, err := httpsfv.UnmarshalDictionary(h[headerSignature])
	if err != nil {
		return nil, nil, malformed(headerSignature, "a dictionary", err.Error())
	}
	member, _ := signatures.Get(Label)
	item, _ := member.(httpsfv.Item)
	signature, ok := item.Value.([]byte)
	if _, named := input.Get(Label); !ok || !named {
		return nil, nil, attest.NewFailure(CodeMissing, "a signature labelled "+Label, "others", "ask for it with receipt.Ask")
	}
	return signature, input, nil
}
