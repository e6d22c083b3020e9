// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/agent"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
)

func newStatus() *cobra.Command {
	var out desk.Output
	var runDir string
	c := &cobra.Command{
		Use:   "status",
		Short: "Show this node's identity, its pods, and what the kernel refused",
		Long: `Show what the node daemon on this machine is doing.

A pod whose state is not "open" cannot send or receive anything; the reason
column says what holds it back.

Exit codes: 0 shown, 1 no daemon answers, 2 wrong usage.`,
		Example: "  c8s status\n  c8s status -o json | jq '.pods[] | select(.state != \"open\")'",
		Args:    desk.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := agent.NewClient(runDir).Status(c.Context())
			if err != nil {
				return err
			}
			return out.Write(c, s, func(w io.Writer) error { return writeStatus(w, s, time.Now()) })
		},
	}
	out.Register(c)
	registerRunDir(c, &runDir)
	return c
}

func writeStatus(w io.Writer, s *agent.Status, now time.Time) error {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintf(tw, "Node\t%s at %s\n", s.Node.Name, s.Node.Address)
	fmt.Fprintf(tw, "Identity\t%s\n", orDash(s.Node.ID))
	daemon := s.Node.Version
	if s.Node.Instance != "" {
		daemon = s.Node.Instance + ", " + daemon
	}
	fmt.Fprintf(tw, "Daemon\t%s\n", daemon)
	if s.Node.NotReady != "" {
		fmt.Fprintf(tw, "Ready\tno: %s\n", s.Node.NotReady)
	}
	if s.Node.Error != "" {
		fmt.Fprintf(tw, "Enrolment\tfailing: %s\n", s.Node.Error)
	}
	fmt.Fprintf(tw, "LSM\t%s\n", orDash(s.Node.LSM))
	if s.Simulated {
		fmt.Fprintf(tw, "TEE\tSIMULATED: proves nothing to anybody else\n")
	}
	fmt.Fprintf(tw, "Manifest\tversion %d of %s, %s\n", s.Manifest.Version, s.Manifest.TrustDomain, s.Manifest.Digest)
	if d := s.DenyList; d != nil {
		fmt.Fprintf(tw, "Deny list\tversion %d, %d denials, %s\n", d.Version, d.Entries, d.Digest)
	}
	if r := s.Restored; r.Pins+r.Programs > 0 {
		fmt.Fprintf(tw, "Lock\tsomebody damaged it: %d pins and %d programs were put back\n", r.Pins, r.Programs)
	}
	fmt.Fprintf(tw, "Tunnels\t%d idle, %d busy, %d inbound; %d streams over %d handshakes\n",
		s.Tunnels.Idle, s.Tunnels.Busy, s.Tunnels.Inbound, s.Tunnels.Streams, s.Tunnels.Handshakes)
	if u := s.UDP; u != (agent.UDPStatus{}) {
		fmt.Fprintf(tw, "UDP\t%d flows out, %d in; %d datagrams sent, %d received, %d dropped, %d refused\n", u.Out, u.In, u.Sent, u.Received, u.Dropped, u.Refused)
	}
	fmt.Fprintf(tw, "Routes\t%s\n", routesLine(s.Routes, now))
	if s.DNS != nil {
		fmt.Fprintf(tw, "DNS\t%s\n", s.DNS)
	}
	fmt.Fprintf(tw, "\nPOD\tSTATE\tWORKLOAD\tADDRESSES\tEXPIRES\tREASON\n")
	for _, p := range s.Pods {
		addrs := make([]string, len(p.Addrs))
		for i, a := range p.Addrs {
			addrs[i] = a.String()
		}
		expires := "-"
		if !p.NotAfter.IsZero() {
			expires = p.NotAfter.Sub(now).Round(time.Second).String()
		}
		reason := orDash(p.Reason)
		if p.Detail != "" {
			reason += ": " + p.Detail
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\n", p.Pod, p.State, orDash(p.Workload), strings.Join(addrs, ","), expires, reason)
	}
	if len(s.Published) > 0 {
		fmt.Fprintf(tw, "\nPUBLISHED PORT\tPODS\tREASON\n")
		for _, p := range s.Published {
			fmt.Fprintf(tw, "%d\t%d\t%s\n", p.HostPort, p.Pods, orDash(p.Error))
		}
	}
	if len(s.Refused) > 0 {
		fmt.Fprintf(tw, "\nREFUSED CONTAINER\tTIMES\tLAST\tREASON\n")
		for _, r := range s.Refused {
			fmt.Fprintf(tw, "%s %s\t%d\t%s ago\t%s\n", r.Pod, r.Container, r.Times, now.Sub(r.Last).Round(time.Second), r.Detail)
		}
	}
	writeAvoided(tw, s.Avoided, now)
	fmt.Fprintf(tw, "\nREFUSED BY THE KERNEL\tPACKETS\n")
	for _, reason := range slices.Sorted(maps.Keys(s.Drops)) {
		if s.Drops[reason] > 0 {
			fmt.Fprintf(tw, "%s\t%d\n", reason, s.Drops[reason])
		}
	}
	return tw.Flush()
}

// mostAvoided is how many rows of what is passed over people are shown.
const mostAvoided = 20

func writeAvoided(w io.Writer, all []agent.Avoided, now time.Time) {
	if len(all) == 0 {
		return
	}
	fmt.Fprintf(w, "\nPASSED OVER BY SERVICES\tNODE\tFOR\tSINCE\tFAILURES\tREASON\n")
	for _, e := range all[:min(len(all), mostAvoided)] {
		what := "all pods of the node"
		if e.Endpoint.IsValid() {
			what = e.Endpoint.String()
		}
		workload := e.Workload
		if workload == "" {
			workload = "everybody"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s ago\t%d\t%s\n", what, e.Node, workload, now.Sub(e.Since).Round(time.Second), e.Failures, e.Reason)
	}
	if more := len(all) - mostAvoided; more > 0 {
		fmt.Fprintf(w, "and %d more: c8s status -o json\n", more)
	}
}

func routesLine(r agent.RoutesStatus, now time.Time) string {
	line := fmt.Sprintf("%d static", r.Static)
	if r.Cluster == nil {
		return line
	}
	line += fmt.Sprintf("; %d nodes, %d pods, %d services with %d endpoints", r.Nodes, r.Pods, r.Services, r.Endpoints)
	if r.Ignored > 0 {
		line += fmt.Sprintf(", %d ignored", r.Ignored)
	}
	switch {
	case r.Cluster.Connected:
		return line
	case r.Cluster.Since.IsZero():
		return line + "; the API server was never reached"
	}
	return line + fmt.Sprintf("; the API server is lost for %s", now.Sub(r.Cluster.Since).Round(time.Second))
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
