// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"

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

// hook is a place for a tc program: a device in a namespace. name is that of
// its link and of its pin.
type hook struct {
	program string
	prog    *ebpf.Program
	name    string
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
		{progEgress, l.objs.PodEgress, linkName(progEgress, ifindex), ifindex, false, l.ns, l.nl},
		{progIngress, l.objs.PodIngress, linkName(progIngress, ifindex), ifindex, true, l.ns, l.nl},
	}
}

func (l *Loader) uplinkHook(ifindex int) hook {
	return hook{progUplink, l.objs.NodeEgress, linkName(progUplink, ifindex), ifindex, true, l.ns, l.nl}
}

// guardUplink attaches node_egress to an uplink.
func (l *Loader) guardUplink(ifindex int) error {
	h := l.uplinkHook(ifindex)
	if err := l.attach(h); err != nil {
		return err
	}
	l.lockAgain(h)
	return nil
}

// attach puts the current program on a hook: in place of its predecessor
// where there is one, at the head of the chain where there is none.
func (l *Loader) attach(h hook) error {
	updated, err := l.update(h)
	if err != nil {
		return err
	}
	if updated {
		return nil
	}
	if l.clsact {
		return h.attachClsact()
	}
	lnk, err := h.attachTCX(h.prog)
	if err != nil {
		return err
	}
	return l.pinAndHold(h.name, lnk)
}

// update replaces the program of a live link on this very device. A link whose
// device has gone, or that somebody detached, is released.
func (l *Loader) update(h hook) (bool, error) {
	old, err := l.pinned(h.name)
	if err != nil || old == nil {
		return false, err
	}
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
	return false, l.release(h.name)
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

// attachTCX puts a program at the head of the hook's chain.
func (h hook) attachTCX(prog *ebpf.Program) (lnk link.Link, err error) {
	err = h.ns.do(func() (err error) {
		lnk, err = link.AttachTCX(link.TCXOptions{Interface: h.ifindex, Program: prog, Attach: h.attachType(), Anchor: link.Head()})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("attaching %s: %w", h.program, err)
	}
	return lnk, nil
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
	if err := h.nl.FilterReplace(h.filter()); err != nil {
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
func (l *Loader) live(h hook) (bool, error) {
	old, err := l.pinned(h.name)
	if err != nil {
		return false, err
	}
	if old != nil {
		if on, err := attachedTo(old, h.ifindex); on || err != nil {
			return on, err
		}
	}
	filters, err := h.ours()
	return len(filters) > 0, err
}

// attachSteer puts steer on the socket lookup of the loader's namespace.
func (l *Loader) attachSteer() error {
	old, err := l.pinned(progSteer)
	if err != nil {
		return err
	}
	if old != nil {
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
		case 0: // that namespace has gone, or somebody detached it
		default:
			return fmt.Errorf("the pins belong to another network namespace (inode %d, this one is %d); use another PinDir", inode, l.ns.inode)
		}
	}
	lnk, err := link.AttachNetNs(int(l.ns.Fd()), l.objs.Steer)
	if err != nil {
		return fmt.Errorf("attaching %s to the socket lookup: %w", progSteer, err)
	}
	return l.pinAndHold(progSteer, lnk)
}
