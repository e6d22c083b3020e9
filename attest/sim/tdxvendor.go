// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/c8s-dev/c8s/attest/tdx"
)

// authority is a certificate and its key.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// tdxVendor plays Intel: it certifies platforms and publishes collateral. Its
// root's key is kept, unlike that of the SNP vendor, because Intel's collateral
// ends after 30 days and must be signed anew.
type tdxVendor struct {
	root, ca, signer authority // signer signs TCB info and QE identity
}

func (v *tdxVendor) authorities() []*authority { return []*authority{&v.root, &v.ca, &v.signer} }

// loadTDXVendor reads the vendor of dir, after making it if it is not there.
func loadTDXVendor(dir string, now time.Time, random io.Reader) (*tdxVendor, error) {
	path := filepath.Join(dir, "simulated-tdx.pem")
	v, err := readTDXVendor(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return v, err
	}
	if v, err = newTDXVendor(now, random); err != nil {
		return nil, fmt.Errorf("making the simulated vendor: %w", err)
	}
	if err := v.write(path); err != nil {
		return nil, fmt.Errorf("keeping the simulated vendor: %w", err)
	}
	return readTDXVendor(path) // another process may have been first
}

func newTDXVendor(now time.Time, random io.Reader) (*tdxVendor, error) {
	v := &tdxVendor{}
	for _, a := range v.authorities() {
		var err error
		if a.key, err = ecdsa.GenerateKey(elliptic.P256(), random); err != nil {
			return nil, err
		}
	}
	root := tdxTemplate("Intel SGX Root CA", 1, now, vendorLifetime)
	root.IsCA, root.MaxPathLen, root.KeyUsage = true, 1, x509.KeyUsageCertSign|x509.KeyUsageCRLSign
	ca := tdxTemplate("Intel SGX PCK Platform CA", 2, now, vendorLifetime)
	ca.IsCA, ca.MaxPathLenZero, ca.KeyUsage = true, true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign
	signer := tdxTemplate("Intel SGX TCB Signing", 3, now, vendorLifetime)
	for i, template := range []*x509.Certificate{root, ca, signer} {
		parent := v.root.cert
		if parent == nil {
			parent = template
		}
		a := v.authorities()[i]
		var err error
		if a.cert, err = issue(random, template, parent, a.key.Public(), v.root.key); err != nil {
			return nil, err
		}
	}
	return v, nil
}

func tdxTemplate(name string, serial int64, now time.Time, life time.Duration) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: subject(tdx.SimulatedMark + " " + name), SignatureAlgorithm: x509.ECDSAWithSHA256,
		NotBefore: now.Add(-24 * time.Hour), NotAfter: now.Add(life), BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature,
	}
}

func (v *tdxVendor) write(path string) error {
	var b bytes.Buffer
	for _, a := range v.authorities() {
		der, err := x509.MarshalPKCS8PrivateKey(a.key)
		if err != nil {
			return err
		}
		if err := errors.Join(pem.Encode(&b, &pem.Block{Type: blockCert, Bytes: a.cert.Raw}), pem.Encode(&b, &pem.Block{Type: blockKey, Bytes: der})); err != nil {
			return err
		}
	}
	return writeOnce(path, b.Bytes())
}

func readTDXVendor(path string) (*tdxVendor, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the simulated vendor: %w", err)
	}
	v, err := parseTDXVendor(b)
	if err != nil {
		return nil, fmt.Errorf("reading the simulated vendor from %s: %w: remove the file to make a new one", path, err)
	}
	return v, nil
}

func parseTDXVendor(b []byte) (*tdxVendor, error) {
	v := &tdxVendor{}
	for _, a := range v.authorities() {
		cert, rest := pem.Decode(b)
		key, after := pem.Decode(rest)
		if cert == nil || key == nil || !slices.Equal([]string{cert.Type, key.Type}, []string{blockCert, blockKey}) {
			return nil, errors.New("it does not hold three certificates with their keys")
		}
		var err error
		if a.cert, err = x509.ParseCertificate(cert.Bytes); err != nil {
			return nil, err
		}
		parsed, err := x509.ParsePKCS8PrivateKey(key.Bytes)
		if err != nil {
			return nil, err
		}
		ours, ok := parsed.(*ecdsa.PrivateKey)
		if !ok || !ours.PublicKey.Equal(a.cert.PublicKey) {
			return nil, errors.New("a key is not that of its certificate")
		}
		a.key, b = ours, after
	}
	return v, nil
}

// certify issues a platform's PCK certificate and returns the chain in PEM.
func (v *tdxVendor) certify(random io.Reader, pck *tdx.PCK, key *ecdsa.PrivateKey, now time.Time) ([]byte, error) {
	extension, err := pck.Extension()
	if err != nil {
		return nil, err
	}
	template := tdxTemplate("Intel SGX PCK Certificate", 4, now, vcekLifetime)
	template.ExtraExtensions = append(template.ExtraExtensions, extension)
	leaf, err := issue(random, template, v.ca.cert, key.Public(), v.ca.key)
	if err != nil {
		return nil, err
	}
	var b []byte
	for _, c := range []*x509.Certificate{leaf, v.ca.cert, v.root.cert} {
		b = append(b, pem.EncodeToMemory(&pem.Block{Type: blockCert, Bytes: c.Raw})...)
	}
	return b, nil
}
