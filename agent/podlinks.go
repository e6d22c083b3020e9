// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/c8s-dev/c8s/cds/client"
	"github.com/c8s-dev/c8s/internal/pause"
	"github.com/c8s-dev/c8s/policy"
)

const (
	// linksSettle is how long a pod whose links changed is left alone before
	// the next look, so that one that changes them all the time costs little.
	linksSettle = 100 * time.Millisecond
	// linksShare is of how much time looking may take one part.
	linksShare = 10
	// linksRetry is how often a namespace that cannot be watched is tried.
	linksRetry = time.Second
	// straysForgotten is how long after the last one another link is the first.
	straysForgotten = 10 * time.Minute
)

// podLinks sees the links of pods beside the one that is locked.
type podLinks interface {
	// cut takes the others down and names them.
	cut(netns, name string) (others []string, err error)
	// watch calls changed when links may have come, gone or changed, until ctx
	// ends.
	watch(ctx context.Context, netns string, changed func())
}

// kernelLinks asks the kernel.
type kernelLinks struct{}

func (kernelLinks) cut(netnsPath, name string) (others []string, err error) {
	links, h, err := strayLinks(netnsPath, name)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	for _, link := range links {
		others = append(others, describe(link))
		// A macvlan sends through the node's uplink, past every lock of a pod's.
		err = errors.Join(err, h.LinkSetDown(link))
	}
	if err != nil {
		return others, fmt.Errorf("taking the links %s of the pod down: %w", named(others), err)
	}
	return others, nil
}

// named is a list of links for people: the pod chooses how many there are.
func named(links []string) string {
	const most = 5
	if len(links) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(links[:most], ", "), len(links)-most)
	}
	return strings.Join(links, ", ")
}

func (kernelLinks) watch(ctx context.Context, netnsPath string, changed func()) {
	for ctx.Err() == nil {
		if f, err := linkUpdates(netnsPath); err == nil {
			stop := context.AfterFunc(ctx, func() { _ = f.Close() })
			changed() // what came before
			for err == nil {
				if err = somethingArrived(f); err == nil {
					began := time.Now()
					changed()
					// A pod may have thousands of links, and a look at them
					// takes as long as that.
					pause.For(ctx, max(linksSettle, linksShare*time.Since(began)), nil)
				}
			}
			stop()
			_ = f.Close()
		}
		pause.For(ctx, linksRetry, nil)
	}
}

// linkUpdates is a socket that hears of links in a namespace. Its owner wants
// to know that something changed, never what: a reader for each pod must cost
// next to nothing.
func linkUpdates(netnsPath string) (*os.File, error) {
	ns, err := netns.GetFromPath(netnsPath)
	if err != nil {
		return nil, fmt.Errorf("opening the pod's network namespace %s: %w", netnsPath, err)
	}
	defer ns.Close()
	s, err := nl.SubscribeAt(ns, netns.None(), unix.NETLINK_ROUTE, unix.RTNLGRP_LINK)
	if err != nil {
		return nil, fmt.Errorf("watching the pod's links: %w", err)
	}
	defer s.Close()
	fd, err := unix.FcntlInt(uintptr(s.GetFd()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("watching the pod's links: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("watching the pod's links: %w", err)
	}
	return os.NewFile(uintptr(fd), "link updates"), nil
}

// somethingArrived waits, and takes all that has arrived.
func somethingArrived(f *os.File) error {
	rc, err := f.SyscallConn()
	if err != nil {
		return err
	}
	heard := false
	return rc.Read(func(fd uintptr) bool {
		for {
			// ENOBUFS: updates were lost, so there were some.
			_, _, err := unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_DONTWAIT)
			if errors.Is(err, unix.EAGAIN) {
				return heard
			}
			heard = true
			if err != nil && !errors.Is(err, unix.EINTR) {
				return true
			}
		}
	})
}

// otherLinks names the links of a network namespace that could carry packets
// past the one that is locked.
func otherLinks(netnsPath, name string) (others []string, err error) {
	links, h, err := strayLinks(netnsPath, name)
	if err != nil {
		return nil, err
	}
	h.Close()
	for _, link := range links {
		others = append(others, describe(link))
	}
	return others, nil
}

func describe(link netlink.Link) string {
	return fmt.Sprintf("%s (%s)", link.Attrs().Name, link.Type())
}

// onlyLink refuses a pod that has other links than the one that is locked, and
// takes them down. As with the link itself, an unreadable namespace is no
// reason to cut a pod off.
func (p *pod) onlyLink() (policy.Decision, error) {
	others, err := p.a.links.cut(p.info.Netns, p.info.Interface)
	switch {
	case len(others) > 0:
		if err != nil {
			p.log.Error("a link of the pod passes the lock", "err", err)
		}
		return policy.Decision{
			Code: CodePodLink, Rule: "the lock of pod links", Expected: "no link in the pod but " + p.info.Interface,
			Actual: "there is " + named(others) + ", taken down", Remedy: "remove it; take additional networks off the pod",
		}, nil
	case err != nil && !p.opened:
		return policy.Decision{}, err
	}
	return policy.Decision{Allowed: true}, nil
}

// strays paces a pod whose other links come and go. Whoever has CAP_NET_ADMIN in
// a pod makes links there as fast as it likes; locking the pod, looking at all
// connections and certifying it anew for each would be at the cost of everybody
// else, and of the CDS's log.
type strays struct {
	here  bool // at the last look
	times int  // they came, one soon after the other
	seen  time.Time
	until time.Time // the pod stays locked
	why   policy.Decision
}

// pace is d, what the pod's links are judged now, and in how long to look again
// where it, or what was before, refuses.
func (s *strays) pace(d policy.Decision, now time.Time, pace client.Pace) (policy.Decision, time.Duration) {
	came := !d.Allowed && !s.here
	s.here = !d.Allowed
	switch {
	case !d.Allowed:
		if came && now.Sub(s.seen) > straysForgotten {
			s.times = 0
		}
		if came {
			s.times++
		}
		s.seen, s.why = now, d
		if s.times > 1 {
			s.until = now.Add(pace.Retry(s.times-1, nil))
		}
		return d, time.Hour
	case now.Before(s.until):
		return s.why, s.until.Sub(now)
	}
	return d, 0
}
