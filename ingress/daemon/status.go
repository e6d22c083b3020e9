// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"errors"
	"fmt"
	"time"

	"github.com/c8s-dev/c8s/ingress/attester"
	"github.com/c8s-dev/c8s/ingress/certs"
	"github.com/c8s-dev/c8s/policy"
)

// Status is what `c8s ingress status` shows.
type Status struct {
	Name         string          `json:"name"`
	Version      string          `json:"version"`
	ID           string          `json:"id,omitempty"` // SPIFFE ID; empty: not certified
	NotAfter     time.Time       `json:"notAfter,omitzero"`
	Simulated    bool            `json:"simulated"`
	NotReady     string          `json:"notReady,omitempty"`  // why no traffic should come here
	Enrolment    string          `json:"enrolment,omitempty"` // why the last one failed
	Draining     bool            `json:"draining,omitempty"`
	TrustDomain  string          `json:"trustDomain"`
	Manifest     Document        `json:"manifest"`
	DenyList     *Document       `json:"denyList,omitempty"`
	Proof        attester.Status `json:"proof"`
	Certificates []certs.Status  `json:"certificates"`
	Hosts        []string        `json:"hosts"` // of the routes
	Places       Places          `json:"places"`
}

// Document names one that the operators signed.
type Document struct {
	Version uint64        `json:"version"`
	Digest  policy.Digest `json:"digest"`
}

// Places says what is known about where pods are.
type Places struct {
	Static    int        `json:"static"` // prefixes of the routes file
	Nodes     int        `json:"nodes"`
	Pods      int        `json:"pods"`
	Services  int        `json:"services"`
	Endpoints int        `json:"endpoints"`
	Ignored   int        `json:"ignored"`
	Connected *bool      `json:"connected,omitempty"` // to the API server; absent without one
	Since     *time.Time `json:"since,omitempty"`
}

// Status is a snapshot of the whole ingress.
func (d *Daemon) Status() Status {
	signed := d.identity.Manifest()
	s := Status{
		Name: d.cfg.Name, Version: d.cfg.Version, Draining: d.draining.Load(), TrustDomain: signed.Manifest.TrustDomain,
		Manifest: Document{signed.Manifest.Version, signed.Digest}, Proof: d.proofs.Status(), Certificates: d.certs.Status(), Hosts: []string{},
	}
	if list := d.cfg.CDS.DenyList(); list != nil {
		s.DenyList = &Document{list.List.Version, list.Digest}
	}
	if cred := d.identity.Enrolled(); cred != nil {
		s.ID, s.NotAfter, s.Simulated = cred.Peer.ID.String(), cred.TLS.Leaf.NotAfter, cred.Peer.Claims.Simulated
	}
	if err := d.Ready(); err != nil {
		s.NotReady = err.Error()
	}
	if err := d.identity.Err(); err != nil {
		s.Enrolment = err.Error()
	}
	if t := d.routes.Load(); t != nil {
		s.Hosts = t.Hosts()
	}
	r := d.cfg.Table.Report()
	s.Places = Places{Static: d.cfg.Table.Static(), Nodes: r.Nodes, Pods: r.Pods, Services: r.Services, Endpoints: r.Endpoints, Ignored: r.Ignored}
	if d.cfg.Cluster != nil {
		connected, since := d.cfg.Cluster.Contact()
		s.Places.Connected = &connected
		if !since.IsZero() {
			s.Places.Since = &since
		}
	}
	return s
}

// Ready says why no traffic should come here, or nil: an ingress is ready with
// a credential, routes, a certificate for at least one host, and a proof for
// every TLS key. A CDS that is away makes no ingress unready again: plain clients
// are served as before, and those that check see the age of the proof.
func (d *Daemon) Ready() error {
	if d.draining.Load() {
		return errors.New("the ingress is draining")
	}
	if err := d.identity.Ready(); err != nil {
		return err
	}
	if d.routes.Load() == nil {
		return errors.New("the ingress has no routes yet")
	}
	proofs := d.proofs.Status()
	if want, have := len(d.certs.Keys()), len(proofs.Proofs); have < want {
		if proofs.Error != "" {
			return fmt.Errorf("%d of %d TLS keys are proven: %s", have, want, proofs.Code)
		}
		return fmt.Errorf("%d of %d TLS keys are proven", have, want)
	}
	all := d.certs.Status()
	for _, c := range all {
		if !c.NotAfter.IsZero() {
			return nil
		}
	}
	if len(all) == 0 {
		return errors.New("no host is both in the routes and in the manifest")
	}
	return fmt.Errorf("no certificate yet for any of %d hosts", len(all))
}
