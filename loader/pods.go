// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/c8s-dev/c8s/bpf"
)

// Pod is what the kernel has to know of one.
type Pod struct {
	// Ifindex is the host side of its link.
	Ifindex int
	// NetnsPath is its network namespace; an open pod must have one.
	NetnsPath string
	// GuestInterface is its own side of the link, found by itself if empty.
	GuestInterface string
	// Addrs are at most one IPv4 and one IPv6 address.
	Addrs []netip.Addr
	// Open lets its TCP reach the daemon; a pod that is not open is refused all.
	Open bool
	// HostAccess admits connections of all processes of the node.
	HostAccess bool
	// Probes are the TCP ports that the kubelet may connect to, at most
	// bpf.ProbePorts.
	Probes []uint16
	// Cgroup is the pod's own cgroup in the cgroup2 hierarchy, as the runtime
	// names a sandbox's parent: a path, or the name of a systemd slice. Only
	// processes in and below it make IP sockets in the pod's namespace. Empty:
	// any process can, as for pods that no Kubernetes runtime made.
	Cgroup string
	// Sockets are the kinds that its processes may open although they go around
	// the link, of the words of policy.SocketKinds. Only where the hardening is
	// in force (Loader.LSM) and Cgroup is known does this restrict anything.
	Sockets []string
}

// LockLink refuses everything on a pod's link until SetPod opens it. On a link
// that is locked it replaces the programs in place and changes no pod.
func (l *Loader) LockLink(ctx context.Context, ifindex int) error {
	if err := l.begin(ctx); err != nil {
		return fmt.Errorf("locking link %d: %w", ifindex, err)
	}
	defer l.end()
	if err := l.lockLink(ifindex); err != nil {
		return fmt.Errorf("locking link %d: %w", ifindex, err)
	}
	return nil
}

// lockLink locks a link for as long as it exists.
func (l *Loader) lockLink(ifindex int) error { return l.lockLinkBy(ifindex, l.attach) }

func (l *Loader) lockLinkBy(ifindex int, attach func(hook) error) error {
	hooks := l.podHooks(ifindex)
	fresh := true
	for _, h := range hooks {
		live, err := l.live(h)
		if err != nil {
			return err
		}
		fresh = fresh && !live
	}
	// A link that nobody locked so far may have the number of one that was a
	// pod's; that pod must not come back to life on it.
	if fresh {
		if err := l.deletePodEntries(ifindex); err != nil {
			return err
		}
	}
	for _, h := range hooks {
		if err := attach(h); err != nil {
			return err
		}
	}
	err := l.objs.Pods.Update(uint32(ifindex), bpf.Pod{State: bpf.PodClosed}, ebpf.UpdateNoExist)
	if err != nil && !errors.Is(err, ebpf.ErrKeyExist) {
		return fmt.Errorf("writing the closed pod: %w", err)
	}
	return nil
}

// SetPod describes a pod, on a link that is locked now if it was not. When it
// fails, the pod is closed.
func (l *Loader) SetPod(p Pod) error {
	if err := l.begin(context.Background()); err != nil {
		return fmt.Errorf("setting the pod on link %d: %w", p.Ifindex, err)
	}
	defer l.end()
	if err := l.setPod(p); err != nil {
		return fmt.Errorf("setting the pod on link %d: %w", p.Ifindex, errors.Join(err, l.closePod(p.Ifindex)))
	}
	return nil
}

func (l *Loader) setPod(p Pod) error {
	entry, addrs, err := p.entry()
	if err != nil {
		return err
	}
	device, err := l.nl.LinkByIndex(p.Ifindex)
	if err != nil {
		return fmt.Errorf("finding the link: %w", err)
	}
	if err := l.lockLink(p.Ifindex); err != nil {
		return err
	}
	for _, h := range l.podHooks(p.Ifindex) {
		l.lockAgain(h)
	}
	if entry.Master, entry.Gateway, err = l.bridgeOf(device); err != nil {
		return err
	}
	if p.NetnsPath != "" {
		if entry.Netns, err = l.guardPod(p); err != nil {
			return err
		}
	}
	if err := l.ownNetns(p, entry.Netns); err != nil {
		return err
	}
	// Addresses first: a pod must not send before steer knows it.
	for _, a := range addrs {
		if err := l.claimAddr(a, p.Ifindex, entry.Master); err != nil {
			return err
		}
	}
	if err := l.objs.Pods.Put(uint32(p.Ifindex), entry); err != nil {
		return fmt.Errorf("writing the pod: %w", err)
	}
	return l.deleteAddrs(p.Ifindex, addrs)
}

