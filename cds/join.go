// SPDX-License-Identifier: Apache-2.0

package cds

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/cds/api"
	"github.com/c8s-dev/c8s/cds/ca"
	"github.com/c8s-dev/c8s/cds/client"
	"github.com/c8s-dev/c8s/cds/handover"
	"github.com/c8s-dev/c8s/cds/keys"
	"github.com/c8s-dev/c8s/cds/ledger"
	"github.com/c8s-dev/c8s/cds/translog"
	"github.com/c8s-dev/c8s/cds/trust"
	"github.com/c8s-dev/c8s/policy"
)

// joinTimeout bounds one try to get the secret from one replica.
const joinTimeout = 10 * time.Second

// replicaAPI is the Replica service: the giving side.
type replicaAPI Server

var _ api.ReplicaHandler = (*replicaAPI)(nil)

// Join gives the seed to another CDS: one whose evidence, made for this very
// session and for the key the seed is sealed to, the manifest accepts for the
// role, and that was launched for the same operators. It is in the log first.
func (j *replicaAPI) Join(ctx context.Context, req *api.JoinRequest) (*api.JoinResponse, error) {
	c, err := (*Server)(j).issuing()
	if err != nil {
		return nil, err
	}
	if err := j.gate.enter(ctx); err != nil {
		return nil, err
	}
	leave := oneTime(j.gate.leave)
	defer leave()
	s := sessionOf(ctx)
	id, err := s.id()
	if err != nil {
		return nil, err
	}
	if err := c.challenges.use(req.GetNonce(), id); err != nil {
		return nil, err
	}
	exporter, err := api.Exporter(s.tls, req.GetNonce())
	if err != nil {
		return nil, err
	}
	var evidence policy.Digest
	var resp *api.JoinResponse
	err = c.policies.underPolicy(ctx, func(now *inForce) error {
		f, err := c.appraiseReplica(now, req, exporter)
		if err != nil {
			return err
		}
		if resp, err = c.wrap(req, exporter); err != nil {
			return err
		}
		leave() // others may work while this one waits for the store
		evidence = policy.DigestFrom(f.claims.EvidenceHash)
		files, err := c.evidence.files(f.claims.EvidenceHash, f.doc, c.clock.Now().Add(ca.IntermediateLife))
		if err != nil {
			return err
		}
		_, err = c.ledger.Do(ctx, func(d *ledger.Draft) error {
			if !now.matches(d.Head) {
				return errPolicyMoved
			}
			d.Put(files...)
			_, err := d.Append(translog.Entry{Type: translog.TypeJoin, Time: d.Now, Evidence: evidence})
			return err
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	j.cfg.Log.Warn("secret given to another replica", "remote", s.remote, "evidence", evidence)
	return resp, nil
}

func (c *core) appraiseReplica(now *inForce, req *api.JoinRequest, exporter []byte) (*finding, error) {
	transcript := handover.Transcript(req.GetHpkeKey(), req.GetNonce(), exporter, nil)
	f, err := c.fresh(now, policy.RoleCDS, req.GetEvidence(), transcript)
	if err != nil {
		return nil, err
	}
	if !trust.OperatorsBound(f.claims.HostData, c.s.cfg.Operators) {
		return nil, refuse(codeOperators, "HOST_DATA of the replica's evidence is %s, want the digest of this CDS's operators %x: it was launched for others", f.claims.HostData, c.s.cfg.Operators.Digest())
	}
	holder := policy.Holder{Machine: f.claims.Machine, Measurement: f.claims.Measurement}
	return f, now.denyList().Denies(holder).Err()
}

func (c *core) wrap(req *api.JoinRequest, exporter []byte) (*api.JoinResponse, error) {
	info, err := handover.Info(c.trustDomain, req.GetNonce(), exporter)
	if err != nil {
		return nil, err
	}
	enc, ciphertext, err := handover.Wrap(req.GetHpkeKey(), *c.seed, c.issuer.Root().Raw, info)
	if err != nil {
		return nil, refuse(codeMalformed, "%v", err)
	}
	return &api.JoinResponse{Encapsulated: enc, Ciphertext: ciphertext, Time: timestamppb.New(c.clock.Now())}, nil
}

// join asks the other replicas for the seed, one after the other.
func (s *Server) join(ctx context.Context) (keys.Seed, error) {
	if len(s.cfg.Join) == 0 {
		return keys.Seed{}, fmt.Errorf("%w: no other replicas are named", errNoWay)
	}
	var problems []error
	for _, addr := range s.cfg.Join {
		seed, err := s.joinAt(ctx, addr)
		if err == nil {
			return seed, nil
		}
		problems = append(problems, fmt.Errorf("%s: %w", addr, err))
	}
	return keys.Seed{}, errors.Join(problems...)
}

func (s *Server) joinAt(ctx context.Context, addr string) (keys.Seed, error) {
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	recipient, err := handover.NewRecipient()
	if err != nil {
		return keys.Seed{}, err
	}
	c, err := client.New(client.Config{
		Addrs: []string{addr}, Operators: s.cfg.Operators, Manifest: s.cfg.Manifest, Dial: s.cfg.Dial, Now: s.cfg.Wall, Log: s.cfg.Log,
	})
	if err != nil {
		return keys.Seed{}, err
	}
	given, err := c.Join(ctx, func(nonce, exporter []byte) (*api.JoinRequest, error) {
		ev, err := s.cfg.Attester.Attest(ctx, handover.Transcript(recipient.PublicKey(), nonce, exporter, nil).ReportData())
		if err != nil {
			return nil, fmt.Errorf("collecting evidence: %w", err)
		}
		record, err := attest.MarshalCMW(ev)
		return &api.JoinRequest{Evidence: record, HpkeKey: recipient.PublicKey()}, err
	})
	if err != nil {
		return keys.Seed{}, err
	}
	if skew := given.GetTime().AsTime().Sub(s.cfg.Wall()).Abs(); skew > maxSkew {
		return keys.Seed{}, fmt.Errorf("the replica's clock and this machine's are %s apart, at most %s is accepted: set the clocks right", skew, maxSkew)
	}
	info, err := handover.Info(s.cfg.Manifest.Manifest.TrustDomain, given.Nonce, given.Exporter)
	if err != nil {
		return keys.Seed{}, err
	}
	seed, _, err := recipient.Open(info, given.GetEncapsulated(), given.GetCiphertext())
	return seed, err
}
