// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"crypto/x509"
	"fmt"
	"strings"
	"time"
)

// States of a name.
const (
	StateValid       = "valid"
	StateExpired     = "expired"       // served nevertheless
	StateNotYetValid = "not-yet-valid" // served nevertheless: whose clock is right is not known here
	StateMissing     = "missing"       // handshakes are refused
)

// Status is the state of one name.
type Status struct {
	Name      string    `json:"name"`
	State     string    `json:"state"`
	Source    string    `json:"source"`             // of the certificate that is served, else of the next one: acme:<directory>, csr or self-signed
	Issuer    string    `json:"issuer,omitempty"`   // of the certificate that is served, as what follows
	Serial    string    `json:"serial,omitempty"`   // hexadecimal
	Key       string    `json:"key,omitempty"`      // SHA-256 of the SubjectPublicKeyInfo, hexadecimal
	NotBefore time.Time `json:"notBefore,omitzero"` //
	NotAfter  time.Time `json:"notAfter,omitzero"`  //
	Renewal   time.Time `json:"renewal,omitzero"`   // when the next one is asked for
	Orders    int       `json:"orders"`             // in the last seven days
	Problem   *Refusal  `json:"problem,omitempty"`  // of the last try, if it failed
	NextTry   time.Time `json:"nextTry,omitzero"`   // after a failure
}

// Status returns the state of every name, sorted by name.
func (s *Store) Status() []Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.cfg.Now()
	best := s.state.best(now, s.source)
	all := make([]Status, 0, len(s.names))
	for _, name := range s.names {
		st := Status{Name: name, State: StateMissing, Source: s.source}
		if r := pick(best, name); r != nil {
			st.describe(r, now)
		}
		for _, unit := range s.units(name) {
			if t := s.state.tries[unit]; t != nil {
				st.Orders += len(lately(t.Orders, now))
				if t.Problem != nil {
					st.Problem, st.NextTry = t.Problem, t.Next
				}
			}
		}
		if st.Problem == nil && s.unsaved != nil {
			st.Problem = s.unsaved
		}
		all = append(all, st)
	}
	return all
}

func (st *Status) describe(r *record, now time.Time) {
	switch {
	case now.After(r.leaf.NotAfter):
		st.State = StateExpired
	case now.Before(r.leaf.NotBefore):
		st.State = StateNotYetValid
	default:
		st.State = StateValid
	}
	st.Source, st.Issuer, st.Serial, st.Key = r.source, r.leaf.Issuer.String(), serial(r.leaf), r.key.hex()
	st.NotBefore, st.NotAfter, st.Renewal = r.leaf.NotBefore, r.leaf.NotAfter, renewal(r.leaf)
}

// String is one name for people, on as many lines as it takes.
func (st Status) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s, %s", st.Name, st.State, st.Source)
	if st.State != StateMissing {
		fmt.Fprintf(&b, ", until %s, renewed from %s, issued by %s", st.NotAfter.UTC().Format(time.RFC3339), st.Renewal.UTC().Format(time.RFC3339), st.Issuer)
	}
	if st.Problem != nil {
		b.WriteString("\n  " + st.Problem.Error())
		if !st.NextTry.IsZero() {
			b.WriteString("\n  next try " + st.NextTry.UTC().Format(time.RFC3339))
		}
	}
	return b.String()
}

// leafOf is the certificate that a name is answered with, nil if none. s.mu is held.
func (s *Store) leafOf(name string) *x509.Certificate {
	if c := s.served.Load().exactly(name); c != nil {
		return c.Leaf
	}
	return nil
}
