// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Program names, as in C and in the names of pins and filters.
const (
	progEgress  = "pod_egress"
	progIngress = "pod_ingress"
	progGuard   = "pod_guard"
	progUplink  = "node_egress"
	progSteer   = "steer"
	progNetns   = "netns_guard"
)

// filterPrefix marks our clsact filters; filterHandle leaves handle 1 of our
// priority to others. cls_bpf puts the newest filter of a priority first.
const (
	filterPrefix = "c8s_"
	filterHandle = 0xc8
)

// hook is a place for a tc program. pin and ns name the device: the pin in
// the loader's folder, ns the namespace it is in.
type hook struct {
	program string
	prog    *ebpf.Program
	pin     string
	ifindex int
	egress  bool
	ns      *netNS
	nl      *netlink.Handle
}

func (h hook) attachType() ebpf.AttachType {
	if h.egress {
		return ebpf.AttachTCXEgress
	}
	return ebpf.AttachTCXIngress
}

func (h hook) parent() uint32 {
	if h.egress {
		return netlink.HANDLE_MIN_EGRESS
	}
	return netlink.HANDLE_MIN_INGRESS
}

// podHooks are the two hooks on the host side of a pod's link.
func (l *Loader) podHooks(ifindex int) []hook {
	return []hook{
		{progEgress, l.objs.PodEgress, l.pins.linkOf(progEgress, ifindex), ifindex, false, l.ns, l.nl},
		{progIngress, l.objs.PodIngress, l.pins.linkOf(progIngress, ifindex), ifindex, true, l.ns, l.nl},
	}
}

// guardUplink attaches node_egress to an uplink.
func (l *Loader) guardUplink(ifindex int) error {
	return l.attach(hook{progUplink, l.objs.NodeEgress, l.pins.linkOf(progUplink, ifindex), ifindex, true, l.ns, l.nl})
}

// attach puts the current program on a hook: in place of its predecessor
// where there is one, at the head of the chain where there is none.
func (l *Loader) attach(h hook) error {
	updated, err := h.update()
	if err != nil {
		return err
	}
	if updated {
		return nil
	}
	if l.clsact {
		return h.attachClsact()
	}
	return h.ns.do(h.attachTCX)
}

// update replaces the program of a live pinned link on this very device. A
// pin whose device has gone is removed.
func (h hook) update() (bool, error) {
	old, err := link.LoadPinnedLink(h.pin, nil)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("opening the pinned link of %s: %w", h.program, err)
	}
	defer old.Close()
	live, err := attachedTo(old, h.ifindex)
	if err != nil {
		return false, fmt.Errorf("reading the pinned link of %s: %w", h.program, err)
	}
	if live {
		err := old.Update(h.prog)
		if err == nil {
			return true, nil
		}
		if !errors.Is(err, unix.ENOLINK) { // the device went in between
			return false, fmt.Errorf("replacing %s in place: %w (the old program stays)", h.program, err)
		}
	}
	return false, removePin(h.pin)
}

// attachedTo tells whether a tcx link is on the device: its ifindex becomes 0
// with the end of the device.
func attachedTo(l link.Link, ifindex int) (bool, error) {
	info, err := l.Info()
	if err != nil {
		return false, err
	}
	tcx := info.TCX()
	return tcx != nil && int(tcx.Ifindex) == ifindex, nil
}

// attachTCX runs on a thread in the hook's namespace.
func (h hook) attachTCX() error {
	lnk, err := link.AttachTCX(link.TCXOptions{Interface: h.ifindex, Program: h.prog, Attach: h.attachType(), Anchor: link.Head()})
	if err != nil {
		return fmt.Errorf("attaching %s: %w", h.program, err)
	}
	defer lnk.Close() // the pin holds it from here on
	if err := lnk.Pin(h.pin); err != nil {
		return fmt.Errorf("pinning %s: %w", h.program, err)
	}
	return nil
}

