// SPDX-License-Identifier: Apache-2.0

// Package deploy holds the chart. What is in it that the compiler does not see
// is checked here.
package deploy

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/c8s-dev/c8s/bpf"
	"github.com/c8s-dev/c8s/policy"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// exported finds the metrics that the sources define, and the source of each.
func exported(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	full := regexp.MustCompile(`"(c8s_[a-z0-9_]+)"`)
	prefix := regexp.MustCompile(`"(c8s_[a-z_]*)" ?\+ ?name`)
	short := regexp.MustCompile(`\b(?:desc|describe|counter|gauge)\("([a-z0-9_]+)"`)
	for _, dir := range []string{"../agent", "../cds", "../nri", "../datapath", "../ingress", "../cmd"} {
		must(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			source, err := os.ReadFile(path)
			for _, m := range full.FindAllSubmatch(source, -1) {
				found[string(m[1])] = string(source)
			}
			if p := prefix.FindSubmatch(source); p != nil {
				for _, m := range short.FindAllSubmatch(source, -1) {
					found[string(p[1])+string(m[1])] = string(source)
				}
			}
			return err
		}))
	}
	if len(found) < 20 {
		t.Fatalf("only %d metrics were found in the sources", len(found))
	}
	return found
}

var (
	metricName = regexp.MustCompile(`\bc8s_[a-z0-9_]+`)
	grouping   = regexp.MustCompile(`\bby \(([a-z, ]+)\)`)
	reasonList = regexp.MustCompile(`reason=~?"([^"]+)"`)
)

// checkExpr requires that an expression asks for what exists.
func checkExpr(t *testing.T, where, expr string, metrics map[string]string) {
	t.Helper()
	names := metricName.FindAllString(expr, -1)
	if len(names) == 0 && !strings.HasPrefix(expr, "up{") {
		t.Errorf("%s: %q names no metric", where, expr)
	}
	for _, n := range names {
		source := metrics[n] + metrics[strings.TrimSuffix(n, "_bucket")]
		if source == "" {
			t.Errorf("%s: no metric %s", where, n)
			continue
		}
		for _, m := range grouping.FindAllStringSubmatch(expr, -1) {
			for _, label := range strings.Split(m[1], ", ") {
				if label != "instance" && label != "le" && !strings.Contains(source, strconv.Quote(label)) {
					t.Errorf("%s: %s has no label %s", where, n, label)
				}
			}
		}
	}
	var known []string
	for _, r := range bpf.Reasons() {
		known = append(known, r.String())
	}
	for _, k := range policy.DenyKinds() {
		known = append(known, "denied-"+string(k))
	}
	for _, m := range reasonList.FindAllStringSubmatch(expr, -1) {
		for _, r := range strings.Split(m[1], "|") {
			pattern, err := regexp.Compile("^(" + r + ")$")
			if err != nil || !slices.ContainsFunc(known, pattern.MatchString) {
				t.Errorf("%s: no reason %s (%v)", where, r, err)
			}
		}
	}
}

func TestDashboardShowsWhatExists(t *testing.T) {
	raw, err := os.ReadFile("chart/files/dashboard.json")
	must(t, err)
	type box struct{ X, Y, W, H int }
	var d struct {
		UID    string
		Panels []struct {
			ID                       int
			Type, Title, Description string
			GridPos                  box
			Targets                  []struct{ Expr string }
		}
	}
	must(t, json.Unmarshal(raw, &d))
	metrics, ids := exported(t), map[int]bool{}
	var boxes []box
	for _, p := range d.Panels {
		if ids[p.ID] || p.Type != "row" && (len(p.Targets) == 0 || p.Title == "") {
			t.Errorf("panel %d (%s) has no title, no query, or another's id", p.ID, p.Title)
		}
		ids[p.ID] = true
		g := p.GridPos
		for _, o := range boxes {
			if g.X < o.X+o.W && o.X < g.X+g.W && g.Y < o.Y+o.H && o.Y < g.Y+g.H {
				t.Errorf("panel %s lies on another one", p.Title)
			}
		}
		boxes = append(boxes, g)
		for _, target := range p.Targets {
			checkExpr(t, "panel "+p.Title, target.Expr, metrics)
		}
	}
	if d.UID == "" || len(d.Panels) < 15 {
		t.Errorf("the dashboard has %d panels and the uid %q", len(d.Panels), d.UID)
	}
}

func TestAlertsAskForWhatExists(t *testing.T) {
	raw, err := os.ReadFile("chart/files/alerts.yaml")
	must(t, err)
	var file struct {
		Groups []struct {
			Name  string
			Rules []struct {
				Alert, Expr, For    string
				Labels, Annotations map[string]string
			}
		}
	}
	dec := yaml.NewDecoder(strings.NewReader(string(raw)))
	dec.KnownFields(true)
	must(t, dec.Decode(&file))
	metrics, seen := exported(t), map[string]bool{}
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			if !strings.HasPrefix(r.Alert, "C8s") || seen[r.Alert] {
				t.Errorf("alert %q has another's name, or not ours", r.Alert)
			}
			seen[r.Alert] = true
			if s := r.Labels["severity"]; s != "critical" && s != "warning" {
				t.Errorf("%s: severity %q", r.Alert, s)
			}
			if r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
				t.Errorf("%s says nothing to whoever is woken up", r.Alert)
			}
			checkExpr(t, r.Alert, r.Expr, metrics)
		}
	}
	if len(seen) < 10 {
		t.Errorf("only %d alerts", len(seen))
	}
}
