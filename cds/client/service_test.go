// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"encoding/hex"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/attest/sim/simtest"
	"github.com/c8s-dev/c8s/cds"
	"github.com/c8s-dev/c8s/cds/cdstest"
	"github.com/c8s-dev/c8s/cds/client"
	"github.com/c8s-dev/c8s/cds/store/storetest"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

func codeIs(t *testing.T, err error, code string) {
	t.Helper()
	var refused *client.RefusedError
	if !errors.As(err, &refused) || refused.Code != code {
		t.Errorf("got %v, want %s", err, code)
	}
}

// remembering is a client with a state folder, as a node is; it may be made
// again with the same folder.
func remembering(t *testing.T, w *cdstest.CDS, dir string) *client.Client {
	t.Helper()
	cfg := configOf(t, w, w.Signed)
	cfg.StateDir = dir
	c, err := client.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestNodesMemoryStopsACDSWhoseStoreWasRolledBack(t *testing.T) {
	w := cdstest.New(t)
	dir := t.TempDir()
	old := w.Store.Snapshot()
	if _, err := remembering(t, w, dir).EnrolNode(t.Context(), w.Attester("node")); err != nil {
		t.Fatal(err)
	}
	w.Stop()
	w.Store.Restore(old)
	w.Start(w.Attester("cds")) // nothing in it knows better
	if _, err := w.Client().EnrolNode(t.Context(), w.Attester("node")); err != nil {
		t.Fatalf("a node without a memory: %v", err)
	}
	_, err := remembering(t, w, dir).EnrolNode(t.Context(), w.Attester("node"))
	codeIs(t, err, "store-rolled-back")
	// Now nobody gets anything any more, whatever he remembers.
	_, err = w.Client().EnrolNode(t.Context(), w.Attester("node"))
	codeIs(t, err, "store-rolled-back")
	if err := w.Server.Ready(); err == nil || !strings.Contains(w.Log(), "rolled back") {
		t.Errorf("the CDS is ready (%v), or its log does not say why not", err)
	}
}

func TestCDSWithAnEmptiedStoreIsRefusedUntilTheOperatorsSpeak(t *testing.T) {
	w := cdstest.New(t)
	dir := t.TempDir()
	if _, err := remembering(t, w, dir).EnrolNode(t.Context(), w.Attester("node")); err != nil {
		t.Fatal(err)
	}
	w.Stop()
	w.Store = storetest.NewMemory()
	w.Start(w.Attester("cds"))
	_, err := remembering(t, w, dir).EnrolNode(t.Context(), w.Attester("node"))
	codeIs(t, err, client.CodeReplaced)
	w.Fixture = w.Next(t, func(m *policy.Manifest) { m.Workloads[0].HostAccess = false })
	publish(t, w, w.Fixture)
	if _, err := remembering(t, w, dir).EnrolNode(t.Context(), w.Attester("node")); err != nil {
		t.Errorf("under a later manifest: %v", err)
	}
}

// The list is about machines; the CDS runs on one.
func TestDeniedMachineOfTheCDSIsLeftAndNotConnectedToAgain(t *testing.T) {
	w := cdstest.New(t)
	c := w.Client()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	news, ended := make(chan client.News, 8), make(chan error, 1)
	go func() { ended <- c.Watch(ctx, func(n client.News) { news <- n }) }()
	chip := simtest.Options("cds").ChipID
	list := w.DenyList(t, nil, policytest.Deny(policy.DenyMachine, hex.EncodeToString(chip[:])))
	if _, err := w.Client().PublishDenyList(t.Context(), list.Envelope); err != nil {
		t.Fatal(err)
	}
	for n := range news {
		if n.DenyList != nil {
			break
		}
	}
	_, err := c.EnrolNode(t.Context(), w.Attester("node"))
	if policy.CodeOf(err) != policy.CodeDeniedMachine {
		t.Errorf("got %v, want %s", err, policy.CodeDeniedMachine)
	}
	cancel()
	<-ended
}

// A CDS that is asked too often says so to one pod. The others go on using the
// connection, and nobody asks again at once.
func TestRefusalForBeingBusyLeavesTheConnectionOfThePods(t *testing.T) {
	w := cdstest.Prepare(t)
	const burst = 8
	w.Edit = func(c *cds.Config) { c.Limits.CallBurst, c.Limits.CallsPerSecond = burst, 1e-6 }
	w.Start(w.Attester("cds"))
	var dials atomic.Int64
	cfg := configOf(t, w, w.Signed)
	cfg.Log = slog.New(slog.DiscardHandler)
	cfg.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		dials.Add(1)
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}
	c, err := client.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	node, err := c.EnrolNode(t.Context(), w.Attester("node")) // three calls
	if err != nil {
		t.Fatal(err)
	}
	pod := client.Pod{
		Namespace: "default", Name: "web-0", UID: "uid", Images: []policy.Digest{policytest.Digest(policytest.Web)}, Addrs: []netip.Addr{netip.MustParseAddr("10.81.1.2")},
	}
	if _, err := c.EnrolPod(t.Context(), node, pod); err != nil { // three more
		t.Fatal(err)
	}
	before := dials.Load()
	for range 4 {
		if _, err = c.EnrolPod(t.Context(), node, pod); err != nil {
			break
		}
	}
	codeIs(t, err, "too-fast")
	var refused *client.RefusedError
	if errors.As(err, &refused) && refused.RetryAfter < time.Second {
		t.Errorf("to come again after %s", refused.RetryAfter)
	}
	if after := dials.Load(); after != before {
		t.Errorf("%d connections more for pods that were turned away", after-before)
	}
}
