// SPDX-License-Identifier: Apache-2.0

package cosign

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/c8s-dev/c8s/policy"
)

// The types that payloads of image signatures bear. Only these: the same key may
// sign attestations about an image, which are no approval of it.
const (
	simpleType    = "cosign container image signature"
	statementType = "application/vnd.in-toto+json"
	predicateSign = "https://sigstore.dev/cosign/sign/v1"
)

// readSimple reads the payload of SIGNATURE_SPEC.md.
func readSimple(payload []byte) (Claim, error) {
	var p struct {
		Critical struct {
			Identity struct {
				Reference string `json:"docker-reference"`
			} `json:"identity"`
			Image struct {
				Digest policy.Digest `json:"docker-manifest-digest"`
			} `json:"image"`
			Type string `json:"type"`
		} `json:"critical"`
	}
	if err := json.Unmarshal(payload, &p); err != nil {
		return Claim{}, fmt.Errorf("parsing the payload: %w", err)
	}
	if p.Critical.Type != simpleType {
		return Claim{}, fmt.Errorf("type is %.64q, expected %q", p.Critical.Type, simpleType)
	}
	return claim(p.Critical.Image.Digest, p.Critical.Identity.Reference)
}

// readStatement reads the in-toto statement in a bundle.
func readStatement(payload []byte) (Claim, error) {
	var s struct {
		Predicate string `json:"predicateType"`
		Subject   []struct {
			Name   string            `json:"name"`
			Digest map[string]string `json:"digest"`
		} `json:"subject"`
	}
	if err := json.Unmarshal(payload, &s); err != nil {
		return Claim{}, fmt.Errorf("parsing the statement: %w", err)
	}
	if s.Predicate != predicateSign {
		return Claim{}, fmt.Errorf("predicateType is %.64q, expected %q", s.Predicate, predicateSign)
	}
	if len(s.Subject) != 1 {
		return Claim{}, fmt.Errorf("%d subjects, expected 1", len(s.Subject))
	}
	return claim(policy.Digest("sha256:"+s.Subject[0].Digest["sha256"]), s.Subject[0].Name)
}

func claim(digest policy.Digest, reference string) (Claim, error) {
	if !digest.Valid() {
		return Claim{}, fmt.Errorf("%.80q is no digest of a manifest", digest)
	}
	c := Claim{Manifest: digest}
	if reference != "" {
		repository, err := Repository(reference)
		if err != nil {
			return Claim{}, err
		}
		c.Repository = repository
	}
	return c, nil
}

// Repository returns the repository of an image reference in its full spelling,
// "index.docker.io/library/nginx" for "nginx:1".
func Repository(reference string) (string, error) {
	ref, err := name.ParseReference(reference)
	if err != nil {
		return "", fmt.Errorf("reading the reference %.128q: %w", reference, err)
	}
	return ref.Context().Name(), nil
}

// envelope is the DSSE envelope in a bundle.
type envelope struct {
	payload    []byte
	signatures [][]byte
}

// message is what a DSSE signature is over: the pre-authentication encoding.
func (e *envelope) message() []byte {
	return fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(statementType), statementType, len(e.payload), e.payload)
}

func parseBundle(raw []byte) (*envelope, error) {
	var b struct {
		MediaType string `json:"mediaType"`
		Envelope  *struct {
			Payload    string `json:"payload"`
			Type       string `json:"payloadType"`
			Signatures []struct {
				Sig string `json:"sig"`
			} `json:"signatures"`
		} `json:"dsseEnvelope"`
	}
	if err := json.Unmarshal(raw, &b); err != nil {
		return nil, err
	}
	switch {
	case !strings.HasPrefix(b.MediaType, bundleFamily):
		return nil, fmt.Errorf("media type %.64q is not of a Sigstore bundle", b.MediaType)
	case b.Envelope == nil:
		return nil, errors.New("it has no DSSE envelope")
	case b.Envelope.Type != statementType:
		return nil, fmt.Errorf("payload type %.64q, expected %q", b.Envelope.Type, statementType)
	case len(b.Envelope.Signatures) > maxSignatures:
		return nil, fmt.Errorf("%d signatures, at most %d allowed", len(b.Envelope.Signatures), maxSignatures)
	}
	payload, err := base64.StdEncoding.DecodeString(b.Envelope.Payload)
	if err != nil {
		return nil, fmt.Errorf("decoding the payload: %w", err)
	}
	e := &envelope{payload: payload}
	for _, s := range b.Envelope.Signatures {
		sig, err := base64.StdEncoding.DecodeString(s.Sig)
		if err != nil {
			return nil, fmt.Errorf("decoding a signature: %w", err)
		}
		e.signatures = append(e.signatures, sig)
	}
	return e, nil
}
