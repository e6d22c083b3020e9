// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/sim/devtee"
	"github.com/c8s-dev/c8s/cds/client"
	"github.com/c8s-dev/c8s/policy"
)

// desk is the operator's: the key, and what was last published with it. One
// goroutine may publish manifests, one deny lists, and others read.
type desk struct {
	key      crypto.Signer
	manifest atomic.Pointer[policy.Signed]
	denyList atomic.Pointer[policy.SignedDenyList] // nil: none yet
}

// Manifest returns a copy of the manifest last published, for changing.
func (c *Cluster) Manifest() *policy.Manifest {
	m := *c.desk.manifest.Load().Manifest
	m.Workloads, m.Ingress = slices.Clone(m.Workloads), slices.Clone(m.Ingress)
	return &m
}

// Envelope returns the manifest last published as it was signed.
func (c *Cluster) Envelope() []byte { return c.desk.manifest.Load().Envelope }

// firstManifest makes the operator's key, the simulated vendor and the first
// signed manifest, as an operator would with `c8s manifest`.
func (c *Cluster) firstManifest() error {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	c.desk.key = key
	operator, err := policy.NewOperatorKey("operator", key.Public())
	if err != nil {
		return err
	}
	c.Operators = policy.Operators{Threshold: 1, Keys: []policy.OperatorKey{operator}}
	substrate, err := devtee.Substrate(c.machine(""))
	if err != nil {
		return err
	}
	c.measurement = substrate.Measurements[0]
	raw, err := json.Marshal(c.Operators)
	if err != nil {
		return err
	}
	if err := os.WriteFile(c.path("operators.json"), raw, 0o600); err != nil {
		return err
	}
	first, err := c.sign(&policy.Manifest{
		Schema: policy.Schema, TrustDomain: TrustDomain, Version: 1,
		Operators: c.Operators, Substrates: []policy.Substrate{substrate}, Workloads: c.opts.Workloads, Ingress: c.opts.Ingress,
	})
	if err != nil {
		return err
	}
	c.desk.manifest.Store(first)
	return c.writeManifest(first)
}

func (c *Cluster) sign(m *policy.Manifest) (*policy.Signed, error) {
	payload, err := policy.Encode(m)
	if err != nil {
		return nil, err
	}
	envelope, err := policy.Sign(payload, c.desk.key)
	if err != nil {
		return nil, err
	}
	return policy.Open(envelope, c.Operators)
}

// successor signs the next version of the manifest after change has edited it.
func (c *Cluster) successor(change func(*policy.Manifest)) (*policy.Signed, error) {
	next := c.Manifest()
	change(next)
	next.Version, next.Previous = next.Version+1, c.desk.manifest.Load().Digest
	return c.sign(next)
}

// writeManifest replaces the manifest file. The CDS notices the new file,
// checks it like any publication, and pushes it to the nodes.
func (c *Cluster) writeManifest(m *policy.Signed) error {
	tmp := c.path("manifest.tmp")
	if err := os.WriteFile(tmp, m.Envelope, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, c.path("manifest.dsse.json"))
}

// Publish signs the next version of the manifest after change has edited it,
// puts it where the CDS looks for it, and waits until every running node has
// it in force.
func (c *Cluster) Publish(ctx context.Context, change func(*policy.Manifest)) error {
	next, err := c.successor(change)
	if err != nil {
		return err
	}
	if err := c.writeManifest(next); err != nil {
		return err
	}
	c.desk.manifest.Store(next)
	return c.WaitManifest(ctx, next.Manifest.Version)
}

// Offer publishes the next version of the manifest over the network, to
// whichever replica answers. After an error nobody knows whether it came into
// force; the same change may be offered again.
func (c *Cluster) Offer(ctx context.Context, change func(*policy.Manifest)) (*client.Published, error) {
	next, err := c.successor(change)
	if err != nil {
		return nil, err
	}
	cl, err := c.Client()
	if err != nil {
		return nil, err
	}
	done, err := cl.PublishManifest(ctx, next.Envelope)
	if refusedWith(err, policy.CodeManifestUnchanged) {
		done, err = &client.Published{Version: next.Manifest.Version, InForce: true}, nil
	}
	if err == nil {
		c.desk.manifest.Store(next)
	}
	return done, err
}

// Deny publishes a deny list of these entries, all of them and no others. It
// returns when the CDS says that the list is in force; like Offer it may be
// repeated after an error.
func (c *Cluster) Deny(ctx context.Context, entries ...policy.Denial) error {
	list := &policy.DenyList{Schema: policy.DenyListSchema, TrustDomain: TrustDomain, Version: 1, Entries: entries}
	if last := c.desk.denyList.Load(); last != nil {
		list.Version, list.Previous = last.List.Version+1, last.Digest
	}
	payload, err := policy.EncodeDenyList(list)
	if err != nil {
		return err
	}
	envelope, err := policy.SignDenyList(payload, c.desk.key)
	if err != nil {
		return err
	}
	next, err := policy.OpenDenyList(envelope, c.Operators)
	if err != nil {
		return err
	}
	cl, err := c.Client()
	if err != nil {
		return err
	}
	if _, err = cl.PublishDenyList(ctx, envelope); err == nil || refusedWith(err, policy.CodeDenyListUnchanged) {
		c.desk.denyList.Store(next)
		err = nil
	}
	return err
}

func refusedWith(err error, code policy.Code) bool {
	var refused *client.RefusedError
	return errors.As(err, &refused) && refused.Code == string(code)
}

// WaitManifest waits until every running node has that version in force.
func (c *Cluster) WaitManifest(ctx context.Context, version uint64) error {
	for _, n := range c.Nodes {
		if !n.Running() {
			continue
		}
		if err := until(ctx, fmt.Sprintf("manifest %d to reach %s", version, n.Lab.Name), func() error {
			s, err := n.Status(ctx)
			if err == nil && s.Manifest.Version < version {
				err = fmt.Errorf("still at version %d", s.Manifest.Version)
			}
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

// Client returns a client of these replicas of the CDS, of all if none are
// named. It sits on the wire between the hosts and remembers the log for as
// long as it lives.
func (c *Cluster) Client(replicas ...*Replica) (*client.Client, error) {
	if len(replicas) == 0 {
		replicas = c.CDS
	}
	var addrs []string
	for _, r := range replicas {
		addrs = append(addrs, r.Addr())
	}
	return client.New(client.Config{
		Addrs: addrs, Operators: c.Operators, Manifest: c.desk.manifest.Load(),
		Dial: c.Lab.Wire.Dial, Now: time.Now, Log: slog.New(slog.DiscardHandler),
	})
}

// Machine returns a simulated TEE that runs the measured program, for
// enrolling without a daemon.
func (c *Cluster) Machine(name string) (attest.Attester, error) {
	return devtee.Open(c.machine(name))
}

func (c *Cluster) machine(name string) devtee.Options {
	return devtee.Options{Dir: c.simDir, Machine: name, Binary: c.opts.Binary, Operators: c.Operators}
}
