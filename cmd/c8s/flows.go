// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/agent"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
	"github.com/c8s-dev/c8s/datapath/flow"
)

func newFlows() *cobra.Command {
	var (
		out    desk.Output
		runDir string
		q      agent.FlowQuery
		f      flowFlags
	)
	c := &cobra.Command{
		Use:   "flows",
		Short: "Show allowed, refused and closed connections with identities and reasons",
		Long: `Show the node daemon's flow records: connections it allowed, refused and
closed, and packets the kernel refused.

Every refusal carries a stable reason, the rule that decided, and what was
expected and found. A record is shown if it fits all filters that are given;
--last counts records that fit. Kernel refusals are rate-limited per pod; the
counters of 'c8s status' are complete.

Exit codes: 0 shown, 1 no daemon answers or it ended, 2 wrong usage.`,
		Example: `  c8s flows -f
  c8s flows --verdict refused --since 10m
  c8s flows --pod shop/web-0 --direction kernel -f
  c8s flows --workload web --address 10.96.0.0/12 --port 443 -n 1000 -o json`,
		Args: desk.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if q.Last < 0 || q.Last > agent.MaxFlowHistory {
				return exit.Usage(fmt.Errorf("--last is %d, must be from 0 to %d", q.Last, agent.MaxFlowHistory))
			}
			if err := f.fill(&q.Filter, time.Now()); err != nil {
				return exit.Usage(err)
			}
			w := c.OutOrStdout()
			enc := json.NewEncoder(w)
			return agent.NewClient(runDir).Flows(c.Context(), q, func(r flow.Record) error {
				if out.JSON() {
					return enc.Encode(r)
				}
				return writeFlow(w, r)
			})
		},
	}
	out.Register(c)
	fl := c.Flags()
	registerRunDir(c, &runDir)
	fl.IntVarP(&q.Last, "last", "n", 20, fmt.Sprintf("how many past records to show, at most %d", agent.MaxFlowHistory))
	fl.BoolVarP(&q.Follow, "follow", "f", false, "keep showing new records until interrupted")
	f.register(c)
	return c
}

// flowFlags are the filters of c8s flows as they are typed.
type flowFlags struct {
	verdict, direction, protocol, reason, pod, workload, service, address, text string

	port  uint16
	since string
}

func (f *flowFlags) register(c *cobra.Command) {
	fl := c.Flags()
	fl.StringVar(&f.verdict, "verdict", "", "only allowed, refused, closed or avoided")
	fl.StringVar(&f.direction, "direction", "", "only egress, ingress (the node of the pod that was connected to) or kernel (dropped packets)")
	fl.StringVar(&f.protocol, "protocol", "", "only tcp or udp")
	fl.StringVar(&f.reason, "reason", "", "only this reason, e.g. spoofed-source")
	fl.StringVar(&f.pod, "pod", "", "only records of this pod of the node, as namespace/name")
	fl.StringVar(&f.workload, "workload", "", "only with this entry of the manifest at either end")
	fl.StringVar(&f.service, "service", "", "only connections to this Service, as namespace/name")
	fl.StringVar(&f.address, "address", "", "only with this address, prefix or address:port as source, destination or endpoint")
	fl.Uint16Var(&f.port, "port", 0, "only to this port")
	fl.StringVar(&f.since, "since", "", "only from this moment on: how long ago (30s, 10m, 2h) or a time (RFC 3339)")
	fl.StringVar(&f.text, "match", "", "only records whose addresses, names, identities or rule contain this text")
	completeWith(c, "verdict", string(flow.Allowed), string(flow.Refused), string(flow.Closed), string(flow.Avoided))
	completeWith(c, "protocol", "tcp", "udp")
	completeWith(c, "direction", string(flow.Egress), string(flow.Ingress), string(flow.Kernel))
	for _, flag := range []string{"reason", "pod", "workload", "service", "address", "port", "since", "match", "last"} {
		completeWith(c, flag)
	}
}

