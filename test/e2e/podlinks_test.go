// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/agent"
	"github.com/c8s-dev/c8s/test/lab"
)

// A second link gives a pod a way past the lock: a macvlan sends through the
// node's uplink as if the node did.
func TestPodThatGainsALinkIsLockedUntilItHasGone(t *testing.T) {
	for _, kind := range []string{"macvlan", "veth"} {
		t.Run(kind, func(t *testing.T) {
			c := newCluster(t)
			node := c.Nodes[0]
			client, server := openPod(t, node, "client", lab.Routed), openPod(t, c.Nodes[1], "server", lab.Routed)
			serveEcho(t, server)
			to := netip.AddrPortFrom(server.Addr4, echoPort)
			conn, _, err := connect(t, client, to)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			onNode(t, node, "sh", "-c", strings.NewReplacer("UPLINK", lab.Uplink, "NETNS", client.Path()).Replace(map[string]string{
				"macvlan": "ip link add stray0 link UPLINK type macvlan mode bridge && ip link set stray0 netns NETNS",
				"veth":    "ip link add stray1 type veth peer name stray0 netns NETNS && ip link set stray1 up",
			}[kind]))
			if err := client.WaitState(t.Context(), agent.StateLocked, "pod-link"); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Read(make([]byte, 1)); err == nil {
				t.Error("the pod's connection lives on")
			}
			text := onNode(t, node, binary, "status", "--run-dir", node.RunDir())
			if !strings.Contains(text, "stray0 ("+kind+")") {
				t.Errorf("c8s status does not name the link:\n%s", text)
			}

			// Whoever has the rights for it brings the link up again: it does not stay.
			if out, err := client.Command(t.Context(), "ip", "link", "set", "stray0", "up").CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
				out, err := client.Command(t.Context(), "ip", "-o", "link", "show", "stray0").CombinedOutput()
				if err != nil {
					t.Fatalf("%v: %s", err, out)
				}
				if !strings.Contains(string(out), ",UP") {
					break
				}
				if time.Now().After(end) {
					t.Fatalf("the link stays up: %s", out)
				}
			}

			if out, err := client.Command(t.Context(), "ip", "link", "del", "stray0").CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if err := client.WaitState(t.Context(), agent.StateOpen, ""); err != nil {
				t.Fatal(err)
			}
			again, _, err := connect(t, client, to)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := echo(again, "again"); err != nil || got != "again" {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}

// A pod that has another link when the daemon first sees it never opens.
func TestPodBornWithTwoLinksStaysLocked(t *testing.T) {
	c := newCluster(t)
	p, err := c.Nodes[0].AddPod(t.Context(), "client", lab.PodSpec{
		Name: "client", Images: []string{image("client")},
		BeforeUp: func(p *lab.Pod) error {
			out, err := p.Command(t.Context(), "ip", "link", "add", "stray0", "type", "veth", "peer", "name", "stray1").CombinedOutput()
			if err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.WaitState(t.Context(), agent.StateLocked, "pod-link"); err != nil {
		t.Fatal(err)
	}
}
