// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// The state in plain, as it is sealed. Keys are PKCS#8, certificates DER.
type (
	plainState struct {
		Keys     []plainKey              `json:"keys"`
		Accounts map[string]plainAccount `json:"accounts,omitempty"`
		Certs    map[string]plainRecord  `json:"certificates,omitempty"`
		Tries    map[string]*tries       `json:"tries,omitempty"`
	}
	plainKey struct {
		PKCS8 []byte    `json:"pkcs8"`
		Made  time.Time `json:"made"`
	}
	plainAccount struct {
		PKCS8 []byte `json:"pkcs8"`
		URI   string `json:"uri,omitempty"`
	}
	plainRecord struct {
		Source string   `json:"source"`
		Chain  [][]byte `json:"chain"`
	}
)

func (s *state) encode() ([]byte, error) {
	p := plainState{Accounts: map[string]plainAccount{}, Certs: map[string]plainRecord{}, Tries: s.tries}
	for _, k := range s.keys {
		der, err := x509.MarshalPKCS8PrivateKey(k.private)
		if err != nil {
			return nil, err
		}
		p.Keys = append(p.Keys, plainKey{PKCS8: der, Made: k.made})
	}
	for directory, a := range s.accounts {
		der, err := x509.MarshalPKCS8PrivateKey(a.private)
		if err != nil {
			return nil, err
		}
		p.Accounts[directory] = plainAccount{PKCS8: der, URI: a.uri}
	}
	for unit, r := range s.certs {
		p.Certs[unit] = plainRecord{Source: r.source, Chain: r.tls.Certificate}
	}
	return json.Marshal(p)
}

// parseState reads what encode wrote. Its errors repeat nothing of the input,
// which holds keys.
func parseState(plain []byte) (*state, error) {
	var p plainState
	d := json.NewDecoder(bytes.NewReader(plain))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil {
		return nil, errors.New("it is not the JSON of this version")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows its end")
	}
	if len(p.Keys) < 1 || len(p.Keys) > 2 {
		return nil, fmt.Errorf("%d TLS keys, expected one or two", len(p.Keys))
	}
	s := newState()
	for _, k := range p.Keys {
		private, err := parseKey(k.PKCS8)
		if err != nil {
			return nil, err
		}
		key, err := asTLSKey(private, k.Made)
		if err != nil {
			return nil, err
		}
		if len(s.keys) > 0 && s.keys[0].id == key.id {
			return nil, errors.New("a TLS key twice")
		}
		s.keys = append(s.keys, key)
	}
	return s, s.fill(p)
}

func (s *state) fill(p plainState) error {
	for directory, a := range p.Accounts {
		private, err := parseKey(a.PKCS8)
		if err != nil {
			return err
		}
		s.accounts[directory] = &account{private: private, uri: a.URI}
	}
	for unit, c := range p.Certs {
		r, err := s.read(c.Source, c.Chain)
		if err != nil {
			return fmt.Errorf("reading a kept certificate: %w", err)
		}
		s.certs[unit] = r
	}
	for unit, t := range p.Tries {
		if t == nil || t.Failures < 0 {
			return errors.New("tries that never were")
		}
		s.tries[unit] = t
	}
	return nil
}

func parseKey(pkcs8 []byte) (*ecdsa.PrivateKey, error) {
	parsed, err := x509.ParsePKCS8PrivateKey(pkcs8)
	key, ok := parsed.(*ecdsa.PrivateKey)
	if err != nil || !ok || key.Curve != elliptic.P256() {
		return nil, errors.New("a key that is not ECDSA P-256 in PKCS#8")
	}
	return key, nil
}
