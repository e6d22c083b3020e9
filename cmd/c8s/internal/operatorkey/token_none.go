// SPDX-License-Identifier: Apache-2.0

//go:build !cgo

package operatorkey

import (
	"crypto"
	"errors"
)

// errNoTokens: a module of a token's vendor is a C library, and the static
// binary has no loader for one.
var errNoTokens = errors.New("this binary was built without PKCS#11; build one that has it with 'make build-pkcs11' and use bin/c8s-pkcs11")

type module struct{}

func openModule(string) (*module, error) { return nil, errNoTokens }

func (*module) signer(*uri, func() (string, error)) (crypto.Signer, error) { return nil, errNoTokens }

func (*module) public(*uri) (crypto.PublicKey, error) { return nil, errNoTokens }

func (*module) close() error { return nil }
