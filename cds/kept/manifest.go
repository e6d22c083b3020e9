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

// SaveManifest replaces the manifest kept at path.
func SaveManifest(path string, signed *policy.Signed) error {
	if err := disk().replace(path, signed.Envelope); err != nil {
		return fmt.Errorf("keeping the manifest: %w", err)
	}
	return nil
}
