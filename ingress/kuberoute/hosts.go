// SPDX-License-Identifier: Apache-2.0

package kuberoute

import (
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/c8s-dev/c8s/ingress/route"
	"github.com/c8s-dev/c8s/policy"
)

// pattern is a host as an object names it.
type pattern struct {
	host  string // "" is every host; "*.example" what ends in it
	label bool   // a wildcard is for exactly one label, as Ingress has it; else for any number, as the Gateway API has it
}

// piece is one object's route, and the hosts that it is for.
type piece struct {
	route    route.Route // without Hosts
	hosts    []pattern
	last     bool // for what nothing else is for
	refused  []policy.Decision
	full     bool            // there was no room for it
	problems []route.Problem // the table refuses it
}

// assign gives each piece the host names that it answers for: names that the
// manifest has, and names under the manifest's wildcards. Where patterns of
// several pieces fit, the most specific one has the name, as the Gateway API
// wants.
func assign(pieces []*piece, m *policy.Manifest, below map[string]bool) {
	claims := map[string][]*piece{}
	names := map[string]bool{}
	for _, h := range m.IngressHosts() {
		names[h] = true
	}
	for _, p := range pieces {
		for _, h := range p.hosts {
			if n := len(claims[h.host]); n == 0 || claims[h.host][n-1] != p {
				claims[h.host] = append(claims[h.host], p)
			}
			if _, d := m.IngressHost(h.host); d.Allowed {
				names[h.host] = true
			}
		}
	}
	room := route.MaxHosts
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if room = give(name, claims, room); room == 0 {
			break
		}
	}
	for _, p := range pieces {
		p.judge(m, below)
		p.full = room == 0 && len(p.route.Hosts) == 0
	}
}

// give gives one name away, and returns the room that is left.
func give(name string, claims map[string][]*piece, room int) int {
	taken := false
	for key := range wider(name) {
		won := false
		for _, p := range claims[key] {
			had := len(p.route.Hosts) > 0 && p.route.Hosts[len(p.route.Hosts)-1] == name
			if taken && !p.last || had || !p.covers(key, name) {
				continue
			}
			if room == 0 {
				return 0
			}
			p.route.Hosts = append(p.route.Hosts, name)
			won, room = won || !p.last, room-1
		}
		taken = taken || won
	}
	return room
}

// wider yields the patterns that a name fits, most specific first.
func wider(name string) iter.Seq[string] {
	return func(yield func(string) bool) {
		if !yield(name) {
			return
		}
		for i := range len(name) {
			if name[i] == '.' && "*"+name[i:] != name && !yield("*"+name[i:]) {
				return
			}
		}
		yield("")
	}
}

// parents are the patterns that fit some host of the manifest: the value says
// whether one is a single label away.
func parents(m *policy.Manifest) map[string]bool {
	all := map[string]bool{}
	for _, name := range m.IngressHosts() {
		one := !strings.HasPrefix(name, "*")
		all[name] = true
		for key := range wider(name) {
			if key != name {
				all[key], one = all[key] || one || key == "", false
			}
		}
	}
	return all
}

// covers reports whether one of p's patterns that are spelled so is for name.
func (p *piece) covers(key, name string) bool {
	for _, h := range p.hosts {
		if h.host != key {
			continue
		}
		parent, wild := strings.CutPrefix(key, "*")
		if !wild || !h.label || key == name {
			return true
		}
		if first, ok := strings.CutSuffix(name, parent); ok && !strings.Contains(first, ".") {
			return true
		}
	}
	return false
}

// judge finds the patterns for which the manifest has no host at all.
func (p *piece) judge(m *policy.Manifest, below map[string]bool) {
	for _, h := range p.hosts {
		if near, ok := below[h.host]; ok && (near || !h.label) {
			continue
		}
		if _, d := m.IngressHost(h.host); !d.Allowed {
			p.refused = append(p.refused, d)
		}
	}
}
