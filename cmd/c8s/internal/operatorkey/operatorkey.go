// SPDX-License-Identifier: Apache-2.0

// Package operatorkey gives every command one way to name a key of an
// operator. No private key and no PIN is ever in an argument, an error or a
// log: a file is named by its path, a key on a token by its PKCS#11 URI
// (RFC 7512).
//
// Keys are Ed25519 or ECDSA P-256. Files are PEM: PKCS#8 for private keys,
// SubjectPublicKeyInfo for public ones. Tokens are reached through the module
// of their vendor, which only a binary that was built with cgo can load.
package operatorkey

import (
	"crypto"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"

	"github.com/spf13/cobra"
)

// PINVariable is the environment variable with a token's PIN, for URIs
// without pin-source.
const PINVariable = "C8S_PKCS11_PIN"

// Ring opens keys and holds what they need. Its zero value is not ready: both
// fields are required. It is for one goroutine.
type Ring struct {
	Warn      io.Writer                        // for people: loose permissions
	LookupEnv func(name string) (string, bool) // os.LookupEnv outside of tests
	modules   map[string]*module               // by path; PKCS#11 allows one start for each
}

// NewRing opens keys for one run of a command. The caller closes it.
func NewRing(c *cobra.Command) *Ring {
	return &Ring{Warn: c.ErrOrStderr(), LookupEnv: os.LookupEnv}
}

// Signer returns the private key that ref names. It works until the ring is
// closed.
func (r *Ring) Signer(ref string) (crypto.Signer, error) {
	if !isURI(ref) {
		return readPrivateFile(ref, r.Warn)
	}
	u, err := parseURI(ref)
	if err != nil {
		return nil, err
	}
	if u.kind == kindPublic {
		return nil, fmt.Errorf("opening the operator key: %s: type=public names a key that cannot sign; write type=private or leave it out", u)
	}
	m, err := r.module(u.modulePath)
	if err != nil {
		return nil, fmt.Errorf("opening the operator key: %s: %w", u, err)
	}
	signer, err := m.signer(u, func() (string, error) { return r.pin(u) })
	if err != nil {
		return nil, fmt.Errorf("opening the operator key: %s: %w", u, err)
	}
	return signer, nil
}

// Signers opens several keys.
func (r *Ring) Signers(refs []string) ([]crypto.Signer, error) {
	signers := make([]crypto.Signer, 0, len(refs))
	for _, ref := range refs {
		signer, err := r.Signer(ref)
		if err != nil {
			return nil, err
		}
		signers = append(signers, signer)
	}
	return signers, nil
}

// Public returns the public key that ref names: of a file with a public key,
// or of a token, which is not asked for its PIN.
func (r *Ring) Public(ref string) (crypto.PublicKey, error) {
	if !isURI(ref) {
		return readPublicFile(ref)
	}
	u, err := parseURI(ref)
	if err != nil {
		return nil, err
	}
	m, err := r.module(u.modulePath)
	if err != nil {
		return nil, fmt.Errorf("reading the public key: %s: %w", u, err)
	}
	public, err := m.public(u)
	if err != nil {
		return nil, fmt.Errorf("reading the public key: %s: %w", u, err)
	}
	return public, nil
}

// module loads a module once.
func (r *Ring) module(path string) (*module, error) {
	if m, ok := r.modules[path]; ok {
		return m, nil
	}
	m, err := openModule(path)
	if err != nil {
		return nil, err
	}
	if r.modules == nil {
		r.modules = map[string]*module{}
	}
	r.modules[path] = m
	return m, nil
}

// Close logs out of every token. Signers of the ring do not work any more.
func (r *Ring) Close() error {
	var errs []error
	for _, path := range slices.Sorted(maps.Keys(r.modules)) {
		errs = append(errs, r.modules[path].close())
	}
	r.modules = nil
	return errors.Join(errs...)
}
