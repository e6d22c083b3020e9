// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// WireBridge is the underlay switch in Lab.Wire; Uplink is every host's link
// to it; PodBridge is the bridge of a node's bridged pods.
const (
	WireBridge = "wire0"
	Uplink     = "eth0"
	PodBridge  = "cni0"
)

// Host is a machine on the underlay.
type Host struct {
	*NS
	Name  string
	Addr4 netip.Addr
	Addr6 netip.Addr
	// WirePort is the name of the bridge port in Lab.Wire that leads here.
	WirePort string

	uplink netlink.Link
}

// Node is a host that runs pods.
type Node struct {
	Host
	// Number is 1 for the first node; it appears in all of its addresses.
	Number   int
	PodCIDR4 netip.Prefix
	PodCIDR6 netip.Prefix

	mu     sync.Mutex
	bridge netlink.Link // nil until the first bridged pod
	pods   []*Pod
	used   [2]map[int]bool // address numbers by Kind
	bpffs  int
}

// hostSysctls are written before a namespace has any link, so that links
// inherit the defaults. IPv4 would otherwise inherit the machine's values
// (devconf_inherit_init_net), which differ from one distribution to the next.
func hostSysctls(forward bool) map[string]string {
	s := map[string]string{
		"net.ipv4.conf.all.rp_filter":                "0",
		"net.ipv4.conf.default.rp_filter":            "0",
		"net.ipv6.conf.all.accept_dad":               "0",
		"net.ipv6.conf.default.accept_dad":           "0",
		"net.ipv6.conf.all.disable_ipv6":             "0",
		"net.ipv6.conf.default.disable_ipv6":         "0",
		"net.ipv6.conf.default.router_solicitations": "0",
	}
	if forward {
		s["net.ipv4.ip_forward"] = "1"
		s["net.ipv6.conf.all.forwarding"] = "1"
		s["net.ipv6.conf.default.forwarding"] = "1"
	}
	return s
}

