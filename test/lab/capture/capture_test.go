// SPDX-License-Identifier: Apache-2.0

package capture_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/c8s-dev/c8s/test/lab"
	"github.com/c8s-dev/c8s/test/lab/capture"
	"github.com/c8s-dev/c8s/test/lab/labtest"
)

type scene struct {
	lab  *lab.Lab
	a, b *lab.Pod
	opts capture.Options
}

func newScene(t *testing.T) scene {
	t.Helper()
	l := labtest.New(t, lab.Options{Nodes: []lab.NodeSpec{{Name: "a"}, {Name: "b"}}})
	s := scene{
		lab:  l,
		a:    labtest.Pod(t, l.Node("a"), lab.PodSpec{Name: "a"}),
		b:    labtest.Pod(t, l.Node("b"), lab.PodSpec{Name: "b", Kind: lab.Bridged}),
		opts: capture.Options{Canary: capture.NewCanary()},
	}
	for _, n := range l.Nodes() {
		s.opts.Pods = append(s.opts.Pods, n.PodCIDR4, n.PodCIDR6)
	}
	return s
}

func start(t *testing.T, ns *lab.NS, iface string, o capture.Options) *capture.Capture {
	t.Helper()
	c, err := capture.Start(ns, iface, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Stop() })
	return c
}

// exchange writes chunks from one namespace to a listener in another and
// waits until they were all read.
func exchange(t *testing.T, from, to *lab.NS, dst netip.AddrPort, chunks ...[]byte) {
	t.Helper()
	ln, err := to.Listen("tcp", dst.String())
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	read := make(chan error, 1)
	go func() {
		c, err := ln.Accept()
		if err == nil {
			_, err = io.Copy(io.Discard, c)
			_ = c.Close()
		}
		read <- err
	}()
	c, err := from.Dial(t.Context(), "tcp", dst.String())
	if err != nil {
		t.Fatal(err)
	}
	for i, chunk := range chunks {
		if i > 0 {
			time.Sleep(20 * time.Millisecond) // a segment each
		}
		if _, err := c.Write(chunk); err != nil {
			t.Fatal(err)
		}
	}
	_ = c.Close()
	if err := <-read; err != nil {
		t.Fatal(err)
	}
}

func complete(t *testing.T, c *capture.Capture) capture.Report {
	t.Helper()
	r := c.Stop()
	if err := r.Complete(); err != nil {
		t.Error(err)
	}
	return r
}

func TestCanaryAndPlainPodTrafficAreSeenOnTheBridge(t *testing.T) {
	s := newScene(t)
	for _, dst := range s.b.Addrs() {
		for name, iface := range map[string]string{"bridge": lab.WireBridge, "port": s.lab.Node("b").WirePort, "all": ""} {
			t.Run(fmt.Sprintf("%s %s", name, dst), func(t *testing.T) {
				c := start(t, s.lab.Wire, iface, s.opts)
				exchange(t, s.a.NS, s.b.NS, netip.AddrPortFrom(dst, 80), s.opts.Canary)
				r := complete(t, c)
				want := uint64(1)
				if iface == "" {
					want = 2 // both ports; the bridge itself is not promiscuous
				}
				if r.CanaryHits != want || len(r.Canaries) != int(want) || r.Canaries[0].DstPort != 80 {
					t.Errorf("canary hits %d %v, want %d", r.CanaryHits, r.Canaries, want)
				}
				if r.PlainPackets < 5 || len(r.Plain) == 0 || r.Plain[0].Dst != dst {
					t.Errorf("plain packets %d: %v", r.PlainPackets, r.Plain)
				}
				if r.UnknownPackets != 0 || r.Bytes == 0 {
					t.Errorf("%+v", r)
				}
			})
		}
	}
}

func TestCanaryIsFoundAcrossSegments(t *testing.T) {
	s := newScene(t)
	c := start(t, s.lab.Wire, lab.WireBridge, s.opts)
	can := s.opts.Canary
	exchange(t, s.a.NS, s.b.NS, netip.AddrPortFrom(s.b.Addr4, 80), append([]byte("some text "), can[:9]...), can[9:11], can[11:])
	if r := complete(t, c); r.CanaryHits != 1 {
		t.Errorf("canary hits %d, want 1", r.CanaryHits)
	}
}

