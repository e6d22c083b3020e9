// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/cds/client"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/test/cluster"
)

// load enrols machines and pods and publishes manifests and deny lists, without
// pause and whatever becomes of the CDS. Its clients check what they are given
// as any node does: receipts, and that the log they saw never shrinks.
type load struct {
	cancel context.CancelFunc
	done   sync.WaitGroup

	manifest, denyList atomic.Uint64 // the last version acknowledged

	mu     sync.Mutex
	issued []policy.Digest
}

// loadMachines is how many machines enrol at once.
const loadMachines = 2

func startLoad(t *testing.T, c *cluster.Cluster) *load {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{cancel: cancel}
	for i := range loadMachines {
		cl, err := c.Client()
		if err != nil {
			t.Fatal(err)
		}
		att, err := c.Machine(fmt.Sprintf("load-%d", i))
		if err != nil {
			t.Fatal(err)
		}
		l.repeat(ctx, func(ctx context.Context) error {
			node, err := cl.EnrolNode(ctx, att)
			if err != nil {
				return err
			}
			l.took(node)
			pod, err := cl.EnrolPod(ctx, node, loadPod(fmt.Sprintf("load-%d", i)))
			if err == nil {
				l.took(pod)
			}
			return err
		})
	}
	l.repeat(ctx, func(ctx context.Context) error {
		done, err := c.Offer(ctx, func(m *policy.Manifest) { m.Workloads[2].HostAccess = !m.Workloads[2].HostAccess })
		if err != nil {
			return err
		}
		l.manifest.Store(done.Version)
		return nil
	}, func(ctx context.Context) error {
		if err := c.Deny(ctx, policy.Denial{Kind: policy.DenySerial, Value: "1", Reason: "load"}); err != nil {
			return err
		}
		l.denyList.Add(1)
		return nil
	})
	t.Cleanup(func() {
		cancel()
		l.done.Wait()
	})
	return l
}

// loadPod is a pod that is nowhere.
func loadPod(uid string) client.Pod {
	return client.Pod{
		Namespace: "default", Name: "load", UID: uid, Entry: "stranger",
		Images: []policy.Digest{policy.Digest(image("stranger"))}, Addrs: []netip.Addr{netip.MustParseAddr("10.99.0.1")},
	}
}

// repeat does the steps in turn, each until it succeeds.
func (l *load) repeat(ctx context.Context, steps ...func(context.Context) error) {
	l.done.Go(func() {
		for i := 0; ctx.Err() == nil; {
			limited, cancel := context.WithTimeout(ctx, exchangeTimeout)
			err := steps[i%len(steps)](limited)
			cancel()
			if err == nil {
				i++
				continue
			}
			select {
			case <-ctx.Done():
			case <-time.After(20 * time.Millisecond): // the CDS is being started
			}
		}
	})
}

func (l *load) took(c *client.Credential) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.issued = append(l.issued, policy.DigestOf(c.TLS.Leaf.Raw))
}

// stop ends the load and returns the certificates that were handed out.
func (l *load) stop(t *testing.T) []policy.Digest {
	t.Helper()
	l.cancel()
	l.done.Wait()
	return slices.Clone(l.issued)
}
