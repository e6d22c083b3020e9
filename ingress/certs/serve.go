// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"crypto/tls"
	"maps"
	"slices"
	"strings"

	"golang.org/x/crypto/acme"
)

// ChallengeProtocol must be among the TLS configuration's NextProtos, last, for
// TLS-ALPN-01 to work. A connection that negotiates it carries nothing: close it.
const ChallengeProtocol = acme.ALPNProto

// served is what handshakes are answered from: made anew at each change, never
// changed. A wildcard is kept as ".example.com".
type served struct {
	certs    map[string]*tls.Certificate
	known    map[string]bool
	fallback string
}

// publish puts what is to be served in place, and tells those who wait for a
// change of it or of the keys. s.mu is held.
func (s *Store) publish() {
	next := &served{certs: map[string]*tls.Certificate{}, known: map[string]bool{}, fallback: s.cfg.Default}
	best := s.state.best(s.cfg.Now(), s.source)
	for _, name := range s.names {
		key := strings.TrimPrefix(name, "*")
		next.known[key] = true
		if r := pick(best, name); r != nil {
			next.certs[key] = r.tls
		}
	}
	before := s.served.Swap(next)
	ids := make([][32]byte, 0, 2)
	for _, k := range s.state.keys {
		ids = append(ids, k.id)
	}
	if before != nil && maps.Equal(before.certs, next.certs) && slices.Equal(s.shown, ids) {
		return
	}
	s.shown = ids
	close(s.changed)
	s.changed = make(chan struct{})
}

// parent is the name above, with the dot before it: ".example.com".
func parent(name string) string {
	if i := strings.IndexByte(name, '.'); i > 0 {
		return name[i:]
	}
	return ""
}

func (in *served) exactly(name string) *tls.Certificate {
	return in.certs[strings.TrimPrefix(name, "*")]
}

// GetCertificate is for tls.Config: by server name, or what a CA wants to see.
func (s *Store) GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	name := strings.ToLower(hello.ServerName)
	if len(hello.SupportedProtos) == 1 && hello.SupportedProtos[0] == ChallengeProtocol {
		if c := s.challenges.certificate(name); c != nil {
			return c, nil
		}
		return nil, &Refusal{
			Code: CodeNoName, Rule: "challenges of " + TLSALPN01, Expected: "a name that a certificate is being asked for", Actual: shown(name),
		}
	}
	in := s.served.Load()
	if name == "" {
		if name = in.fallback; name == "" {
			return nil, &Refusal{
				Code: CodeNoName, Rule: "server name", Expected: "one of this ingress's names in the ClientHello", Actual: "none",
				Remedy: "use a client that sends the name (SNI), or configure a default name",
			}
		}
	}
	if c := in.find(name); c != nil {
		return c, nil
	}
	return nil, in.refusal(name)
}

// find prefers the name's own certificate to a wildcard's, which stands for one
// label that is not empty and no asterisk.
func (in *served) find(name string) *tls.Certificate {
	if name[0] == '.' || name[0] == '*' {
		return nil
	}
	if c := in.certs[name]; c != nil || in.known[name] {
		return c
	}
	return in.certs[parent(name)]
}

func (in *served) refusal(name string) *Refusal {
	r := &Refusal{Code: CodeNoName, Rule: "server name", Expected: "a name of this ingress", Actual: shown(name)}
	if in.known[name] || in.known[parent(name)] {
		r.Rule, r.Expected, r.Actual = "a certificate for each name", "one for "+shown(name), "none yet"
		r.Remedy = "the status of certificates says why"
	}
	return r
}
