// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/c8s-dev/c8s/attest/snp"
)

const (
	vendorBits     = 4096 // as AMD's
	vendorLifetime = 25 * 365 * 24 * time.Hour
	blockCert      = "CERTIFICATE"
	blockKey       = "PRIVATE KEY"
)

// vendor plays AMD for one product: it has issued an ASK under an ARK, whose
// key is gone, and issues VCEKs.
type vendor struct {
	ark, ask *x509.Certificate
	key      *rsa.PrivateKey // of the ASK
}

// loadVendor reads the vendor from dir or makes one there. When several
// processes make one at once, the first to finish wins and all use it.
func loadVendor(dir string, product snp.Product, now time.Time, random io.Reader) (*vendor, error) {
	path := filepath.Join(dir, "simulated-"+strings.ToLower(string(product))+".pem")
	v, err := readVendor(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return v, err
	}
	if v, err = newVendor(product, now, random); err != nil {
		return nil, fmt.Errorf("making the simulated vendor: %w", err)
	}
	if err := v.write(path); err != nil {
		return nil, fmt.Errorf("keeping the simulated vendor: %w", err)
	}
	return readVendor(path)
}

func readVendor(path string) (*vendor, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the simulated vendor: %w", err)
	}
	v, err := parseVendor(b)
	if err != nil {
		return nil, fmt.Errorf("reading the simulated vendor from %s: %w: remove the file to make a new one", path, err)
	}
	return v, nil
}

func parseVendor(b []byte) (*vendor, error) {
	var blocks []*pem.Block
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		blocks = append(blocks, block)
	}
	if len(blocks) != 3 || blocks[0].Type != blockCert || blocks[1].Type != blockCert || blocks[2].Type != blockKey {
		return nil, errors.New("it does not hold two certificates and a key")
	}
	ark, err := x509.ParseCertificate(blocks[0].Bytes)
	if err != nil {
		return nil, err
	}
	ask, err := x509.ParseCertificate(blocks[1].Bytes)
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(blocks[2].Bytes)
	if err != nil {
		return nil, err
	}
	rsaKey, ok := key.(*rsa.PrivateKey)
	if !ok || !rsaKey.PublicKey.Equal(ask.PublicKey) {
		return nil, errors.New("the key is not that of the ASK")
	}
	return &vendor{ark: ark, ask: ask, key: rsaKey}, nil
}

// write makes the file appear complete or not at all, and never replaces one.
func (v *vendor) write(path string) error {
	der, err := x509.MarshalPKCS8PrivateKey(v.key)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	for _, block := range []*pem.Block{{Type: blockCert, Bytes: v.ark.Raw}, {Type: blockCert, Bytes: v.ask.Raw}, {Type: blockKey, Bytes: der}} {
		if err := pem.Encode(&b, block); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".vendor-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(b.Bytes())
	if err := errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	if err := os.Link(tmp.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

func newVendor(product snp.Product, now time.Time, random io.Reader) (*vendor, error) {
	type made struct {
		key *rsa.PrivateKey
		err error
	}
	other := make(chan made, 1) // a 4096-bit key takes up to seconds: make both at once
	go func() {
		key, err := rsa.GenerateKey(random, vendorBits)
		other <- made{key, err}
	}()
	askKey, err := rsa.GenerateKey(random, vendorBits)
	ark := <-other
	if err := errors.Join(err, ark.err); err != nil {
		return nil, err
	}
	root := vendorTemplate("SIMULATED ARK-"+string(product), 1, 1, now)
	rootDER, err := x509.CreateCertificate(random, root, root, ark.key.Public(), ark.key)
	if err != nil {
		return nil, err
	}
	rootCert, err := x509.ParseCertificate(rootDER)
	if err != nil {
		return nil, err
	}
	askDER, err := x509.CreateCertificate(random, vendorTemplate("SIMULATED SEV-"+string(product), 2, 0, now), rootCert, askKey.Public(), ark.key)
	if err != nil {
		return nil, err
	}
	askCert, err := x509.ParseCertificate(askDER)
	return &vendor{ark: rootCert, ask: askCert, key: askKey}, err
}

func vendorTemplate(name string, serial int64, pathLen int, now time.Time) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: subject(name),
		SignatureAlgorithm: x509.SHA384WithRSAPSS,
		NotBefore:          now.Add(-24 * time.Hour), NotAfter: now.Add(vendorLifetime),
		BasicConstraintsValid: true, IsCA: true, MaxPathLen: pathLen, MaxPathLenZero: pathLen == 0,
		KeyUsage: x509.KeyUsageCertSign,
	}
}

// subject marks every certificate, so that no reader can take it for AMD's.
func subject(name string) pkix.Name {
	return pkix.Name{Organization: []string{snp.SimulatedMark}, OrganizationalUnit: []string{"c8s development, proves nothing"}, CommonName: name}
}
