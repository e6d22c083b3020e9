// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/datapath/resolve"
	"github.com/c8s-dev/c8s/policy/policytest"
)

// oracle answers "slow…" when it is let go, "mute…" never, and all else at once.
type oracle struct {
	release chan struct{}
	asked   atomic.Pointer[Asker]
}

func (o *oracle) Answer(ctx context.Context, asker Asker, query []byte, tcp bool) []byte {
	o.asked.Store(&asker)
	switch {
	case !tcp || strings.HasPrefix(string(query), "mute"):
		return nil
	case strings.HasPrefix(string(query), "slow"):
		select {
		case <-o.release:
		case <-ctx.Done():
			return nil
		}
	}
	return append([]byte("re:"), query...)
}

const anyServer = "127.53.0.1:53"

// asking is a node with one pod and a resolver.
func asking(t *testing.T, limits Limits) (*node, *oracle) {
	t.Helper()
	w := newWorld(t)
	n := w.node("127.0.0.1", limits)
	o := &oracle{release: make(chan struct{})}
	n.proxy.cfg.DNS, n.proxy.cfg.DNSService = o, "default/db" // nothing is steered here yet
	n.pod(policytest.Web, webAddr)
	return n, o
}

func ask(t *testing.T, c net.Conn, queries ...string) {
	t.Helper()
	var out []byte
	for _, q := range queries {
		out = append(binary.BigEndian.AppendUint16(out, uint16(len(q))), q...)
	}
	_, err := c.Write(out)
	must(t, err)
}

func wantAnswer(t *testing.T, c net.Conn, want string) {
	t.Helper()
	answer, err := readQuery(c)
	if err != nil || string(answer) != want {
		t.Fatalf("%q, %v; want %q", answer, err, want)
	}
}

func TestNodeAnswersNamesOverTCPWhateverServerIsAsked(t *testing.T) {
	n, o := asking(t, Limits{})
	c := n.dial(webAddr, anyServer)
	ask(t, c, "slow", "mute", "one", "two") // in one segment; answers may overtake
	got := map[string]bool{}
	for range 2 {
		answer, err := readQuery(c)
		must(t, err)
		got[string(answer)] = true
	}
	if !got["re:one"] || !got["re:two"] {
		t.Fatalf("%v", got)
	}
	close(o.release)
	wantAnswer(t, c, "re:slow")
	want := Asker{
		UID: "uid-" + webAddr, Name: "default/web", Workload: policytest.Web, Addr: netip.MustParseAddr(webAddr),
		Port: uint16(c.LocalAddr().(*net.TCPAddr).Port), Server: netip.MustParseAddrPort(anyServer),
	}
	if got := *o.asked.Load(); got != want {
		t.Errorf("asked by %+v, want %+v", got, want)
	}
	must(t, c.CloseWrite())
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("after the last query: %v", err)
	}
}

func TestOnlyMeshPodsAndServicesAreAskedThemselves(t *testing.T) {
	n, _ := asking(t, Limits{})
	n.w.service("127.96.0.10:53", "127.20.0.1:53")
	n.w.verdicts[netip.MustParseAddr("127.0.0.9")] = resolve.HostAddress
	n.w.verdicts[netip.MustParseAddr("127.10.0.9")] = resolve.NoNode
	for dst, want := range map[string]bool{
		anyServer: true, "[2001:db8::8]:53": true, "127.0.0.9:53": true, // nobody, or a node
		"127.96.0.10:53": true,                // the cluster's DNS
		"127.10.0.1:53":  false,               // a pod
		"127.10.0.9:53":  false,               // one whose node nobody knows
		anyServer + "53": false, dbApp: false, // other ports
	} {
		if got := n.proxy.asksNode(resolve.Query{Protocol: resolve.TCP, Src: netip.MustParseAddr(webAddr), Dst: netip.MustParseAddrPort(dst)}); got != want {
			t.Errorf("%s: %t", dst, got)
		}
	}
	n.proxy.cfg.DNSService = "kube-system/kube-dns"
	if n.proxy.asksNode(resolve.Query{Protocol: resolve.TCP, Dst: netip.MustParseAddrPort("127.96.0.10:53")}) {
		t.Error("another Service's port 53 is taken from it")
	}
	n.proxy.cfg.DNS = nil
	if n.proxy.asksNode(resolve.Query{Protocol: resolve.TCP, Dst: netip.MustParseAddrPort(anyServer)}) {
		t.Error("a node that answers no names takes port 53")
	}
}

