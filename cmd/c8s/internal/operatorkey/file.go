// SPDX-License-Identifier: Apache-2.0

package operatorkey

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
	"github.com/c8s-dev/c8s/policy"
)

// PublicSuffix is added to the name of a private key's file for the public
// one.
const PublicSuffix = ".pub"

const (
	maxKeyFile    = 16 << 10
	blockPrivate  = "PRIVATE KEY"
	blockPublic   = "PUBLIC KEY"
	groupAndOther = 0o077
)

// Generate returns a new key that lives in memory.
func Generate(algorithm string) (crypto.Signer, error) {
	switch algorithm {
	case policy.AlgorithmEd25519:
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	case policy.AlgorithmECDSAP256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	return nil, exit.Usage(fmt.Errorf("--algorithm must be %s or %s, not %q", policy.AlgorithmEd25519, policy.AlgorithmECDSAP256, algorithm))
}

// Write writes the private key to path and the public one beside it.
func Write(path string, key crypto.Signer, force bool) error {
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("encoding the private key: %w", err)
	}
	public, err := EncodePublic(key.Public())
	if err != nil {
		return err
	}
	if err := desk.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: blockPrivate, Bytes: private}), desk.ModeSecret, force); err != nil {
		return err
	}
	return desk.WriteFile(path+PublicSuffix, public, desk.ModePublic, force)
}

// EncodePublic returns the PEM of a public key.
func EncodePublic(public crypto.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("encoding the public key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: blockPublic, Bytes: der}), nil
}

// readPrivateFile reads one PKCS#8 PEM key and warns about loose permissions.
// No error repeats any of the file's content.
func readPrivateFile(path string, warn io.Writer) (crypto.Signer, error) {
	der, err := readBlock(path, blockPrivate)
	if err != nil {
		return nil, fmt.Errorf("reading the operator key: %w", err)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("reading the operator key: %s is not a PKCS#8 key", path)
	}
	signer, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("reading the operator key: %s holds a %T, which cannot sign", path, parsed)
	}
	warnLoose(warn, path)
	return signer, nil
}

func readPublicFile(path string) (crypto.PublicKey, error) {
	der, err := readBlock(path, blockPublic)
	if err != nil {
		return nil, fmt.Errorf("reading the public key: %w", err)
	}
	public, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, fmt.Errorf("reading the public key: %s: %w", path, err)
	}
	return public, nil
}

func readBlock(path, blockType string) ([]byte, error) {
	text, err := desk.ReadFile(path, maxKeyFile)
	if err != nil {
		return nil, err
	}
	block, rest := pem.Decode(text)
	switch {
	case block == nil:
		return nil, fmt.Errorf("%s holds no PEM block of type %q", path, blockType)
	case block.Type != blockType:
		return nil, fmt.Errorf("%s holds a PEM block of type %q, not %q%s", path, block.Type, blockType, hint(block.Type))
	case len(bytes.TrimSpace(rest)) > 0:
		return nil, fmt.Errorf("%s holds more than one PEM block", path)
	}
	return block.Bytes, nil
}

func hint(blockType string) string {
	switch blockType {
	case blockPrivate:
		return "; give the file that ends in " + PublicSuffix
	case blockPublic:
		return "; give the private key's file"
	case "ENCRYPTED " + blockPrivate, "EC " + blockPrivate:
		return "; convert it with 'openssl pkcs8 -topk8 -nocrypt'"
	}
	return ""
}
