// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/ratls"
	"github.com/c8s-dev/c8s/cds/api"
	"github.com/c8s-dev/c8s/policy"
)

// Node is a machine with its certificate.
type Node struct {
	Issued
	machine  int
	evidence [sha256.Size]byte // of which the certificate speaks
	tls      tls.Certificate
}

// Issued is a certificate as it came, and the key it was asked for.
type Issued struct {
	Response *api.EnrolResponse
	Key      *ecdsa.PrivateKey
}

// Session is one TLS connection to the service.
type Session struct {
	f         *Fleet
	conn      *tls.Conn
	transport *http.Transport
	calls     api.AttestationClient
	policy    api.PolicyClient
	node      *Node
	places    chan struct{} // taken by calls; more than the service takes at once wait
}

// maxAtOnce is what the product's client has, and for the same reason.
const maxAtOnce = 64

const baseURL = "https://cds"

// Dial opens a connection, with mutual TLS where node is not nil. It takes
// whoever answers for the service.
func (f *Fleet) Dial(ctx context.Context, addr string, node *Node) (*Session, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	var d net.Dialer
	raw, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	cfg := ratls.ClientConfig(func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		if node == nil {
			return &tls.Certificate{}, nil
		}
		return &node.tls, nil
	}, func(tls.ConnectionState) error { return nil })
	cfg.NextProtos = []string{"h2"}
	conn := tls.Client(raw, cfg)
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, fmt.Errorf("connecting to %s: %w", addr, err)
	}
	var used atomic.Bool
	s := &Session{f: f, conn: conn, node: node, places: make(chan struct{}, maxAtOnce), transport: &http.Transport{
		ForceAttemptHTTP2: true,
		DialTLSContext: func(context.Context, string, string) (net.Conn, error) {
			if used.Swap(true) {
				return nil, errors.New("the connection is gone")
			}
			return conn, nil
		},
	}}
	h := &http.Client{Transport: s.transport}
	s.calls, s.policy = api.NewAttestationClient(h, baseURL), api.NewPolicyClient(h, baseURL)
	return s, nil
}

// Close ends the connection.
func (s *Session) Close() {
	s.transport.CloseIdleConnections()
	s.conn.Close()
}

// challenge returns a nonce and what binds the answer to it.
func (s *Session) challenge(ctx context.Context) (nonce, exporter []byte, err error) {
	resp, err := s.calls.Challenge(ctx, &api.ChallengeRequest{})
	if err != nil {
		return nil, nil, fmt.Errorf("asking for a challenge: %w", err)
	}
	cs := s.conn.ConnectionState()
	exporter, err = api.Exporter(&cs, resp.GetNonce())
	return resp.GetNonce(), exporter, err
}

// EnrolNode enrols a machine, counted from 0.
func (s *Session) EnrolNode(ctx context.Context, machine int) (*Node, error) {
	return s.attest(ctx, machine, s.calls.Enrol)
}

// Renew renews the certificate that the session was opened with: for a node
// that is the whole attestation again.
func (s *Session) Renew(ctx context.Context) (*Node, error) {
	return s.attest(ctx, s.node.machine, s.calls.Renew)
}

func (s *Session) attest(ctx context.Context, machine int, call func(context.Context, *api.EnrolRequest) (*api.EnrolResponse, error)) (*Node, error) {
	id := s.f.identity()
	s.places <- struct{}{}
	defer func() { <-s.places }()
	nonce, exporter, err := s.challenge(ctx)
	if err != nil {
		return nil, err
	}
	transcript := api.MachineTranscript(api.PurposeNode, nonce, exporter, id.spki)
	ev, err := s.f.machines[machine].Attest(ctx, transcript.ReportData())
	if err != nil {
		return nil, err
	}
	record, err := attest.MarshalCMW(ev)
	if err != nil {
		return nil, err
	}
	resp, err := call(ctx, &api.EnrolRequest{Nonce: nonce, Csr: id.csr, Proof: &api.EnrolRequest_Machine{Machine: &api.MachineProof{
		Role: api.MachineRole_MACHINE_ROLE_NODE, Evidence: record,
	}}})
	if err != nil {
		return nil, fmt.Errorf("enrolling a node: %w", err)
	}
	issued, err := id.issued(resp)
	if err != nil {
		return nil, err
	}
	return &Node{
		Issued: issued, machine: machine, evidence: ev.Hash(),
		tls: tls.Certificate{Certificate: resp.GetChain(), PrivateKey: id.key},
	}, nil
}

// EnrolPod enrols a pod of the session's node. The number chooses the pod's
// name and workload.
func (s *Session) EnrolPod(ctx context.Context, number int) (Issued, error) {
	id := s.f.identity()
	s.places <- struct{}{}
	defer func() { <-s.places }()
	nonce, exporter, err := s.challenge(ctx)
	if err != nil {
		return Issued{}, err
	}
	spki := sha256.Sum256(id.spki)
	address := netip.AddrFrom4([4]byte{10, 81, byte(number >> 8), byte(number)}) //nolint:gosec // wraps
	st := &api.PodStatement{
		Nonce: nonce, Exporter: exporter, SPKIHash: spki[:], Evidence: s.node.evidence[:],
		Namespace: "default", Name: fmt.Sprintf("pod-%d", number), UID: fmt.Sprintf("uid-%d", number),
		Images: []policy.Digest{image(number % s.f.opts.Workloads)}, Addrs: [][]byte{address.AsSlice()},
	}
	raw, err := st.Marshal()
	if err != nil {
		return Issued{}, err
	}
	digest := api.StatementDigest(raw)
	signature, err := ecdsa.SignASN1(rand.Reader, s.node.Key, digest[:])
	if err != nil {
		return Issued{}, err
	}
	resp, err := s.calls.Enrol(ctx, &api.EnrolRequest{Nonce: nonce, Csr: id.csr, Proof: &api.EnrolRequest_Pod{Pod: &api.PodProof{
		Statement: raw, Signature: signature,
	}}})
	if err != nil {
		return Issued{}, fmt.Errorf("enrolling a pod: %w", err)
	}
	return id.issued(resp)
}

func (f *Fleet) identity() *identity { return &f.identities[mathrand.N(len(f.identities))] }

// issued takes what looks like an issuance; a Judge looks closer.
func (id *identity) issued(resp *api.EnrolResponse) (Issued, error) {
	if len(resp.GetChain()) != 2 || len(resp.GetReceipt().GetEntry()) == 0 {
		return Issued{}, errors.New("the answer has no certificate, or no receipt")
	}
	return Issued{resp, id.key}, nil
}
