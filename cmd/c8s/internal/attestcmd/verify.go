// SPDX-License-Identifier: Apache-2.0

package attestcmd

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/appraise"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
	"github.com/c8s-dev/c8s/policy"
)

type verifyCommand struct {
	inputFlags
	policy     string
	operators  string
	role       string
	reportData string
	unbound    bool
	nonce      string
	output     desk.Output
}

func newVerify() *cobra.Command {
	v := &verifyCommand{}
	c := &cobra.Command{
		Use:   "verify EVIDENCE --policy FILE (--report-data HEX | --unbound)",
		Short: "Appraise evidence under a policy",
		Long: `Makes every check and prints each with what was expected and what was there.

The policy is an appraisal policy (see 'c8s attest show -o policy'), a manifest,
or a signed manifest with the operators who must have signed it.

Evidence is for somebody: --report-data says for whom, as 128 hex digits.
--unbound says that you only want to know what it proves, not to whom.

Exit codes: 0 accepted, 1 refused, 2 wrong usage, 3 refused only because the
vendor's collateral is missing or out of date.`,
		Example: `  c8s attest verify report.bin --cert vcek.pem --policy policy.json --unbound
  c8s attest verify quote.dat --event-log ccel.dat --collateral pcs.json --policy policy.json --report-data 0123…
  c8s attest verify azure.json --policy policy.json --nonce challenge -o json`,
		Args: desk.UsageArgs(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error { return v.run(c, args[0]) },
	}
	v.register(c)
	f := c.Flags()
	f.StringVar(&v.policy, "policy", "", "appraisal policy, manifest or signed manifest (required)")
	f.StringVar(&v.operators, "operators", "", "with a signed manifest: operators' file, as 'c8s manifest init' writes it")
	f.StringVar(&v.role, "role", string(policy.RoleNode), "what the machine wants to be: node, workload, cds or ingress")
	f.StringVar(&v.reportData, "report-data", "", "what the evidence must be bound to, 128 hex digits")
	f.BoolVar(&v.unbound, "unbound", false, "do not ask what the evidence is bound to")
	f.StringVar(&v.nonce, "nonce", "", "text that a paravisor's TPM quote must be over, where it is not the report data's hash")
	v.output.Register(c)
	return c
}

func (v *verifyCommand) run(c *cobra.Command, path string) error {
	req, err := v.request()
	if err != nil {
		return err
	}
	if req.Policy, err = readPolicy(c, v.policy, v.operators); err != nil {
		return err
	}
	ev, items, err := v.read(c, path)
	if err != nil {
		return err
	}
	req.Collateral = items
	verdict := appraise.Appraise(ev, req)
	if err := v.output.Write(c, verdict, func(w io.Writer) error { _, err := fmt.Fprint(w, verdict); return err }); err != nil {
		return err
	}
	return refusal(verdict)
}

func (v *verifyCommand) request() (appraise.Request, error) {
	req := appraise.Request{Role: policy.Role(v.role), Unbound: v.unbound}
	if v.policy == "" {
		return req, exit.Usage(errors.New("--policy is required: without reference values nothing can be accepted; 'c8s attest show -o policy' writes a draft"))
	}
	if v.nonce != "" {
		req.Nonce, req.Unbound = []byte(v.nonce), true
	}
	if (v.reportData == "") == !req.Unbound {
		return req, exit.Usage(errors.New("exactly one of --report-data, --nonce and --unbound is required: what must the evidence be bound to?"))
	}
	if v.reportData != "" {
		b, err := hex.DecodeString(v.reportData)
		if err != nil || len(b) != len(req.ReportData) {
			return req, exit.Usage(fmt.Errorf("--report-data must be %d hex digits", 2*len(req.ReportData)))
		}
		copy(req.ReportData[:], b)
	}
	var err error
	req.Now, err = v.now()
	return req, err
}

// readPolicy reads a policy of any form. A signed one needs its operators, and
// an unsigned one is trusted for being named.
func readPolicy(c *cobra.Command, path, operators string) (appraise.Policy, error) {
	raw, err := readInput(c, path, policy.MaxPayload*2)
	if err != nil {
		return nil, fmt.Errorf("reading the policy: %w", err)
	}
	if operators != "" {
		text, err := readInput(c, operators, policy.MaxPayload)
		if err != nil {
			return nil, fmt.Errorf("reading the operators: %w", err)
		}
		trusted, err := policy.ParseOperators(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", operators, err)
		}
		signed, err := policy.Open(raw, trusted)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		return signed.Manifest, nil
	}
	if _, err := policy.ParseEnvelope(raw); err == nil {
		return nil, exit.Usage(fmt.Errorf("%s is signed: say with --operators who must have signed it", path))
	}
	if m, err := policy.Parse(raw); err == nil {
		return m, nil
	} else if policy.CodeOf(err) != policy.CodeSchema && policy.CodeOf(err) != policy.CodeMissingField && policy.CodeOf(err) != policy.CodeUnknownField {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	p, err := policy.ParseAppraisalPolicy(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return p, nil
}

// refusal is nil when the evidence was accepted. Evidence that only lacks
// current collateral has an exit code of its own: fetching it may help.
func refusal(v *attest.Verdict) error {
	err := v.Err()
	if err == nil {
		return nil
	}
	if appraise.OnlyStale(v) {
		return exit.Partly(err)
	}
	return err
}
