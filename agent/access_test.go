// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"slices"
	"testing"

	"github.com/c8s-dev/c8s/policy"
)

// The kernel tells pods apart and not their containers.
func TestPodMayOpenWhatAnyOfItsImagesMay(t *testing.T) {
	w := &policy.Workload{Probes: []uint16{80}, Images: []policy.Image{
		{Name: "as the image says"},
		{Name: "ping", Run: &policy.Run{Sockets: []string{policy.SocketRaw, policy.SocketPacket}}},
		{Name: "trace", Run: &policy.Run{Sockets: []string{policy.SocketBPF, policy.SocketRaw}}},
	}}
	p := &pod{info: PodInfo{Cgroup: "/pod"}}
	if got, want := p.kernelPod(7, true, accessOf(w)).Sockets, []string{policy.SocketBPF, policy.SocketPacket, policy.SocketRaw}; !slices.Equal(got, want) {
		t.Errorf("open, it may open %q, want %q", got, want)
	}
	if got := p.kernelPod(7, false, access{}).Sockets; len(got) != 0 {
		t.Errorf("locked, it may open %q", got)
	}
	less := *w
	less.Images = w.Images[:2]
	if a := accessOf(w); !a.equal(accessOf(w)) || a.equal(accessOf(&less)) {
		t.Error("a change of the sockets is not noticed, or noticed where there is none")
	}
}
