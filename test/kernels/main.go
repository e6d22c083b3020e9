// SPDX-License-Identifier: Apache-2.0

// Command kernels runs the tests of what C8s does to a kernel on the kernels
// that it supports: Debian's own, each in an emulated machine without a disk or
// a network card, whose results come over a serial line.
//
// Invariant: nothing counts as tested that did not say so. A guest that ends
// early, a suite without tests and a test skipped for any reason but a feature
// that this kernel is known to lack all fail the run.
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/c8s-dev/c8s/test/kernels/console"
	"github.com/c8s-dev/c8s/test/kernels/debian"
)

type options struct {
	kernels []string
	suites  string
	run     string
	accel   string
	limit   time.Duration
	memory  int
	mirror  string
	cache   string
	short   bool
	keep    string
}

func parse(args []string) (o options, err error) {
	f := flag.NewFlagSet("kernels", flag.ContinueOnError)
	kernels := f.String("kernels", "", "rows of the matrix, separated by commas; empty runs all")
	f.StringVar(&o.suites, "suites", "", "packages to test, separated by commas; empty tests all")
	f.StringVar(&o.run, "run", "", "tests to run, as for go test; empty runs what the matrix says")
	f.BoolVar(&o.short, "short", false, "only what differs most from kernel to kernel")
	f.StringVar(&o.accel, "accel", accelAuto, "auto, kvm or tcg")
	f.DurationVar(&o.limit, "limit", 20*time.Minute, "of one kernel")
	f.IntVar(&o.memory, "memory", 2048, "MiB of a guest")
	f.StringVar(&o.mirror, "mirror", os.Getenv("C8S_DEBIAN_MIRROR"), "Debian mirror; empty is "+debian.DefaultMirror)
	f.StringVar(&o.keep, "keep", "", "folder for the guests' consoles; empty keeps none")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if *kernels != "" {
		o.kernels = strings.Split(*kernels, ",")
	}
	if o.accel != accelAuto && accelArgs[o.accel] == nil {
		return o, fmt.Errorf("unknown accelerator %q", o.accel)
	}
	base, err := os.UserCacheDir()
	if err != nil {
		return o, err
	}
	o.cache = cmp.Or(os.Getenv("C8S_KERNEL_CACHE"), filepath.Join(base, "c8s", "kernels"))
	return o, nil
}

func main() {
	o, err := parse(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "kernels:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "kernels:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	rows, err := pick(o.kernels)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "c8s-kernels-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	wanted, err := o.binaries()
	if err != nil {
		return err
	}
	b, err := build(ctx, dir, wanted)
	if err != nil {
		return err
	}
	var all []*report
	for _, r := range rows {
		rep := o.test(ctx, b, r)
		if o.accel == accelAuto && rep.accel != "" {
			o.accel = rep.accel // what served one kernel serves the next
		}
		all = append(all, rep)
	}
	fmt.Println()
	summary(os.Stdout, all)
	failed := 0
	for _, r := range all {
		for _, why := range r.bad() {
			failed++
			fmt.Printf("%s: %s\n", r.row.name, why)
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d failures", failed)
	}
	return nil
}

// test runs one kernel.
func (o options) test(ctx context.Context, b *builds, r row) *report {
	rep := &report{row: r, release: r.name, verified: map[string]string{}}
	source := debian.Source{Cache: o.cache, Mirror: o.mirror, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	k, err := source.Fetch(ctx, r.suite, modules)
	if err != nil {
		rep.err = err
		return rep
	}
	m := machine{kernel: k.Image, initrd: filepath.Join(b.dir, r.name+".cpio"), memory: o.memory, log: filepath.Join(cmp.Or(o.keep, b.dir), r.name+".console")}
	if err := b.writeImage(ctx, m.initrd, k); err != nil {
		rep.err = fmt.Errorf("writing the guest's files: %w", err)
		return rep
	}
	defer os.Remove(m.initrd)
	fmt.Printf("\n==> %s (%s)\n", k.Package, r.suite)
	ctx, cancel := context.WithTimeoutCause(ctx, o.limit, fmt.Errorf("the kernel had not ended its tests within %s", o.limit))
	defer cancel()
	began := time.Now()
	rep.accel, rep.err = guestRun(ctx, m, o.accel, func(l console.Line, raw string) {
		fmt.Println(strings.TrimRight(raw, "\r"))
		rep.take(l)
	})
	rep.took = time.Since(began)
	if !rep.ended {
		fmt.Printf("the console of the kernel ended with:\n%s\n", consoleTail(m.log))
	}
	return rep
}

// binaries are the test binaries that were asked for.
func (o options) binaries() ([]binary, error) {
	var all []binary
	for _, b := range binaries {
		if o.short {
			b.run = b.short
		}
		if o.short && b.short == "" {
			continue
		}
		if o.suites != "" && !strings.Contains(","+o.suites+",", ","+b.pkg+",") {
			continue
		}
		b.run = cmp.Or(o.run, b.run)
		all = append(all, b)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("no such suite: %s", o.suites)
	}
	return all, nil
}
