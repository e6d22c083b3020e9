// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// routeProtocol marks our rules and routes as ours (rtm_protocol; the range
// 192 to 252 is unassigned in rtnetlink.h).
const routeProtocol = 200

const (
	// reconcileInterval catches what no update announced.
	reconcileInterval = time.Second
	// reconcilePause keeps a busy firewall from keeping us busy.
	reconcilePause = 100 * time.Millisecond
)

// family is an address family with its default destination.
type family struct {
	number int
	all    *net.IPNet
}

// families leaves out IPv6 where the kernel has none.
func families() []family {
	all := []family{{unix.AF_INET, &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}}}
	if _, err := os.Stat("/proc/sys/net/ipv6"); err == nil {
		all = append(all, family{unix.AF_INET6, &net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}})
	}
	return all
}

// Routing delivers captured packets locally: a rule by mark to a table whose
// only route is local, and an nftables table that keeps both marks out of
// connection tracking and captured packets away from broadcast. It installs them, puts back what others remove, and
// returns when ctx ends, leaving them in place. It fails only if it could not
// install them in the first place.
func (l *Loader) Routing(ctx context.Context) error {
	if err := l.warnOverlap(); err != nil {
		return err
	}
	if err := l.warnReversePath(); err != nil {
		return err
	}
	if err := l.InstallRouting(); err != nil {
		return err
	}
	wake := make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	groups := map[int][]uint{
		unix.NETLINK_ROUTE:     {unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV6_RULE},
		unix.NETLINK_NETFILTER: {unix.NFNLGRP_NFTABLES},
	}
	for protocol, groups := range groups {
		socket, err := l.ns.subscribe(protocol, groups...)
		if err != nil {
			return fmt.Errorf("watching the routing: %w", err)
		}
		ended := l.wakeOn(ctx, socket, wake)
		defer func() { cancel(); socket.Close(); <-ended }()
	}
	tick := time.NewTicker(reconcileInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-wake:
		case <-tick.C:
		}
		if err := l.InstallRouting(); err != nil && ctx.Err() == nil {
			l.log.Error("putting the routing back", "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(reconcilePause):
		}
	}
}

// wakeOn signals whenever the socket hears anything. Lost updates are a signal
// like any other.
func (l *Loader) wakeOn(ctx context.Context, socket *nl.NetlinkSocket, wake chan<- struct{}) <-chan struct{} {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			if _, _, err := socket.Receive(); err != nil && !errors.Is(err, unix.ENOBUFS) {
				return // closed; the ticker goes on
			}
			select {
			case wake <- struct{}{}:
			default:
			}
		}
	}()
	return ended
}

// InstallRouting installs what of rules, routes, broadcast addresses and
// nftables rules is missing.
func (l *Loader) InstallRouting() error {
	if err := l.begin(context.Background()); err != nil {
		return fmt.Errorf("installing the routing: %w", err)
	}
	defer l.end()
	for _, f := range families() {
		if err := errors.Join(l.installRoute(f), l.installRule(f)); err != nil {
			return fmt.Errorf("installing the routing: %w", err)
		}
	}
	if err := errors.Join(l.installBroadcasts(), l.installTable()); err != nil {
		return fmt.Errorf("installing the routing: %w", err)
	}
	return nil
}

// rule is the one that leads captured packets to our table.
func (l *Loader) rule(f family) *netlink.Rule {
	r := netlink.NewRule()
	r.Family, r.Priority, r.Table = f.number, l.cfg.RulePref, l.cfg.Table
	r.Mark, r.Mask = l.cfg.CaptureMark, &l.cfg.MarkMask
	r.Protocol = routeProtocol
	return r
}

