// SPDX-License-Identifier: Apache-2.0

package loader_test

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/c8s-dev/c8s/loader"
	"github.com/c8s-dev/c8s/test/lab"
	"github.com/c8s-dev/c8s/test/lab/labtest"
)

// BenchmarkMend is one look at the lock of a whole node: every pin and every
// program. The daemon takes one step a second.
func BenchmarkMend(b *testing.B) {
	for _, pods := range []int{100, 1000} {
		b.Run(fmt.Sprint(pods, " pods"), func(b *testing.B) {
			n := newBench(b, nil)
			inside := labtest.Pod(b, n.Node, lab.PodSpec{Name: "inside"})
			fd := nsFile(b, inside)
			before := files(b)
			for i := range pods {
				attrs := netlink.NewLinkAttrs()
				attrs.Name = fmt.Sprintf("pod%d", i)
				link := &netlink.Veth{LinkAttrs: attrs, PeerName: fmt.Sprintf("guest%d", i), PeerNamespace: netlink.NsFd(fd)}
				if err := n.Netlink().LinkAdd(link); err != nil {
					b.Fatal(err)
				}
				added, err := n.Netlink().LinkByName(attrs.Name)
				if err != nil {
					b.Fatal(err)
				}
				if err := n.l.SetPod(loader.Pod{Ifindex: added.Attrs().Index, NetnsPath: inside.Path(), GuestInterface: link.PeerName}); err != nil {
					b.Fatal(err)
				}
			}
			held := files(b) - before
			var steps int
			for b.Loop() {
				var err error
				if steps, err = n.l.Mend(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(held)/float64(pods), "files/pod")
			b.ReportMetric(float64(steps), "steps")
			if r := n.l.Restored(); r != (loader.Restored{}) {
				b.Errorf("%+v", r)
			}
		})
	}
}

func files(b *testing.B) int {
	b.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		b.Fatal(err)
	}
	return len(all)
}

func nsFile(b *testing.B, p *lab.Pod) int {
	b.Helper()
	f, err := os.Open(p.Path())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { f.Close() })
	return int(f.Fd())
}

// BenchmarkSecondLock is a byte from the daemon to a pod and back, with the
// filters below the tcx programs and without.
func BenchmarkSecondLock(b *testing.B) {
	for _, with := range []bool{true, false} {
		b.Run(fmt.Sprintf("with=%t", with), func(b *testing.B) {
			n := newBench(b, nil)
			n.routing(b)
			n.daemon(b)
			p := n.pod(b, "p", lab.Routed, true)
			if !with {
				for ns, device := range map[*lab.NS]string{n.NS: p.HostLink, p.NS: p.Interface} {
					if out, err := ns.Command(b.Context(), "tc", "qdisc", "del", "dev", device, "clsact").CombinedOutput(); err != nil {
						b.Fatalf("%v: %s", err, out)
					}
				}
			}
			ln, err := p.Listen("tcp", netip.AddrPortFrom(p.Addr4, 9000).String())
			if err != nil {
				b.Fatal(err)
			}
			go func() {
				if c, err := ln.Accept(); err == nil {
					_, _ = io.Copy(c, c)
				}
			}()
			d := net.Dialer{Control: transparent}
			c, err := n.DialWith(b.Context(), &d, "tcp", ln.Addr().String())
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			buf := make([]byte, 1)
			for b.Loop() {
				if _, err := c.Write(buf); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(c, buf); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
