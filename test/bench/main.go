// SPDX-License-Identifier: Apache-2.0

// Command bench measures the mesh from pod to pod across two nodes, and puts
// every number in relation to two others from the same run: plain routed TCP,
// and the same proxies without TLS. Ratios survive a noisy machine, absolute
// numbers do not.
//
// It needs root. Run it with "make bench", or "go run ./test/bench -h".
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(os.Args) == 2 && os.Args[1] == "plain-node" {
		exit(ctx, runPlainNode(ctx, os.Stdin))
		return
	}
	o := options{Binary: "bin/c8s"}
	flag.StringVar(&o.Binary, "binary", o.Binary, "the c8s binary to measure (make build)")
	flag.DurationVar(&o.Duration, "duration", 3*time.Second, "how long each measurement runs")
	flag.IntVar(&o.Rounds, "rounds", 3, "how often each is repeated, alternating; medians are reported")
	flag.IntVar(&o.Idle, "idle", 500, "connections in the memory measurement")
	asJSON := flag.Bool("json", false, "print JSON instead of a table")
	flag.Parse()
	results, err := run(ctx, o)
	if err == nil && *asJSON {
		err = json.NewEncoder(os.Stdout).Encode(results)
	} else if err == nil {
		err = results.print(os.Stdout)
	}
	exit(ctx, err)
}

func exit(ctx context.Context, err error) {
	if err == nil || ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return
	}
	fmt.Fprintln(os.Stderr, "bench:", err)
	os.Exit(1)
}
