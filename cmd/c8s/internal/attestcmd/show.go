// SPDX-License-Identifier: Apache-2.0

package attestcmd

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/attest/appraise"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/policy"
)

type showCommand struct {
	inputFlags
	output desk.Output
}

func newShow() *cobra.Command {
	s := &showCommand{}
	c := &cobra.Command{
		Use:   "show EVIDENCE",
		Short: "Show what evidence says, or draft a policy from it",
		Long: `Makes the checks that need no policy and prints them, with what the evidence says
about the machine. Nothing is judged: use 'verify' for that.

-o policy drafts the appraisal policy that accepts exactly this evidence, to be
read and edited: that a machine says something is no reason to believe it. Look
at roots, measurements and machines first.

Exit codes: 0 the evidence is genuine as far as can be said, 1 it is not, 2 wrong
usage.`,
		Example: `  c8s attest show report.bin --cert vcek.pem
  c8s attest show quote.dat --event-log ccel.dat -o json
  c8s attest show evidence.cbor -o policy >policy.json`,
		Args: desk.UsageArgs(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error { return s.run(c, args[0]) },
	}
	s.register(c)
	s.output.Register(c, "text", "json", "policy")
	return c
}

func (s *showCommand) run(c *cobra.Command, path string) error {
	now, err := s.now()
	if err != nil {
		return err
	}
	ev, items, err := s.read(c, path)
	if err != nil {
		return err
	}
	substrate, verdict := appraise.Propose(ev, appraise.Request{Role: policy.RoleNode, Unbound: true, Now: now, Collateral: items})
	w := c.OutOrStdout()
	switch s.output.String() {
	case "policy":
		if err := verdict.Err(); err != nil {
			return errors.Join(errors.New("no policy is drafted from evidence that is not genuine"), err)
		}
		substrate.Roles = []policy.Role{policy.RoleNode}
		text, err := policy.EncodeAppraisalPolicy(&policy.AppraisalPolicy{Schema: policy.AppraisalSchema, Substrates: []policy.Substrate{substrate}})
		if err != nil {
			return fmt.Errorf("drafting a policy: %w", err)
		}
		_, err = w.Write(text)
		return err
	case "json":
		err = desk.WriteJSON(w, verdict)
	default:
		err = facts(w, substrate, verdict)
	}
	if err != nil {
		return err
	}
	return verdict.Err()
}