func TestNamesOverTCPAreRefusedWithoutIdentity(t *testing.T) {
	n, o := asking(t, Limits{})
	n.podWith(policytest.Web, netip.MustParseAddr(webAddr), nil)
	n.dialRefused(webAddr, anyServer)
	n.wantRefusal("not-enrolled")
	n.dialRefused("127.10.0.99", anyServer)
	n.wantRefusal("unknown-source")
	if o.asked.Load() != nil {
		t.Error("the resolver was asked")
	}
}

func TestNameConnectionEndsWithItsPod(t *testing.T) {
	for name, end := range map[string]func(n *node){
		"gone":     func(n *node) { n.remove(webAddr) },
		"replaced": func(n *node) { n.pod(policytest.Web, webAddr).UID = "another" },
		"expired":  func(n *node) { n.w.ahead.Store(int64(2 * time.Hour)) },
	} {
		t.Run(name, func(t *testing.T) {
			n, _ := asking(t, Limits{})
			c := n.dial(webAddr, anyServer)
			ask(t, c, "one")
			wantAnswer(t, c, "re:one")
			end(n)
			ask(t, c, "two")
			if _, err := readQuery(c); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("the connection goes on: %v", err)
			}
		})
	}
}

// The answer to a question of before is not sent either.
func TestAnswerToAPodThatWasReplacedIsNotWritten(t *testing.T) {
	n, o := asking(t, Limits{})
	c := n.dial(webAddr, anyServer)
	ask(t, c, "slow")
	for o.asked.Load() == nil {
		time.Sleep(time.Millisecond)
	}
	n.pod(policytest.Web, webAddr).UID = "another"
	close(o.release)
	if answer, err := readQuery(c); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%q, %v; want the end of the connection", answer, err)
	}
}

func TestNameConnectionsAreLimited(t *testing.T) {
	n, o := asking(t, Limits{NameConnsPerPod: 1, NamesIdle: 100 * time.Millisecond})
	c := n.dial(webAddr, anyServer)
	ask(t, c, "slow") // still worked on when the idle time is over
	for o.asked.Load() == nil {
		time.Sleep(time.Millisecond)
	}
	n.dialRefused(webAddr, anyServer)
	n.wantRefusal("too-many-connections")
	close(o.release)
	wantAnswer(t, c, "re:slow")
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("an idle connection: %v", err)
	}
	for n.proxy.names.inUse() > 0 {
		time.Sleep(time.Millisecond)
	}
	long := n.dial(webAddr, anyServer)
	_, err := long.Write([]byte{0xff, 0xff, 0})
	must(t, err)
	if _, err := long.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("an endless query: %v", err)
	}
}

func TestDaemonThatEndsLeavesNoNameConnection(t *testing.T) {
	n, o := asking(t, Limits{})
	c := n.dial(webAddr, anyServer)
	ask(t, c, "slow")
	for o.asked.Load() == nil {
		time.Sleep(time.Millisecond)
	}
	n.stop() // waits for all connections
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after the end: %v", err)
	}
}

// A proxy that stands still for a successor holds nobody who is not answered: on
// another connection the successor does it.
func TestNameConnectionWithoutAnAnswerEndsInAHandover(t *testing.T) {
	n, _ := asking(t, Limits{})
	c := n.dial(webAddr, anyServer)
	ask(t, c, "mute", "one")
	wantAnswer(t, c, "re:one")
	n.proxy.Pause()
	ask(t, c, "two")
	wantAnswer(t, c, "re:two")
	ask(t, c, "mute")
	if _, err := readQuery(c); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection goes on: %v", err)
	}
	n.proxy.Resume()
	again := n.dial(webAddr, anyServer)
	ask(t, again, "mute", "three")
	wantAnswer(t, again, "re:three")
}
