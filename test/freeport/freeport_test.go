// SPDX-License-Identifier: Apache-2.0

package freeport_test

import (
	"fmt"
	"net"
	"testing"

	"github.com/c8s-dev/c8s/test/freeport"
)

func TestNoConnectionGetsAFreePort(t *testing.T) {
	ports := map[uint16]bool{}
	for range 200 {
		p, err := freeport.Find()
		if err != nil {
			t.Fatal(err)
		}
		ports[p] = true
		ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", p))
		if err != nil {
			t.Fatalf("it is not free: %v", err)
		}
		defer ln.Close()
	}
	if len(ports) != 200 {
		t.Errorf("only %d of 200 ports differ, though all are in use", len(ports))
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for range 500 {
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if p := c.LocalAddr().(*net.TCPAddr).Port; ports[uint16(p)] {
			t.Fatalf("a connection got port %d", p)
		}
	}
}
