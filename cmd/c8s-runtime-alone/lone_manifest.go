// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/c8s-dev/c8s/cds/kept"
	"github.com/c8s-dev/c8s/cmd/internal/front"
	"github.com/c8s-dev/c8s/policy"
)

// Limits of what is read, in bytes.
const (
	maxOperators = 256 << 10
	maxEnvelope  = 2 * policy.MaxPayload
)

// manifest opens what was in force when the daemon last ran, or the installed
// one if that is newer, as the daemon itself does when it starts. One of the two
// may be missing.
func (l lone) manifest() (*policy.Manifest, error) {
	text, err := front.ReadOwned(l.cfg.Operators, maxOperators)
	if err != nil {
		return nil, fmt.Errorf("reading the operators: %w", err)
	}
	operators, err := policy.ParseOperators(text)
	if err != nil {
		return nil, err
	}
	inForce, installed := filepath.Join(l.cfg.StateDir, kept.ManifestFile), l.cfg.Manifest
	envelope, err := front.ReadOwned(installed, maxEnvelope)
	if errors.Is(err, fs.ErrNotExist) {
		envelope, err = front.ReadOwned(inForce, maxEnvelope)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the manifest: %w", err)
	}
	signed, err := kept.NewestManifest(inForce, envelope, operators)
	if err != nil {
		return nil, err
	}
	if from, ok := signed.Manifest.NotBeforeTime(); ok && l.now().Before(from) {
		return nil, fmt.Errorf("version %d of the manifest, which comes into force at %s", signed.Manifest.Version, from.Format(time.RFC3339))
	}
	return signed.Manifest, nil
}
