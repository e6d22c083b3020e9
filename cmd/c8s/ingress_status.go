// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/envflag"
	"github.com/c8s-dev/c8s/ingress/daemon"
)

func newIngressStatus() *cobra.Command {
	var out desk.Output
	var runDir string
	c := &cobra.Command{
		Use:   "status",
		Short: "Show what the ingress on this machine proves, serves and lacks",
		Long: `Show what the ingress on this machine proves, serves and lacks: the age of its
proof, its certificates, and what is wrong with them.

Exit codes: 0 shown, 1 no ingress answers, 2 wrong usage.`,
		Example: "  c8s ingress status\n  c8s ingress status -o json | jq '.certificates[] | select(.problem)'",
		Args:    desk.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := daemon.AskStatus(c.Context(), runDir)
			if err != nil {
				return err
			}
			return out.Write(c, s, func(w io.Writer) error { return writeIngressStatus(w, s, time.Now()) })
		},
	}
	out.Register(c)
	registerRunDir(c, &runDir)
	return c
}

func newIngressReady() *cobra.Command {
	var runDir string
	c := &cobra.Command{
		Use:   "ready",
		Short: "Say by the exit code whether the ingress can take traffic",
		Long: `Ask the ingress on this machine whether it can take traffic: it has a mesh
certificate, routes, a certificate for at least one host, and a proof.

Flags may come from the ingress's environment: C8S_FLAG_RUN_DIR is --run-dir.

Exit codes: 0 ready, 1 not ready, which is said, 2 wrong usage.`,
		Args: desk.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := envflag.ApplyOwn(c, os.Environ()); err != nil {
				return err
			}
			s, err := daemon.AskStatus(c.Context(), runDir)
			if err == nil && s.NotReady != "" {
				err = errors.New(s.NotReady)
			}
			if err == nil {
				_, err = fmt.Fprintln(c.OutOrStdout(), "ready")
			}
			return err
		},
	}
	registerRunDir(c, &runDir)
	return c
}

func writeIngressStatus(w io.Writer, s *daemon.Status, now time.Time) error {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintf(tw, "Ingress\t%s, %s\n", s.Name, s.Version)
	fmt.Fprintf(tw, "Identity\t%s\n", orDash(s.ID))
	if s.NotReady != "" {
		fmt.Fprintf(tw, "Ready\tno: %s\n", s.NotReady)
	}
	if s.Enrolment != "" {
		fmt.Fprintf(tw, "Enrolment\tfailing: %s\n", s.Enrolment)
	}
	if s.Simulated {
		fmt.Fprintf(tw, "TEE\tSIMULATED: proves nothing to anybody else\n")
	}
	fmt.Fprintf(tw, "Manifest\tversion %d of %s, %s\n", s.Manifest.Version, s.TrustDomain, s.Manifest.Digest)
	if d := s.DenyList; d != nil {
		fmt.Fprintf(tw, "Deny list\tversion %d, %s\n", d.Version, d.Digest)
	}
	for _, p := range s.Proof.Proofs {
		age := now.Sub(p.Beacon).Round(time.Second)
		if left := p.Until.Sub(now).Round(time.Second); left > 0 {
			fmt.Fprintf(tw, "Proof\tof key %s, %s old, accepted for %s\n", p.Key, age, left)
		} else {
			fmt.Fprintf(tw, "Proof\tof key %s, %s old: clients refuse it\n", p.Key, age)
		}
	}
	if s.Proof.Error != "" {
		fmt.Fprintf(tw, "Proving\tfailing since %s: %s: %s\n", s.Proof.Failing.Format(time.RFC3339), s.Proof.Code, s.Proof.Error)
	}
	fmt.Fprintf(tw, "Places\t%s\n", placesLine(&s.Places, now))
	fmt.Fprintf(tw, "Hosts of routes\t%s\n", orDash(strings.Join(s.Hosts, ", ")))
	fmt.Fprintf(tw, "\nCERTIFICATE\tSTATE\tISSUER\tEXPIRES\tPROBLEM\n")
	for _, c := range s.Certificates {
		expires, problem := "-", "-"
		if !c.NotAfter.IsZero() {
			expires = c.NotAfter.Sub(now).Round(time.Minute).String()
		}
		if p := c.Problem; p != nil {
			problem = p.Error()
			if !c.NextTry.IsZero() {
				problem += fmt.Sprintf("; again in %s", c.NextTry.Sub(now).Round(time.Second))
			}
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\n", c.Name, c.State, orDash(c.Issuer), expires, problem)
	}
	return tw.Flush()
}

func placesLine(p *daemon.Places, now time.Time) string {
	line := fmt.Sprintf("%d static; %d nodes, %d pods, %d services with %d endpoints", p.Static, p.Nodes, p.Pods, p.Services, p.Endpoints)
	if p.Ignored > 0 {
		line += fmt.Sprintf(", %d ignored", p.Ignored)
	}
	switch {
	case p.Connected == nil || *p.Connected:
		return line
	case p.Since == nil:
		return line + "; the API server was never reached"
	}
	return line + fmt.Sprintf("; the API server is lost for %s", now.Sub(*p.Since).Round(time.Second))
}
