// SPDX-License-Identifier: Apache-2.0

// Package manifestfile keeps the manifest in force on disk: a crash leaves
// the old one or the new one, never half of one, and a start never goes back
// to an older version than was in force before.
package manifestfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/c8s-dev/c8s/policy"
)

// maxEnvelope bounds what is read back, in bytes.
const maxEnvelope = 2 * policy.MaxPayload

// Newest opens the given envelope and the one kept at path, and returns the
// later. Operators are the machine's trust anchor and must have signed both.
func Newest(path string, given []byte, operators policy.Operators) (*policy.Signed, error) {
	signed, err := policy.Open(given, operators)
	if err != nil {
		return nil, fmt.Errorf("opening the manifest: %w", err)
	}
	kept, err := load(path, operators)
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

func load(path string, operators policy.Operators) (*policy.Signed, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxEnvelope {
		return nil, fmt.Errorf("reading the kept manifest %s: %d bytes, at most %d possible", path, info.Size(), maxEnvelope)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the kept manifest: %w", err)
	}
	signed, err := policy.Open(raw, operators)
	if err != nil {
		return nil, fmt.Errorf("opening the kept manifest %s: %w (if the operators changed, start from a manifest they signed and remove this file)", path, err)
	}
	return signed, nil
}

// Save replaces the manifest kept at path.
func Save(path string, signed *policy.Signed) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("keeping the manifest: %w", err)
		}
	}()
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".manifest-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails once renamed, as it should
	if _, err := f.Write(signed.Envelope); err != nil {
		f.Close()
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
