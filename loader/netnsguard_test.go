// SPDX-License-Identifier: Apache-2.0

package loader_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/c8s-dev/c8s/bpf"
	"github.com/c8s-dev/c8s/loader"
	"github.com/c8s-dev/c8s/test/lab"
)

// ipSockets are what an outsider must not make, others what it may.
var (
	ipSockets = map[string][3]any{
		"TCP":        {unix.AF_INET, unix.SOCK_STREAM, 0},
		"TCP over 6": {unix.AF_INET6, unix.SOCK_STREAM, 0},
		"UDP":        {unix.AF_INET, unix.SOCK_DGRAM, 0},
		"UDP over 6": {unix.AF_INET6, unix.SOCK_DGRAM, 0},
		"raw":        {unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW},
		"MPTCP":      {unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP},
		"ping":       {unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_ICMPV6},
	}
	otherSockets = map[string][3]any{
		"netlink": {unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE}, // as CNI plugins use
		"unix":    {unix.AF_UNIX, unix.SOCK_STREAM, 0},
		"packet":  {unix.AF_PACKET, unix.SOCK_DGRAM, 0},
	}
)

// sockets makes one of each kind.
func (p *process) sockets(t *testing.T, kinds map[string][3]any, allowed bool) {
	t.Helper()
	for name, s := range kinds {
		if _, err := p.tell("socket", s[0], s[1], s[2]); (err == nil) != allowed || err != nil && err.Error() != unix.EPERM.Error() {
			t.Errorf("%s socket: %v, want allowed=%t", name, err, allowed)
		}
	}
}

// ownPod is a pod with a cgroup, a process of its own in a container's cgroup
// below, and one of the node that entered its network namespace.
type ownPod struct {
	*lab.Pod
	cgroup         string
	own, entered   *process
	ownNode, other *process // outsiders where they belong
}

func (b *bench) ownPod(t *testing.T) *ownPod {
	t.Helper()
	p := &ownPod{Pod: b.pod(t, "guarded", lab.Routed, true)}
	unguarded := b.pod(t, "unguarded", lab.Bridged, true)
	_, p.cgroup = newCgroup(t, "", "pod")
	container, _ := newCgroup(t, p.cgroup, "container")
	outside, _ := newCgroup(t, "", "runtime")
	p.own, p.entered = startProcess(t, p.NS, container, "app"), startProcess(t, p.NS, outside, "containerd")
	p.ownNode, p.other = startProcess(t, b.NS, outside, "containerd"), startProcess(t, unguarded.NS, outside, "containerd")
	return p
}

func (b *bench) setOwn(p *ownPod, cgroup string, open bool) error {
	return b.l.SetPod(loader.Pod{Ifindex: p.HostIfindex, NetnsPath: p.Path(), Addrs: p.Addrs(), Open: open, Cgroup: cgroup})
}

func TestOnlyAPodsProcessesMakeSocketsInItsNamespace(t *testing.T) {
	b := newBench(t, nil)
	b.routing(t)
	b.daemon(t)
	p := b.ownPod(t)
	p.entered.sockets(t, ipSockets, true) // no cgroup was given
	if err := b.setOwn(p, p.cgroup, true); err != nil {
		t.Fatal(err)
	}
	before := b.count(t, bpf.ReasonForeignSocket)
	p.entered.sockets(t, ipSockets, false)
	if n := b.count(t, bpf.ReasonForeignSocket) - before; n != uint64(len(ipSockets)) {
		t.Errorf("%d sockets were counted, want %d", n, len(ipSockets))
	}
	p.entered.sockets(t, otherSockets, true)
	for _, allowed := range []*process{p.own, p.ownNode, p.other} {
		allowed.sockets(t, ipSockets, true)
		allowed.sockets(t, otherSockets, true)
	}
	to := netip.AddrPortFrom(b.outside.Addr4, 8080)
	if got, err := p.own.tell("dial", to, 4*time.Second, 0); err != nil || !strings.HasPrefix(got, to.String()+" ") {
		t.Errorf("the pod's own connection: %q, %v", got, err)
	}
	if err := b.setOwn(p, p.cgroup, false); err != nil {
		t.Fatal(err)
	}
	p.entered.sockets(t, ipSockets, false)
	if err := b.l.DeletePod(p.HostIfindex); err != nil {
		t.Fatal(err)
	}
	p.entered.sockets(t, ipSockets, true)
}

