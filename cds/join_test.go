// SPDX-License-Identifier: Apache-2.0

package cds_test

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/sim"
	"github.com/c8s-dev/c8s/attest/sim/simtest"
	"github.com/c8s-dev/c8s/cds"
	"github.com/c8s-dev/c8s/cds/api"
	"github.com/c8s-dev/c8s/cds/handover"
	"github.com/c8s-dev/c8s/cds/store"
	"github.com/c8s-dev/c8s/cds/store/storetest"
	"github.com/c8s-dev/c8s/cds/translog"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

// joiner is whoever asks for the secret, and may lie.
type joiner struct {
	t         *testing.T
	conn      *tls.Conn
	attester  api.AttestationClient
	replica   api.ReplicaClient
	recipient *handover.Recipient
}

func (r *replica) joiner(t *testing.T) *joiner {
	t.Helper()
	conn, err := r.raw("h2")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	h := &http.Client{Transport: &http.Transport{
		ForceAttemptHTTP2: true, DialTLSContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil },
	}}
	recipient, err := handover.NewRecipient()
	if err != nil {
		t.Fatal(err)
	}
	return &joiner{t, conn, api.NewAttestationClient(h, "https://cds"), api.NewReplicaClient(h, "https://cds"), recipient}
}

func (j *joiner) nonce() []byte {
	j.t.Helper()
	resp, err := j.attester.Challenge(j.t.Context(), &api.ChallengeRequest{})
	if err != nil {
		j.t.Fatal(err)
	}
	return resp.GetNonce()
}

func (j *joiner) exporter(nonce []byte) []byte {
	j.t.Helper()
	cs := j.conn.ConnectionState()
	e, err := api.Exporter(&cs, nonce)
	if err != nil {
		j.t.Fatal(err)
	}
	return e
}

func (j *joiner) evidence(att attest.Attester, transcript attest.Transcript) []byte {
	j.t.Helper()
	ev, err := att.Attest(j.t.Context(), transcript.ReportData())
	if err != nil {
		j.t.Fatal(err)
	}
	record, err := attest.MarshalCMW(ev)
	if err != nil {
		j.t.Fatal(err)
	}
	return record
}

// honest is what a replica asks.
func (j *joiner) honest(att attest.Attester) *api.JoinRequest {
	n := j.nonce()
	return &api.JoinRequest{
		Nonce: n, HpkeKey: j.recipient.PublicKey(), Evidence: j.evidence(att, handover.Transcript(j.recipient.PublicKey(), n, j.exporter(n), nil)),
	}
}

// anyHost lets the manifest accept machines launched for anybody: the CDS
// itself must not.
func anyHost(m *policy.Manifest) {
	for i := range m.Substrates {
		m.Substrates[i].HostData = []string{policy.Any}
	}
}