// installRule adds the rule and removes our own of other settings, in this
// order.
func (l *Loader) installRule(f family) error {
	rules, err := l.rules(f)
	if err != nil {
		return err
	}
	want, found := l.rule(f), false
	var stale []netlink.Rule
	for _, r := range rules {
		switch {
		case !found && sameRule(&r, want):
			found = true
		case r.Protocol == routeProtocol:
			stale = append(stale, r)
		}
	}
	if !found {
		if err := l.nl.RuleAdd(want); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("adding the rule for mark %#x: %w", l.cfg.CaptureMark, err)
		}
	}
	for _, r := range stale {
		r.Family = f.number
		if err := l.nl.RuleDel(&r); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("removing our former rule %d: %w", r.Priority, err)
		}
	}
	return nil
}

func sameRule(a, b *netlink.Rule) bool {
	return a.Priority == b.Priority && a.Table == b.Table && a.Mark == b.Mark && maskOf(a) == maskOf(b) &&
		a.Src == nil && a.Dst == nil && a.IifName == "" && a.OifName == "" && !a.Invert && a.IPProto == 0
}

func maskOf(r *netlink.Rule) uint32 {
	if r.Mask == nil {
		return 0
	}
	return *r.Mask
}

func (l *Loader) rules(f family) ([]netlink.Rule, error) {
	rules, err := l.nl.RuleList(f.number)
	if err != nil {
		return nil, fmt.Errorf("listing the rules: %w", err)
	}
	return rules, nil
}

func (l *Loader) installRoute(f family) error {
	lo, err := l.nl.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("finding lo: %w", err)
	}
	routes, err := l.routes(f)
	if err != nil {
		return err
	}
	for _, r := range routes {
		if r.LinkIndex == lo.Attrs().Index && r.Type == unix.RTN_LOCAL && isDefault(r.Dst) {
			return nil
		}
	}
	route := &netlink.Route{
		Family: f.number, Table: l.cfg.Table, Type: unix.RTN_LOCAL, Scope: unix.RT_SCOPE_HOST,
		Dst: f.all, LinkIndex: lo.Attrs().Index, Protocol: routeProtocol,
	}
	if err := l.nl.RouteReplace(route); err != nil {
		return fmt.Errorf("adding the local route to table %d: %w", l.cfg.Table, err)
	}
	return nil
}

func (l *Loader) routes(f family) ([]netlink.Route, error) {
	routes, err := l.nl.RouteListFiltered(f.number, &netlink.Route{Table: l.cfg.Table}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return nil, fmt.Errorf("listing table %d: %w", l.cfg.Table, err)
	}
	return routes, nil
}

func isDefault(dst *net.IPNet) bool {
	if dst == nil {
		return true
	}
	ones, _ := dst.Mask.Size()
	return ones == 0
}

// warnOverlap names rules of others that take captured packets before ours.
func (l *Loader) warnOverlap() error {
	for _, f := range families() {
		rules, err := l.rules(f)
		if err != nil {
			return fmt.Errorf("looking for overlapping rules: %w", err)
		}
		for _, r := range rules {
			mask := maskOf(&r)
			if r.Protocol == routeProtocol || r.Priority > l.cfg.RulePref || mask == 0 {
				continue
			}
			// The link crossing cleared all other bits of a pod packet's mark.
			if (l.cfg.CaptureMark&mask == r.Mark) != r.Invert {
				l.log.Warn("another rule may take captured packets; choose other marks or a smaller rule priority",
					"rule", r.String(), "mark", fmt.Sprintf("%#x/%#x", r.Mark, mask), "ours", l.cfg.RulePref)
			}
		}
	}
	return nil
}

// warnReversePath names a setting (wg-quick makes it) under which the reverse
// path filter looks up our mark and drops every captured packet.
func (l *Loader) warnReversePath() error {
	return l.ns.do(func() error {
		for _, key := range []string{"rp_filter", "src_valid_mark"} {
			value, err := os.ReadFile("/proc/sys/net/ipv4/conf/all/" + key)
			if err != nil {
				return fmt.Errorf("looking at the reverse path filter: %w", err)
			}
			if string(bytes.TrimSpace(value)) != "1" {
				return nil
			}
		}
		l.log.Warn("strict reverse path filtering with src_valid_mark drops captured packets; set net.ipv4.conf.all.src_valid_mark or rp_filter to 0")
		return nil
	})
}
