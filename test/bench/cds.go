// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"text/tabwriter"

	"github.com/c8s-dev/c8s/test/bench/fleet"
	"github.com/c8s-dev/c8s/test/bench/load"
)

// The stores that a CDS is measured with, and the server without one.
const (
	siteEcho   = iota // the same messages over the same TLS, and nothing else
	siteMemory        // the store is a file on a tmpfs: all but the disk
	siteFile
	siteEtcd
	siteCount
)

const (
	// memoryDir is a tmpfs on every Linux.
	memoryDir = "/dev/shm"
	// manifestWorkloads makes the manifest about as long as that of a real
	// cluster.
	manifestWorkloads = 100
)

// cdsRow is what was measured of one thing at every site, medians; zero where
// it was not measured.
type cdsRow struct {
	Scenario string
	Unit     string
	At       [siteCount]float64
	Aim      string // for the store in a file
	Met      *bool
}

type cdsResults []cdsRow

// benchFleet is a fleet with a folder for what else a run needs.
type benchFleet struct {
	*fleet.Fleet
	dir string
}

func (f *benchFleet) path(name string) string { return filepath.Join(f.dir, name) }

// cdsRun is one run of the part.
type cdsRun struct {
	o     options
	f     *benchFleet
	proc  load.Proc
	sites [siteCount]*cdsSite // nil where there is none
	rows  cdsResults

	tmp, disk string   // folders for stores
	etcd      []string // URLs of its members; none without etcd
}

func runCDS(ctx context.Context, o options) (part, error) {
	// Processes started below end with the thread that started them.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r := &cdsRun{o: o, proc: load.NewProc()}
	for base, dir := range map[string]*string{memoryDir: &r.tmp, o.Dir: &r.disk} {
		made, err := os.MkdirTemp(base, "c8s-bench-")
		if err != nil {
			return nil, err
		}
		defer os.RemoveAll(made)
		*dir = made
	}
	if err := r.build(ctx); err != nil {
		return nil, err
	}
	for _, s := range r.sites {
		if s != nil {
			defer s.end()
		}
	}
	for _, step := range []func(context.Context) error{r.rates, r.latencies, r.pushes, r.appends} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	return r.rows, nil
}

// build makes the fleet and the sites.
func (r *cdsRun) build(ctx context.Context) error {
	say("making %d simulated machines and four services", r.o.Machines)
	made, err := fleet.New(fleet.Options{Dir: r.disk, Binary: r.o.Binary, Machines: r.o.Machines, Workloads: manifestWorkloads})
	if err != nil {
		return err
	}
	r.f = &benchFleet{made, r.disk}
	if err := r.startEtcd(ctx); err != nil {
		return err
	}
	if r.sites[siteMemory], err = startCDS(ctx, r.f, r.o, "memory", "--state-dir", filepath.Join(r.tmp, "memory")); err != nil {
		return err
	}
	if r.sites[siteFile], err = startCDS(ctx, r.f, r.o, "file", "--state-dir", r.f.path("file")); err != nil {
		return err
	}
	if len(r.etcd) > 0 {
		if r.sites[siteEtcd], err = startCDS(ctx, r.f, r.o, "etcd", r.etcdFlags("/cds/")...); err != nil {
			return err
		}
	}
	r.sites[siteEcho], err = startEcho(ctx, r.f, r.sites[siteFile])
	return err
}

func (r *cdsRun) add(scenario, unit string, at [siteCount]float64, aim string, met func(v float64) bool) {
	row := cdsRow{Scenario: scenario, Unit: unit, At: at, Aim: aim}
	if met != nil {
		ok := met(at[siteFile])
		row.Met = &ok
	}
	r.rows = append(r.rows, row)
}

func atLeast(want float64) func(float64) bool { return func(v float64) bool { return v >= want } }
func atMost(want float64) func(float64) bool {
	return func(v float64) bool { return v > 0 && v <= want }
}

func (rs cdsResults) print(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(tw, "SCENARIO\tUNIT\tECHO\tMEMORY\tFILE\tETCD\tFILE TO ECHO\tFILE TO MEMORY\tAIM\t")
	number := func(v float64) string {
		if v == 0 {
			return "-"
		}
		return fmt.Sprintf("%.4g", v)
	}
	ratio := func(a, b float64) string {
		if a == 0 || b == 0 {
			return "-"
		}
		return fmt.Sprintf("%.2f", a/b)
	}
	for _, r := range rs {
		verdict := ""
		if r.Met != nil {
			verdict = r.Aim + ": missed"
			if *r.Met {
				verdict = r.Aim + ": met"
			}
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", r.Scenario, r.Unit,
			number(r.At[siteEcho]), number(r.At[siteMemory]), number(r.At[siteFile]), number(r.At[siteEtcd]),
			ratio(r.At[siteFile], r.At[siteEcho]), ratio(r.At[siteFile], r.At[siteMemory]), verdict)
	}
	return tw.Flush()
}

// MarshalJSON names the columns.
func (r cdsRow) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Scenario string  `json:"scenario"`
		Unit     string  `json:"unit"`
		Echo     float64 `json:"echo,omitempty"`
		Memory   float64 `json:"memory,omitempty"`
		File     float64 `json:"file,omitempty"`
		Etcd     float64 `json:"etcd,omitempty"`
		Aim      string  `json:"aim,omitempty"`
		Met      *bool   `json:"met,omitempty"`
	}{r.Scenario, r.Unit, r.At[siteEcho], r.At[siteMemory], r.At[siteFile], r.At[siteEtcd], r.Aim, r.Met})
}
