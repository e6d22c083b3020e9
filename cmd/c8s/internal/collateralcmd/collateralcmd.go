// SPDX-License-Identifier: Apache-2.0

// Package collateralcmd prepares what verification needs from the vendors, for
// machines with and without Internet access. It never calls anything verified
// but who signed a bundle: the vendors' signatures are the verifier's.
package collateralcmd

import (
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/attest/collateral"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
)

// New returns the command "collateral" with all of its subcommands.
func New() *cobra.Command {
	c := &cobra.Command{
		Use:   "collateral",
		Short: "Fetch, bundle and inspect what vendors publish beside evidence",
		Long: `Verifying evidence needs more than the evidence: AMD's certificate of the chip
and its CRL, Intel's TCB info, QE identity and CRLs. Vendors publish them, limit
how often they may be asked, and renew most of them every month.

  fetch   asks the vendors, or a mirror, and keeps the answers in a folder
  bundle  puts them into one signed file, for sites without Internet access
  verify  checks who signed a bundle
  show    lists what a bundle, a folder or files hold, and what is stale

Exit codes: 0 success, 1 refused or failed, 2 wrong usage.`,
		Example: `  c8s collateral fetch --evidence report.bin --cache ./collateral
  c8s collateral bundle --cache ./collateral --sign-with ops.pem --out site.bundle
  c8s collateral verify site.bundle --key ops.pem.pub
  c8s collateral show site.bundle`,
		Args: desk.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.SetFlagErrorFunc(desk.FlagError)
	c.AddCommand(newFetch(), newBundle(), newVerify(), newShow())
	return c
}

// row is one item in the output.
type row struct {
	Request    string    `json:"request"`
	Fetched    time.Time `json:"fetched"`
	NextUpdate time.Time `json:"nextUpdate"`
	Stale      bool      `json:"stale"`
	Bytes      int       `json:"bytes"`
	Certs      int       `json:"certificates"`
}

func rowsOf(items []collateral.Item, now time.Time) []row {
	rows := []row{}
	for _, i := range items {
		rows = append(rows, row{i.Request.String(), i.Fetched, i.NextUpdate, i.Stale(now), len(i.Body), len(i.Certs)})
	}
	return rows
}

func writeRows(w io.Writer, rows []row) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(t, "STATE\tNEXT UPDATE\tFETCHED\tITEM")
	for _, r := range rows {
		state := "current"
		if r.Stale {
			state = "STALE"
		}
		_, _ = fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", state, r.NextUpdate.Format(time.RFC3339), r.Fetched.Format(time.RFC3339), r.Request)
	}
	return t.Flush()
}

func readFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s has more than %d bytes", path, limit)
	}
	return b, err
}
