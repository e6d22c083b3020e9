// SPDX-License-Identifier: Apache-2.0

// Command bench measures C8s in parts, and puts every number in relation to
// others from the same run: ratios survive a noisy machine, absolute numbers do
// not.
//
// Part "mesh" is traffic from pod to pod across two nodes, against plain
// routed TCP and the same proxies without TLS. Part "dns" is names that a pod
// asks its node for, against a plain DNS server there. Part "cds" is the
// certificate distribution service under load, against a server that does
// nothing but the same messages over the same TLS. The others are datagrams
// ("udp"), endpoints outside the mesh ("outside"), pods of one node ("local"),
// a full node ("memory"), a new daemon under load ("upgrade"), a hostile
// neighbour ("fair") and requests from outside through an ingress, against
// nginx ("ingress"). All but "cds" need root.
//
// Run it with "make bench", or "go run ./test/bench -h".
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// part is a table of results.
type part interface{ print(w io.Writer) error }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(os.Args) == 2 {
		switch os.Args[1] {
		case "plain-node":
			exit(ctx, runPlainNode(ctx, os.Stdin))
			return
		case "plain-dns":
			exit(ctx, runPlainDNS(ctx))
			return
		case "echo-cds":
			exit(ctx, runEcho(ctx, os.Stdin))
			return
		case "idle-server":
			exit(ctx, runIdleServer(ctx))
			return
		}
	}
	o := options{Binary: "bin/c8s"}
	flag.StringVar(&o.Binary, "binary", o.Binary, "the c8s binary to measure (make build)")
	flag.StringVar(&o.Before, "before", "", "another c8s binary: part ingress compares -binary with it, and with nothing else")
	flag.DurationVar(&o.Duration, "duration", 3*time.Second, "how long each measurement runs")
	flag.IntVar(&o.Rounds, "rounds", 3, "how often each is repeated, alternating; medians are reported")
	flag.IntVar(&o.Idle, "idle", 500, "connections in the mesh's memory measurement")
	flag.IntVar(&o.Machines, "machines", 200, "simulated machines that enrol at the CDS")
	flag.IntVar(&o.Watchers, "watchers", 1000, "nodes that watch the CDS")
	flag.StringVar(&o.Dir, "dir", os.TempDir(), "folder on the disk that the CDS's store is measured on")
	flag.IntVar(&o.Pods, "pods", 1000, "pods of the full node")
	flag.IntVar(&o.Connections, "connections", 20_000, "idle connections of the full node, as far as the limit of open files allows")
	only := flag.String("only", "", "measure one part only: "+partNames())
	asJSON := flag.Bool("json", false, "print JSON instead of tables")
	flag.Parse()
	exit(ctx, measure(ctx, o, *only, *asJSON))
}

type namedPart struct {
	name string
	run  func(context.Context, options) (part, error)
}

func parts() []namedPart {
	return []namedPart{
		{"mesh", runMesh},
		{"udp", runUDP},
		{"outside", runOutside},
		{"local", runLocal},
		{"dns", runDNS},
		{"memory", runMemory},
		{"upgrade", runUpgrade},
		{"fair", runFair},
		{"ingress", runIngress},
		{"cds", runCDS},
	}
}

func partNames() string {
	var names []string
	for _, p := range parts() {
		names = append(names, p.name)
	}
	return strings.Join(names, ", ")
}

func measure(ctx context.Context, o options, only string, asJSON bool) error {
	all := map[string]part{}
	for _, p := range parts() {
		if only != "" && only != p.name {
			continue
		}
		results, err := p.run(ctx, o)
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		all[p.name] = results
		if !asJSON {
			if err := results.print(os.Stdout); err != nil {
				return err
			}
		}
	}
	if len(all) == 0 {
		return fmt.Errorf("no part is called %q; there are %s", only, partNames())
	}
	if asJSON {
		return json.NewEncoder(os.Stdout).Encode(all)
	}
	return nil
}

func say(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

func exit(ctx context.Context, err error) {
	if err == nil || ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return
	}
	fmt.Fprintln(os.Stderr, "bench:", err)
	os.Exit(1)
}
