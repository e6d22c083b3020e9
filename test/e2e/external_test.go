// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/datapath/flow"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/test/cluster"
	"github.com/c8s-dev/c8s/test/lab"
	"github.com/c8s-dev/c8s/test/lab/capture"
)

const (
	outside6  = "fd80::ca" // beside outsideAddr
	apiVIP    = "10.96.0.1"
	apiVIP6   = "fd96::1"
	httpsPort = 8443
	namedPort = 8001
	wrongPort = 8002 // no rule has it
	timePort  = 8123 // of UDP
	widePort  = 8003 // allowed everywhere, as far as a wide prefix goes
)

// externals are rules of the client; the server has the one by name, too, and
// never asks for the name.
func externals(o *cluster.Options) {
	named := policy.External{Name: "named", Names: []string{listedName}, Ports: []uint16{namedPort}, Protocol: policy.ProtocolTCP}
	o.Workloads[0].External = []policy.External{
		{Name: "host", CIDRs: []string{outsideAddr + "/32", outside6 + "/128"}, Ports: []uint16{echoPort}, Protocol: policy.ProtocolTCP},
		{Name: "https", CIDRs: []string{outsideAddr + "/32", outside6 + "/128"}, Ports: []uint16{httpsPort}, Protocol: policy.ProtocolTCP, SNI: []string{listedName}},
		{Name: "kubernetes", CIDRs: []string{apiVIP + "/32", apiVIP6 + "/128"}, Ports: []uint16{443}, Protocol: policy.ProtocolTCP},
		{Name: "time", CIDRs: []string{outsideAddr + "/32", outside6 + "/128"}, Ports: []uint16{timePort}, Protocol: policy.ProtocolUDP},
		{Name: "wide", CIDRs: []string{"0.0.0.0/0", "::/0"}, Ports: []uint16{widePort, cluster.MetricsPort}, Protocol: policy.ProtocolTCP},
		named,
	}
	o.Workloads[1].External = []policy.External{named}
	o.NodeFlags = append(o.NodeFlags, "--dns-upstream", outsideAddr, "--dns-private", outsideAddr+"/32")
}

// greet answers as serveEcho does: who it sees, then what it gets.
func greet(t *testing.T, ln net.Listener, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				fmt.Fprintf(conn, "%s\n", conn.RemoteAddr())
				_, _ = io.Copy(conn, conn)
			}()
		}
	}()
}

func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{listedName}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// serveOutside has the host next door listen on every port that a rule names,
// and on one that none does.
func serveOutside(t *testing.T, host *lab.Host) {
	t.Helper()
	cert := selfSigned(t)
	for _, addr := range []netip.Addr{host.Addr4, host.Addr6} {
		for _, port := range []uint16{echoPort, namedPort, wrongPort, widePort} {
			ln, err := host.Listen("tcp", netip.AddrPortFrom(addr, port).String())
			greet(t, ln, err)
		}
		ln, err := host.Listen("tcp", netip.AddrPortFrom(addr, httpsPort).String())
		if err != nil {
			t.Fatal(err)
		}
		pc, err := host.ListenPacket("udp", netip.AddrPortFrom(addr, timePort).String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { pc.Close() })
		go answer(pc)
		greet(t, tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13}), nil)
	}
}

