// SPDX-License-Identifier: Apache-2.0

package cosign

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/c8s-dev/c8s/policy"
)

// How signatures lie in a registry or content store.
const (
	simpleMediaType     = "application/vnd.dev.cosign.simplesigning.v1+json"
	signatureAnnotation = "dev.cosignproject.cosign/signature"
	bundleFamily        = "application/vnd.dev.sigstore.bundle."
)

// Limits on what an untrusted registry can make us fetch for one image.
const (
	maxSignatures = 64
	maxManifest   = 1 << 20 // bytes
)

// TagOf is the tag under which signatures of a manifest lie beside it.
func TagOf(manifest policy.Digest) string {
	return strings.Replace(string(manifest), ":", "-", 1) + ".sig"
}

// found is a layer of a manifest that holds a signature.
type found struct {
	Blob      policy.Digest
	Signature []byte // of the layer; empty for a bundle
	Bundle    bool
}

// signatures lists the layers of a manifest that hold signatures. Others, and
// annotations that are no base64, are passed over: they are no signatures.
func signatures(manifest []byte) ([]found, error) {
	if len(manifest) > maxManifest {
		return nil, fmt.Errorf("a manifest of %d bytes, at most %d allowed", len(manifest), maxManifest)
	}
	var m struct {
		Layers []struct {
			MediaType   string            `json:"mediaType"`
			Digest      policy.Digest     `json:"digest"`
			Size        int64             `json:"size"`
			Annotations map[string]string `json:"annotations"`
		} `json:"layers"`
	}
	if err := json.Unmarshal(manifest, &m); err != nil {
		return nil, fmt.Errorf("parsing the manifest of signatures: %w", err)
	}
	var list []found
	for _, l := range m.Layers {
		if !l.Digest.Valid() || l.Size < 0 || l.Size > maxPayload {
			continue
		}
		switch {
		case l.MediaType == simpleMediaType:
			sig, err := base64.StdEncoding.DecodeString(l.Annotations[signatureAnnotation])
			if err == nil && len(sig) > 0 {
				list = append(list, found{Blob: l.Digest, Signature: sig})
			}
		case strings.HasPrefix(l.MediaType, bundleFamily):
			list = append(list, found{Blob: l.Digest, Bundle: true})
		}
		if len(list) == maxSignatures {
			break
		}
	}
	return list, nil
}
