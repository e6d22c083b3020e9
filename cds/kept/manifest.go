// SPDX-License-Identifier: Apache-2.0

package kept

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/c8s-dev/c8s/policy"
)

// maxEnvelope bounds a signed document that is read back, in bytes.
const maxEnvelope = 2 * policy.MaxPayload

// ManifestFile is the name of a node's kept manifest in its state folder, where
// the daemon's client writes it and c8s-runtime reads it.
const ManifestFile = "manifest.dsse.json"

// NewestManifest opens the given envelope and the one kept at path, and
// returns the later. Operators are the machine's trust anchor and must have
// signed both.
func NewestManifest(path string, given []byte, operators policy.Operators) (*policy.Signed, error) {
	signed, err := policy.Open(given, operators)
	if err != nil {
		return nil, fmt.Errorf("opening the manifest: %w", err)
	}
	kept, err := loadManifest(path, operators)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return signed, nil
	case err != nil:
		return nil, err
	case kept.Manifest.Version > signed.Manifest.Version:
		return kept, nil
	case kept.Manifest.Version == signed.Manifest.Version && kept.Digest != signed.Digest:
		return nil, policy.Succeeds(kept, signed)
	}
	return signed, nil
}

func loadManifest(path string, operators policy.Operators) (*policy.Signed, error) {
	raw, err := read(path, maxEnvelope)
	if err != nil {
		return nil, fmt.Errorf("reading the kept manifest: %w", err)
	}
	signed, err := policy.Open(raw, operators)
	if err != nil {
		return nil, fmt.Errorf("opening the kept manifest %s: %w (if the operators changed, start from a manifest they signed and remove this file)", path, err)
	}
	return signed, nil
}

// SaveManifest replaces the manifest kept at path, unless another process has
// kept a later one there.
func SaveManifest(path string, signed *policy.Signed) error {
	notOlder := func() (bool, error) {
		m, err := peek(path, maxEnvelope, policy.Parse)
		return m == nil || signed.Manifest.Version >= m.Version, err
	}
	if err := disk().replaceIf(path, signed.Envelope, notOlder); err != nil {
		return fmt.Errorf("keeping the manifest: %w", err)
	}
	return nil
}

// peek parses what is kept at path without trusting it: what is written there
// is verified, and must only not be older. nil where nothing can be read.
func peek[T any](path string, limit int, parse func(payload []byte) (*T, error)) (*T, error) {
	raw, err := read(path, limit)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	envelope, err := policy.ParseEnvelope(raw)
	if err != nil {
		return nil, nil //nolint:nilerr // damaged: the start would have refused it; what is in force replaces it
	}
	doc, err := parse(envelope.Payload)
	if err != nil {
		return nil, nil //nolint:nilerr // as above
	}
	return doc, nil
}
