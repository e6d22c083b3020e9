// SPDX-License-Identifier: Apache-2.0

package cdscmd

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/cdsflag"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
)

const measurementSize = 48 // bytes, of both TEEs

type verifyCommand struct {
	trust       cdsflag.Trust
	measurement string
	checks      bool
	output      desk.Output
}

func newVerify() *cobra.Command {
	var v verifyCommand
	c := &cobra.Command{
		Use:   "verify ADDR --operators FILE [--manifest FILE] [--measurement HEX]",
		Short: "Check layer by layer what a CDS proves",
		Long: `Connects to a CDS, believing nothing, and says of each layer whether it is proven,
missing or refuted. Every layer rests on those before it:

  connection        TLS 1.3, and a certificate with evidence
  hardware          the evidence is signed by a TEE, up to the vendor's root
  session-key       it is for the key of this very connection
  operators         the machine was launched for --operators (HOST_DATA)
  reference-values  measurement, TCB and the rest satisfy --manifest; or the
                    measurement is --measurement, and the rest is not judged
  collateral        the vendor's revocation lists and TCB info were checked
  keys              evidence vouches for the keys the CDS signs with
  log               its checkpoint is signed, its first entry are these keys
  manifest          what is in force is signed, countersigned and follows yours
  witnesses         as many cosigned the log as the manifest asks for
  beacon            the CDS says what time it is, signed
  ready             it can issue

Run it before the first node enrols, and before you send a recovery share. With
--operators alone it says what a CDS claims to be: compare the measurement with your
build ('c8s measure') before you write it into a manifest.

Exit codes: 0 all proven, 1 something is refuted or the CDS cannot be reached, 2
wrong usage, 3 partly proven: what is missing is listed.`,
		Example: `  c8s cds verify 10.80.0.100 --operators operators.json
  c8s cds verify 10.80.0.100 --operators operators.json --measurement 8f3a…
  c8s cds verify 10.80.0.100 --operators operators.json --manifest manifest.signed.json --checks
  c8s cds verify 10.80.0.100 --operators operators.json --manifest manifest.signed.json -o json`,
		Args:              desk.UsageArgs(cobra.ExactArgs(1)),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(c *cobra.Command, args []string) error { return v.run(c, cdsflag.Address(args[0])) },
	}
	v.trust.Register(c)
	c.Flags().StringVar(&v.measurement, "measurement", "", "launch measurement that the CDS must have, 96 hex digits")
	c.Flags().BoolVar(&v.checks, "checks", false, "show every check of the evidence")
	_ = c.RegisterFlagCompletionFunc("measurement", cobra.NoFileCompletions)
	v.output.Register(c)
	return c
}

func (v *verifyCommand) run(c *cobra.Command, addr string) error {
	if b, err := hex.DecodeString(v.measurement); v.measurement != "" && (err != nil || len(b) != measurementSize || hex.EncodeToString(b) != v.measurement) {
		return exit.Usage(fmt.Errorf("--measurement must be %d lower-case hex digits", 2*measurementSize))
	}
	operators, err := v.trust.Operators()
	if err != nil {
		return err
	}
	signed, err := v.trust.Manifest(operators)
	if err != nil {
		return err
	}
	p, err := dial(c.Context(), addr)
	if err != nil {
		return err
	}
	defer p.close()
	j := &judge{p: p, operators: operators, signed: signed, measurement: v.measurement, now: time.Now(), r: &Report{Addr: addr}}
	if err := j.all(c.Context()); err != nil {
		return err
	}
	err = v.output.Write(c, j.r, func(w io.Writer) error { return j.r.print(w, v.checks) })
	return errors.Join(err, j.r.err())
}
