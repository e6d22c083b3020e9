// SPDX-License-Identifier: Apache-2.0

// Package manifestfile is the former name of the manifest's part of package
// kept, which keeps the invariant: a start never goes back to an older
// manifest than was in force before.
package manifestfile

import (
	"github.com/c8s-dev/c8s/cds/kept"
	"github.com/c8s-dev/c8s/policy"
)

// Newest is kept.NewestManifest.
func Newest(path string, given []byte, operators policy.Operators) (*policy.Signed, error) {
	return kept.NewestManifest(path, given, operators)
}

// Save is kept.SaveManifest.
func Save(path string, signed *policy.Signed) error { return kept.SaveManifest(path, signed) }
