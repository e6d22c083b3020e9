// SPDX-License-Identifier: Apache-2.0

package manifestcmd

import (
	"fmt"
	"slices"
	"strings"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/policy"
)

// printRuntime says what holds for every container.
func printRuntime(t desk.Table, m *policy.Manifest) {
	for _, s := range m.Signers {
		id, _ := s.ID() // Parse has accepted the key
		t.Line("publisher", "%s  %s  %s", s.Name, s.Algorithm, id)
	}
	for _, s := range m.Sandboxes {
		t.Line("sandbox", "%s %s", s.Name, s.Digest)
	}
	if m.Unlisted == policy.UnlistedCut {
		t.Line("unlisted", "containers that run are cut from the network")
	}
	if m.SameNode == policy.SameNodeLocal {
		t.Line("same node", "connections between pods of one node are judged and not encrypted")
	}
}

func printWorkload(t desk.Table, w *policy.Workload) {
	namespaces := joined(w.Namespaces)
	if namespaces == "" {
		namespaces = "every namespace"
	}
	var notes []string
	if w.HostAccess {
		notes = append(notes, "reachable from its node")
	}
	if len(w.Probes) > 0 {
		notes = append(notes, fmt.Sprintf("probed on %v", w.Probes))
	}
	if w.HostNetwork {
		notes = append(notes, "IN THE NODE'S NETWORK, outside the mesh")
	}
	if w.Bootstrap {
		notes = append(notes, "starts without the node daemon")
	}
	t.Line("workload "+w.Name, "%s", strings.Join(append([]string{"in " + namespaces}, notes...), "  "))
	for i := range w.Images {
		printImage(t, &w.Images[i])
	}
	for _, e := range w.Exec {
		t.Line("", "exec %q%s", e.Args, map[bool]string{true: " with a terminal"}[e.TTY])
	}
	for _, r := range w.Peers.To {
		t.Line("", "to %s %s %v", r.Workload, r.Protocol, r.Ports)
	}
	for _, r := range w.Peers.From {
		t.Line("", "from %s %s %v", r.Workload, r.Protocol, r.Ports)
	}
	printOutside(t, w)
}

// printOutside says what the mesh does not judge the other end of.
func printOutside(t desk.Table, w *policy.Workload) {
	if len(w.DNS) > 0 {
		t.Line("", "resolves %s", joined(w.DNS))
	}
	for i := range w.External {
		e := &w.External[i]
		demand := ""
		switch {
		case len(e.SNI) > 0:
			demand = ", TLS for " + strings.Join(e.SNI, " or ")
		case e.TLS:
			demand = ", TLS"
		}
		t.Line("", "OUTSIDE THE MESH %s: to %s %s %v%s", e.Name, joined(slices.Concat(e.CIDRs, e.Names)), e.Protocol, e.Ports, demand)
	}
	for _, p := range w.Publish {
		t.Line("", "PUBLISHED on port %d of its node: port %d, from %s", p.HostPort, p.Port, joined(p.From))
	}
}

// printIngress says what clients outside the mesh reach through an ingress.
func printIngress(t desk.Table, r *policy.IngressRule) {
	t.Line("ingress "+r.Name, "%s", joined(r.Hosts))
	for _, b := range r.Backends {
		t.Line("", "to %s by %s %v", b.Workload, b.Mode, b.Ports)
	}
}

func printImage(t desk.Table, i *policy.Image) {
	source := string(i.Digest)
	if source == "" {
		source = "signed by " + strings.Join(i.Signers, " or ")
		if i.Repository != "" {
			source += " as " + i.Repository
		}
	}
	t.Line("", "image %s %s", i.Name, source)
	for _, line := range runLines(i.Run) {
		t.Line("", "  %s", line)
	}
}

// runLines says what a container may have beyond its image.
func runLines(r *policy.Run) []string {
	if r == nil {
		return nil
	}
	var lines []string
	add := func(say bool, format string, args ...any) {
		if say {
			lines = append(lines, fmt.Sprintf(format, args...))
		}
	}
	add(r.Args != nil, "args %q", r.Args)
	for _, e := range r.Env {
		if e.Value == nil {
			add(true, "env %s, any value", e.Name)
		} else {
			add(true, "env %s=%q", e.Name, *e.Value)
		}
	}
	add(r.ServiceEnv, "env of Services")
	add(r.Cwd != "", "cwd %s", r.Cwd)
	add(r.User != "", "user %s", r.User)
	add(r.Groups != nil, "groups %v", r.Groups)
	for _, m := range r.Mounts {
		add(true, "mount %s from %s%s%s", m.Destination, m.Source, map[bool]string{true: ", read-only"}[m.ReadOnly], map[bool]string{true: ", required"}[m.Required])
	}
	add(r.Devices != nil, "devices %s", strings.Join(r.Devices, ", "))
	add(r.Capabilities != nil, "capabilities %s", strings.Join(r.Capabilities, ", "))
	add(r.Privileged, "PRIVILEGED: it can take over its node")
	add(r.HostNamespaces != nil, "the node's namespaces %s", strings.Join(r.HostNamespaces, ", "))
	add(r.Sockets != nil, "sockets %s", strings.Join(r.Sockets, ", "))
	add(r.Rlimits != nil, "rlimits %s", strings.Join(r.Rlimits, ", "))
	add(r.Sysctls != nil, "sysctls %s", strings.Join(r.Sysctls, ", "))
	add(r.Stdin, "open stdin or terminal")
	return lines
}
