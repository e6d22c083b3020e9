// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/policy"
)

// SealingPurpose is what the TEE is asked a key for (attest.Sealer).
const SealingPurpose = "ingress-certs"

// Config is what a store is given. Exactly one of ACME, CSR and SelfSigned says
// where certificates come from.
type Config struct {
	TrustDomain string   // of the mesh; state of another one is refused
	Names       []string // lower-case DNS names; "*.example.com" only by CSR
	Default     string   // the name for clients that send none; empty refuses them

	ACME       *ACME
	CSR        *CSR
	SelfSigned bool // for development: proves nothing to anybody

	Path   string        // of the sealed state
	Sealer attest.Sealer // nil, or one without keys: nothing is kept over a restart

	// Allowed is asked before each order: the operators' manifest decides which
	// hosts this ingress has. Required with ACME.
	Allowed func(host string) policy.Decision

	// KeyPeriod is how long a TLS key is used before the next is made: zero is
	// 90 days, negative keeps the key for good.
	KeyPeriod time.Duration

	Now     func() time.Time
	Metrics prometheus.Registerer // nil: none
	Log     *slog.Logger
}

// Challenge types that a CA may be asked for.
const (
	TLSALPN01 = "tls-alpn-01" // RFC 8737: on port 443, answered by GetCertificate
	HTTP01    = "http-01"     // RFC 8555 section 8.3: on port 80, answered by HTTPHandler
)

// Directories of Let's Encrypt.
const (
	LetsEncrypt        = "https://acme-v02.api.letsencrypt.org/directory"
	LetsEncryptStaging = "https://acme-staging-v02.api.letsencrypt.org/directory"
)

// ACME is a CA that speaks RFC 8555. There is one certificate for each name.
type ACME struct {
	Directory  string   // URL, https
	Roots      []byte   // PEM: CAs for the connection to it, beside the system's; may be empty
	Contact    []string // of the account: "mailto:ops@example.com"; may be empty
	EAB        *EAB     // external account binding, where the CA wants one
	Challenges []string // tried in this order; empty is TLSALPN01, then HTTP01
	Profile    string   // of the certificate, as the CA calls it; may be empty

	// OrdersPerWeek and CertificatesPerWeek bound what is asked of the CA for
	// one name in seven days; zero is 50 and 4. Let's Encrypt issues 5. Where
	// certificates live so shortly that renewals alone need more, they may.
	OrdersPerWeek, CertificatesPerWeek int
}

// EAB is the credential for RFC 8555 section 7.3.4. It never prints its key.
type EAB struct {
	KeyID string
	Key   []byte
}

func (e EAB) String() string   { return "external account " + shown(e.KeyID) }
func (e EAB) GoString() string { return e.String() }

// CSR is a CA that somebody else talks to: they sign the request that is written
// to a file, and put the chain into another. One certificate has all names.
type CSR struct {
	Request string // path of the PKCS#10 request, PEM; written whenever key or names change
	Chain   string // path of the certificate and its issuers, PEM, leaf first; read whenever it changes
	Root    []byte // PEM: where the chain must end; empty takes any
}

const (
	defaultKeyPeriod = 90 * 24 * time.Hour
	defaultOrders    = 50
	defaultIssued    = 4
	maxNames         = 1000
)

// complete checks the configuration and fills in what was left to us.
func (c Config) complete() (Config, error) {
	if c.TrustDomain == "" || c.Now == nil || c.Log == nil {
		return c, errors.New("the configuration lacks the trust domain, the clock or the log")
	}
	sources := 0
	for _, has := range []bool{c.ACME != nil, c.CSR != nil, c.SelfSigned} {
		if has {
			sources++
		}
	}
	if sources != 1 {
		return c, fmt.Errorf("%d sources of certificates, expected one of ACME, CSR and self-signed", sources)
	}
	if c.KeyPeriod == 0 {
		c.KeyPeriod = defaultKeyPeriod
	}
	var err error
	if c.ACME != nil {
		if c.Allowed == nil {
			return c, errors.New("nobody decides which hosts this ingress has")
		}
		if c.ACME, err = c.ACME.complete(); err != nil {
			return c, err
		}
	}
	if c.CSR != nil {
		if c.CSR.Request == "" || c.CSR.Chain == "" || c.CSR.Request == c.CSR.Chain {
			return c, errors.New("the certificate request and the chain need a file each")
		}
		if _, err := pool(c.CSR.Root); err != nil {
			return c, fmt.Errorf("reading the root for signed requests: %w", err)
		}
	}
	c.Names, err = c.checkNames(c.Names)
	return c, err
}

func (a ACME) complete() (*ACME, error) {
	u, err := url.Parse(a.Directory)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("the ACME directory is %s, expected an https URL", shown(a.Directory))
	}
	if len(a.Challenges) == 0 {
		a.Challenges = []string{TLSALPN01, HTTP01}
	}
	for _, c := range a.Challenges {
		if c != TLSALPN01 && c != HTTP01 {
			return nil, fmt.Errorf("challenge %s, expected %s or %s", shown(c), TLSALPN01, HTTP01)
		}
	}
	if a.EAB != nil && (a.EAB.KeyID == "" || len(a.EAB.Key) == 0) {
		return nil, errors.New("the external account lacks its key id or its key")
	}
	if a.OrdersPerWeek <= 0 {
		a.OrdersPerWeek = defaultOrders
	}
	if a.CertificatesPerWeek <= 0 {
		a.CertificatesPerWeek = defaultIssued
	}
	return &a, nil
}

// source is written beside each certificate: one of another source is replaced,
// so a change from a staging directory to production takes effect at once.
func (c Config) source() string {
	switch {
	case c.ACME != nil:
		return "acme:" + c.ACME.Directory
	case c.CSR != nil:
		return sourceCSR
	}
	return sourceSelf
}

const (
	sourceCSR  = "csr"
	sourceSelf = "self-signed"
)

// checkNames returns the names sorted, each once.
func (c Config) checkNames(names []string) ([]string, error) {
	names = slices.Clone(names)
	slices.Sort(names)
	names = slices.Compact(names)
	if len(names) > maxNames {
		return nil, fmt.Errorf("%d names, at most %d", len(names), maxNames)
	}
	for _, n := range names {
		if err := checkName(n); err != nil {
			return nil, err
		}
	}
	return names, nil
}

// checkName wants a lower-case DNS name (RFC 1123 section 2.1), or one below a
// wildcard label.
func checkName(name string) error {
	rest := strings.TrimPrefix(name, "*.")
	bad := len(name) > 253 || rest == ""
	for label := range strings.SplitSeq(rest, ".") {
		bad = bad || label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' ||
			strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-") != ""
	}
	last := rest[strings.LastIndexByte(rest, '.')+1:]
	if bad || strings.Trim(last, "0123456789") == "" { // all digits: an address
		return fmt.Errorf("name %s, expected a lower-case DNS name", shown(name))
	}
	return nil
}

func wildcard(name string) bool { return strings.HasPrefix(name, "*.") }
