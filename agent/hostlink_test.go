// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"strconv"
	"strings"
	"testing"

	"github.com/c8s-dev/c8s/test/lab"
	"github.com/c8s-dev/c8s/test/lab/labtest"
	"github.com/c8s-dev/c8s/test/privileged"
)

// A pod with CAP_NET_ADMIN chooses names and numbers of links in its namespace.
// A pair that has both ends there, with the numbers of another pod's, must not
// be taken for the way to that pod's link: it would be this one's from then on.
func TestHostLinkIsNotWhatThePodMakesOfIt(t *testing.T) {
	privileged.Require(t)
	lb := labtest.New(t, lab.Options{Nodes: []lab.NodeSpec{{Name: "a"}}})
	node := lb.Node("a")
	victim := labtest.Pod(t, node, lab.PodSpec{Name: "victim"})
	mallory := labtest.Pod(t, node, lab.PodSpec{Name: "mallory"})
	find := func(p *lab.Pod, name string) (ifindex int, err error) {
		if doErr := node.Do(func() error { ifindex, err = hostLink(p.Path(), name); return nil }); doErr != nil {
			t.Fatal(doErr)
		}
		return ifindex, err
	}
	for _, p := range []*lab.Pod{victim, mallory} {
		if got, err := find(p, "eth0"); err != nil || got != p.HostIfindex {
			t.Fatalf("%s is behind link %d, %v; want %d", p.Name, got, err, p.HostIfindex)
		}
	}
	guest, err := victim.Netlink().LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"link", "del", "eth0"}, // numbers are each pod's own, and this one was the same
		{
			"link", "add", "eth0", "index", strconv.Itoa(guest.Attrs().Index),
			"type", "veth", "peer", "name", "peer", "index", strconv.Itoa(victim.HostIfindex),
		},
	} {
		if out, err := mallory.Command(t.Context(), "ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
		}
	}
	if forged, err := mallory.Netlink().LinkByName("eth0"); err != nil || forged.Attrs().ParentIndex != victim.HostIfindex {
		t.Fatalf("the forgery has failed: %+v, %v", forged, err)
	}
	if got, err := find(mallory, "eth0"); err == nil {
		t.Errorf("mallory is behind link %d, the victim's is %d", got, victim.HostIfindex)
	}
}
