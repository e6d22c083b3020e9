// SPDX-License-Identifier: Apache-2.0

package loader_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/c8s-dev/c8s/bpf"
	"github.com/c8s-dev/c8s/loader"
	"github.com/c8s-dev/c8s/test/lab"
)

const (
	probePort = 8080 // of every pod here
	quietPort = 8082 // probed too; closes after its client
	otherPort = 8081
)

// kubeletBench is a node with a kubelet in a cgroup of its own.
func kubeletBench(t *testing.T, change func(*loader.Config)) (*bench, *process) {
	t.Helper()
	b := newBench(t, func(c *loader.Config) {
		c.KubeletCgroup = loader.KubeletAuto
		if change != nil {
			change(c)
		}
	})
	b.routing(t)
	dir, _ := newCgroup(t, "", "kubelet")
	k := startProcess(t, b.NS, dir, "kubelet")
	b.watchKubelet(t)
	return b, k
}

func (b *bench) watchKubelet(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- b.l.WatchKubelet(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// probed adds an open pod that answers on all ports and may be probed on two.
func (b *bench) probed(t *testing.T, name string, kind lab.Kind) *lab.Pod {
	t.Helper()
	p := b.pod(t, name, kind, true)
	b.setProbes(t, p, probePort, quietPort)
	for _, port := range []int{probePort, otherPort, quietPort} {
		ln, err := p.Listen("tcp", fmt.Sprintf("[::]:%d", port))
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				fmt.Fprintln(c, "pod")
				if port == quietPort {
					io.Copy(io.Discard, c)
				}
				c.Close()
			}
		}()
	}
	return p
}

func (b *bench) setProbes(t *testing.T, p *lab.Pod, ports ...uint16) {
	t.Helper()
	err := b.l.SetPod(loader.Pod{Ifindex: p.HostIfindex, NetnsPath: p.Path(), Addrs: p.Addrs(), Open: true, Probes: ports})
	if err != nil {
		t.Fatal(err)
	}
}

func (p *process) dial(to netip.Addr, port uint16, limit time.Duration) (string, error) {
	return p.tell("dial", netip.AddrPortFrom(to, port), limit, 0)
}

// mayProbe waits for the watcher to have seen the kubelet.
func (p *process) mayProbe(t *testing.T, to netip.Addr) {
	t.Helper()
	eventually(t, 20*time.Second, fmt.Sprintf("a probe of %s", to), func() bool {
		got, err := p.dial(to, probePort, 4*time.Second)
		return err == nil && got == "pod"
	})
}

// mayNot expects a connection to be refused as not the daemon's. It returns
// what was reported up to this refusal about TCP to the address.
func (p *process) mayNot(t *testing.T, b *bench, to netip.Addr, port uint16) (refusals []loader.Event) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		got, err := p.dial(to, port, 250*time.Millisecond)
		if err == nil {
			done <- fmt.Errorf("connecting to %s port %d worked: %q", to, port, got)
			cancel()
		}
		close(done)
	}()
	seen := false
	for e := range b.l.Events(ctx) {
		if e.Reason != bpf.ReasonNotFromDaemon || e.Proto != unix.IPPROTO_TCP || e.Dst.Addr() != to {
			continue
		}
		refusals = append(refusals, e)
		// Only the ports of a pod that may be probed are looked at.
		if seen = e.Dst.Port() == port || e.Dst.Port() == 0; seen {
			break
		}
	}
	if err := <-done; err != nil {
		t.Error(err)
	} else if !seen {
		t.Errorf("connecting to %s port %d was not reported", to, port)
	}
	return refusals
}

func TestOnlyTheKubeletConnectsAndOnlyToProbePorts(t *testing.T) {
	for _, clsact := range attachments() {
		t.Run(fmt.Sprintf("clsact=%t", clsact), func(t *testing.T) { onlyTheKubelet(t, clsact) })
	}
}

func onlyTheKubelet(t *testing.T, clsact bool) {
	b, kubelet := kubeletBench(t, func(c *loader.Config) { c.ForceClsact = clsact })
	b.daemon(t)
	dir, path := newCgroup(t, "", "other")
	other := startProcess(t, b.NS, dir, "other")
	below, _ := newCgroup(t, path, "below") // nor does a cgroup's neighbour or child
	child := startProcess(t, b.NS, below, "child")
	for _, kind := range kinds {
		p := b.probed(t, kind.String(), kind)
		unlisted := b.pod(t, kind.String()+"-unlisted", kind, true)
		for _, dst := range p.Addrs() {
			t.Run(fmt.Sprintf("%s/%d", kind, dst.BitLen()), func(t *testing.T) {
				kubelet.mayProbe(t, dst)
				kubelet.mayNot(t, b, dst, otherPort)
				other.mayNot(t, b, dst, probePort)
				child.mayNot(t, b, dst, probePort)
				kubelet.mayNot(t, b, same(unlisted.Addrs(), dst), probePort)
				b.refused(t, b.outside.NS, dst, bpf.ReasonForwardedToPod)
			})
		}
		b.setProbes(t, p)
		for _, dst := range p.Addrs() {
			kubelet.mayNot(t, b, dst, probePort)
		}
	}
}

