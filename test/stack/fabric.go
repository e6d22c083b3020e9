// SPDX-License-Identifier: Apache-2.0

package stack

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/c8s-dev/c8s/test/thread"
)

// Uplink is a node's device on the fabric.
const Uplink = "eth0"

// Fabric is the network between nodes: a bridge in a namespace of its own,
// which only this process's open file keeps alive. It reaches nothing else.
// Every node routes the others' pods to them.
type Fabric struct {
	mu      sync.Mutex
	space   netns.NsHandle
	links   *netlink.Handle
	bridge  *netlink.Bridge
	next    int
	members []member
}

// member is a node's place on the fabric: the n-th gets 10.99.0.n and
// fd99::n for itself, 10.100.n.0/24 and fd99:0:0:n::/64 for its pods.
type member struct {
	index        int
	name         string
	links        *netlink.Handle
	addr4, addr6 netip.Addr
	pods4, pods6 netip.Prefix
}

// NewFabric makes one without nodes.
func NewFabric() (*Fabric, error) {
	space, err := newSpace()
	if err != nil {
		return nil, fmt.Errorf("making the network between nodes: %w", err)
	}
	f := &Fabric{space: space}
	if err := f.build(); err != nil {
		return nil, errors.Join(fmt.Errorf("making the network between nodes: %w", err), f.Close())
	}
	return f, nil
}

func (f *Fabric) build() error {
	var err error
	if f.links, err = netlink.NewHandleAt(f.space, unix.NETLINK_ROUTE); err != nil {
		return err
	}
	f.bridge = &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "fabric"}}
	if err := f.links.LinkAdd(f.bridge); err != nil {
		return fmt.Errorf("adding its bridge: %w", err)
	}
	return f.links.LinkSetUp(f.bridge)
}

// newSpace makes a network namespace that lasts as long as the handle.
func newSpace() (netns.NsHandle, error) {
	type result struct {
		space netns.NsHandle
		err   error
	}
	made := make(chan result)
	thread.Go(func() {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			made <- result{netns.None(), fmt.Errorf("unsharing the network: %w", err)}
			return
		}
		space, err := netns.GetFromPath("/proc/thread-self/ns/net")
		made <- result{space, err}
	})
	r := <-made
	return r.space, r.err
}

// NetNS is the path of the fabric's namespace, in which all that nodes send
// each other can be seen, on the bridge "fabric".
func (f *Fabric) NetNS() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), int(f.space)) }

// Close takes the network away from under its nodes.
func (f *Fabric) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.links != nil {
		f.links.Close()
		f.links = nil
	}
	if !f.space.IsOpen() {
		return nil
	}
	return f.space.Close()
}

// join connects the node whose namespaces a process is in.
func (f *Fabric) join(name string, pid int) (member, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.next++
	n := byte(f.next)
	if f.next > 200 {
		return member{}, errors.New("the fabric is full")
	}
	m := member{
		index: f.next, name: name,
		addr4: netip.AddrFrom4([4]byte{10, 99, 0, n}),
		addr6: netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x99, 15: n}),
		pods4: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 100, n, 0}), 24),
		pods6: netip.PrefixFrom(netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x99, 7: n}), 64),
	}
	space, err := netns.GetFromPid(pid)
	if err != nil {
		return m, fmt.Errorf("opening its network namespace: %w", err)
	}
	defer space.Close()
	if m.links, err = netlink.NewHandleAt(space, unix.NETLINK_ROUTE); err != nil {
		return m, err
	}
	port := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: fmt.Sprintf("port%d", m.index), MasterIndex: f.bridge.Index},
		PeerName:  Uplink, PeerNamespace: netlink.NsFd(space),
	}
	err = errors.Join(f.links.LinkAdd(port), f.links.LinkSetUp(port), m.configure())
	for _, other := range f.members {
		err = errors.Join(err, m.route(other), other.route(m))
	}
	if err != nil {
		m.links.Close()
		return m, err
	}
	f.members = append(f.members, m)
	return m, nil
}

// configure gives a node its addresses, and a default route to nobody:
// some programs look for one to learn which address is theirs.
func (m member) configure() error {
	link, err := m.links.LinkByName(Uplink)
	if err != nil {
		return fmt.Errorf("finding %s: %w", Uplink, err)
	}
	for _, a := range []netip.Prefix{netip.PrefixFrom(m.addr4, 24), netip.PrefixFrom(m.addr6, 64)} {
		addr := &netlink.Addr{IPNet: ipNet(a)}
		if a.Addr().Is6() {
			addr.Flags = unix.IFA_F_NODAD // nobody else is there
		}
		if err := m.links.AddrAdd(link, addr); err != nil {
			return fmt.Errorf("adding %s: %w", a, err)
		}
	}
	if err := m.links.LinkSetUp(link); err != nil {
		return err
	}
	for _, nobody := range []string{"10.99.0.254", "fd99::fe"} {
		if err := m.links.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: net.ParseIP(nobody)}); err != nil {
			return fmt.Errorf("adding the default route: %w", err)
		}
	}
	return nil
}

// route sends what is for another node's pods there.
func (m member) route(other member) error {
	link, err := m.links.LinkByName(Uplink)
	if err != nil {
		return err
	}
	for pods, via := range map[netip.Prefix]netip.Addr{other.pods4: other.addr4, other.pods6: other.addr6} {
		r := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(pods), Gw: via.AsSlice()}
		if err := m.links.RouteReplace(r); err != nil {
			return fmt.Errorf("routing %s by %s: %w", pods, via, err)
		}
	}
	return nil
}

// leave forgets a node. Its device goes with its namespace.
func (f *Fabric) leave(m member) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, other := range f.members {
		if other.index == m.index {
			other.links.Close()
			f.members = append(f.members[:i], f.members[i+1:]...)
			return
		}
	}
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
