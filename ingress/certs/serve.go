// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"context"
	"crypto/tls"
	"net/http"
	"time"
)

// Run gets certificates and renews them until ctx ends.
func (s *Store) Run(ctx context.Context) error { return errUnfinished }

// SetNames replaces the names; those already served stay served. The first call
// with other names than before wakes Run.
func (s *Store) SetNames(names []string) error { return errUnfinished }

// GetCertificate is for tls.Config.
func (s *Store) GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	return nil, errUnfinished
}

// HTTPHandler answers HTTP-01 challenges of this store and leaves the rest to next.
func (s *Store) HTTPHandler(next http.Handler) http.Handler { return next }

// Changed returns a channel that is closed at the next change of keys or served
// certificates. Ask before reading them.
func (s *Store) Changed() <-chan struct{} { return nil }

// Status is the state of one name.
type Status struct {
	Name      string    `json:"name"`
	State     string    `json:"state"`              // valid, expired, not-yet-valid or missing
	Source    string    `json:"source"`             // acme, csr or self-signed
	Issuer    string    `json:"issuer,omitempty"`   // of the certificate that is served
	Serial    string    `json:"serial,omitempty"`   // hexadecimal
	Key       string    `json:"key,omitempty"`      // SHA-256 of the SubjectPublicKeyInfo, hexadecimal
	NotBefore time.Time `json:"notBefore,omitzero"` // of the certificate
	NotAfter  time.Time `json:"notAfter,omitzero"`
	Renewal   time.Time `json:"renewal,omitzero"`  // when the next one is asked for
	Orders    int       `json:"orders"`            // in the last seven days
	Problem   *Refusal  `json:"problem,omitempty"` // of the last try, if it failed
	NextTry   time.Time `json:"nextTry,omitzero"`
}

// Status returns the state of every name, in the order of the configuration.
func (s *Store) Status() []Status { return nil }
