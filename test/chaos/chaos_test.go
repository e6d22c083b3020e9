// SPDX-License-Identifier: Apache-2.0

// Package chaos breaks a running cluster at random, for as long as it is told
// to, and holds it to this: no byte of a pod is ever seen outside a tunnel, no
// attack ever succeeds, no byte is ever changed, and whatever fails fails while
// something is broken.
//
//	go test ./test/chaos -duration 20m -seed 7
package chaos

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/test/lab"
	"github.com/c8s-dev/c8s/test/lab/capture"
	"github.com/c8s-dev/c8s/test/privileged"
)

var (
	duration = flag.Duration("duration", 45*time.Second, "for how long TestChaos breaks things")
	seed     = flag.Uint64("seed", 0, "of the order in which things break; 0 takes a new one")
	only     = flag.String("only", "", "break only this, by its name in the report")
)

var binary string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "c8s-chaos-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "c8s")
	if out, err := exec.Command("go", "build", "-race", "-o", binary, "github.com/c8s-dev/c8s/cmd/c8s").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building c8s: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestChaos(t *testing.T) {
	privileged.Require(t)
	if *seed == 0 {
		*seed = rand.Uint64()
	}
	t.Logf("seed %d", *seed)
	rnd := rand.New(rand.NewPCG(*seed, 0))

	w := newWorld(t)
	wire, err := capture.Start(w.Lab.Wire, lab.WireBridge, capture.Options{Canary: w.canary, Pods: w.podPrefixes()})
	must(t, err)
	book := &ledger{}
	load := startLoad(t, w, book)
	raids := startRaids(t, w)

	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), *duration)
	defer cancel()
	breakThings(ctx, t, w, book, rnd)

	load.stop()
	raids.stop(t)
	report := wire.Stop()
	t.Logf("%s of chaos, seed %d\n%s%s", time.Since(began).Round(time.Second), *seed, book.report(), raids.report())
	t.Logf("on the wire: %d packets, %d MB, %d in tunnels, %d of pods in the clear, %d with the canary",
		report.Packets, report.Bytes>>20, report.Tunnel, report.PlainPackets, report.CanaryHits)
	book.check(t)
	if err := report.Complete(); err != nil || report.Tunnel == 0 {
		t.Errorf("the capture proves nothing (%d tunnel packets): %v", report.Tunnel, err)
	}
	if report.PlainPackets+report.CanaryHits+report.UnknownPackets > 0 {
		t.Errorf("on the wire in the clear: %v %v %v", report.Plain, report.Canaries, report.Unknown)
	}
}