func TestNamedExceptionsOutsideTheMesh(t *testing.T) {
	k := newKubernetes(t, externals)
	host := k.Lab.Outside("outside")
	if host.Addr4.String() != outsideAddr || host.Addr6.String() != outside6 {
		t.Fatalf("the host next door has %s and %s", host.Addr4, host.Addr6)
	}
	startOutsideDNS(t, host)
	serveOutside(t, host)
	k.serveAPI()
	wire, err := capture.Start(k.Lab.Wire, lab.WireBridge, capture.Options{Pods: podPrefixes(k.Cluster)})
	if err != nil {
		t.Fatal(err)
	}
	a := k.Nodes[0]
	for _, kind := range []lab.Kind{lab.Routed, lab.Bridged} {
		client, server, stranger := k.pod(a, "client", kind), k.pod(a, "server", kind), k.pod(a, "stranger", kind)
		for _, way := range []struct{ host, node, vip netip.Addr }{
			{host.Addr4, a.Lab.Addr4, netip.MustParseAddr(apiVIP)}, {host.Addr6, a.Lab.Addr6, netip.MustParseAddr(apiVIP6)},
		} {
			t.Run(fmt.Sprintf("%s to %s", kind, way.host), func(t *testing.T) {
				to := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(way.host, port) }
				passes(t, client, to(echoPort), way.node, "external/host")
				passes(t, client, to(widePort), way.node, "external/wide")
				refused(t, client, to(wrongPort), "external-port-not-allowed")
				refused(t, stranger, to(echoPort), "no-route")
				refused(t, client, netip.AddrPortFrom(way.node, widePort), "external-not-allowed", "external-port-not-allowed")
				refused(t, client, netip.AddrPortFrom(way.node, cluster.MetricsPort), "external-not-allowed", "external-port-not-allowed")
				datagrams(t, client, to(timePort), way.node)
				tlsOutside(t, client, to(httpsPort))
				apiServer(t, k, client, netip.AddrPortFrom(way.vip, 443))
			})
		}
		t.Run(kind.String()+", by name", func(t *testing.T) {
			to := netip.AddrPortFrom(host.Addr4, namedPort)
			if _, _, err := connect(t, client, to); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("before the pod has asked for the name it sees %v", err)
			}
			r := resolver(client, "tcp", netip.AddrPortFrom(host.Addr4, 53))
			if addrs, err := lookup(t, r, listedName); err != nil || !slices.Contains(addrs, outsideAddr) {
				t.Fatalf("%s has the addresses %v, %v", listedName, addrs, err)
			}
			passes(t, client, to, a.Lab.Addr4, "external/named")
			refused(t, server, to, "external-name-not-answered")
		})
		for _, p := range []*cluster.Pod{client, server, stranger} {
			if err := a.RemovePod(p); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Run("until the manifest says otherwise", func(t *testing.T) { untilForbidden(t, k, netip.AddrPortFrom(host.Addr6, echoPort)) })
	report := wire.Stop()
	if err := report.Complete(); err != nil || report.Packets < 100 {
		t.Errorf("a capture of %d packets proves nothing: %v", report.Packets, err)
	}
	if report.PlainPackets != 0 {
		t.Errorf("packets with a pod's address are on the wire: %v", report.Plain)
	}
}

// passes wants a connection that the other end sees the node at, and its
// records.
func passes(t *testing.T, from *cluster.Pod, to netip.AddrPort, node netip.Addr, rule string) {
	t.Helper()
	conn, seen, err := connect(t, from, to)
	if err != nil {
		t.Errorf("%s to %s: %v", from.Name, to, err)
		return
	}
	defer conn.Close()
	if seen.Addr() != node {
		t.Errorf("%s sees %s, want the node's own %s", to, seen, node)
	}
	want := strings.Repeat("x", 100_000)
	if got, err := echo(conn, want); err != nil || got != want {
		t.Errorf("%d bytes came back from %s, want %d (%v)", len(got), to, len(want), err)
	}
	r := recorded(t, from.On, func(r flow.Record) bool {
		return r.Verdict == flow.Closed && r.Dst == to && r.Src.Addr() == from.Addr4 || r.Verdict == flow.Closed && r.Dst == to && r.Src.Addr() == from.Addr6
	})
	if r.Rule != rule || r.BytesSent != int64(len(want)) || r.BytesReceived < int64(len(want)) {
		t.Errorf("the record of %s is %+v", to, r)
	}
}

func refused(t *testing.T, from *cluster.Pod, to netip.AddrPort, reasons ...string) {
	t.Helper()
	if _, _, err := connect(t, from, to); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%s to %s: the application saw %v, want a reset", from.Name, to, err)
		return
	}
	r := recorded(t, from.On, func(r flow.Record) bool {
		return r.Verdict == flow.Refused && r.Dst == to && r.Pod == "default/"+from.Name
	})
	if !slices.Contains(reasons, r.Reason) {
		t.Errorf("%s to %s: reason %q, want %v: %+v", from.Name, to, r.Reason, reasons, r)
	}
}

func recorded(t *testing.T, n *cluster.Node, fits func(r flow.Record) bool) flow.Record {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		flows, err := n.Flows(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		slices.Reverse(flows)
		if i := slices.IndexFunc(flows, fits); i >= 0 {
			return flows[i]
		}
		if time.Now().After(deadline) {
			t.Fatalf("no such record among %+v", flows)
		}
	}
}