// The kubelet closes first, so that the last packets to the pod come from
// TIME_WAIT, which belongs to no cgroup.
func TestProbesCloseOnBothSides(t *testing.T) {
	b, kubelet := kubeletBench(t, nil)
	b.daemon(t)
	for _, kind := range kinds {
		p := b.probed(t, kind.String(), kind)
		for _, dst := range p.Addrs() {
			kubelet.mayProbe(t, dst)
			for range 10 {
				if got, err := kubelet.dial(dst, quietPort, 4*time.Second); err != nil || got != "pod" {
					t.Fatalf("%q, %v", got, err)
				}
			}
			eventually(t, 10*time.Second, fmt.Sprintf("%s: the end of the pod's connections", dst), func() bool {
				return !hasConnections(t, p)
			})
			// Refusals are reported in their order, so this one comes last.
			refusals := kubelet.mayNot(t, b, dst, otherPort)
			for _, e := range refusals {
				if e.Dst.Port() == quietPort {
					t.Errorf("a packet of a probe was refused: %+v", e)
				}
			}
		}
	}
}

// hasConnections tells whether a pod has TCP sockets that do not listen.
func hasConnections(t *testing.T, p *lab.Pod) bool {
	t.Helper()
	found := false
	for _, file := range []string{"tcp", "tcp6"} {
		out, err := p.Command(t.Context(), "cat", "/proc/net/"+file).Output()
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(out)) {
			fields := strings.Fields(line)
			found = found || len(fields) > 3 && fields[3] != "st" && fields[3] != "0A" && fields[3] != "06"
		}
	}
	return found
}

func TestProbesGoOnWithoutTheDaemonAndOpenNothingElse(t *testing.T) {
	b, kubelet := kubeletBench(t, nil)
	stop := b.daemon(t)
	const kubeletPort = 40999
	for _, kind := range kinds {
		p := b.probed(t, kind.String(), kind)
		for _, dst := range p.Addrs() {
			kubelet.mayProbe(t, dst)
		}
	}
	stop()
	for _, p := range b.Pods() {
		b.setProbes(t, p, probePort, quietPort, 8083)
		for _, dst := range p.Addrs() {
			kubelet.mayProbe(t, dst)
			// The pod takes a probe's ports the other way round, once
			// they are free and something else of the node has them.
			ln, err := p.Listen("tcp", netip.AddrPortFrom(dst, 8083).String())
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				if c, err := ln.Accept(); err == nil {
					fmt.Fprintln(c, "pod")
					_ = c.(*net.TCPConn).SetLinger(0)
					c.Close()
				}
			}()
			_, _ = kubelet.tell("dial", netip.AddrPortFrom(dst, 8083), 4*time.Second, kubeletPort)
			ln.Close()
			own := same(addrsOf(&b.Host), dst)
			target, err := b.Listen("tcp", fmt.Sprintf(":%d", kubeletPort))
			if err != nil {
				t.Fatal(err)
			}
			for _, port := range []int{8083, 0} {
				d := net.Dialer{LocalAddr: &net.TCPAddr{IP: dst.AsSlice(), Port: port}, Control: reuseAddr, Timeout: 300 * time.Millisecond}
				if c, err := p.DialWith(t.Context(), &d, "tcp", netip.AddrPortFrom(own, kubeletPort).String()); err == nil {
					t.Errorf("%s port %d connected to the node", dst, port)
					c.Close()
				}
			}
			target.Close()
		}
	}
	if n := b.count(t, bpf.ReasonNoListener); n == 0 {
		t.Error("nothing was refused for want of the daemon")
	}
}

