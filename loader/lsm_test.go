// SPDX-License-Identifier: Apache-2.0

package loader_test

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/c8s-dev/c8s/bpf"
	"github.com/c8s-dev/c8s/loader"
	"github.com/c8s-dev/c8s/test/lab"
	"github.com/c8s-dev/c8s/test/lab/labtest"
)

// needLSM ends a test on kernels that do not have what it is about, after it
// has seen what then is promised: without security hooks the lock works on and
// says why, and whoever requires them is refused.
//
// Where the matrix of kernels runs (test/kernels), all have them.
func needLSM(t *testing.T) (here bool) {
	t.Helper()
	err := loader.HaveLSM()
	if err == nil {
		return true
	}
	if os.Getenv("C8S_KERNEL_GUEST") != "" {
		t.Fatalf("this kernel should have security hooks for programs: %v", err)
	}
	var log bytes.Buffer
	b := newBench(t, func(c *loader.Config) {
		c.LSM, c.Log = loader.LSMAuto, slog.New(slog.NewTextHandler(&log, nil))
	})
	if got := b.l.LSM(); got.Active || got.Why != err.Error() {
		t.Errorf("the status is %+v, want why %q", got, err)
	}
	if !strings.Contains(log.String(), "level=WARN") || !strings.Contains(log.String(), "security hooks") {
		t.Errorf("logged %q", log.String())
	}
	p := b.ownPod(t)
	if err := b.setOwn(p, p.cgroup, true); err != nil {
		t.Fatal(err)
	}
	required := b.cfg
	required.LSM = loader.LSMRequire
	err = b.Do(func() error {
		l, err := loader.Open(required)
		if err == nil {
			l.Close()
		}
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "security hooks") {
		t.Errorf("requiring the hooks: %v", err)
	}
	return false
}

// detours are sockets that go around a pod's link, by the word that allows them.
var detours = map[string][3]any{
	"vsock":  {unix.AF_VSOCK, unix.SOCK_STREAM, 0},
	"packet": {unix.AF_PACKET, unix.SOCK_DGRAM, 0},
	"xdp":    {unix.AF_XDP, unix.SOCK_RAW, 0},
	"raw":    {unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP},
	"raw 6":  {unix.AF_INET6, unix.SOCK_RAW | unix.SOCK_CLOEXEC, unix.IPPROTO_RAW},
}

var harmless = map[string][3]any{
	"TCP":     {unix.AF_INET, unix.SOCK_STREAM, 0},
	"UDP":     {unix.AF_INET6, unix.SOCK_DGRAM | unix.SOCK_NONBLOCK, 0},
	"netlink": {unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE},
	"unix":    {unix.AF_UNIX, unix.SOCK_STREAM, 0},
}

func hardened(t *testing.T) (*bench, *ownPod) {
	t.Helper()
	b := newBench(t, func(c *loader.Config) { c.LSM = loader.LSMRequire })
	if got := b.l.LSM(); !got.Active || got.Why != "" {
		t.Errorf("the status is %+v", got)
	}
	return b, b.ownPod(t)
}

// bpf has a process call bpf(2).
func (p *process) bpf(t *testing.T, allowed bool) {
	t.Helper()
	if _, err := p.tell("bpf"); (err == nil) != allowed || err != nil && !strings.Contains(err.Error(), unix.EPERM.Error()) {
		t.Errorf("bpf(2): %v, want allowed=%t", err, allowed)
	}
}

func (b *bench) setSockets(t *testing.T, p *ownPod, kinds ...string) {
	t.Helper()
	err := b.l.SetPod(loader.Pod{Ifindex: p.HostIfindex, NetnsPath: p.Path(), Addrs: p.Addrs(), Open: true, Cgroup: p.cgroup, Sockets: kinds})
	if err != nil {
		t.Fatal(err)
	}
}

func TestPodsMakeNoSocketsThatGoAroundTheirLinks(t *testing.T) {
	if !needLSM(t) {
		return
	}
	b, p := hardened(t)
	p.own.sockets(t, detours, true) // nothing is known of its cgroup
	p.own.bpf(t, true)
	b.setSockets(t, p)
	before := b.count(t, bpf.ReasonPodSocket)
	p.own.sockets(t, detours, false)
	if n := b.count(t, bpf.ReasonPodSocket) - before; n != uint64(len(detours)) {
		t.Errorf("%d sockets were counted, want %d", n, len(detours))
	}
	p.own.sockets(t, harmless, true)
	before = b.count(t, bpf.ReasonPodBpf)
	p.own.bpf(t, false)
	if n := b.count(t, bpf.ReasonPodBpf) - before; n != 1 {
		t.Errorf("%d calls of bpf(2) were counted, want 1", n)
	}
	for _, other := range []*process{p.ownNode, p.other} {
		other.sockets(t, detours, true)
		other.bpf(t, true)
	}
	if err := b.l.DeletePod(p.HostIfindex); err != nil {
		t.Fatal(err)
	}
	p.own.sockets(t, detours, true)
	p.own.bpf(t, true)
}

func TestEntryAllowsSocketsOneByOne(t *testing.T) {
	if !needLSM(t) {
		return
	}
	b, p := hardened(t)
	for word := range detours {
		kind, _, _ := strings.Cut(word, " ")
		b.setSockets(t, p, kind)
		for name, s := range detours {
			p.own.sockets(t, map[string][3]any{name: s}, strings.HasPrefix(name, kind))
		}
		p.own.bpf(t, false)
	}
	b.setSockets(t, p, "bpf", "io_uring")
	p.own.bpf(t, true)
	p.own.sockets(t, detours, false)
	err := b.l.SetPod(loader.Pod{Ifindex: p.HostIfindex, NetnsPath: p.Path(), Addrs: p.Addrs(), Open: true, Cgroup: p.cgroup, Sockets: []string{"carrier pigeon"}})
	if err == nil || !strings.Contains(err.Error(), "carrier pigeon") {
		t.Errorf("a kind that does not exist: %v", err)
	}
}

func TestRefusedSocketIsReportedWithThePodsLink(t *testing.T) {
	if !needLSM(t) {
		return
	}
	b, p := hardened(t)
	b.setSockets(t, p)
	p.own.sockets(t, map[string][3]any{"raw": detours["raw"]}, false)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for e := range b.l.Events(ctx) {
		if e.Reason != bpf.ReasonPodSocket {
			continue
		}
		if e.Ifindex != p.HostIfindex || e.Proto != unix.IPPROTO_ICMP || e.Src.IsValid() || e.Dst.IsValid() {
			t.Errorf("got %+v", e)
		}
		return
	}
	t.Error("nothing was reported")
}

func TestHardeningOutlivesTheLoaderUntilItIsSwitchedOff(t *testing.T) {
	if !needLSM(t) {
		return
	}
	b, p := hardened(t)
	b.setSockets(t, p)
	if err := b.l.Close(); err != nil {
		t.Fatal(err)
	}
	p.own.sockets(t, detours, false)
	before := pinnedLinks(t, b)
	b.l = b.open(t)
	p.own.sockets(t, detours, false) // known from the pinned map
	after := pinnedLinks(t, b)
	for _, name := range []string{"pod_socket", "pod_bpf"} {
		if before[name].id == 0 || after[name].id == 0 || before[name].program == after[name].program {
			t.Errorf("%s was %v, is %v; want another program", name, before[name], after[name])
		}
	}
	b.cfg.LSM = loader.LSMOff
	off := b.open(t)
	if got := off.LSM(); got.Active || got.Why != "switched off" {
		t.Errorf("the status is %+v", got)
	}
	p.own.sockets(t, detours, true)
	p.own.bpf(t, true)
	if links := pinnedLinks(t, b); links["pod_socket"].id != 0 || links["pod_bpf"].id != 0 {
		t.Errorf("still pinned: %v", links)
	}
}

func TestUninstallEndsTheHardening(t *testing.T) {
	if !needLSM(t) {
		return
	}
	b, p := hardened(t)
	b.setSockets(t, p)
	p.own.sockets(t, detours, false)
	if err := b.Do(func() error { return loader.Uninstall(b.cfg) }); err != nil {
		t.Fatal(err)
	}
	p.own.sockets(t, detours, true)
	p.own.bpf(t, true)
}

func TestUnknownModeOfTheHardeningIsRefused(t *testing.T) {
	if _, err := loader.Open(loader.Config{LSM: "maybe"}); err == nil || !strings.Contains(err.Error(), `"maybe"`) {
		t.Error(err)
	}
}

// What every socket(2) of the node costs that is not of a restricted kind,
// and what one does that is.
func BenchmarkSocket(b *testing.B) {
	for _, mode := range []string{loader.LSMOff, loader.LSMAuto} {
		bench := benchIn(b, labtest.New(b, lab.Options{Nodes: []lab.NodeSpec{{Name: "a"}}, Outside: []string{"stranger"}}), func(c *loader.Config) { c.LSM = mode })
		if mode == loader.LSMAuto && !bench.l.LSM().Active {
			b.Skip(bench.l.LSM().Why)
		}
		for name, s := range map[string][3]int{"UDP": {unix.AF_INET, unix.SOCK_DGRAM, 0}, "packet": {unix.AF_PACKET, unix.SOCK_DGRAM, 0}} {
			b.Run(mode+"/"+name, func(b *testing.B) {
				for b.Loop() {
					fd, err := unix.Socket(s[0], s[1], s[2])
					if err != nil {
						b.Fatal(err)
					}
					unix.Close(fd)
				}
			})
		}
	}
}
