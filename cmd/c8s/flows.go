// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/agent"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
	"github.com/c8s-dev/c8s/datapath/flow"
	"github.com/c8s-dev/c8s/host"
)

func newFlows() *cobra.Command {
	var (
		out     outputFlag
		runDir  string
		last    int
		follow  bool
		verdict string
		reason  string
		match   string
	)
	c := &cobra.Command{
		Use:   "flows",
		Short: "Show allowed, refused and closed connections with identities and reasons",
		Long: `Show the node daemon's flow records: connections it allowed, refused and
closed, and packets the kernel refused.

Every refusal carries a stable reason, the rule that decided, and what was
expected and found. Kernel refusals are rate-limited per pod; the counters of
'c8s status' are complete.`,
		Example: "  c8s flows -f\n  c8s flows --verdict refused -n 1000 -o json",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			switch flow.Verdict(verdict) {
			case "", flow.Allowed, flow.Refused, flow.Closed:
			default:
				return exit.Usage(fmt.Errorf("--verdict must be allowed, refused or closed, not %q", verdict))
			}
			w := c.OutOrStdout()
			enc := json.NewEncoder(w)
			return agent.NewClient(runDir).Flows(c.Context(), last, follow, func(r flow.Record) error {
				if verdict != "" && string(r.Verdict) != verdict || reason != "" && r.Reason != reason || !mentions(r, match) {
					return nil
				}
				if out == "json" {
					return enc.Encode(r)
				}
				return writeFlow(w, r)
			})
		},
	}
	out.register(c)
	f := c.Flags()
	f.StringVar(&runDir, "run-dir", host.RunDir, "the daemon's run folder")
	f.IntVarP(&last, "last", "n", 20, "how many past records to show")
	f.BoolVarP(&follow, "follow", "f", false, "keep showing new records until interrupted")
	f.StringVar(&verdict, "verdict", "", "only allowed, refused or closed")
	f.StringVar(&reason, "reason", "", "only this reason, e.g. spoofed-source")
	f.StringVar(&match, "match", "", "only records whose address, workload or identity contains this text")
	return c
}

func mentions(r flow.Record, text string) bool {
	for _, s := range []string{r.Src.String(), r.Dst.String(), r.SrcID, r.DstID, r.SrcWorkload, r.DstWorkload, r.Service, r.Endpoint.String()} {
		if strings.Contains(s, text) {
			return true
		}
	}
	return text == ""
}

// writeFlow prints one line a person can read:
// time verdict src → dst (reason: expected …, found …).
func writeFlow(w io.Writer, r flow.Record) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s  %-7s  %-7s  %s%s -> %s%s", r.Time.Format("15:04:05.000"), r.Verdict, r.Direction,
		endpoint(r.Src), paren(r.SrcWorkload), destination(r), paren(r.DstWorkload))
	if r.Verdict == flow.Closed {
		fmt.Fprintf(&b, "  %d B sent, %d B received in %s", r.BytesSent, r.BytesReceived, r.Duration.Round(time.Millisecond))
	}
	if r.Reason != "" {
		fmt.Fprintf(&b, "  %s", r.Reason)
	}
	if r.Expected != "" || r.Actual != "" {
		fmt.Fprintf(&b, ": expected %s, found %s", orDash(r.Expected), orDash(r.Actual))
	}
	_, err := fmt.Fprintln(w, b.String())
	return err
}

// destination names a Service and the pod that was chosen for it.
func destination(r flow.Record) string {
	s := endpoint(r.Dst)
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
