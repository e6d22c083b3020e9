// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"bytes"
	"crypto"
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
	"slices"
	"strings"
	"time"

	"github.com/c8s-dev/c8s/attest/snp"
)

const (
	vendorBits     = 4096 // as AMD's
	vendorLifetime = 25 * 365 * 24 * time.Hour
	blockCert      = "CERTIFICATE"
	blockCRL       = "X509 CRL"
	blockKey       = "PRIVATE KEY"
)

// Serial numbers, all different so that revoking one revokes one.
const (
	serialARK = iota + 1
	serialASK
	serialASVK
	serialLeaf
)

// vendor plays AMD for one product: it has issued an ASK, an ASVK and a
// revocation list under an ARK, whose key is gone, and issues VCEKs and VLEKs.
// The ASK and the ASVK share a key, as one simulator plays both.
type vendor struct {
	ark, ask, asvk *x509.Certificate
	crl            *x509.RevocationList
	key            *rsa.PrivateKey // of the ASK and the ASVK
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

// The blocks of a vendor's file, in order.
func blockTypes() []string { return []string{blockCert, blockCert, blockCert, blockCRL, blockKey} }

func parseVendor(b []byte) (*vendor, error) {
	var ders [][]byte
	var types []string
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		ders, types = append(ders, block.Bytes), append(types, block.Type)
	}
	if slices.Equal(types, []string{blockCert, blockCert, blockKey}) {
		return nil, errors.New("it is of an older version of c8s and has no revocation list")
	}
	if !slices.Equal(types, blockTypes()) {
		return nil, fmt.Errorf("it does not hold %q", blockTypes())
	}
	v := &vendor{}
	for i, to := range []**x509.Certificate{&v.ark, &v.ask, &v.asvk} {
		c, err := x509.ParseCertificate(ders[i])
		if err != nil {
			return nil, err
		}
		*to = c
	}
	var err error
	if v.crl, err = x509.ParseRevocationList(ders[3]); err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(ders[4])
	if err != nil {
		return nil, err
	}
	rsaKey, ok := key.(*rsa.PrivateKey)
	if !ok || !rsaKey.PublicKey.Equal(v.ask.PublicKey) || !rsaKey.PublicKey.Equal(v.asvk.PublicKey) {
		return nil, errors.New("the key is not that of the ASK and the ASVK")
	}
	v.key = rsaKey
	return v, nil
}

// write keeps the vendor.
func (v *vendor) write(path string) error {
	der, err := x509.MarshalPKCS8PrivateKey(v.key)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	for i, bytes := range [][]byte{v.ark.Raw, v.ask.Raw, v.asvk.Raw, v.crl.Raw, der} {
		if err := pem.Encode(&b, &pem.Block{Type: blockTypes()[i], Bytes: bytes}); err != nil {
			return err
		}
	}
	return writeOnce(path, b.Bytes())
}

// writeOnce makes the file appear complete or not at all, and never replaces one.
func writeOnce(path string, b []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".vendor-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(b)
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
	return issueVendor(product, now, random, ark.key, askKey)
}

// issueVendor makes what the ARK signs. After it, the ARK's key is of no use.
func issueVendor(product snp.Product, now time.Time, random io.Reader, arkKey, askKey *rsa.PrivateKey) (*vendor, error) {
	v := &vendor{key: askKey}
	root := vendorTemplate("ARK-"+string(product), serialARK, now)
	var err error
	if v.ark, err = issue(random, root, root, arkKey.Public(), arkKey); err != nil {
		return nil, err
	}
	if v.ask, err = issue(random, vendorTemplate("SEV-"+string(product), serialASK, now), v.ark, askKey.Public(), arkKey); err != nil {
		return nil, err
	}
	if v.asvk, err = issue(random, vendorTemplate("SEV-VLEK-"+string(product), serialASVK, now), v.ark, askKey.Public(), arkKey); err != nil {
		return nil, err
	}
	der, err := x509.CreateRevocationList(random, &x509.RevocationList{
		Number: big.NewInt(1), SignatureAlgorithm: x509.SHA384WithRSAPSS, ThisUpdate: v.ark.NotBefore, NextUpdate: v.ark.NotAfter,
	}, v.ark, arkKey)
	if err != nil {
		return nil, err
	}
	v.crl, err = x509.ParseRevocationList(der)
	return v, err
}

func issue(random io.Reader, template, parent *x509.Certificate, public crypto.PublicKey, signer crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(random, template, parent, public, signer)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// vendorTemplate has the uses and path lengths of AMD's certificates.
func vendorTemplate(name string, serial int64, now time.Time) *x509.Certificate {
	c := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: subject(snp.SimulatedMark + " " + name),
		SignatureAlgorithm: x509.SHA384WithRSAPSS,
		NotBefore:          now.Add(-24 * time.Hour), NotAfter: now.Add(vendorLifetime),
		BasicConstraintsValid: true, IsCA: true,
		KeyUsage: x509.KeyUsageCertSign,
	}
	if serial == serialARK {
		c.MaxPathLen, c.KeyUsage = -1, x509.KeyUsageCertSign|x509.KeyUsageCRLSign
	} else {
		c.MaxPathLenZero = true
	}
	return c
}

// subject marks every certificate, so that no reader can take it for AMD's.
func subject(name string) pkix.Name {
	return pkix.Name{Organization: []string{snp.SimulatedMark}, OrganizationalUnit: []string{"c8s development, proves nothing"}, CommonName: name}
}