// fill checks what was typed before the daemon is asked.
func (f *flowFlags) fill(to *flow.Filter, now time.Time) (err error) {
	for _, of := range [][2]string{{"pod", f.pod}, {"service", f.service}} {
		if namespace, name, ok := strings.Cut(of[1], "/"); of[1] != "" && (!ok || namespace == "" || name == "") {
			return fmt.Errorf("--%s is %q, want namespace/name", of[0], of[1])
		}
	}
	v := url.Values{
		"verdict": {f.verdict}, "direction": {f.direction}, "protocol": {f.protocol}, "reason": {f.reason},
		"pod": {f.pod}, "workload": {f.workload}, "service": {f.service}, "text": {f.text},
	}
	if *to, err = flow.ParseFilter(v); err != nil {
		return err
	}
	if f.address != "" {
		if to.Address, to.Port, err = flow.ParseAddress(f.address); err != nil {
			return err
		}
	}
	if f.port != 0 {
		if to.Port != 0 && to.Port != f.port {
			return fmt.Errorf("--port %d contradicts the port of --address %s", f.port, f.address)
		}
		to.Port = f.port
	}
	if f.since == "" {
		return nil
	}
	if ago, err := time.ParseDuration(f.since); err == nil && ago >= 0 {
		to.Since = now.Add(-ago)
		return nil
	}
	if to.Since, err = time.Parse(time.RFC3339, f.since); err != nil {
		return fmt.Errorf("--since %q is neither a duration like 10m nor a time like %s", f.since, now.Format(time.RFC3339))
	}
	return nil
}

// writeFlow prints one line a person can read:
// time verdict src → dst (reason: expected …, found …).
func writeFlow(w io.Writer, r flow.Record) error {
	var b strings.Builder
	if r.Gap > 0 {
		fmt.Fprintf(&b, "(%d records lost: this reader is too slow)\n", r.Gap)
	}
	fmt.Fprintf(&b, "%s  %-7s  %-7s  %s%s -> %s%s", r.Time.Format("15:04:05.000"), r.Verdict, r.Direction,
		endpoint(r.Src), paren(r.SrcWorkload), destination(r), paren(cmp.Or(r.DstWorkload, externalRule(r))))
	if r.Verdict == flow.Closed {
		fmt.Fprintf(&b, "  %d B sent, %d B received in %s", r.BytesSent, r.BytesReceived, r.Duration.Round(time.Millisecond))
		if r.DatagramsSent+r.DatagramsReceived+r.DatagramsDropped > 0 {
			fmt.Fprintf(&b, " (datagrams: %d sent, %d received, %d dropped)", r.DatagramsSent, r.DatagramsReceived, r.DatagramsDropped)
		}
	}
	if r.Reason != "" {
		fmt.Fprintf(&b, "  %s", r.Reason)
	}
	if r.Expected != "" || r.Actual != "" {
		fmt.Fprintf(&b, ": expected %s, found %s", orDash(r.Expected), orDash(r.Actual))
	}
	if r.Suppressed > 0 {
		fmt.Fprintf(&b, " (and %d more before it)", r.Suppressed)
	}
	_, err := fmt.Fprintln(w, b.String())
	return err
}

// externalRule is what let a connection out of the mesh.
func externalRule(r flow.Record) string {
	if strings.HasPrefix(r.Rule, "external/") {
		return r.Rule
	}
	return ""
}

// destination names a Service and the pod that was chosen for it, or an
// endpoint outside of the mesh.
func destination(r flow.Record) string {
	s := endpoint(r.Dst)
	if r.Protocol != "" && r.Protocol != "tcp" {
		s += "/" + r.Protocol
	}
	if r.DstName != "" {
		s += " [" + r.DstName + "]"
	}
	if r.Service != "" {
		s += " [" + r.Service + "]"
	}
	if r.Endpoint.IsValid() {
		s += " -> " + r.Endpoint.String()
	}
	return s
}

// endpoint leaves out what a refused packet does not have.
func endpoint(ap netip.AddrPort) string {
	switch {
	case !ap.Addr().IsValid():
		return "?"
	case ap.Port() == 0:
		return ap.Addr().String()
	}
	return ap.String()
}

func paren(s string) string {
	if s == "" {
		return ""
	}
	return " (" + s + ")"
}
