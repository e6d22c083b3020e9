// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Kind is how a pod is connected to its node.
type Kind int

const (
	// Routed pods have a link of their own, a host route each and the
	// gateway 169.254.1.1 or fe80::1 behind it, as with Calico.
	Routed Kind = iota
	// Bridged pods are ports of the node's cni0, as with the bridge plugin.
	Bridged
)

// String returns "routed" or "bridged".
func (k Kind) String() string {
	if k == Bridged {
		return "bridged"
	}
	return "routed"
}

// podInterface is the pod's own link.
const podInterface = "eth0"

// PodSpec describes a pod.
type PodSpec struct {
	Name      string
	Namespace string // "default" when empty
	UID       string // random when empty
	Kind      Kind
	// HostLink names the link's end in the node; "veth" and eight random
	// hexadecimal digits when empty.
	HostLink string
	// Images are carried along for whoever describes the pod to an agent.
	Images []string
	// BeforeUp runs after the pod's link was born and before it has an
	// address or is up: the moment at which a lock has to be in place.
	BeforeUp func(*Pod) error
}

// Pod is a namespace with one link to its node.
type Pod struct {
	*NS
	Node      *Node
	Name      string
	Namespace string
	UID       string
	Kind      Kind
	Images    []string
	// Interface is the pod's own link, always eth0.
	Interface string
	MAC       net.HardwareAddr
	// HostLink is the other end's name in the node, HostIfindex its index.
	HostLink    string
	HostIfindex int
	Addr4       netip.Addr
	Addr6       netip.Addr

	number int
}

// AddPod makes a pod. On error nothing of it is left.
func (n *Node) AddPod(ctx context.Context, spec PodSpec) (*Pod, error) {
	p, err := n.newPod(spec)
	if err != nil {
		return nil, fmt.Errorf("adding pod %s to node %s: %w", spec.Name, n.Name, err)
	}
	if err := p.build(ctx, spec); err != nil {
		return nil, fmt.Errorf("adding pod %s to node %s: %w", spec.Name, n.Name, errors.Join(err, n.RemovePod(p)))
	}
	n.lab.log.Debug("pod is up", "node", n.Name, "pod", p.Name, "kind", p.Kind, "v4", p.Addr4, "v6", p.Addr6, "link", p.HostLink)
	return p, nil
}

