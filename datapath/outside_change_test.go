// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/datapath/resolve"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

// clientHello is the first message of a client that asks for name.
func clientHello(t *testing.T, name string) string {
	t.Helper()
	client, server := net.Pipe()
	defer server.Close()
	go func() {
		defer client.Close()
		_ = tls.Client(client, &tls.Config{ServerName: name, InsecureSkipVerify: true}).Handshake() //nolint:gosec // only its first bytes count
	}()
	buf := make([]byte, 16<<10)
	n, err := server.Read(buf)
	must(t, err)
	return string(buf[:n])
}

// hearing is a connection that its rule allows so far, and that has said this.
func (o *outsider) hearing(said string) *net.TCPConn {
	o.w.t.Helper()
	asked, own := make(chan struct{}, 10), o.proxy.ownAddr
	o.proxy.ownAddr = func(a netip.Addr) bool {
		defer func() { asked <- struct{}{} }() // the last question before the ClientHello
		return own(a)
	}
	c := o.dial(webAddr, farAddr+":444")
	_, err := io.WriteString(c, said)
	must(o.w.t, err)
	<-asked
	return c
}

// A ClientHello may take ten seconds, and connecting ten more. What changes
// meanwhile counts: not a byte leaves that the rules of the moment refuse.
func TestWhatChangesBeforeAConnectionLeavesCounts(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(o *outsider)
		reason string
	}{
		"the pod is gone": {func(o *outsider) { o.remove(webAddr) }, "unknown-source"},
		"another pod has its address": {func(o *outsider) {
			o.mu.Lock()
			defer o.mu.Unlock()
			next := *o.pods[netip.MustParseAddr(webAddr)]
			next.UID = "uid-next"
			o.pods[netip.MustParseAddr(webAddr)] = &next
		}, "unknown-source"},
		"its workload is denied": {func(o *outsider) { o.deny(policytest.Deny(policy.DenyWorkload, policytest.Web)) }, "denied-workload"},
		"the rule is gone":       {func(o *outsider) { o.next(func(m *policy.Manifest) { m.Workloads[0].External = nil }) }, "external-not-allowed"},
		"somebody claims the address": {func(o *outsider) {
			o.w.mu.Lock()
			defer o.w.mu.Unlock()
			o.w.routes[netip.MustParseAddr(farAddr)] = o.addr
		}, "external-claimed"},
		"the address is a node's": {func(o *outsider) {
			o.w.mu.Lock()
			defer o.w.mu.Unlock()
			o.w.verdicts[netip.MustParseAddr(farAddr)] = resolve.HostAddress
		}, "external-not-allowed"},
	} {
		t.Run(name, func(t *testing.T) {
			hello := clientHello(t, "api.example.com")
			t.Run("while it is heard", func(t *testing.T) {
				o := newOutsider(t, Limits{})
				c := o.hearing(hello[:100])
				tt.change(o)
				_, err := io.WriteString(c, hello[100:])
				must(t, err)
				wantReset(t, c)
				o.wantRefusal(tt.reason)
				if n := o.dialled.Load(); n != 0 {
					t.Errorf("the endpoint was dialled %d times", n)
				}
			})
			t.Run("while it is made", func(t *testing.T) {
				o := newOutsider(t, Limits{})
				far, err := net.Listen("tcp", farApp+":444")
				must(t, err)
				defer far.Close()
				dial := o.proxy.dialOutside
				o.proxy.dialOutside = func(ctx context.Context, network string, dst netip.AddrPort) (net.Conn, error) {
					tt.change(o)
					return dial(ctx, network, dst)
				}
				c := o.dial(webAddr, farAddr+":444")
				_, err = io.WriteString(c, hello)
				must(t, err)
				made, err := far.Accept()
				must(t, err)
				defer made.Close()
				must(t, made.SetDeadline(time.Now().Add(10*time.Second)))
				if n, err := made.Read(make([]byte, 1)); n != 0 || !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("the endpoint got %d bytes, %v", n, err)
				}
				wantReset(t, c)
				o.wantRefusal(tt.reason)
			})
		})
	}
}

// The kernel may know an address as the node's own before anybody else does.
func TestAnAddressThatBecomesTheNodesWhileAHelloIsHeard(t *testing.T) {
	o := newOutsider(t, Limits{})
	hello := clientHello(t, "api.example.com")
	c := o.hearing(hello[:100])
	ours := netip.MustParseAddr(farAddr)
	o.ours.Store(&ours)
	_, err := io.WriteString(c, hello[100:])
	must(t, err)
	wantReset(t, c)
	o.wantRefusal("external-not-allowed")
	if n := o.dialled.Load(); n != 0 {
		t.Errorf("the endpoint was dialled %d times", n)
	}
}