// entry checks a pod and turns it into its map value and address keys.
func (p Pod) entry() (bpf.Pod, []addrKey, error) {
	e := bpf.Pod{State: bpf.PodClosed}
	if p.Open {
		e.State = bpf.PodOpen
		if p.NetnsPath == "" || len(p.Addrs) == 0 {
			return e, nil, errors.New("an open pod needs a network namespace and an address")
		}
	}
	if p.HostAccess {
		e.Flags |= bpf.PodHostAccess
	}
	if len(p.Probes) > len(e.Probes) || slices.Contains(p.Probes, 0) {
		return e, nil, fmt.Errorf("the probe ports %v must be at most %d and not 0", p.Probes, len(e.Probes))
	}
	copy(e.Probes[:], p.Probes)
	var keys []addrKey
	for _, a := range p.Addrs {
		a = a.Unmap()
		if !a.IsValid() || a.Zone() != "" || a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() || a.IsLinkLocalUnicast() {
			return e, nil, fmt.Errorf("%s cannot be a pod's address", a)
		}
		key := keyOf(a)
		switch {
		case a.Is4() && e.Addr4 == 0:
			e.Addr4 = key[3]
		case a.Is6() && e.Addr6 == [4]uint32{}:
			e.Addr6 = key
		default:
			return e, nil, errors.New("a pod has at most one IPv4 and one IPv6 address")
		}
		keys = append(keys, key)
	}
	return e, keys, nil
}

// addrKey is a key of pod_addrs: IPv6 or IPv4-mapped, network order.
type addrKey = [4]uint32

func keyOf(a netip.Addr) addrKey {
	var key addrKey
	b := a.As16()
	for i := range key {
		key[i] = binary.NativeEndian.Uint32(b[4*i:])
	}
	return key
}

// bridgeOf returns the bridge that a link is a port of. Other masters switch
// packets in ways the programs do not foresee.
func (l *Loader) bridgeOf(device netlink.Link) (master uint32, mac [6]uint8, err error) {
	if device.Attrs().MasterIndex == 0 {
		return 0, mac, nil
	}
	m, err := l.nl.LinkByIndex(device.Attrs().MasterIndex)
	if err != nil {
		return 0, mac, fmt.Errorf("finding the bridge of %s: %w", device.Attrs().Name, err)
	}
	if m.Type() != "bridge" || len(m.Attrs().HardwareAddr) != len(mac) {
		return 0, mac, fmt.Errorf("%s belongs to %s, a %s; pods may be routed or on a Linux bridge", device.Attrs().Name, m.Attrs().Name, m.Type())
	}
	return uint32(m.Attrs().Index), [6]uint8(m.Attrs().HardwareAddr), nil
}

// claimAddr gives an address to a link, unless an open pod on a link that
// exists has it.
func (l *Loader) claimAddr(key addrKey, ifindex int, master uint32) error {
	var owner bpf.PodAddr
	err := l.objs.PodAddrs.Lookup(key, &owner)
	if err == nil && int(owner.Ifindex) == ifindex && owner.Master == master {
		return nil
	}
	if err == nil && int(owner.Ifindex) != ifindex {
		var other bpf.Pod
		_, gone := l.nl.LinkByIndex(int(owner.Ifindex))
		if l.objs.Pods.Lookup(owner.Ifindex, &other) == nil && other.State == bpf.PodOpen && gone == nil {
			return fmt.Errorf("address %s belongs to the open pod on link %d; delete that pod first", addrOf(key), owner.Ifindex)
		}
	}
	if err := l.objs.PodAddrs.Put(key, bpf.PodAddr{Ifindex: uint32(ifindex), Master: master}); err != nil {
		return fmt.Errorf("writing the pod's address: %w", err)
	}
	l.forgetNeighbour(key, int(master))
	return nil
}

