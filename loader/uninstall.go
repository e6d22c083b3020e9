// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Uninstall removes the lock from the calling thread's network namespace and
// its pods: from here on nothing is refused any more. It goes on after errors
// and may be repeated.
func Uninstall(cfg Config) error {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return fmt.Errorf("uninstalling: %w", err)
	}
	l := newLoader(cfg)
	if l.ns, err = currentNS(); err != nil {
		return fmt.Errorf("uninstalling: %w", err)
	}
	defer l.ns.Close()
	if l.nl, err = l.ns.netlink(); err != nil {
		return fmt.Errorf("uninstalling: %w", err)
	}
	defer l.nl.Close()
	layouts, err := l.pins.others()
	errs := []error{err, l.removeFilters()}
	for _, p := range append(layouts, l.pins) {
		errs = append(errs, p.restrictNobody(), p.unpinLinks(l.log), p.unpinMaps())
	}
	// PinDir may be the administrator's own, or the mount itself.
	if err := os.Remove(l.cfg.PinDir); err != nil {
		l.log.Debug("leaving the pin folder", "err", err)
	}
	err = errors.Join(append(errs, l.removeRouting(), l.uninstallTable())...)
	if err != nil {
		return fmt.Errorf("uninstalling: %w", err)
	}
	return nil
}

// unpinLinks detaches at once, also where a running daemon holds a link; those
// to security hooks end with it, see restrictNobody.
func (p pins) unpinLinks(log *slog.Logger) error {
	entries, err := os.ReadDir(p.links())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("listing the pinned links: %w", err)
	}
	var errs []error
	for _, e := range entries {
		pin := p.link(e.Name())
		lnk, err := link.LoadPinnedLink(pin, nil)
		if err != nil {
			errs = append(errs, fmt.Errorf("opening the pinned link %s: %w", e.Name(), err))
			continue
		}
		if err := lnk.Detach(); err != nil && !errors.Is(err, unix.ENOLINK) {
			log.Debug("detaching a link", "link", e.Name(), "err", err)
		}
		errs = append(errs, removePin(pin), lnk.Close())
	}
	return errors.Join(errs...)
}

func (p pins) unpinMaps() error {
	entries, err := os.ReadDir(p.maps())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("listing the pinned maps: %w", err)
	}
	var errs []error
	for _, e := range entries {
		errs = append(errs, removePin(filepath.Join(p.maps(), e.Name())))
	}
	errs = append(errs, removePin(p.maps()))
	return errors.Join(errs...)
}

func (l *Loader) removeRouting() error {
	var errs []error
	for _, f := range families() {
		rules, err := l.rules(f)
		errs = append(errs, err)
		for _, r := range rules {
			if r.Protocol != routeProtocol {
				continue
			}
			r.Family = f.number
			if err := l.nl.RuleDel(&r); err != nil {
				errs = append(errs, fmt.Errorf("removing rule %d: %w", r.Priority, err))
			}
		}
		routes, err := l.routes(f)
		errs = append(errs, err)
		for _, r := range routes {
			if r.Protocol != routeProtocol {
				continue
			}
			if r.Dst == nil {
				r.Dst = f.all
			}
			if err := l.nl.RouteDel(&r); err != nil {
				errs = append(errs, fmt.Errorf("removing the route from table %d: %w", l.cfg.Table, err))
			}
		}
	}
	return errors.Join(errs...)
}

// removeFilters removes our clsact filters here and in every namespace that a
// process runs in or that is mounted: nothing else says where the guards are.
func (l *Loader) removeFilters() error {
	errs := []error{removeNamed(l.nl, nil, progEgress, progIngress, progUplink)}
	paths, err := filepath.Glob("/proc/[0-9]*/ns/net")
	errs = append(errs, err)
	mounted, err := mountedNamespaces()
	errs = append(errs, err)
	seen := map[uint64]bool{l.ns.inode: true}
	for _, path := range append(paths, mounted...) {
		ns, err := openNS(path)
		if err != nil {
			continue // the process has ended
		}
		if !seen[ns.inode] {
			seen[ns.inode] = true
			if h, err := ns.netlink(); err == nil {
				errs = append(errs, l.removeGuards(h))
				h.Close()
			}
		}
		_ = ns.Close()
	}
	return errors.Join(errs...)
}

// mountedNamespaces are the network namespaces that have a name in the file
// system: proc_pid_mountinfo(5).
func mountedNamespaces() (paths []string, err error) {
	raw, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("listing the mounted namespaces: %w", err)
	}
	for line := range strings.Lines(string(raw)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[3], "net:[") {
			paths = append(paths, unescape(f[4]))
		}
	}
	return paths, nil
}

// removeGuards removes the guards of our pods in a namespace: on links whose
// peer is here, as that namespace numbers ours.
func (l *Loader) removeGuards(h *netlink.Handle) error {
	here, err := h.GetNetNsIdByFd(int(l.ns.Fd()))
	if err != nil || here < 0 {
		return nil // no link leads here
	}
	return removeNamed(h, func(dev netlink.Link) bool { return isPair(dev) && dev.Attrs().NetNsID == here }, progGuard)
}

// removeNamed removes the filters of the given programs from the devices that
// are picked (all if pick is nil).
func removeNamed(nl *netlink.Handle, pick func(netlink.Link) bool, programs ...string) error {
	links, err := nl.LinkList()
	if err != nil {
		return fmt.Errorf("listing the links: %w", err)
	}
	var errs []error
	for _, dev := range links {
		if pick == nil || pick(dev) {
			errs = append(errs, removeFrom(nl, dev, programs...))
		}
	}
	return errors.Join(errs...)
}

// removeFrom removes the filters of the given programs from a device, and the
// clsact qdisc where that leaves it empty.
func removeFrom(nl *netlink.Handle, dev netlink.Link, programs ...string) error {
	removed, left := false, 0
	var errs []error
	for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
		filters, err := nl.FilterList(dev, parent)
		if err != nil {
			continue // no clsact here
		}
		for _, f := range filters {
			b, ok := f.(*netlink.BpfFilter)
			if !ok || !slices.Contains(programs, strings.TrimPrefix(b.Name, filterPrefix)) || !strings.HasPrefix(b.Name, filterPrefix) {
				left++
				continue
			}
			removed = true
			if err := nl.FilterDel(f); err != nil {
				errs = append(errs, fmt.Errorf("removing a filter of device %d: %w", dev.Attrs().Index, err))
			}
		}
	}
	if removed && left == 0 {
		errs = append(errs, removeClsact(nl, dev))
	}
	return errors.Join(errs...)
}

func removeClsact(nl *netlink.Handle, dev netlink.Link) error {
	err := nl.QdiscDel(&netlink.GenericQdisc{
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: dev.Attrs().Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT},
		QdiscType:  "clsact",
	})
	if err != nil {
		return fmt.Errorf("removing the empty clsact qdisc of device %d: %w", dev.Attrs().Index, err)
	}
	return nil
}
