// SPDX-License-Identifier: Apache-2.0

package loader_test

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/c8s-dev/c8s/bpf"
	"github.com/c8s-dev/c8s/loader"
	"github.com/c8s-dev/c8s/test/lab"
	"github.com/c8s-dev/c8s/test/lab/labtest"
)

// shortcut does what eBPF-based CNIs do: TCP that comes in over the uplink
// goes straight into the pod's namespace, past the host side of its link.
func shortcut(t *testing.T, n *lab.Node, p *lab.Pod) {
	t.Helper()
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.SchedCLS, License: "GPL",
		Instructions: asm.Instructions{
			asm.Mov.Reg(asm.R6, asm.R1), // LoadAbs wants the context there
			asm.LoadAbs(12, asm.Half),
			asm.JEq.Imm(asm.R0, 0x0800, "ipv4"),
			asm.JEq.Imm(asm.R0, 0x86dd, "ipv6"),
			asm.Ja.Label("next"),
			asm.LoadAbs(14+9, asm.Byte).WithSymbol("ipv4"),
			asm.Ja.Label("tcp"),
			asm.LoadAbs(14+6, asm.Byte).WithSymbol("ipv6"),
			asm.JNE.Imm(asm.R0, unix.IPPROTO_TCP, "next").WithSymbol("tcp"),
			asm.Mov.Imm(asm.R1, int32(p.HostIfindex)),
			asm.Mov.Imm(asm.R2, 0),
			asm.FnRedirectPeer.Call(),
			asm.Return(),
			asm.Mov.Imm(asm.R0, -1).WithSymbol("next"), // TCX_NEXT: the node goes on
			asm.Return(),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	uplink, err := n.Netlink().LinkByName(lab.Uplink)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Do(func() error { return divert(t, n, uplink, prog) }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { prog.Close() })
}

// divert puts a program before everything that comes in over a link.
func divert(t *testing.T, n *lab.Node, dev netlink.Link, prog *ebpf.Program) error {
	if loader.HaveTCX() == nil {
		l, err := link.AttachTCX(link.TCXOptions{Interface: dev.Attrs().Index, Program: prog, Attach: ebpf.AttachTCXIngress})
		if err == nil {
			t.Cleanup(func() { l.Close() })
		}
		return err
	}
	attrs := netlink.QdiscAttrs{LinkIndex: dev.Attrs().Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}
	err := n.Netlink().QdiscAdd(&netlink.GenericQdisc{QdiscAttrs: attrs, QdiscType: "clsact"})
	if err != nil && !errors.Is(err, unix.EEXIST) { // the uplink's guard may have brought it
		return err
	}
	return n.Netlink().FilterAdd(&netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: dev.Attrs().Index, Parent: netlink.HANDLE_MIN_INGRESS, Handle: 1, Protocol: unix.ETH_P_ALL, Priority: 1},
		Fd:          prog.FD(), Name: "shortcut", DirectAction: true,
	})
}

// knock sends TCP connection attempts from the outside host to the pod until
// done says so.
func knock(t *testing.T, from *lab.Host, to netip.Addr, what string, done func() bool) {
	t.Helper()
	eventually(t, 10*time.Second, what, func() bool {
		_, _ = helloWithin(t, from.NS, netip.AddrPortFrom(to, 8080), 250*time.Millisecond)
		return done()
	})
}

func TestGuardStopsRedirectPeer(t *testing.T) {
	t.Run("without the lock the shortcut works", func(t *testing.T) {
		lb := labtest.New(t, lab.Options{Nodes: []lab.NodeSpec{{Name: "a"}}, Outside: []string{"stranger"}})
		p := labtest.Pod(t, lb.Node("a"), lab.PodSpec{Name: "p"})
		ln, err := p.Listen("tcp", netip.AddrPortFrom(p.Addr4, 8080).String())
		if err != nil {
			t.Fatal(err)
		}
		accepted := make(chan struct{}, 64)
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				c.Close()
				accepted <- struct{}{}
			}
		}()
		shortcut(t, lb.Node("a"), p)
		knock(t, lb.Outside("stranger"), p.Addr4, "a connection past the host side", func() bool { return len(accepted) > 0 })
	})
	for _, kind := range kinds {
		t.Run("with the lock/"+kind.String(), func(t *testing.T) {
			b := newBench(t, nil)
			b.routing(t)
			b.daemon(t)
			p := b.pod(t, "p", kind, true)
			shortcut(t, b.Node, p)
			for _, to := range p.Addrs() {
				before := b.count(t, bpf.ReasonGuardBypass)
				knock(t, b.outside, to, "the guard refusing a redirected packet to "+to.String(), func() bool {
					return b.count(t, bpf.ReasonGuardBypass) > before
				})
			}
		})
	}
}
