// SPDX-License-Identifier: Apache-2.0

package page

import (
	"slices"
	"strings"
	"time"
)

// Schema names the form of status.json.
const Schema = "c8s.dev/ingress-status/v1"

// State says what a client that checks would find, as far as the ingress itself
// can tell.
type State string

// The states.
const (
	Fresh   State = "fresh"   // the proof is young enough and covers the connection's key
	Stale   State = "stale"   // there was one, and checking clients no longer accept it
	Missing State = "missing" // there is none for the key of this connection
)

// Facts is what the ingress knows of itself at one moment.
type Facts struct {
	Host        string    `json:"host"` // that the visitor asked for
	At          time.Time `json:"at"`   // when these facts were true
	TrustDomain string    `json:"trustDomain"`
	Ingress     Ingress   `json:"ingress"`
	TLSKey      string    `json:"tlsKey,omitempty"` // SHA-256 of the SubjectPublicKeyInfo of this connection's key, hexadecimal
	Proof       *Proof    `json:"proof,omitempty"`  // for that key; nil: none
	Operators   Operators `json:"operators"`
	Manifest    Document  `json:"manifest"`
	DenyList    *Document `json:"denyList,omitempty"` // nil: there never was one
	CDS         CDS       `json:"cds"`
	Rule        string    `json:"rule,omitempty"` // of the manifest for this host; empty: none
	Backends    []Backend `json:"backends"`       // pods of these may answer for the host, and no others
}

// Ingress is the machine that answers.
type Ingress struct {
	ID          string `json:"id,omitempty"` // SPIFFE ID; empty: the CDS has not certified it
	Software    string `json:"software"`
	TEE         string `json:"tee,omitempty"`         // "sev-snp", "tdx", …
	Measurement string `json:"measurement,omitempty"` // of what was booted, hexadecimal
	Simulated   bool   `json:"simulated"`
	// Certificate is that of the CDS for this machine; nil without one.
	Certificate *Certificate `json:"certificate,omitempty"`
}

// Certificate is one that the CDS issued.
type Certificate struct {
	Digest    string    `json:"digest"`
	NotBefore time.Time `json:"notBefore"`
	NotAfter  time.Time `json:"notAfter"`
	LogIndex  *uint64   `json:"logIndex,omitempty"` // of its entry in the CDS's log; nil: not known
}

// Proof is the attestation document that the ingress shows.
type Proof struct {
	Beacon time.Time     `json:"beacon"` // the hardware report is younger than this
	MaxAge time.Duration `json:"-"`      // that checking clients accept by default
	Until  time.Time     `json:"until"`  // Beacon and MaxAge
}

// Operators are who is trusted to say what may run.
type Operators struct {
	Threshold int        `json:"threshold"` // how many must sign
	Keys      []Operator `json:"keys"`
}

// Operator is one of them.
type Operator struct {
	Name string `json:"name"`
	Key  string `json:"key"` // digest of the public key
}

// Document is one that the operators signed.
type Document struct {
	Version uint64 `json:"version"`
	Digest  string `json:"digest"`
}

// CDS is the service that certifies machines.
type CDS struct {
	Keys      string `json:"keys,omitempty"` // digest of the bundle of the keys it signs with
	Reachable bool   `json:"reachable"`
}

// Backend is a workload that the manifest lists for the host.
type Backend struct {
	Workload string   `json:"workload"`
	Mode     string   `json:"mode"` // "http" or "tcp"
	Ports    []uint16 `json:"ports"`
}

// State judges the proof at the moment of the facts. A clock that went back
// makes it stale: what comes from the future shows no age.
func (f *Facts) State() State {
	switch {
	case f.Proof == nil:
		return Missing
	case f.At.Before(f.Proof.Beacon.Add(-clockSkew)) || f.At.Sub(f.Proof.Beacon) > f.Proof.MaxAge:
		return Stale
	}
	return Fresh
}

// clockSkew is how far the clock of the CDS may be ahead.
const clockSkew = 5 * time.Second

// settle fills in what follows from the rest.
func (f *Facts) settle() {
	if f.Proof != nil {
		proof := *f.Proof
		proof.Until = proof.Beacon.Add(proof.MaxAge)
		f.Proof = &proof
	}
	if f.Backends == nil {
		f.Backends = []Backend{}
	}
	if f.Operators.Keys == nil {
		f.Operators.Keys = []Operator{}
	}
	f.Backends = slices.Clone(f.Backends)
	slices.SortStableFunc(f.Backends, func(a, b Backend) int { return strings.Compare(a.Workload, b.Workload) })
}