// attachClsact serves kernels before 6.6. Filters live as long as the device
// and need no pin; replacing one is atomic.
func (h hook) attachClsact() error {
	qdisc := &netlink.GenericQdisc{
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: h.ifindex, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT},
		QdiscType:  "clsact",
	}
	err := h.nl.QdiscAdd(qdisc)
	if errors.Is(err, unix.EEXIST) {
		err = h.checkQdisc()
	}
	if err != nil {
		return fmt.Errorf("adding the clsact qdisc for %s: %w", h.program, err)
	}
	filter := &netlink.BpfFilter{
		FilterAttrs:  netlink.FilterAttrs{LinkIndex: h.ifindex, Parent: h.parent(), Handle: filterHandle, Protocol: unix.ETH_P_ALL, Priority: 1},
		Fd:           h.prog.FD(),
		Name:         filterPrefix + h.program,
		DirectAction: true,
	}
	if err := h.nl.FilterReplace(filter); err != nil {
		return fmt.Errorf("attaching %s to clsact: %w", h.program, err)
	}
	return nil
}

// checkQdisc refuses an ingress qdisc in the place of clsact: it takes filters
// for the egress hook too, and asks them on ingress.
func (h hook) checkQdisc() error {
	qdiscs, err := h.nl.QdiscList(&netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: h.ifindex}})
	if err != nil {
		return fmt.Errorf("listing the qdiscs: %w", err)
	}
	for _, q := range qdiscs {
		if q.Attrs().Parent == netlink.HANDLE_CLSACT && q.Type() != "clsact" {
			return fmt.Errorf("an %s qdisc is in its place and must go (tc qdisc del dev … ingress)", q.Type())
		}
	}
	return nil
}

// live tells whether some generation of the program is on the hook.
func (h hook) live() (bool, error) {
	old, err := link.LoadPinnedLink(h.pin, nil)
	if err == nil {
		defer old.Close()
		if on, err := attachedTo(old, h.ifindex); on || err != nil {
			return on, err
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return false, fmt.Errorf("opening the pinned link of %s: %w", h.program, err)
	}
	filters, err := h.ours()
	return len(filters) > 0, err
}

// ours lists our clsact filters on the hook. A device without clsact has none.
func (h hook) ours() ([]*netlink.BpfFilter, error) {
	dev := &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: h.ifindex}}
	filters, err := h.nl.FilterList(dev, h.parent())
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing the filters of device %d: %w", h.ifindex, err)
	}
	var found []*netlink.BpfFilter
	for _, f := range filters {
		if b, ok := f.(*netlink.BpfFilter); ok && len(b.Name) > len(filterPrefix) && b.Name[:len(filterPrefix)] == filterPrefix {
			found = append(found, b)
		}
	}
	return found, nil
}

// attachSteer puts steer on the socket lookup of the loader's namespace.
func (l *Loader) attachSteer() error {
	pin := l.pins.link(progSteer)
	old, err := link.LoadPinnedLink(pin, nil)
	if err == nil {
		defer old.Close()
		info, err := old.Info()
		if err != nil {
			return fmt.Errorf("reading the pinned link of %s: %w", progSteer, err)
		}
		switch inode := info.NetNs().NetnsInode; uint64(inode) {
		case l.ns.inode:
			if err := old.Update(l.objs.Steer); err != nil {
				return fmt.Errorf("replacing %s in place: %w", progSteer, err)
			}
			return nil
		case 0: // that namespace has gone
			if err := removePin(pin); err != nil {
				return err
			}
		default:
			return fmt.Errorf("the pins belong to another network namespace (inode %d, this one is %d); use another PinDir", inode, l.ns.inode)
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("opening the pinned link of %s: %w", progSteer, err)
	}
	lnk, err := link.AttachNetNs(int(l.ns.Fd()), l.objs.Steer)
	if err != nil {
		return fmt.Errorf("attaching %s to the socket lookup: %w", progSteer, err)
	}
	defer lnk.Close()
	if err := lnk.Pin(pin); err != nil {
		return fmt.Errorf("pinning %s: %w", progSteer, err)
	}
	return nil
}
