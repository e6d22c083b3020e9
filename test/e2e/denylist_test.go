// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"crypto/x509"
	"errors"
	"io"
	"net"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/agent"
	"github.com/c8s-dev/c8s/attest/ratls"
	"github.com/c8s-dev/c8s/datapath/flow"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/test/cluster"
)

// cutWithin is when the test gives up on a denial. What matters is logged: the
// promise is two seconds.
const cutWithin = 10 * time.Second

func TestOperatorsWord(t *testing.T) {
	s := newSite(t)
	t.Run("denied", s.denied)
	t.Run("time-locked", s.timeLocked)
}

func (s *site) denied(t *testing.T) {
	for _, tt := range []struct {
		kind  policy.DenyKind
		value func(policy.Holder) string
		code  string
		// lasting is what a new certificate does not change: the pod stays locked
		// until the denial is lifted.
		lasting bool
	}{
		{policy.DenyWorkload, func(h policy.Holder) string { return h.Workload }, "denied-workload", true},
		{policy.DenyMachine, func(h policy.Holder) string { return h.Machine }, "denied-machine", true},
		{policy.DenySerial, func(h policy.Holder) string { return h.Serial }, "denied-serial", false},
		{policy.DenyKey, func(h policy.Holder) string { return string(h.Key) }, "denied-key", false},
	} {
		t.Run(string(tt.kind), func(t *testing.T) {
			holder := s.holder(t, s.server)
			conn, err := greeted(t.Context(), s.client, s.to)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			ended := endOf(t, conn)
			if err := s.Deny(t.Context(), policy.Denial{Kind: tt.kind, Value: tt.value(holder), Reason: "e2e"}); err != nil {
				t.Fatal(err)
			}
			published := time.Now()
			select {
			case err := <-ended:
				t.Logf("the connection ends %s after the publication was acknowledged: %v", since(published), err)
				if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
					t.Errorf("the application saw %v, want a reset", err)
				}
			case <-time.After(cutWithin):
				t.Fatalf("the connection lives %s after the publication was acknowledged", cutWithin)
			}
			s.mustBeRecorded(t, tt.code)
			if tt.lasting {
				s.mustStayDenied(t, tt.code)
			} else {
				s.mustHaveAnother(t, holder)
			}
			if err := s.Deny(t.Context()); err != nil {
				t.Fatal(err)
			}
			lifted := time.Now()
			if err := s.server.WaitState(t.Context(), agent.StateOpen, ""); err != nil {
				t.Fatal(err)
			}
			s.mustTalkAgain(t)
			t.Logf("they talk again %s after the denial was lifted", since(lifted))
		})
	}
}

// holder is what the pod's certificate says.
func (s *site) holder(t *testing.T, p *cluster.Pod) policy.Holder {
	t.Helper()
	chain, err := p.Certificate(timeout(t, exchangeTimeout))
	if err != nil {
		t.Fatal(err)
	}
	log, err := s.Log(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	root, err := log.Bundle().RootCertificate()
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(root)
	peer, err := ratls.VerifyPeer(chain, roots, cluster.TrustDomain, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return peer.Holder()
}

// endOf says how the connection ended, once it has.
func endOf(t *testing.T, conn net.Conn) <-chan error {
	t.Helper()
	if err := conn.SetDeadline(time.Now().Add(2 * cutWithin)); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := io.ReadFull(conn, make([]byte, 1))
		ended <- err
	}()
	return ended
}

// mustBeRecorded checks that a node says why the connection was closed.
func (s *site) mustBeRecorded(t *testing.T, code string) {
	t.Helper()
	var seen []flow.Record
	for deadline := time.Now().Add(cutWithin); ; time.Sleep(10 * time.Millisecond) {
		seen = nil
		for _, n := range s.Nodes {
			flows, err := n.Flows(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range flows {
				if r.Verdict == flow.Closed && r.Dst == s.to {
					seen = append(seen, r)
				}
			}
		}
		if slices.ContainsFunc(seen, func(r flow.Record) bool { return r.Reason == code }) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("no record of the end says %s: %+v", code, seen)
		}
	}
}

func (s *site) mustStayDenied(t *testing.T, code string) {
	t.Helper()
	if err := s.server.WaitState(t.Context(), agent.StateLocked, code); err != nil {
		t.Error(err)
	}
	mustBeRefused(t, s.client, s.to)
}

// mustHaveAnother checks that the pod got another certificate by itself.
func (s *site) mustHaveAnother(t *testing.T, denied policy.Holder) {
	t.Helper()
	s.mustTalkAgain(t)
	if now := s.holder(t, s.server); now.Serial == denied.Serial || now.Key == denied.Key {
		t.Errorf("the pod talks again with the certificate that is denied: %+v", now)
	}
}

// mustTalkAgain waits for the nodes to allow a connection: each hears the news
// for itself.
func (s *site) mustTalkAgain(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(cutWithin); ; time.Sleep(20 * time.Millisecond) {
		conn, err := greeted(t.Context(), s.client, s.to)
		if err == nil {
			conn.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// A manifest with a time lock is accepted now and comes into force by itself.
func (s *site) timeLocked(t *testing.T) {
	const wait = 3 * time.Second
	at := time.Now().Add(wait).Truncate(time.Second).UTC()
	done, err := s.Offer(t.Context(), func(m *policy.Manifest) {
		m.NotBefore = at.Format(time.RFC3339)
		m.Workloads[1].Peers.From = nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if done.InForce || !done.NotBefore.Equal(at) {
		t.Fatalf("published: %+v, want it to wait for %s", done, at)
	}
	for _, n := range s.Nodes {
		status, err := n.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if status.Manifest.Version >= done.Version && time.Now().Before(at) {
			t.Errorf("%s has manifest %d before %s", n.Lab.Name, status.Manifest.Version, at)
		}
	}
	if err := s.WaitManifest(t.Context(), done.Version); err != nil {
		t.Fatal(err)
	}
	if now := time.Now(); now.Before(at) {
		t.Errorf("it is in force at %s, which is before %s", now, at)
	} else {
		t.Logf("it is in force on the nodes %s after its time", now.Sub(at).Round(time.Millisecond))
	}
	mustBeRefused(t, s.client, s.to)
}