func TestTheSecretIsGivenToNoOtherThanAReplica(t *testing.T) {
	g := newGroup(t, 2, anyHost, func(m *policy.Manifest) { m.Substrates[0].Roles = []policy.Role{policy.RoleNode} })
	r := g.replicas[0]
	r.launch()
	r.ready()
	chip := simtest.Options(replicaName(1)).ChipID
	other := r.joiner(t)
	before := len(r.entries())
	for _, tt := range []struct {
		name, code string
		request    func(j *joiner) *api.JoinRequest
	}{
		{"another measurement", "measurement", func(j *joiner) *api.JoinRequest {
			return j.honest(g.machine(replicaName(1), func(o *sim.Options) { o.Measurement[0] ^= 1 }))
		}},
		{"launched for other operators", "operators-not-bound", func(j *joiner) *api.JoinRequest {
			return j.honest(g.machine(replicaName(1), func(o *sim.Options) { o.HostData[0] ^= 1 }))
		}},
		{"a debuggable guest", "guest-debug", func(j *joiner) *api.JoinRequest {
			return j.honest(g.machine(replicaName(1), func(o *sim.Options) { o.Debug = true }))
		}},
		{"a node's machine", "machine-unpinned", func(j *joiner) *api.JoinRequest { return j.honest(g.machine("node")) }},
		{"evidence of another session", "report-data", func(j *joiner) *api.JoinRequest {
			n := j.nonce()
			return &api.JoinRequest{Nonce: n, HpkeKey: j.recipient.PublicKey(), Evidence: j.evidence(g.machine(replicaName(1)), handover.Transcript(j.recipient.PublicKey(), n, other.exporter(n), nil))}
		}},
		{"evidence for another key", "report-data", func(j *joiner) *api.JoinRequest {
			req := j.honest(g.machine(replicaName(1)))
			req.HpkeKey = other.recipient.PublicKey()
			return req
		}},
		{"evidence for another nonce", "report-data", func(j *joiner) *api.JoinRequest {
			req := j.honest(g.machine(replicaName(1)))
			req.Nonce = j.nonce()
			return req
		}},
		{"nonce used before", "nonce-unknown", func(j *joiner) *api.JoinRequest {
			req := j.honest(g.machine(replicaName(1)))
			if _, err := j.replica.Join(t.Context(), req); err != nil {
				t.Fatal(err)
			}
			before++ // that one was given
			return req
		}},
		{"nonce of another connection", "nonce-foreign", func(j *joiner) *api.JoinRequest {
			req := j.honest(g.machine(replicaName(1)))
			req.Nonce = other.nonce()
			return req
		}},
		{"no nonce", "nonce-unknown", func(j *joiner) *api.JoinRequest {
			req := j.honest(g.machine(replicaName(1)))
			req.Nonce = nil
			return req
		}},
		{"a node's evidence", "report-data", func(j *joiner) *api.JoinRequest {
			n := j.nonce()
			return &api.JoinRequest{Nonce: n, HpkeKey: j.recipient.PublicKey(), Evidence: j.evidence(g.machine(replicaName(1)), api.MachineTranscript(api.PurposeNode, n, j.exporter(n), j.recipient.PublicKey()))}
		}},
		{"a replica's enrolment", "report-data", func(j *joiner) *api.JoinRequest {
			n := j.nonce()
			return &api.JoinRequest{Nonce: n, HpkeKey: j.recipient.PublicKey(), Evidence: j.evidence(g.machine(replicaName(1)), api.MachineTranscript(api.PurposeCDS, n, j.exporter(n), j.recipient.PublicKey()))}
		}},
		{"no evidence", "malformed", func(j *joiner) *api.JoinRequest {
			return &api.JoinRequest{Nonce: j.nonce(), HpkeKey: j.recipient.PublicKey()}
		}},
		{"a key that is none", "malformed", func(j *joiner) *api.JoinRequest {
			n, key := j.nonce(), []byte("none")
			return &api.JoinRequest{Nonce: n, HpkeKey: key, Evidence: j.evidence(g.machine(replicaName(1)), handover.Transcript(key, n, j.exporter(n), nil))}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			j := r.joiner(t)
			req := tt.request(j)
			resp, err := j.replica.Join(t.Context(), req)
			if resp != nil {
				t.Error("something was given")
			}
			wantCode(t, err, tt.code)
		})
	}
	// What a replica shows to join makes it no node either.
	c := (&world{t: t, addr: r.addr}).call(nil)
	n := c.nonce()
	_, err := c.api.Enrol(t.Context(), &api.EnrolRequest{Nonce: n, Csr: c.csr, Proof: &api.EnrolRequest_Machine{Machine: &api.MachineProof{
		Role: api.MachineRole_MACHINE_ROLE_CDS, Evidence: c.attest(g.machine(replicaName(1)), handover.Transcript(c.spki, n, c.exporter(n), nil)),
	}}})
	wantCode(t, err, "report-data")
	list := g.f.DenyList(t, nil, policytest.Deny(policy.DenyMachine, hex.EncodeToString(chip[:])))
	if _, err := g.client(nil, r).PublishDenyList(t.Context(), list.Envelope); err != nil {
		t.Fatal(err)
	}
	j := r.joiner(t)
	_, err = j.replica.Join(t.Context(), j.honest(g.machine(replicaName(1))))
	wantCode(t, err, "denied-machine")
	if n := len(r.entries()); n != before+1 {
		t.Errorf("%d entries, want %d and the deny list: a refusal is not logged as given", n, before)
	}
	if n := count(r.entries(), func(e *translog.Entry) bool { return e.Type == translog.TypeJoin }); n != 1 {
		t.Errorf("%d joins are logged, want 1", n)
	}
}

// A replica whose machine's clock is off does not join until that is set right.
func TestReplicaWithAWrongClockDoesNotJoin(t *testing.T) {
	g := newGroup(t, 2)
	a, b := g.replicas[0], g.replicas[1]
	a.launch()
	a.ready()
	b.clock.advance(-5 * time.Minute)
	b.launch()
	await(t, "the reason", func() error {
		if !contains(b.log, "set the clocks right") {
			return errors.New("no word of it")
		}
		return nil
	}, b.log)
	if b.srv.Ready() == nil {
		t.Error("it is ready")
	}
	b.clock.advance(5 * time.Minute)
	b.ready()
}

// telling closes a channel when an operation fails because of a crash.
type telling struct {
	store.Store
	once sync.Once
	down chan struct{}
}

func (s *telling) see(err error) {
	if errors.Is(err, storetest.ErrInjected) {
		s.once.Do(func() { close(s.down) })
	}
}

func (s *telling) Get(ctx context.Context, key string) (store.Value, error) {
	v, err := s.Store.Get(ctx, key)
	s.see(err)
	return v, err
}

func (s *telling) Commit(ctx context.Context, t store.Txn) (store.Version, error) {
	v, err := s.Store.Commit(ctx, t)
	s.see(err)
	return v, err
}

// A replica that dies while it gives or takes the secret leaves nothing in the
// way of the next try, at every operation of its store.
func TestCrashWhileJoiningLeavesTheNextTryFree(t *testing.T) {
	for who, name := range []string{"giver", "taker"} {
		t.Run(name, func(t *testing.T) {
			g := newGroup(t, 2)
			giver, taker, victim := g.replicas[0], g.replicas[1], g.replicas[who]
			var down *telling
			victim.edit = func(c *cds.Config) {
				down = &telling{Store: c.Store, down: make(chan struct{})}
				c.Store = down
			}
			giver.launch()
			giver.ready()
			crashes := 0
			for n := 2; ; n++ { // each operation before and after its effect
				taker.store = storetest.NewFaulty(g.store)
				victim.store.Crash(n/2, storetest.Any, storetest.When(n%2)) //nolint:gosec // 0 or 1
				taker.launch()
				crashed := false
				await(t, "the crash or the end", func() error {
					select {
					case <-down.down:
						crashed = true
						return nil
					default:
						return taker.srv.Ready()
					}
				}, taker.log)
				taker.kill()
				if !crashed {
					break
				}
				crashes++
				if victim == giver {
					giver.kill()
					giver.launch()
					giver.ready()
				}
				taker.launch()
				taker.ready()
				g.poke(taker)
				taker.kill()
			}
			if crashes < 4 {
				t.Errorf("only %d crashes: the test shows nothing", crashes)
			}
		})
	}
}
