// SPDX-License-Identifier: Apache-2.0

package cds_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/cds/client"
	"github.com/c8s-dev/c8s/cds/translog"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

// race publishes documents at the same time, one at each replica, and requires
// that one wins and the others are refused with the code.
func (g *group) race(code string, publish ...func(*client.Client) error) (winner int) {
	g.t.Helper()
	errs := make([]error, len(publish))
	var wg sync.WaitGroup
	for i, publish := range publish {
		c := g.client(nil, g.replicas[i])
		wg.Go(func() { errs[i] = publish(c) })
	}
	wg.Wait()
	winner = -1
	for i, err := range errs {
		switch {
		case err != nil:
			refusedWith(g.t.(*testing.T), err, code)
		case winner >= 0:
			g.t.Fatalf("replicas %d and %d both took theirs", winner, i)
		default:
			winner = i
		}
	}
	if winner < 0 {
		g.t.Fatalf("nobody won: %v", errs)
	}
	return winner
}

// The operators signed two successors of one document, and two of them publish
// at once.
func TestOfTwoSuccessorsOneWinsAndAllReplicasHaveIt(t *testing.T) {
	g := newGroup(t, 3).startAll()
	now := g.f
	var list *policy.SignedDenyList
	const rounds = 3
	for range rounds {
		var next []*policytest.Fixture
		var lists []*policy.SignedDenyList
		var manifests, denyLists []func(*client.Client) error
		for i := range g.replicas {
			f := now.Next(t, func(m *policy.Manifest) { m.Workloads[0].Images[0].Name = fmt.Sprintf("web-%d", i) })
			next = append(next, f)
			manifests = append(manifests, func(c *client.Client) error {
				_, err := c.PublishManifest(t.Context(), f.Envelope)
				return err
			})
			l := now.DenyList(t, list, policytest.Deny(policy.DenyWorkload, fmt.Sprintf("nobody-%d", i)))
			lists = append(lists, l)
			denyLists = append(denyLists, func(c *client.Client) error {
				_, err := c.PublishDenyList(t.Context(), l.Envelope)
				return err
			})
		}
		now = next[g.race("manifest-forked", manifests...)]
		list = lists[g.race("denylist-forked", denyLists...)]
		for _, r := range g.replicas {
			r.inForce(now.Digest)
			await(t, r.name+" to have the deny list", func() error {
				if string(r.document("/v1/denylist")) != string(list.Envelope) {
					return errors.New("it has another")
				}
				return nil
			}, r.log)
		}
	}
	entries := g.replicas[0].entries()
	for kind, want := range map[translog.Type]int{translog.TypeManifest: 1 + rounds, translog.TypeDenylist: rounds} {
		if n := count(entries, func(e *translog.Entry) bool { return e.Type == kind }); n != want {
			t.Errorf("%d entries of type %s, want %d", n, kind, want)
		}
	}
}

// No certificate carries an older manifest than the one in force where it
// stands in the log, whichever replica issued it while another published.
func TestNothingIsIssuedUnderAnOlderManifestThanIsInForce(t *testing.T) {
	g := newGroup(t, 3).startAll()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for _, r := range g.replicas {
		wg.Go(func() {
			c := g.client(nil, r)
			for ctx.Err() == nil {
				node, err := c.EnrolNode(ctx, g.machine("node"))
				for i := 0; err == nil && i < 5; i++ {
					_, err = c.EnrolPod(ctx, node, webPod())
				}
				var refused *client.RefusedError
				if err != nil && ctx.Err() == nil && !(errors.As(err, &refused) && refused.Code == "policy-changing") {
					t.Errorf("at %s: %v", r.name, err)
				}
			}
		})
	}
	now := g.f
	for range 5 {
		now = now.Next(t, hostAccess(0))
		g.publish(g.replicas[rand.IntN(len(g.replicas))], now)
	}
	g.poke(g.replicas[0])
	cancel()
	wg.Wait()
	var inForce policy.Digest
	issued := map[policy.Digest]int{}
	for i, e := range g.replicas[1].entries() {
		switch e.Type {
		case translog.TypeManifest:
			inForce = e.Digest
		case translog.TypeIssuance:
			issued[e.Manifest]++
			if e.Manifest != inForce {
				t.Errorf("entry %d was issued under %s, in force is %s", i, e.Manifest, inForce)
			}
		}
	}
	if len(issued) < 3 {
		t.Errorf("certificates were issued under %d manifests only: the test shows little", len(issued))
	}
}

