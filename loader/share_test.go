// SPDX-License-Identifier: Apache-2.0

package loader_test

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/loader"
	"github.com/c8s-dev/c8s/test/lab"
	"github.com/c8s-dev/c8s/test/lab/labtest"
)

const (
	refusedWithin  = 250 * time.Millisecond
	acceptedWithin = 5 * time.Second
)

// While one daemon takes over from another, two loaders hold the same pins.
func TestTwoLoadersLockTheSameNewLinks(t *testing.T) {
	for _, clsact := range attachments() {
		b := newBench(t, func(c *loader.Config) { c.ForceClsact = clsact })
		second := b.open(t)
		for i := range 8 {
			p := labtest.Pod(t, b.Node, lab.PodSpec{Name: fmt.Sprintf("p%d", i), BeforeUp: func(p *lab.Pod) error {
				var both sync.WaitGroup
				for _, l := range []*loader.Loader{b.l, second} {
					both.Go(func() {
						if err := l.LockLink(t.Context(), p.HostIfindex); err != nil {
							t.Errorf("clsact=%t: %v", clsact, err)
						}
					})
				}
				both.Wait()
				return nil
			}})
			if got, err := helloWithin(t, p.NS, netip.AddrPortFrom(b.outside.Addr4, 8080), refusedWithin); err == nil {
				t.Errorf("clsact=%t: a locked pod reached %q", clsact, got)
			}
		}
	}
}

// The slots and the pods of an earlier loader work on under a second one.
func TestPodsThatASuccessorKnowsStayOpen(t *testing.T) {
	b := newBench(t, nil)
	b.routing(t)
	b.daemon(t)
	kept, unknown := b.pod(t, "kept", lab.Routed, true), b.pod(t, "unknown", lab.Routed, true)
	second := b.open(t)
	if err := b.l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := second.ClosePods(func(ifindex int) bool { return ifindex == kept.HostIfindex }); err != nil {
		t.Fatal(err)
	}
	dst := netip.AddrPortFrom(b.outside.Addr4, 8080)
	if _, err := helloWithin(t, kept.NS, dst, acceptedWithin); err != nil {
		t.Errorf("the pod to keep: %v", err)
	}
	if got, err := helloWithin(t, unknown.NS, dst, refusedWithin); err == nil {
		t.Errorf("the pod to close reached %q", got)
	}
}

// Nobody may keep the pins to himself: the other daemon would fail to lock a
// new pod.
func TestClosingPodsGivesTheTurnBack(t *testing.T) {
	b := newBench(t, nil)
	second := b.open(t)
	p := labtest.Pod(t, b.Node, lab.PodSpec{Name: "late"})
	if err := second.ClosePods(nil); err != nil {
		t.Fatal(err)
	}
	if err := b.l.LockLink(t.Context(), p.HostIfindex); err != nil {
		t.Errorf("the first loader cannot go on: %v", err)
	}
}