func TestForeignSocketIsReportedWithThePodsLink(t *testing.T) {
	b := newBench(t, nil)
	p := b.ownPod(t)
	if err := b.setOwn(p, p.cgroup, true); err != nil {
		t.Fatal(err)
	}
	p.entered.sockets(t, map[string][3]any{"TCP": ipSockets["TCP"]}, false)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	for e := range b.l.Events(ctx) {
		if e.Reason != bpf.ReasonForeignSocket {
			continue
		}
		if e.Ifindex != p.HostIfindex || e.Proto != unix.IPPROTO_TCP || e.Src.IsValid() || e.Dst.IsValid() {
			t.Errorf("got %+v", e)
		}
		return
	}
	t.Error("nothing was reported")
}

func TestNamespaceGuardOutlivesTheLoaderAndIsReplacedInPlace(t *testing.T) {
	b := newBench(t, nil)
	p := b.ownPod(t)
	if _, attached := pinnedLinks(t, b)["netns_guard"]; attached {
		t.Error("it is attached before any pod has a cgroup")
	}
	if err := b.setOwn(p, p.cgroup, true); err != nil {
		t.Fatal(err)
	}
	before := pinnedLinks(t, b)["netns_guard"]
	if err := b.l.Close(); err != nil {
		t.Fatal(err)
	}
	p.entered.sockets(t, ipSockets, false)
	b.l = b.open(t)
	p.entered.sockets(t, ipSockets, false)
	if err := b.setOwn(p, p.cgroup, true); err != nil {
		t.Fatal(err)
	}
	after := pinnedLinks(t, b)["netns_guard"]
	if before.id == 0 || before.id != after.id || before.program == after.program {
		t.Errorf("was %v, is %v; want the same link with another program", before, after)
	}
	if err := b.Do(func() error { return loader.Uninstall(b.cfg) }); err != nil {
		t.Fatal(err)
	}
	p.entered.sockets(t, ipSockets, true)
}

func TestCgroupThatIsNotThePodsAloneClosesThePod(t *testing.T) {
	var log bytes.Buffer
	b := newBench(t, func(c *loader.Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	b.routing(t)
	b.daemon(t)
	p := b.ownPod(t)
	for cgroup, says := range map[string]string{
		"/":                       "root of the cgroups",
		"/c8s-no-such-cgroup":     "no such file",
		"/../elsewhere":           "not below",
		"relative":                "not below",
		"kubepods-pod_none.slice": "/kubepods.slice/kubepods-pod_none.slice",
	} {
		err := b.setOwn(p, cgroup, true)
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want %q", cgroup, err, says)
		}
		if got, err := helloWithin(t, p.NS, netip.AddrPortFrom(b.outside.Addr4, 8080), 250*time.Millisecond); err == nil {
			t.Errorf("%s: the pod is open: %q", cgroup, got)
		}
		if err := b.setOwn(p, cgroup, false); err != nil {
			t.Errorf("%s: a pod that is to be closed: %v", cgroup, err)
		}
	}
}

// moveSelf puts the test process into a cgroup for the test.
func moveSelf(t *testing.T, dir string) {
	t.Helper()
	root, err := loader.CgroupDir()
	if err != nil {
		t.Fatal(err)
	}
	self := fmt.Append(nil, os.Getpid())
	raw, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	home := root
	for line := range strings.Lines(string(raw)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			home += path
		}
	}
	if err := os.WriteFile(dir+"/cgroup.procs", self, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(home+"/cgroup.procs", self, 0); err != nil {
			t.Error(err)
		}
	})
}

func TestCgroupOfTheDaemonIsNobodyElses(t *testing.T) {
	_, shared := newCgroup(t, "", "shared")
	dir, _ := newCgroup(t, shared, "daemon")
	b := newBench(t, nil)
	p := b.ownPod(t)
	moveSelf(t, dir)
	if err := b.setOwn(p, shared, true); err == nil || !strings.Contains(err.Error(), "this daemon") {
		t.Errorf("as a pod's: %v", err)
	}
	if got := watchOnce(t, shared, nil); !strings.Contains(got, "this daemon") {
		t.Errorf("as the kubelet's: %q", got)
	}
}
