// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/c8s-dev/c8s/loader"
	"github.com/c8s-dev/c8s/nri/gate"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/test/lab"
	"github.com/c8s-dev/c8s/test/lab/labtest"
	"github.com/c8s-dev/c8s/test/privileged"
)

// recordingLock notes which links were locked.
type recordingLock struct {
	err    error
	locked []loader.PodLink
}

func (r *recordingLock) LockNew(_ context.Context, link loader.PodLink) error {
	r.locked = append(r.locked, link)
	return r.err
}

func TestLinkLock(t *testing.T) {
	privileged.Require(t)
	lb := labtest.New(t, lab.Options{Nodes: []lab.NodeSpec{{Name: "a"}}})
	node := lb.Node("a")
	plain := labtest.Pod(t, node, lab.PodSpec{Name: "plain"})
	two := labtest.Pod(t, node, lab.PodSpec{Name: "two"})
	extra := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "net1"}, PeerName: "net2"}
	if err := two.Netlink().LinkAdd(extra); err != nil {
		t.Fatal(err)
	}
	kernelDown := errors.New("the kernel said no")

	for name, c := range map[string]struct {
		pod    *lab.Pod
		change func(*gate.LockRequest)
		kernel error
		code   policy.Code // of the refusal; empty with say: another error
		say    string
		locked bool
	}{
		"one link":                        {pod: plain, locked: true},
		"the right name of the other end": {pod: plain, change: func(r *gate.LockRequest) { r.HostInterface = plain.HostLink }, locked: true},
		"another name of the other end":   {pod: plain, change: func(r *gate.LockRequest) { r.HostInterface = "veth0" }, code: CodePodLink, say: "veth0"},
		"a second link":                   {pod: two, code: CodePodLink, say: "net1", locked: true},
		"no such link":                    {pod: plain, change: func(r *gate.LockRequest) { r.Interface = "eth9" }, code: CodePodLink, say: "eth9"},
		"no such namespace":               {pod: plain, change: func(r *gate.LockRequest) { r.NetNS += ".gone" }, code: CodePodLink, say: ".gone"},
		"the loopback":                    {pod: plain, change: func(r *gate.LockRequest) { r.Interface = "lo" }, code: CodePodLink, say: "lo"},
		"the kernel refuses":              {pod: plain, kernel: kernelDown, say: "the kernel said no", locked: true},
	} {
		t.Run(name, func(t *testing.T) {
			kernel := &recordingLock{err: c.kernel}
			r := gate.LockRequest{NetNS: c.pod.Path(), Interface: "eth0"}
			if c.change != nil {
				c.change(&r)
			}
			var err error
			if doErr := node.Do(func() error { err = LinkLock{kernel}.Lock(t.Context(), r); return nil }); doErr != nil {
				t.Fatal(doErr)
			}
			var d policy.Decision
			if errors.As(err, &d) != (c.code != "") || d.Code != c.code || (err != nil) != (c.say != "") || err != nil && !strings.Contains(err.Error(), c.say) {
				t.Errorf("got %v, expected code %q and %q", err, c.code, c.say)
			}
			if got := slices.Equal(kernel.locked, []loader.PodLink{{Ifindex: c.pod.HostIfindex, NetnsPath: c.pod.Path(), GuestInterface: "eth0"}}); got != c.locked {
				t.Errorf("locked %v, expected %t for %d", kernel.locked, c.locked, c.pod.HostIfindex)
			}
		})
	}
}