func TestTunnelBetweenNodesIsNotPlain(t *testing.T) {
	s := newScene(t)
	c := start(t, s.lab.Wire, lab.WireBridge, s.opts)
	a, b := s.lab.Node("a"), s.lab.Node("b")
	exchange(t, a.NS, b.NS, netip.AddrPortFrom(b.Addr4, capture.DefaultTunnelPort), []byte("ciphertext"))
	exchange(t, s.a.NS, s.b.NS, netip.AddrPortFrom(s.b.Addr6, capture.DefaultTunnelPort), []byte("ciphertext"))
	exchange(t, a.NS, b.NS, netip.AddrPortFrom(b.Addr4, 22), []byte("nodes may talk"))
	r := complete(t, c)
	if r.PlainPackets != 0 || r.CanaryHits != 0 || r.Tunnel < 10 {
		t.Errorf("%+v", r)
	}
}

func TestTaggedAndUnknownFramesAreReported(t *testing.T) {
	s := newScene(t)
	c := start(t, s.lab.Wire, lab.WireBridge, s.opts)
	err := s.lab.Node("a").Do(func() error {
		link, err := net.InterfaceByName(lab.Uplink)
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		head := append(bytes.Repeat([]byte{0xff}, 6), link.HardwareAddr...)
		for _, kind := range [][]byte{{0x81, 0x00, 0x00, 0x05, 0x88, 0xb5}, {0x88, 0xb5}} {
			frame := append(append(append([]byte(nil), head...), kind...), s.opts.Canary...)
			if err := unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: link.Index}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	r := complete(t, c)
	if r.CanaryHits != 2 || r.UnknownPackets != 2 || !r.Unknown[0].VLAN || r.Unknown[1].VLAN || r.Unknown[0].EtherType != 0x88b5 {
		t.Errorf("%d canaries, unknown %v", r.CanaryHits, r.Unknown)
	}
}

func TestBulkTransferIsCapturedWithoutLossOrLossIsReported(t *testing.T) {
	s := newScene(t)
	c := start(t, s.lab.Wire, lab.WireBridge, s.opts)
	chunk := bytes.Repeat([]byte("x"), 1<<20)
	begin := time.Now()
	chunks := append([]byte(nil), bytes.Repeat(chunk, 64)...)
	exchange(t, s.a.NS, s.b.NS, netip.AddrPortFrom(s.b.Addr4, 80), chunks, s.opts.Canary)
	r := c.Stop()
	t.Logf("%d packets, %d bytes in %v, %d dropped", r.Packets, r.Bytes, time.Since(begin), r.Drops)
	if r.Err != nil || r.Truncated != 0 {
		t.Errorf("error %v, truncated %d", r.Err, r.Truncated)
	}
	if r.Drops == 0 && (r.Bytes < 64<<20 || r.CanaryHits != 1) {
		t.Errorf("no drops but %d bytes and %d canaries", r.Bytes, r.CanaryHits)
	}
	if (r.Drops > 0) != (r.Complete() != nil) {
		t.Error("drops and Complete disagree")
	}
}

func TestPcapFileIsReadableByOtherTools(t *testing.T) {
	s := newScene(t)
	path := filepath.Join(t.TempDir(), "wire.pcap")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s.opts.Pcap = f
	c := start(t, s.lab.Wire, lab.WireBridge, s.opts)
	exchange(t, s.a.NS, s.b.NS, netip.AddrPortFrom(s.b.Addr4, 80), s.opts.Canary)
	r := complete(t, c)
	data, err := os.ReadFile(path)
	if err != nil || !bytes.Contains(data, s.opts.Canary) {
		t.Fatalf("the canary is not in the file: %v", err)
	}
	tcpdump, err := exec.LookPath("tcpdump")
	if err != nil {
		t.Log("tcpdump is not installed; the file's structure was not checked")
		return
	}
	out, err := exec.Command(tcpdump, "-nn", "-r", path).Output()
	if err != nil || strings.Count(string(out), "\n") != int(r.Packets) {
		t.Errorf("tcpdump: %v, printed for %d packets:\n%s", err, r.Packets, out)
	}
}

func TestMissingInterfaceIsAnError(t *testing.T) {
	s := newScene(t)
	if _, err := capture.Start(s.lab.Wire, "nosuch0", s.opts); err == nil {
		t.Error("started")
	}
}