// tlsOutside: the listed name passes with its bytes untouched, others do not.
func tlsOutside(t *testing.T, client *cluster.Pod, to netip.AddrPort) {
	t.Helper()
	for name, reason := range map[string]string{listedName: "", "evil.example.com": "external-sni-not-allowed"} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		raw, err := client.Dial(ctx, "tcp", to.String())
		if err != nil {
			t.Fatal(err)
		}
		conn := tls.Client(raw, &tls.Config{ServerName: name, InsecureSkipVerify: true}) //nolint:gosec // who answers is not what the node checks
		err = conn.HandshakeContext(ctx)
		cancel()
		raw.Close()
		switch {
		case reason == "" && err != nil:
			t.Errorf("TLS with %s: %v", name, err)
		case reason != "" && !errors.Is(err, syscall.ECONNRESET):
			t.Errorf("TLS with %s ends with %v, want a reset", name, err)
		case reason != "":
			r := recorded(t, client.On, func(r flow.Record) bool { return r.Verdict == flow.Refused && r.Dst == to })
			if r.Reason != reason || !strings.Contains(r.Actual, name) {
				t.Errorf("%+v", r)
			}
		}
	}
	refusedPlain(t, client, to)
}

// answer says to every datagram whom it sees.
func answer(pc net.PacketConn) {
	buf := make([]byte, 1<<16)
	for {
		_, from, err := pc.ReadFrom(buf)
		if err != nil {
			return
		}
		_, _ = pc.WriteTo([]byte(from.String()), from)
	}
}

// datagrams reach the host's port that a rule names, and no other.
func datagrams(t *testing.T, client *cluster.Pod, to netip.AddrPort, node netip.Addr) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	conn, err := client.Dial(ctx, "udp", to.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{1, 1400, 9000} {
		buf := make([]byte, 256)
		if _, err := conn.Write(make([]byte, size)); err != nil {
			t.Fatal(err)
		}
		n, err := conn.Read(buf)
		if seen, perr := netip.ParseAddrPort(string(buf[:n])); err != nil || perr != nil || seen.Addr() != node {
			t.Errorf("a datagram of %d bytes to %s: the host sees %q (%v), want %s", size, to, buf[:n], err, node)
		}
	}
	recorded(t, client.On, func(r flow.Record) bool {
		return r.Verdict == flow.Allowed && r.Dst == to && r.Protocol == policy.ProtocolUDP && r.Rule == "external/time"
	})
	other := netip.AddrPortFrom(to.Addr(), wrongPort)
	wrong, err := client.Dial(ctx, "udp", other.String())
	if err != nil {
		t.Fatal(err)
	}
	defer wrong.Close()
	if _, err := wrong.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	recorded(t, client.On, func(r flow.Record) bool {
		return r.Verdict == flow.Refused && r.Dst.Port() == wrongPort && r.Protocol == policy.ProtocolUDP && r.Reason == "external-port-not-allowed"
	})
}

func refusedPlain(t *testing.T, client *cluster.Pod, to netip.AddrPort) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	raw, err := client.Dial(ctx, "tcp", to.String())
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	if err := raw.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(raw, "GET / HTTP/1.1\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := raw.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("plain HTTP ends with %v, want a reset", err)
	}
	recorded(t, client.On, func(r flow.Record) bool { return r.Reason == "external-not-tls" && r.Dst == to })
}

// untilForbidden: a connection ends with the rule that allowed it.
func untilForbidden(t *testing.T, k *kubernetes, to netip.AddrPort) {
	client := k.pod(k.Nodes[0], "client", lab.Routed)
	conn, _, err := connect(t, client, to)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := k.Publish(t.Context(), func(m *policy.Manifest) { m.Workloads[0].External = m.Workloads[0].External[1:] }); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the standing connection ends with %v, want a reset", err)
	}
	r := recorded(t, client.On, func(r flow.Record) bool { return r.Verdict == flow.Closed && r.Dst == to })
	if r.Reason != "policy-changed" {
		t.Errorf("%+v", r)
	}
	refused(t, client, to, "external-port-not-allowed", "external-not-allowed")
}
