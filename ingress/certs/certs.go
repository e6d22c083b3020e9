// SPDX-License-Identifier: Apache-2.0

// Package certs holds the TLS key of an ingress and the certificates for it.
//
// Invariant: a private key is made in this process and leaves it only sealed to
// the TEE. No certificate is served unless it is for such a key, and names what
// was asked for. What is served stays served until something better is there: a
// CA that is down, lies or refuses changes nothing but the status.
package certs

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"log/slog"
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
	// one name in seven days; zero is 50 and 4. Let's Encrypt issues 5.
	OrdersPerWeek, CertificatesPerWeek int
}

// EAB is the credential for RFC 8555 section 7.3.4. It never prints.
type EAB struct {
	KeyID string
	Key   []byte
}

// CSR is a CA that somebody else talks to: they sign the request that is written
// to a file, and put the chain into another. One certificate has all names.
type CSR struct {
	Request string // path of the PKCS#10 request, PEM; written whenever key or names change
	Chain   string // path of the certificate and its issuers, PEM, leaf first; read whenever it changes
	Root    []byte // PEM: where the chain must end; empty takes any
}

// Store holds keys and certificates. It is safe for concurrent use.
type Store struct {
	cfg Config
}

// Open reads the sealed state, or starts afresh where there is none or it
// cannot be read; the unreadable file is put aside. It asks nobody for
// certificates: Run does.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	return nil, fmt.Errorf("opening the store of certificates: %w", errUnfinished)
}

var errUnfinished = errors.New("not in this build")

// ChallengeProtocol must be among the TLS configuration's NextProtos, last, for
// TLS-ALPN-01 to work. A connection that negotiates it carries nothing.
const ChallengeProtocol = "acme-tls/1"

// Keys returns the public keys of all TLS keys in use or about to be, the one
// that the next certificates will be for first.
func (s *Store) Keys() []*ecdsa.PublicKey { return nil }
