// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"slices"
	"time"

	"github.com/c8s-dev/c8s/cds/kept"
)

// stepCSR writes the request where it is not there yet, and takes the chain
// when there is another.
func (s *Store) stepCSR() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.cfg.Now()
	if len(s.names) == 0 {
		return now.Add(lookCSR)
	}
	if err := s.request(); err != nil {
		s.note(unitCSR, &Refusal{
			Code: CodeUnsaved, Rule: "the request is in its file", Expected: s.cfg.CSR.Request, Actual: shown(err.Error()),
			Remedy: "make the folder writable",
		})
		return now.Add(lookCSR)
	}
	s.note(unitCSR, s.adopt(now))
	return now.Add(lookCSR)
}

// adopt takes the chain from its file and says what is wrong with it, or with
// there being no newer.
func (s *Store) adopt(now time.Time) *Refusal {
	has := s.state.certs[unitCSR]
	raw, err := readAtMost(s.cfg.CSR.Chain, maxChainPEM)
	if err != nil {
		actual := shown(err.Error())
		if errors.Is(err, fs.ErrNotExist) {
			actual = "none"
		}
		return &Refusal{
			Code: CodeMissing, Rule: "a chain for the request", Expected: s.cfg.CSR.Chain, Actual: actual,
			Remedy: "have " + s.cfg.CSR.Request + " signed and put the chain there",
		}
	}
	chain, err := readPEM(raw)
	if err != nil {
		return asRefusal(err)
	}
	root, err := pool(s.cfg.CSR.Root)
	if err != nil {
		return asRefusal(err)
	}
	leaf, key, err := wanted{state: s.state, names: s.names, root: root, now: now}.check(chain)
	if err != nil {
		return asRefusal(err)
	}
	if has == nil || !slices.EqualFunc(has.tls.Certificate, chain, slices.Equal) {
		s.state.certs[unitCSR] = newRecord(s.source, key, leaf, chain)
		s.dirty = true
		s.met.order("issued")
		s.cfg.Log.Info("certificate taken from its file", "names", s.names, "issuer", leaf.Issuer.String(),
			"serial", serial(leaf), "notAfter", leaf.NotAfter, "key", key.hex())
	}
	if at := renewal(leaf); key != s.state.keys[0] || now.After(at) {
		return &Refusal{
			Code: CodeRenewalDue, Rule: "renewal", Expected: "a certificate for key " + s.state.keys[0].hex() + " that is in the first two thirds of its life",
			Actual: fmt.Sprintf("one for key %s that ends %s", key.hex(), leaf.NotAfter.Format(time.RFC3339)),
			Remedy: "have " + s.cfg.CSR.Request + " signed again",
		}
	}
	return nil
}

// request writes the request unless the file holds one for the same key and names.
func (s *Store) request() error {
	key := s.state.keys[0]
	if raw, err := readAtMost(s.cfg.CSR.Request, maxChainPEM); err == nil && isRequest(raw, key, s.names) {
		return nil
	}
	der, err := certificateRequest(key, s.names)
	if err != nil {
		return err
	}
	if err := kept.Replace(s.cfg.CSR.Request, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})); err != nil {
		return err
	}
	s.cfg.Log.Info("certificate request written: have it signed", "request", s.cfg.CSR.Request, "chain", s.cfg.CSR.Chain, "key", key.hex(), "names", s.names)
	return nil
}

func isRequest(raw []byte, key *tlsKey, names []string) bool {
	block, _ := pem.Decode(raw)
	if block == nil {
		return false
	}
	r, err := x509.ParseCertificateRequest(block.Bytes)
	return err == nil && sha256.Sum256(r.RawSubjectPublicKeyInfo) == key.id && slices.Equal(r.DNSNames, names) && r.CheckSignature() == nil
}

func certificateRequest(key *tlsKey, names []string) ([]byte, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: names}, key.private)
	if err != nil {
		return nil, fmt.Errorf("making a certificate request: %w", err)
	}
	return der, nil
}

// selfSignedLife is that of certificates for development.
const selfSignedLife = 90 * 24 * time.Hour

// stepSelfSigned makes a certificate that says of itself what it is worth.
func (s *Store) stepSelfSigned() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, key := s.cfg.Now(), s.state.keys[0]
	if len(s.names) == 0 {
		return now.Add(look)
	}
	has := s.state.certs[unitSelf]
	if has != nil && has.key == key && slices.Equal(has.leaf.DNSNames, s.names) && !now.Before(has.leaf.NotBefore) && now.Before(renewal(has.leaf)) {
		return renewal(has.leaf)
	}
	r, err := selfSigned(key, s.names, now)
	if err != nil {
		s.note(unitSelf, asRefusal(err))
		return now.Add(look)
	}
	s.state.certs[unitSelf] = r
	s.dirty = true
	s.met.order("issued")
	s.note(unitSelf, nil)
	s.cfg.Log.Warn("self-signed certificate made: for development only", "names", s.names, "notAfter", r.leaf.NotAfter)
	return renewal(r.leaf)
}

func selfSigned(key *tlsKey, names []string, now time.Time) (*record, error) {
	number := make([]byte, 16)
	if _, err := rand.Read(number); err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(number),
		Subject:      pkix.Name{Organization: []string{"self-signed"}, CommonName: "C8s development ingress: proves nothing"},
		NotBefore:    now.Add(-time.Minute), NotAfter: now.Add(selfSignedLife),
		DNSNames: names, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.private.PublicKey, key.private)
	if err != nil {
		return nil, fmt.Errorf("signing our own certificate: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("reading our own certificate: %w", err)
	}
	return newRecord(sourceSelf, key, leaf, [][]byte{der}), nil
}
