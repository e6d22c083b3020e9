// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"
)

// grid is a table: things measured down, ways to do them across.
type grid struct {
	Columns []string  `json:"columns"`
	Rows    []gridRow `json:"rows"`
}

// gridRow is one number for each column; 0 where it means nothing.
type gridRow struct {
	Scenario string    `json:"scenario"`
	Unit     string    `json:"unit"`
	At       []float64 `json:"at"`
	Aim      string    `json:"aim,omitempty"`
	Met      *bool     `json:"met,omitempty"`

	met func(at []float64) bool
}

// experiment measures some numbers at once, a row of the grid each.
type experiment struct {
	rows    []gridRow
	proxies bool // means nothing without proxies
	measure func(ctx context.Context, s *site, o options) ([]float64, error)
}

// one is an experiment that measures a single number.
func one(scenario, unit string, measure func(context.Context, *site, options) (float64, error)) experiment {
	return experiment{
		rows: []gridRow{{Scenario: scenario, Unit: unit}},
		measure: func(ctx context.Context, s *site, o options) ([]float64, error) {
			v, err := measure(ctx, s, o)
			return []float64{v}, err
		},
	}
}

// newGrid measures the sites in turn, round after round, as compare does.
func newGrid(ctx context.Context, o options, sites []*site, experiments []experiment) (*grid, error) {
	g := new(grid)
	for _, s := range sites {
		g.Columns = append(g.Columns, s.name)
	}
	for _, e := range experiments {
		say("%s", e.rows[0].Scenario)
		all := make([][][]float64, len(e.rows)) // by row, site and round
		for i := range all {
			all[i] = make([][]float64, len(sites))
		}
		for range o.Rounds {
			for at, s := range sites {
				got := make([]float64, len(e.rows))
				if !e.proxies || len(s.pids) > 0 {
					var err error
					if got, err = e.measure(ctx, s, o); err != nil {
						return nil, fmt.Errorf("%s: %s: %w", e.rows[0].Scenario, s.name, err)
					}
				}
				for i, v := range got {
					all[i][at] = append(all[i][at], v)
				}
			}
		}
		for i, row := range e.rows {
			for _, rounds := range all[i] {
				row.At = append(row.At, median(rounds))
			}
			g.add(row)
		}
	}
	return g, nil
}

// add judges a row and appends it.
func (g *grid) add(row gridRow) {
	if row.met != nil {
		met := row.met(row.At)
		row.Met = &met
	}
	g.Rows = append(g.Rows, row)
}

func (g *grid) print(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprint(tw, "SCENARIO\tUNIT\t")
	for _, c := range g.Columns {
		fmt.Fprintf(tw, "%s\t", c)
	}
	last := len(g.Columns) - 1
	if last > 0 {
		fmt.Fprintf(tw, "LAST TO FIRST\t")
	}
	fmt.Fprintln(tw, "AIM\t")
	for _, r := range g.Rows {
		fmt.Fprintf(tw, "%s\t%s\t", r.Scenario, r.Unit)
		for _, v := range r.At {
			fmt.Fprintf(tw, "%.4g\t", v)
		}
		if last > 0 {
			ratio := "-"
			if r.At[0] != 0 {
				ratio = fmt.Sprintf("%.2f", r.At[last]/r.At[0])
			}
			fmt.Fprintf(tw, "%s\t", ratio)
		}
		fmt.Fprintf(tw, "%s\t\n", r.verdict())
	}
	return tw.Flush()
}

func (r gridRow) verdict() string {
	switch {
	case r.Met == nil:
		return ""
	case *r.Met:
		return r.Aim + ": met"
	}
	return r.Aim + ": missed"
}
