// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"bytes"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	maxChain    = 10
	maxChainPEM = 256 << 10
	// skew is how far a CA's clock may be ahead of ours.
	skew = time.Hour
)

// wanted is what a chain must be.
type wanted struct {
	state *state         // whose keys
	names []string       // all of them
	only  bool           // and no other
	root  *x509.CertPool // nil: any
	now   time.Time
}

// check reads a chain and refuses what is not wanted. Nothing of it is trusted
// until every check has passed.
func (w wanted) check(chain [][]byte) (*x509.Certificate, *tlsKey, error) {
	parsed, err := parseChain(chain)
	if err != nil {
		return nil, nil, err
	}
	leaf := parsed[0]
	key := w.state.keyOf(leaf)
	for _, check := range []func() error{
		func() error { return w.checkKey(key) },
		func() error { return w.checkNames(leaf) },
		func() error { return w.checkDates(leaf) },
		func() error { return checkUsage(leaf) },
		func() error { return checkOrder(parsed) },
		func() error { return w.checkRoot(parsed) },
	} {
		if err := check(); err != nil {
			return nil, nil, err
		}
	}
	return leaf, key, nil
}

func parseChain(chain [][]byte) ([]*x509.Certificate, error) {
	unreadable := func(actual string) error {
		return &Refusal{
			Code: CodeUnreadable, Rule: "the certificate and its issuers, leaf first",
			Expected: fmt.Sprintf("1 to %d X.509 certificates", maxChain), Actual: actual,
		}
	}
	if len(chain) == 0 || len(chain) > maxChain {
		return nil, unreadable(fmt.Sprintf("%d", len(chain)))
	}
	var parsed []*x509.Certificate
	for i, der := range chain {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, unreadable(fmt.Sprintf("%d bytes at place %d: %s", len(der), i, shown(err.Error())))
		}
		parsed = append(parsed, c)
	}
	return parsed, nil
}

func (w wanted) checkKey(key *tlsKey) error {
	if key != nil {
		return nil
	}
	return &Refusal{
		Code: CodeForeignKey, Rule: "certificate for a key outside the TEE", Expected: "a certificate for key " + w.state.keys[0].hex(),
		Actual: "one for another key", Remedy: "have the current request of this ingress signed; a certificate made elsewhere cannot be used here",
	}
}

func (w wanted) checkNames(leaf *x509.Certificate) error {
	remedy := "have the current request signed with all its names"
	if w.only {
		remedy = "the CA does not do what it was asked: report it there"
	}
	bad := func(actual string) error {
		return &Refusal{Code: CodeNames, Rule: "names of the certificate", Expected: strings.Join(w.names, ", "), Actual: actual, Remedy: remedy}
	}
	for _, name := range w.names {
		if !slices.Contains(leaf.DNSNames, name) && (wildcard(name) || !slices.Contains(leaf.DNSNames, "*"+parent(name))) {
			return bad("none for " + name + " among " + shown(strings.Join(leaf.DNSNames, ", ")))
		}
	}
	if others := len(leaf.IPAddresses) + len(leaf.EmailAddresses) + len(leaf.URIs); w.only &&
		(others > 0 || len(leaf.DNSNames) != len(w.names)) {
		return bad("other names, too: " + shown(strings.Join(leaf.DNSNames, ", ")))
	}
	return nil
}

func (w wanted) checkDates(leaf *x509.Certificate) error {
	if !leaf.NotBefore.After(w.now.Add(skew)) && leaf.NotAfter.After(w.now) {
		return nil
	}
	return &Refusal{
		Code: CodeDates, Rule: "dates of the certificate", Expected: "valid at " + w.now.UTC().Format(time.RFC3339),
		Actual: "valid from " + leaf.NotBefore.Format(time.RFC3339) + " until " + leaf.NotAfter.Format(time.RFC3339),
		Remedy: "check this machine's clock first, then the CA",
	}
}

func checkUsage(leaf *x509.Certificate) error {
	actual := ""
	switch {
	case leaf.IsCA:
		actual = "a CA"
	case leaf.KeyUsage != 0 && leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		actual = "one whose key may not sign"
	case len(leaf.ExtKeyUsage)+len(leaf.UnknownExtKeyUsage) > 0 && !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageServerAuth) &&
		!slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageAny):
		actual = "one for other uses"
	default:
		return nil
	}
	return &Refusal{Code: CodeUsage, Rule: "use of the certificate", Expected: "a TLS server's", Actual: actual, Remedy: "correct the CA's profile"}
}

func checkOrder(chain []*x509.Certificate) error {
	for i, c := range chain[:len(chain)-1] {
		if err := c.CheckSignatureFrom(chain[i+1]); err != nil {
			return &Refusal{
				Code: CodeChain, Rule: "order of the chain", Expected: fmt.Sprintf("certificate %d signed by certificate %d", i, i+1),
				Actual: shown(err.Error()), Remedy: "put the leaf first, then each issuer after what it signed",
			}
		}
	}
	return nil
}

func (w wanted) checkRoot(chain []*x509.Certificate) error {
	if w.root == nil {
		return nil
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	at := w.now
	if at.Before(chain[0].NotBefore) { // within the skew, as checked before
		at = chain[0].NotBefore
	}
	_, err := chain[0].Verify(x509.VerifyOptions{Roots: w.root, Intermediates: between, CurrentTime: at})
	if err == nil {
		return nil
	}
	return &Refusal{
		Code: CodeRoot, Rule: "root of the chain", Expected: "a chain to the pinned root", Actual: shown(err.Error()),
		Remedy: "sign with the CA below that root, or put the missing issuers into the file",
	}
}

// readPEM returns the certificates of a file. It takes nothing else between
// them, a private key least of all, and repeats nothing of the input.
func readPEM(raw []byte) (chain [][]byte, err error) {
	unreadable := func(actual, remedy string) error {
		return &Refusal{Code: CodeUnreadable, Rule: "form of the chain", Expected: "PEM blocks CERTIFICATE", Actual: actual, Remedy: remedy}
	}
	if len(raw) > maxChainPEM {
		return nil, unreadable(fmt.Sprintf("more than %d bytes", maxChainPEM), "")
	}
	for rest := bytes.TrimSpace(raw); len(rest) > 0; rest = bytes.TrimSpace(rest) {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return nil, unreadable("something else", "")
		}
		if strings.Contains(block.Type, "PRIVATE KEY") {
			return nil, unreadable("a private key", "a key that was in a file is not the TEE's: have the request signed instead")
		}
		if block.Type != "CERTIFICATE" {
			return nil, unreadable("a block of another type", "")
		}
		chain = append(chain, block.Bytes)
	}
	if len(chain) == 0 {
		return nil, unreadable("an empty file", "")
	}
	return chain, nil
}

// pool reads certificates into a pool; nil for none.
func pool(pemBytes []byte) (*x509.CertPool, error) {
	if len(pemBytes) == 0 {
		return nil, nil
	}
	p := x509.NewCertPool()
	if !p.AppendCertsFromPEM(pemBytes) {
		return nil, errors.New("no certificate in PEM")
	}
	return p, nil
}

func serial(c *x509.Certificate) string { return hex.EncodeToString(c.SerialNumber.Bytes()) }