// newPod fills in the defaults and reserves the pod's addresses.
func (n *Node) newPod(spec PodSpec) (*Pod, error) {
	if !label.MatchString(spec.Name) {
		return nil, fmt.Errorf("name %q is not a DNS label of at most 32 characters", spec.Name)
	}
	if spec.Kind != Routed && spec.Kind != Bridged {
		return nil, fmt.Errorf("kind %d is unknown", spec.Kind)
	}
	p := &Pod{
		Node: n, Name: spec.Name, Namespace: spec.Namespace, UID: spec.UID, Kind: spec.Kind,
		Images: slices.Clone(spec.Images), Interface: podInterface, HostLink: spec.HostLink,
	}
	if p.Namespace == "" {
		p.Namespace = "default"
	}
	if p.UID == "" {
		p.UID = newUID()
	}
	if p.HostLink == "" {
		p.HostLink = "veth" + randomHex(4)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	most := maxPods(n.PodCIDR4)
	for p.number = 2; n.used[p.Kind][p.number]; p.number++ {
		if p.number > most {
			return nil, fmt.Errorf("the node has no %s address left (%d pods)", p.Kind, most)
		}
	}
	n.used[p.Kind][p.number] = true
	n.pods = append(n.pods, p)
	p.Addr4 = nth(half(n.PodCIDR4, p.Kind), p.number)
	p.Addr6 = nth(half(n.PodCIDR6, p.Kind), p.number)
	return p, nil
}

func (p *Pod) build(ctx context.Context, spec PodSpec) error {
	n := p.Node
	ns, err := n.lab.newNS("pod-" + p.Name + "-" + randomHex(4))
	if err != nil {
		return err
	}
	p.NS = ns
	if err := ns.sysctls(hostSysctls(false)); err != nil {
		return err
	}
	hostLink, podLink, err := n.addVeth(p.HostLink, ns, podInterface)
	if err != nil {
		return err
	}
	p.HostIfindex, p.MAC = hostLink.Attrs().Index, podLink.Attrs().HardwareAddr
	if spec.BeforeUp != nil {
		if err := spec.BeforeUp(p); err != nil {
			return fmt.Errorf("running the BeforeUp hook: %w", err)
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if p.Kind == Bridged {
		return p.connectBridged(hostLink, podLink)
	}
	return p.connectRouted(hostLink, podLink)
}

// up sets both ends of the pod's link up.
func (p *Pod) up(hostLink, podLink netlink.Link) error {
	if err := p.Node.handle.LinkSetUp(hostLink); err != nil {
		return fmt.Errorf("setting %s up: %w", p.HostLink, err)
	}
	if err := p.handle.LinkSetUp(podLink); err != nil {
		return fmt.Errorf("setting %s up in the pod: %w", podInterface, err)
	}
	return nil
}

func (p *Pod) connectRouted(hostLink, podLink netlink.Link) error {
	n := p.Node
	// Proxy ARP answers for the gateway because the node's default route
	// leads elsewhere; the delay is meant for real proxies.
	for key, value := range map[string]string{
		"net.ipv4.conf." + p.HostLink + ".proxy_arp":    "1",
		"net.ipv4.neigh." + p.HostLink + ".proxy_delay": "0",
	} {
		if err := n.Sysctl(key, value); err != nil {
			return err
		}
	}
	if err := n.addAddr(hostLink, netip.PrefixFrom(gateway6, 64)); err != nil {
		return err
	}
	for _, a := range []netip.Addr{p.Addr4, p.Addr6} {
		if err := p.addAddr(podLink, host(a)); err != nil {
			return err
		}
	}
	if err := p.up(hostLink, podLink); err != nil {
		return err
	}
	return errors.Join(
		n.addRoute(route{dst: host(p.Addr4), link: hostLink, src: n.Addr4}),
		n.addRoute(route{dst: host(p.Addr6), link: hostLink, src: n.Addr6}),
		p.addRoute(route{dst: host(gateway4), link: podLink}),
		p.addRoute(route{dst: defaultRoute(gateway4), via: gateway4, link: podLink}),
		p.addRoute(route{dst: defaultRoute(gateway6), via: gateway6, link: podLink}),
	)
}

func (p *Pod) connectBridged(hostLink, podLink netlink.Link) error {
	n := p.Node
	br, err := n.podBridge()
	if err != nil {
		return err
	}
	if err := n.handle.LinkSetMaster(hostLink, br); err != nil {
		return fmt.Errorf("plugging %s into %s: %w", p.HostLink, PodBridge, err)
	}
	if err := n.handle.LinkSetHairpin(hostLink, true); err != nil {
		return fmt.Errorf("setting hairpin on %s: %w", p.HostLink, err)
	}
	cidr4, cidr6 := half(n.PodCIDR4, Bridged), half(n.PodCIDR6, Bridged)
	for _, a := range []netip.Prefix{netip.PrefixFrom(p.Addr4, cidr4.Bits()), netip.PrefixFrom(p.Addr6, cidr6.Bits())} {
		if err := p.addAddr(podLink, a); err != nil {
			return err
		}
	}
	if err := p.up(hostLink, podLink); err != nil {
		return err
	}
	return errors.Join(
		p.addRoute(route{dst: defaultRoute(cidr4.Addr()), via: nth(cidr4, 1), link: podLink}),
		p.addRoute(route{dst: defaultRoute(cidr6.Addr()), via: nth(cidr6, 1), link: podLink}),
	)
}

// podBridge returns the node's cni0, made on first use.
func (n *Node) podBridge() (netlink.Link, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.bridge != nil {
		return n.bridge, nil
	}
	br, err := n.addBridge(PodBridge)
	if err != nil {
		return nil, err
	}
	// A bridge takes the lowest port's address; pods that come and go must
	// not change it under their neighbours.
	if err := n.handle.LinkSetHardwareAddr(br, br.Attrs().HardwareAddr); err != nil {
		return nil, fmt.Errorf("fixing the address of %s: %w", PodBridge, err)
	}
	for _, cidr := range []netip.Prefix{half(n.PodCIDR4, Bridged), half(n.PodCIDR6, Bridged)} {
		if err := n.addAddr(br, netip.PrefixFrom(nth(cidr, 1), cidr.Bits())); err != nil {
			return nil, err
		}
	}
	n.bridge = br
	return br, nil
}

// RemovePod kills the pod's processes and deletes its link and namespace.
// Removing a pod twice is no error.
func (n *Node) RemovePod(p *Pod) error {
	n.mu.Lock()
	i := slices.Index(n.pods, p)
	if i >= 0 {
		n.pods = slices.Delete(n.pods, i, i+1)
	}
	n.mu.Unlock()
	if i < 0 {
		return nil
	}
	var err error
	if p.NS != nil {
		err = errors.Join(killInNamespaces(map[uint64]bool{p.inode: true}), p.close())
		n.lab.forget(p.NS)
	}
	// The addresses are free only now, so that a successor never meets them in use.
	n.mu.Lock()
	delete(n.used[p.Kind], p.number)
	n.mu.Unlock()
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("removing pod %s from node %s: %w", p.Name, n.Name, err)
	}
	return nil
}

// Addrs returns the pod's addresses, IPv4 first.
func (p *Pod) Addrs() []netip.Addr { return []netip.Addr{p.Addr4, p.Addr6} }

func randomHex(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails since Go 1.24
	return hex.EncodeToString(b)
}

// newUID returns a random (version 4) UUID, the form Kubernetes uses.
func newUID() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b)
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
