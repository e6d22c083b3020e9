// SPDX-License-Identifier: Apache-2.0

package manifestcmd

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
	"os"
	"path/filepath"
	"strings"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
	"github.com/c8s-dev/c8s/policy"
)

const (
	maxKeyFile    = 16 << 10
	publicSuffix  = ".pub"
	blockPrivate  = "PRIVATE KEY"
	blockPublic   = "PUBLIC KEY"
	groupAndOther = 0o077
)

// generateKey returns a new operator key.
func generateKey(algorithm string) (crypto.Signer, error) {
	switch algorithm {
	case policy.AlgorithmEd25519:
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	case policy.AlgorithmECDSAP256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	return nil, exit.Usage(fmt.Errorf("--algorithm must be %s or %s, not %q", policy.AlgorithmEd25519, policy.AlgorithmECDSAP256, algorithm))
}

// writeKey writes the private key to path and the public one beside it.
func writeKey(path string, key crypto.Signer, force bool) error {
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("encoding the private key: %w", err)
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return fmt.Errorf("encoding the public key: %w", err)
	}
	if err := writeFile(path, pem.EncodeToMemory(&pem.Block{Type: blockPrivate, Bytes: private}), modeSecret, force); err != nil {
		return err
	}
	return writeFile(path+publicSuffix, pem.EncodeToMemory(&pem.Block{Type: blockPublic, Bytes: public}), modePublic, force)
}

// readPrivateKey reads one PKCS#8 PEM key and warns about loose permissions.
// No error repeats any of the file's content.
func readPrivateKey(path string, warn io.Writer) (crypto.Signer, error) {
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
	if info, err := os.Stat(path); err == nil && info.Mode().Perm()&groupAndOther != 0 {
		_, _ = fmt.Fprintf(warn, "warning: others may read %s (mode %04o): run 'chmod 600 %s'\n", path, info.Mode().Perm(), path)
	}
	return signer, nil
}

// readPublicKey reads "[NAME=]FILE" as an operator. The name defaults to the
// file's.
func readPublicKey(arg string) (policy.OperatorKey, error) {
	name, path, named := strings.Cut(arg, "=")
	if !named {
		path = arg
		name = strings.TrimSuffix(strings.TrimSuffix(filepath.Base(path), publicSuffix), ".pem")
	}
	der, err := readBlock(path, blockPublic)
	if err != nil {
		return policy.OperatorKey{}, fmt.Errorf("reading the public key: %w", err)
	}
	public, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return policy.OperatorKey{}, fmt.Errorf("reading the public key: %s: %w", path, err)
	}
	key, err := policy.NewOperatorKey(name, public)
	if err != nil {
		return policy.OperatorKey{}, fmt.Errorf("reading the public key: %s: %w", path, err)
	}
	return key, nil
}

func readBlock(path, blockType string) ([]byte, error) {
	text, err := readFile(path, maxKeyFile)
	if err != nil {
		return nil, err
	}
	block, rest := pem.Decode(text)
	switch {
	case block == nil:
		return nil, fmt.Errorf("%s holds no PEM block", path)
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
		return "; give the file that ends in " + publicSuffix
	case blockPublic:
		return "; give the private key's file"
	case "ENCRYPTED " + blockPrivate, "EC " + blockPrivate:
		return "; convert it with 'openssl pkcs8 -topk8 -nocrypt'"
	}
	return ""
}