// forgetNeighbour has the node ask who has an address on a bridge. The kernel
// believes for up to 45 seconds that it is where the pod before was, and the
// new pod's announcements came when it was locked.
func (l *Loader) forgetNeighbour(key addrKey, bridge int) {
	if bridge == 0 {
		return
	}
	err := l.nl.NeighDel(&netlink.Neigh{LinkIndex: bridge, IP: addrOf(key).AsSlice()})
	if err != nil && !errors.Is(err, unix.ENOENT) {
		l.log.Debug("forgetting where an address was", "address", addrOf(key), "err", err)
	}
}

func addrOf(key addrKey) netip.Addr { return addrPort(key, 0).Addr() }

// DeletePod closes a pod and forgets its addresses. Its link stays locked as
// long as it exists. Deleting a pod that is not there is no error.
func (l *Loader) DeletePod(ifindex int) error {
	if err := l.begin(context.Background()); err != nil {
		return fmt.Errorf("deleting the pod on link %d: %w", ifindex, err)
	}
	defer l.end()
	if err := errors.Join(l.closePod(ifindex), l.deleteAddrs(ifindex, nil), l.disownNetns(ifindex, 0), l.releaseCgroups(ifindex, 0)); err != nil {
		return fmt.Errorf("deleting the pod on link %d: %w", ifindex, err)
	}
	if _, err := l.nl.LinkByIndex(ifindex); errors.As(err, new(netlink.LinkNotFoundError)) {
		return l.forget(ifindex)
	}
	return nil
}

// ClosePods closes every pod that another process left open, except on the
// links that keep names; nil names none.
func (l *Loader) ClosePods(keep func(ifindex int) bool) error {
	if err := l.begin(context.Background()); err != nil {
		return fmt.Errorf("closing all pods: %w", err)
	}
	defer l.end()
	var ifindex uint32
	var pod bpf.Pod
	var open []uint32
	all := l.objs.Pods.Iterate()
	for all.Next(&ifindex, &pod) {
		if pod.State != bpf.PodClosed && (keep == nil || !keep(int(ifindex))) {
			open = append(open, ifindex)
		}
	}
	if err := all.Err(); err != nil {
		return fmt.Errorf("closing all pods: %w", err)
	}
	for _, ifindex := range open {
		if err := l.closePod(int(ifindex)); err != nil {
			return fmt.Errorf("closing all pods: %w", err)
		}
	}
	return nil
}

// closePod refuses everything on a link whose pod is known.
func (l *Loader) closePod(ifindex int) error {
	err := l.objs.Pods.Update(uint32(ifindex), bpf.Pod{State: bpf.PodClosed}, ebpf.UpdateExist)
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("closing the pod: %w", err)
	}
	return nil
}

// forget removes what there was for a link that has gone.
func (l *Loader) forget(ifindex int) error {
	err := l.deletePodEntries(ifindex)
	delete(l.guarded, ifindex)
	delete(l.macs, ifindex)
	for _, program := range []string{progEgress, progIngress, progGuard, progUplink} {
		err = errors.Join(err, l.release(linkName(program, ifindex)))
	}
	return err
}

func (l *Loader) deletePodEntries(ifindex int) error {
	if err := l.objs.Pods.Delete(uint32(ifindex)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("deleting the pod: %w", err)
	}
	if err := l.objs.SynBudget.Delete(uint32(ifindex)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("deleting the link's SYN budget: %w", err)
	}
	if err := l.objs.DatagramBudget.Delete(uint32(ifindex)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("deleting the link's budget of datagrams: %w", err)
	}
	return errors.Join(l.deleteAddrs(ifindex, nil), l.disownNetns(ifindex, 0), l.releaseCgroups(ifindex, 0))
}

// deleteAddrs forgets a link's addresses except those to keep.
func (l *Loader) deleteAddrs(ifindex int, keep []addrKey) error {
	stale, err := pick(l.objs.PodAddrs, func(key addrKey, owner bpf.PodAddr) bool {
		return int(owner.Ifindex) == ifindex && !slices.Contains(keep, key)
	})
	if err != nil {
		return fmt.Errorf("listing the pod addresses: %w", err)
	}
	for _, key := range stale {
		if err := l.objs.PodAddrs.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("deleting a pod address: %w", err)
		}
	}
	return nil
}