func TestPodEnrolsAtAnotherReplicaThanItsNode(t *testing.T) {
	g := newGroup(t, 2).startAll()
	a, b := g.replicas[0], g.replicas[1]
	node, err := g.client(nil, a).EnrolNode(t.Context(), g.machine("node"))
	if err != nil {
		t.Fatal(err)
	}
	pod, err := g.client(nil, b).EnrolPod(t.Context(), node, webPod())
	if err != nil {
		t.Fatal(err)
	}
	if issuerOf(t, pod.TLS.Certificate) == issuerOf(t, node.TLS.Certificate) {
		t.Error("both have the same issuing key: replicas have their own")
	}
	if string(a.document("/v1/evidence/"+hexOf(node.Peer.Claims.EvidenceHash))) != string(b.document("/v1/evidence/"+hexOf(node.Peer.Claims.EvidenceHash))) {
		t.Error("the replicas have different evidence")
	}
	for _, r := range []*replica{a, b} {
		for _, cred := range []*client.Credential{node, pod} {
			r.issued(cred)
		}
	}
}

// issued asks the replica where in the log the certificate is.
func (r *replica) issued(cred *client.Credential) {
	r.g.t.Helper()
	d, err := r.g.client(nil, r).Documents(r.g.t.Context())
	if err != nil {
		r.g.t.Fatal(err)
	}
	defer d.Close()
	digest := policy.DigestOf(cred.TLS.Certificate[0])
	if i, err := d.Issuance(r.g.t.Context(), digest); err != nil || i.Index == 0 {
		r.g.t.Errorf("%s: %v, %+v", r.name, err, i)
	}
	if _, err := d.Issuance(r.g.t.Context(), policy.DigestOf(nil)); !errors.Is(err, fs.ErrNotExist) {
		r.g.t.Errorf("%s knows a certificate that there is not: %v", r.name, err)
	}
}

func TestClientsGoOnWithoutErrorsWhenAReplicaDies(t *testing.T) {
	g := newGroup(t, 3).startAll()
	c := g.client(func(cfg *client.Config) { cfg.Log = slog.New(slog.DiscardHandler) })
	got := watching(t, c)
	if _, err := c.EnrolNode(t.Context(), g.machine("node")); err != nil {
		t.Fatal(err)
	}
	now := g.f
	for i, r := range g.replicas[:2] {
		r.kill()
		for range 5 {
			node, err := c.EnrolNode(t.Context(), g.machine("node"))
			if err != nil {
				t.Fatalf("with %d of 3 replicas gone: %v", i+1, err)
			}
			if _, err := c.EnrolPod(t.Context(), node, webPod()); err != nil {
				t.Fatalf("a pod, with %d of 3 replicas gone: %v", i+1, err)
			}
		}
		now = now.Next(t, hostAccess(0))
		if _, err := c.PublishManifest(t.Context(), now.Envelope); err != nil {
			t.Fatal(err)
		}
		arrives(t, got, now.Digest, 20*time.Second)
	}
	// One that comes back joins the one that is left.
	back := g.replicas[0]
	back.launch()
	back.ready()
	g.replicas[2].kill()
	if _, err := c.EnrolNode(t.Context(), g.machine("node")); err != nil {
		t.Errorf("at the replica that came back: %v", err)
	}
}