func TestPodsReachTheDaemonAndNotTheKubelet(t *testing.T) {
	b, kubelet := kubeletBench(t, nil)
	b.daemon(t)
	ln, err := b.Listen("tcp", "[::]:10250")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for _, kind := range kinds {
		p := b.probed(t, kind.String(), kind)
		for _, src := range p.Addrs() {
			kubelet.mayProbe(t, src)
			to := netip.AddrPortFrom(same(addrsOf(&b.Host), src), 10250)
			if got, err := hello(t, p.NS, to); err != nil || !strings.HasPrefix(got, to.String()+" ") {
				t.Errorf("%s: %q, %v; want the daemon's greeting", src, got, err)
			}
		}
	}
}

// A service manager makes a new cgroup for a restarted service.
func TestRestartedKubeletProbesAgain(t *testing.T) {
	b := newBench(t, func(c *loader.Config) { c.KubeletCgroup = loader.KubeletAuto })
	b.routing(t)
	b.daemon(t)
	b.watchKubelet(t)
	p := b.probed(t, "p", lab.Routed)
	for i := range 2 {
		dir, _ := newCgroup(t, "", "kubelet")
		kubelet := startProcess(t, b.NS, dir, "kubelet")
		kubelet.mayProbe(t, p.Addr4)
		kubelet.stop()
		removeCgroup(t, dir)
		other, _ := newCgroup(t, "", fmt.Sprintf("other-%d", i))
		startProcess(t, b.NS, other, "other").mayNot(t, b, p.Addr4, probePort)
	}
}

func TestKubeletIsTakenFromItsConfiguredCgroup(t *testing.T) {
	dir, path := newCgroup(t, "", "named")
	b := newBench(t, func(c *loader.Config) { c.KubeletCgroup = path })
	b.routing(t)
	b.daemon(t)
	b.watchKubelet(t)
	p := b.probed(t, "p", lab.Bridged)
	startProcess(t, b.NS, dir, "k3s").mayProbe(t, p.Addr6)
}

func TestKubeletThatCannotBeToldFromOthersIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		cgroup string
		says   string
	}{
		"the root":           {"/", "root of the cgroups"},
		"outside":            {"/../kubelet", "not below"},
		"not there":          {"/c8s-no-such-cgroup", "no such file"},
		"nobody named so":    {loader.KubeletAuto, "no kubelet"},
		"nobody is to probe": {"", ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got := watchOnce(t, c.cgroup, nil); (c.says == "") != (got == "") || !strings.Contains(got, c.says) {
				t.Errorf("said %q, want %q", got, c.says)
			}
		})
	}
	t.Run("two of them", func(t *testing.T) {
		got := watchOnce(t, loader.KubeletAuto, func(b *bench) {
			for _, name := range []string{"one", "two"} {
				dir, _ := newCgroup(t, "", name)
				startProcess(t, b.NS, dir, "kubelet")
			}
		})
		if !strings.Contains(got, "--kubelet-cgroup") {
			t.Errorf("said %q", got)
		}
	})
	t.Run("a pod's", func(t *testing.T) {
		got := watchOnce(t, loader.KubeletAuto, func(b *bench) {
			_, parent := newCgroup(t, "", "node")
			dir, _ := newCgroup(t, parent, "kubepods.slice")
			startProcess(t, b.NS, dir, "kubelet")
		})
		if !strings.Contains(got, "no kubelet") {
			t.Errorf("said %q", got)
		}
	})
	t.Run("another node's", func(t *testing.T) {
		got := watchOnce(t, loader.KubeletAuto, func(b *bench) {
			dir, _ := newCgroup(t, "", "foreign")
			startProcess(t, b.outside.NS, dir, "kubelet")
		})
		if !strings.Contains(got, "no kubelet") {
			t.Errorf("said %q", got)
		}
	})
}

// watchOnce looks for the kubelet once and returns what was logged about it.
func watchOnce(t *testing.T, cgroup string, prepare func(*bench)) string {
	t.Helper()
	var log bytes.Buffer
	b := newBench(t, func(c *loader.Config) {
		c.KubeletCgroup, c.Log = cgroup, slog.New(slog.NewTextHandler(&log, nil))
	})
	if prepare != nil {
		prepare(b)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.l.WatchKubelet(ctx); err != nil {
		t.Fatal(err)
	}
	return log.String()
}

func TestProbePortsAreChecked(t *testing.T) {
	b := newBench(t, nil)
	p := b.pod(t, "p", lab.Routed, true)
	for name, ports := range map[string][]uint16{"port 0": {80, 0}, "too many": make([]uint16, bpf.ProbePorts+1)} {
		pod := loader.Pod{Ifindex: p.HostIfindex, NetnsPath: p.Path(), Addrs: p.Addrs(), Open: true, Probes: ports}
		if err := b.l.SetPod(pod); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
