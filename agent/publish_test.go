// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"net"
	"os"
	"testing"

	"github.com/c8s-dev/c8s/datapath"
	"github.com/c8s-dev/c8s/test/freeport"
)

// desk is a publisher whose proxy is the test.
type desk struct {
	*publisher
	sockets sockets
	served  map[uint16]datapath.Published
}

func newDesk(t *testing.T) *desk {
	d := &desk{}
	d.publisher = newPublisher(&d.sockets, func(ports map[uint16]datapath.Published) {
		for port, was := range d.served {
			if _, still := ports[port]; !still {
				closeAll(was)
			}
		}
		d.served = ports
	})
	t.Cleanup(func() {
		for _, p := range d.served {
			closeAll(p)
		}
		d.sockets.close()
	})
	return d
}

func closeAll(p datapath.Published) {
	for _, ln := range p.Listeners {
		ln.Close()
	}
}

func freePort(t *testing.T) uint16 {
	t.Helper()
	p, err := freeport.Find()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func dials(port uint16) error {
	c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err == nil {
		c.Close()
	}
	return err
}

func TestPublishedPortsFollowThePods(t *testing.T) {
	d, port := newDesk(t), freePort(t)
	one, two := &datapath.LocalPod{UID: "1"}, &datapath.LocalPod{UID: "2"}
	if !d.sync(t.Context(), map[uint16][]*datapath.LocalPod{port: {one}}) || dials(port) != nil {
		t.Fatal("the port is not open")
	}
	first := d.served[port].Listeners
	if !d.sync(t.Context(), map[uint16][]*datapath.LocalPod{port: {one, two}}) || len(d.served[port].Pods) != 2 || len(d.served[port].Listeners) != len(first) {
		t.Errorf("with another pod: %+v", d.served)
	}
	if s := d.status(); len(s) != 1 || s[0].HostPort != port || s[0].Pods != 2 || s[0].Error != "" {
		t.Errorf("status %+v", s)
	}
	if n := len(d.sockets.all()); n != len(first) {
		t.Errorf("%d sockets for a successor, want %d", n, len(first))
	}
	if !d.sync(t.Context(), nil) || dials(port) == nil || len(d.sockets.all()) != 0 || len(d.status()) != 0 {
		t.Error("the port of no pod is open")
	}
}

func TestPortOfAnotherProgramIsReportedAndTriedAgain(t *testing.T) {
	d := newDesk(t)
	squatter, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer squatter.Close()
	port := uint16(squatter.Addr().(*net.TCPAddr).Port)
	wanted := map[uint16][]*datapath.LocalPod{port: {{UID: "1"}}}
	if d.sync(t.Context(), wanted) {
		t.Error("it says that the port is open")
	}
	if s := d.status(); len(s) != 1 || s[0].Error == "" {
		t.Errorf("status %+v", s)
	}
	squatter.Close()
	if !d.sync(t.Context(), wanted) || dials(port) != nil {
		t.Errorf("not open: %+v", d.status())
	}
}

func TestSuccessorTakesPublishedPortsAndClosesWhatNobodyWants(t *testing.T) {
	d, kept, dropped := newDesk(t), freePort(t), freePort(t)
	wanted := map[uint16][]*datapath.LocalPod{kept: {{UID: "1"}}, dropped: {{UID: "2"}}}
	if !d.sync(t.Context(), wanted) {
		t.Fatal("not open")
	}
	// What a hand-over passes: other descriptors of the same sockets.
	handed := map[string]*os.File{}
	for _, s := range d.sockets.all() {
		f, err := dup(s.File)
		if err != nil {
			t.Fatal(err)
		}
		handed[s.Name] = f
	}
	other, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	handed["publish-70000-4"], handed["publish-80-5"], handed["tunnels"] = other, other, other
	next := newDesk(t)
	if err := next.take(handed); err != nil {
		t.Fatal(err)
	}
	if len(handed) != 3 {
		t.Errorf("left for others: %v", handed)
	}
	d.sync(t.Context(), nil) // the predecessor has left
	if dials(kept) != nil || dials(dropped) != nil {
		t.Error("a port was closed in between")
	}
	if !next.sync(t.Context(), map[uint16][]*datapath.LocalPod{kept: {{UID: "1"}}}) {
		t.Error(next.status())
	}
	if err := dials(kept); err != nil {
		t.Error(err)
	}
	if dials(dropped) == nil {
		t.Error("a port that nobody wants is open")
	}
}

func dup(f *os.File) (*os.File, error) {
	ln, err := net.FileListener(f)
	if err != nil {
		return nil, err
	}
	defer ln.Close()
	return ln.(*net.TCPListener).File()
}
