// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/datapath/flow"
	"github.com/c8s-dev/c8s/policy"
)

// A rolling upgrade to another image lets no new connection fail, cuts no
// connection before its drain time, and unlocks nobody.
func testUpgrade(t *testing.T, s *Site) {
	ctx := t.Context()
	before := s.C8s
	next, err := s.release("v2")
	must(t, err)
	if next.Config == before.Config {
		t.Fatal("the other release has the same digest")
	}
	must(t, s.Import(ctx, next))
	must(t, s.allow(ctx, next.Ref, next.Config))
	s.C8s = next

	var owners []string
	for _, n := range s.Nodes {
		instance, err := s.owner(ctx, n, "")
		must(t, err)
		owners = append(owners, instance)
	}
	n := s.Nodes[1]
	packets, stop := watchLeaks(t, s, n)
	flood, err := s.Tally(n, "flood")
	must(t, err)
	pod, hold, err := s.talking(ctx)
	must(t, err)
	began := time.Now()
	must(t, s.upgrade(ctx))

	must(t, s.handedOver(ctx, owners))
	since, err := s.Tally(n, pod)
	must(t, err)
	now, err := s.more(ctx, pod, since, 0, 10)
	if err != nil || now.Lives != hold.Lives {
		t.Errorf("the connection that was there when a node was handed over: %v, %v", err, now.Failures)
	}
	t.Logf("the first node was handed over after %s", time.Since(began).Round(time.Millisecond))
	must(t, s.Rollout(ctx, "daemonset/c8s-node", "-n", systemNamespace))
	must(t, s.Rollout(ctx, "statefulset/c8s-cds", "-n", systemNamespace))
	for _, n := range s.Nodes {
		must(t, s.until(ctx, "the daemon before to end", func() error {
			pids, err := s.daemons(n)
			if err == nil && len(pids) != 1 {
				err = fmt.Errorf("on %s there are %v", n.Name(), pids)
			}
			return err
		}))
	}
	now, err = s.more(ctx, "flood", flood, 40, 0)
	must(t, err)
	t.Logf("the upgrade took %s: %d new connections, %d failed, the longest took %d ms", time.Since(began).Round(time.Millisecond), now.Good-flood.Good, now.Bad-flood.Bad, slices.Max(now.Millis[len(flood.Millis):]))
	if now.Bad != flood.Bad {
		t.Errorf("new connections failed: %v", now.Failures[len(flood.Failures):])
		for _, n := range s.Nodes {
			records, err := s.Flows(ctx, n)
			t.Log(n.Name(), slices.DeleteFunc(records, func(r flow.Record) bool { return r.Verdict != flow.Refused || r.SrcWorkload != "flood" }), err)
		}
	}
	if intruder, err := s.Tally(n, "intruder"); err != nil || intruder.Good != 0 || intruder.Bad == 0 {
		t.Errorf("the intruder got through: %+v, %v", intruder, err)
	}
	stop()
	if count, seen := packets.found(); count != 0 {
		t.Errorf("%d packets left the node in the clear: %v", count, seen)
	}
	must(t, s.until(ctx, "the pods before to be gone", func() error {
		out, err := s.Kubectl(ctx, "get", "pods", "-n", systemNamespace, "-o", "jsonpath={range .items[*].spec.containers[*]}{.image}{\"\\n\"}{end}")
		if want := strings.Repeat(next.Ref+"\n", len(s.Nodes)+1); err == nil && out != want {
			err = fmt.Errorf("pods run %q, want %q", out, want)
		}
		return err
	}))
}

// handedOver waits until one node belongs to another daemon than before.
func (s *Site) handedOver(ctx context.Context, before []string) error {
	return s.until(ctx, "a node to be handed over", func() error {
		for i, n := range s.Nodes {
			status, err := s.Status(ctx, n)
			if err != nil {
				return err
			}
			if status.Node.Instance != before[i] {
				return nil
			}
		}
		return fmt.Errorf("they belong to %v", before)
	})
}

// allow lists another image of C8s beside the one that runs, to be started in
// the same ways.
func (s *Site) allow(ctx context.Context, ref, digest string) error {
	return s.Publish(ctx, func(m *policy.Manifest) {
		for i, w := range m.Workloads {
			if w.Name != "c8s-node" && w.Name != "c8s-cds" {
				continue
			}
			m.Workloads[i].Images = slices.Clone(w.Images)
			for _, image := range w.Images {
				image.Name, image.Digest = ref, policy.Digest(digest)
				m.Workloads[i].Images = append(m.Workloads[i].Images, image)
			}
		}
	})
}

func (s *Site) upgrade(ctx context.Context) error {
	args := append([]string{
		"upgrade", "c8s", s.chart(), "-n", systemNamespace,
		"--set-file", "trust.operators=" + s.path("operators.json"), "--set-file", "trust.manifest=" + s.path("manifest.json"),
	}, s.values()...)
	if out, err := s.Helm(ctx, args...); err != nil {
		return fmt.Errorf("upgrading the chart: %w: %s", err, out)
	}
	return nil
}