func (ns *NS) sysctls(sets ...map[string]string) error {
	return ns.Do(func() error {
		for _, set := range sets {
			for _, key := range slices.Sorted(maps.Keys(set)) {
				if err := ns.Sysctl(key, set[key]); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

func (l *Lab) buildWire() error {
	ns, err := l.newNS("wire")
	if err != nil {
		return err
	}
	l.Wire = ns
	if err := ns.sysctls(hostSysctls(false)); err != nil {
		return err
	}
	// Only present where br_netfilter is; a switch has no firewall.
	for _, key := range []string{"iptables", "ip6tables", "arptables"} {
		key = "net.bridge.bridge-nf-call-" + key
		if _, err := os.Stat(sysctlPath(key)); err == nil {
			if err := ns.Sysctl(key, "0"); err != nil {
				return err
			}
		}
	}
	br, err := ns.addBridge(WireBridge)
	if err != nil {
		return err
	}
	v4, v6 := underlayAddrs(edgeNumber)
	if err := ns.addAddr(br, netip.PrefixFrom(v4, underlay4.Bits())); err != nil {
		return err
	}
	return ns.addAddr(br, netip.PrefixFrom(v6, underlay6.Bits()))
}

// addBridge makes a bridge that is up. Snooping is off: without a querier it
// would only get in the way of neighbour discovery.
func (ns *NS) addBridge(name string) (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	off := false
	if err := ns.handle.LinkAdd(&netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &off}); err != nil {
		return nil, fmt.Errorf("making bridge %s in namespace %s: %w", name, ns.name, err)
	}
	br, err := ns.handle.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("finding bridge %s in namespace %s: %w", name, ns.name, err)
	}
	if err := ns.handle.LinkSetUp(br); err != nil {
		return nil, fmt.Errorf("setting bridge %s up in namespace %s: %w", name, ns.name, err)
	}
	return br, nil
}

// attach plugs a host into the underlay switch and gives it its addresses.
func (l *Lab) attach(h *Host, number int) error {
	h.Addr4, h.Addr6 = underlayAddrs(number)
	h.WirePort = fmt.Sprintf("port%d", number)
	port, uplink, err := l.Wire.addVeth(h.WirePort, h.NS, Uplink)
	if err != nil {
		return err
	}
	h.uplink = uplink
	br, err := l.Wire.handle.LinkByName(WireBridge)
	if err != nil {
		return fmt.Errorf("finding bridge %s: %w", WireBridge, err)
	}
	if err := l.Wire.handle.LinkSetMaster(port, br); err != nil {
		return fmt.Errorf("plugging %s into the wire: %w", h.Name, err)
	}
	if err := h.addAddr(uplink, netip.PrefixFrom(h.Addr4, underlay4.Bits())); err != nil {
		return err
	}
	if err := h.addAddr(uplink, netip.PrefixFrom(h.Addr6, underlay6.Bits())); err != nil {
		return err
	}
	if err := l.Wire.handle.LinkSetUp(port); err != nil {
		return fmt.Errorf("setting %s up: %w", h.WirePort, err)
	}
	if err := h.handle.LinkSetUp(uplink); err != nil {
		return fmt.Errorf("setting %s of %s up: %w", Uplink, h.Name, err)
	}
	edge4, edge6 := underlayAddrs(edgeNumber)
	for _, edge := range []netip.Addr{edge4, edge6} {
		if err := h.addRoute(route{dst: defaultRoute(edge), via: edge, link: uplink}); err != nil {
			return err
		}
	}
	return nil
}

// addVeth makes a veth pair, one end here and one in peer, both still down.
func (ns *NS) addVeth(name string, peer *NS, peerName string) (here, there netlink.Link, err error) {
	peer.mu.RLock()
	if peer.file == nil {
		peer.mu.RUnlock()
		return nil, nil, fmt.Errorf("making link %s: %w", name, ErrClosed)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	err = ns.handle.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: peerName, PeerNamespace: netlink.NsFd(int(peer.file.Fd()))})
	peer.mu.RUnlock()
	if err != nil {
		return nil, nil, fmt.Errorf("making link %s in namespace %s: %w", name, ns.name, err)
	}
	if here, err = ns.handle.LinkByName(name); err != nil {
		return nil, nil, fmt.Errorf("finding link %s in namespace %s: %w", name, ns.name, err)
	}
	if there, err = peer.handle.LinkByName(peerName); err != nil {
		return nil, nil, fmt.Errorf("finding link %s in namespace %s: %w", peerName, peer.name, err)
	}
	return here, there, nil
}

func (l *Lab) addNode(number int, spec NodeSpec) error {
	ns, err := l.newNS("node-" + spec.Name)
	if err != nil {
		return err
	}
	n := &Node{Host: Host{NS: ns, Name: spec.Name}, Number: number}
	n.used[Routed], n.used[Bridged] = map[int]bool{}, map[int]bool{}
	n.PodCIDR4, n.PodCIDR6 = podCIDRs(number, spec.ManyPods)
	if err := ns.sysctls(hostSysctls(true), spec.Sysctls); err != nil {
		return err
	}
	if err := l.attach(&n.Host, number); err != nil {
		return err
	}
	// Addresses of its range that no pod has must not travel to the edge.
	for _, cidr := range []netip.Prefix{n.PodCIDR4, n.PodCIDR6} {
		if err := n.addRoute(route{dst: cidr}); err != nil {
			return err
		}
	}
	l.nodes = append(l.nodes, n)
	return nil
}

func (l *Lab) addOutside(number int, name string) error {
	ns, err := l.newNS("outside-" + name)
	if err != nil {
		return err
	}
	h := &Host{NS: ns, Name: name}
	if err := ns.sysctls(hostSysctls(false)); err != nil {
		return err
	}
	if err := l.attach(h, outsideBase+number); err != nil {
		return err
	}
	l.outside = append(l.outside, h)
	return nil
}

// routeBetween gives every host the routes to all other nodes' pods.
func (l *Lab) routeBetween() error {
	hosts := append([]*Host(nil), l.outside...)
	for _, n := range l.nodes {
		hosts = append(hosts, &n.Host)
	}
	for _, h := range hosts {
		for _, n := range l.nodes {
			if &n.Host == h {
				continue
			}
			if err := h.addRoute(route{dst: n.PodCIDR4, via: n.Addr4, link: h.uplink}); err != nil {
				return err
			}
			if err := h.addRoute(route{dst: n.PodCIDR6, via: n.Addr6, link: h.uplink}); err != nil {
				return err
			}
		}
	}
	return nil
}

// Pods returns the node's pods, oldest first.
func (n *Node) Pods() []*Pod {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.pods)
}

// BPFFS mounts a new, empty BPF file system for this node and returns its
// folder. It is unmounted with the lab, which releases everything pinned in it.
func (n *Node) BPFFS() (string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.bpffs++
	dir := filepath.Join(n.lab.dir.path, "bpf", fmt.Sprintf("%s-%d", n.Name, n.bpffs))
	n.lab.mu.Lock()
	defer n.lab.mu.Unlock()
	if n.lab.closed {
		return "", fmt.Errorf("mounting a bpffs for node %s: %w", n.Name, ErrClosed)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("mounting a bpffs for node %s: %w", n.Name, err)
	}
	if err := unix.Mount("bpf", dir, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700"); err != nil {
		return "", fmt.Errorf("mounting a bpffs for node %s at %s: %w (CONFIG_BPF_SYSCALL and CAP_SYS_ADMIN are needed)", n.Name, dir, err)
	}
	return dir, nil
}
