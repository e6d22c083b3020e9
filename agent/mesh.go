// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"crypto/x509"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/c8s-dev/c8s/cds/client"
	"github.com/c8s-dev/c8s/datapath"
	"github.com/c8s-dev/c8s/datapath/resolve"
	"github.com/c8s-dev/c8s/policy"
)

// mesh is the datapath's view of the node: immutable snapshots, swapped
// atomically, so that the connection path never takes a lock.
type mesh struct {
	mu       sync.Mutex // serialises writers
	pods     atomic.Pointer[map[netip.Addr]*datapath.LocalPod]
	table    *resolve.Table
	roots    *client.Roots
	manifest *atomic.Pointer[policy.Signed]
	denied   func() *policy.DenyList
}

var _ datapath.Mesh = (*mesh)(nil)

func newMesh(cfg resolve.Config, manifest *atomic.Pointer[policy.Signed], denied func() *policy.DenyList) (*mesh, error) {
	m := &mesh{roots: client.NewRoots(), manifest: manifest, denied: denied}
	m.pods.Store(&map[netip.Addr]*datapath.LocalPod{})
	cfg.Local = func(addr netip.Addr) bool { _, ok := m.Pod(addr); return ok }
	var err error
	m.table, err = resolve.New(cfg)
	return m, err
}

// Pod returns the enrolled local pod that owns addr.
func (m *mesh) Pod(addr netip.Addr) (*datapath.LocalPod, bool) {
	p, ok := (*m.pods.Load())[addr]
	return p, ok
}

// list returns the enrolled local pods, ordered by UID.
func (m *mesh) list() []*datapath.LocalPod {
	byUID := map[string]*datapath.LocalPod{}
	for _, p := range *m.pods.Load() {
		byUID[p.UID] = p
	}
	return slices.SortedFunc(maps.Values(byUID), func(a, b *datapath.LocalPod) int { return strings.Compare(a.UID, b.UID) })
}

// Resolve says which pod a connection means and which node carries it.
func (m *mesh) Resolve(q resolve.Query) (resolve.Target, resolve.Verdict) { return m.table.Resolve(q) }

// Node says whether an address is a node's, by all that is heard.
func (m *mesh) Node(addr netip.Addr) bool { return m.table.Node(addr) }

// Manifest returns the manifest in force.
func (m *mesh) Manifest() *policy.Signed { return m.manifest.Load() }

// DenyList returns the deny list in force.
func (m *mesh) DenyList() *policy.DenyList { return m.denied() }

// Roots returns the mesh CA certificates that peers must chain to.
func (m *mesh) Roots() *x509.CertPool { return m.roots.Pool() }

// add publishes p. An address belongs to one pod at a time: the second
// claimant is refused until the first is gone.
func (m *mesh) add(p *pod) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	next := maps.Clone(*m.pods.Load())
	local := p.local()
	for _, addr := range p.info.Addrs {
		if owner, taken := next[addr]; taken && owner.UID != p.info.UID {
			return fmt.Errorf("address %s belongs to pod %s (%s)", addr, owner.Name, owner.UID)
		}
		next[addr] = local
	}
	m.pods.Store(&next)
	return nil
}

func (m *mesh) remove(p *pod) {
	m.mu.Lock()
	defer m.mu.Unlock()
	next := maps.Clone(*m.pods.Load())
	for addr, owner := range next {
		if owner.UID == p.info.UID {
			delete(next, addr)
		}
	}
	m.pods.Store(&next)
}
