// SPDX-License-Identifier: Apache-2.0

package enforce_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/c8s-dev/c8s/agent"
	"github.com/c8s-dev/c8s/datapath/flow"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/test/stack"
)

// TestPodsOfTwoNodes is what a pod's life is like when everything is as listed,
// and what takes it out of the mesh.
func TestPodsOfTwoNodes(t *testing.T) {
	w := newWorld(t, []string{"one", "two"})
	one, two := w.nodes[0], w.nodes[1]
	webPod := two.pod(t, "web", "")
	web, err := webPod.Run(t.Context(), stack.ContainerSpec{Image: w.app.Ref, Mounts: two.kubeletMounts(webPod)})
	if err != nil {
		t.Fatal(err)
	}
	client := one.run(t, one.pod(t, "client", "client"), "sleep")

	t.Run("they talk as who they are", func(t *testing.T) {
		for _, ip := range webPod.IPs {
			w.eventually("web to listen", func(ctx context.Context) error {
				answer, err := ask(ctx, client, ip)
				if err == nil && answer != "web hello" {
					err = fmt.Errorf("it says %q", answer)
				}
				return err
			})
			r := flowTo(t, one, ip)
			if r.Verdict != flow.Allowed || r.SrcID != "spiffe://"+trustDomain+"/workload/client" || r.DstID != "spiffe://"+trustDomain+"/workload/web" {
				t.Errorf("the flow is %+v", r)
			}
		}
	})
	t.Run("nobody enters a pod's network from the node", func(t *testing.T) {
		netns := two.info(t, webPod).netns
		for _, target := range []string{"127.0.0.1", webPod.IPs[0].String()} {
			out, err := two.Run(t.Context(), "nsenter", "--net="+netns, "bash", "-c", "echo hi >/dev/tcp/"+target+"/9000 && echo connected")
			if err == nil || strings.Contains(out, "connected") {
				t.Errorf("a process of the node reached %s in the pod: %s", target, out)
			}
		}
	})
	t.Run("a pod that cannot enrol says why", func(t *testing.T) {
		if err := w.cds.Kill(); err != nil {
			t.Fatal(err)
		}
		p := one.pod(t, "late", "client")
		c, err := p.Run(t.Context(), stack.ContainerSpec{Image: w.app.Ref, Args: []string{"sleep"}})
		refused(t, "a pod without CDS", err, "pod-not-open", w.cdsAddr())
		if err := c.Remove(t.Context()); err != nil {
			t.Error(err)
		}
		if s, err := one.status(t.Context(), p); err == nil && s.State == agent.StateOpen {
			t.Errorf("it is %+v", s)
		}
		if answer, err := ask(t.Context(), client, webPod.IPs[0]); err != nil || answer != "web hello" {
			t.Errorf("pods that are in the mesh: %q, %v", answer, err)
		}
		w.startCDS()
		one.run(t, p, "sleep") // as the kubelet tries again
	})
	t.Run("a manifest that lists it no more", func(t *testing.T) {
		w.publish(func(m *policy.Manifest) {
			m.Workloads = slices.DeleteFunc(m.Workloads, func(e policy.Workload) bool { return e.Name == "web" })
			m.Workloads[0].Peers.To = nil
		})
		w.eventually("web to be stopped", func(ctx context.Context) error {
			if running(ctx, web) {
				return errors.New("it runs")
			}
			return nil
		})
		if answer, err := ask(t.Context(), client, webPod.IPs[0]); err == nil {
			t.Errorf("it still answers %q", answer)
		}
		_, err := webPod.Run(t.Context(), stack.ContainerSpec{Name: "again", Image: w.app.Ref})
		refused(t, "the same again", err, "refused")
	})
	for _, n := range w.nodes {
		n.signal(syscall.SIGTERM)
		if err := n.daemon.Wait(t.Context()); err != nil {
			t.Errorf("the daemon of %s: %v", n.Name(), err)
		}
	}
}

func flowTo(t *testing.T, n *node, to netip.Addr) flow.Record {
	t.Helper()
	var found flow.Record
	if err := n.admin.Flows(t.Context(), agent.FlowQuery{Last: 1000}, func(r flow.Record) error {
		if r.Dst.Addr() == to && r.Verdict != flow.Closed {
			found = r
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return found
}
