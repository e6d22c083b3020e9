// SPDX-License-Identifier: Apache-2.0

package attestcmd

import (
	"bytes"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/azure"
	"github.com/c8s-dev/c8s/attest/collateral"
	"github.com/c8s-dev/c8s/attest/snp"
	"github.com/c8s-dev/c8s/attest/tdx"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
)

const (
	maxInput     = 1 << 20 // bytes
	maxPaddedLog = 1 << 20 // bytes; firmware pads its log
)

// inputFlags say where evidence and what belongs to it are.
type inputFlags struct {
	certs      []string
	eventLog   string
	product    string
	collateral []string
	at         string
}

func (f *inputFlags) register(c *cobra.Command) {
	fl := c.Flags()
	fl.StringArrayVar(&f.certs, "cert", nil, "certificate of a raw SEV-SNP report, PEM or DER: VCEK or VLEK first, then its issuers; missing issuers are AMD's (may be repeated)")
	fl.StringVar(&f.product, "product", "", "processor line of a version 2 SEV-SNP report: Milan, Genoa or Turin")
	fl.StringVar(&f.eventLog, "event-log", "", "event log (CCEL) that belongs to a TDX quote")
	fl.StringArrayVar(&f.collateral, "collateral", nil, "vendor's collateral: a bundle, revocation list, TCB info or QE identity (may be repeated)")
	fl.StringVar(&f.at, "time", "", "time of appraisal, RFC 3339 (default: now)")
}

func (f *inputFlags) now() (time.Time, error) {
	if f.at == "" {
		return time.Now(), nil
	}
	t, err := time.Parse(time.RFC3339, f.at)
	if err != nil {
		return t, exit.Usage(fmt.Errorf("--time must be like 2026-03-20T00:00:00Z, not %q", f.at))
	}
	return t, nil
}

// read reads evidence of any form, and the files that belong to it.
func (f *inputFlags) read(c *cobra.Command, path string) (*attest.Evidence, []attest.Collateral, error) {
	raw, err := readInput(c, path, maxInput)
	if err != nil {
		return nil, nil, fmt.Errorf("reading evidence: %w", err)
	}
	ev, err := parse(raw)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: reading evidence: %w", path, err)
	}
	if err := f.complete(c, ev); err != nil {
		return nil, nil, err
	}
	items, err := collateral.ReadFiles(f.collateral...)
	if err != nil {
		return nil, nil, fmt.Errorf("reading collateral: %w", err)
	}
	return ev, items, nil
}

// parse tells the forms apart by their first bytes.
func parse(raw []byte) (*attest.Evidence, error) {
	switch {
	case len(raw) == snp.ReportSize:
		return &attest.Evidence{TEE: attest.TEESEVSNP, Report: raw}, nil
	case tdx.IsQuote(raw):
		return &attest.Evidence{TEE: attest.TEETDX, Report: raw}, nil
	case bytes.HasPrefix(bytes.TrimSpace(raw), []byte("{")):
		return azure.ImportJSON(raw)
	}
	ev, err := attest.ParseCMW(raw)
	if err != nil {
		return nil, fmt.Errorf("it is neither an SEV-SNP report of %d bytes, nor a TDX quote, nor Azure's JSON, nor a readable wrapper: %w", snp.ReportSize, err)
	}
	return ev, nil
}

// complete adds what the flags name. Issuers of a lone VCEK are AMD's published
// ones: whether the root is trusted is the policy's question.
func (f *inputFlags) complete(c *cobra.Command, ev *attest.Evidence) error {
	if len(f.certs) > 0 || f.product != "" {
		if ev.TEE != attest.TEESEVSNP {
			return exit.Usage(fmt.Errorf("--cert and --product go with SEV-SNP reports"))
		}
	}
	if f.product != "" {
		ev.Product = f.product
	}
	for _, path := range f.certs {
		b, err := readInput(c, path, maxInput)
		if err != nil {
			return fmt.Errorf("reading a certificate: %w", err)
		}
		ev.Certs = append(ev.Certs, ders(b)...)
	}
	if f.eventLog != "" {
		if ev.TEE != attest.TEETDX {
			return exit.Usage(fmt.Errorf("--event-log goes with TDX quotes"))
		}
		log, err := readInput(c, f.eventLog, maxPaddedLog)
		if err != nil {
			return fmt.Errorf("reading the event log: %w", err)
		}
		ev.EventLog = tdx.TrimEventLog(log)
	}
	if ev.TEE == attest.TEESEVSNP && len(ev.Certs) > 0 {
		completeChain(ev)
	}
	return nil
}

// completeChain leaves what it cannot read to the appraisal, which explains.
func completeChain(ev *attest.Evidence) {
	r, err := snp.ParseReport(ev.Report)
	if err != nil {
		return
	}
	p, err := r.Product(ev.Product)
	if err != nil { // a report of version 2 does not say
		if p, err = snp.EndorsedProduct(ev.Certs[0]); err != nil || ev.Product != "" {
			return
		}
		ev.Product = string(p)
	}
	if certs, err := snp.Complete(ev.Certs, p, r.SigningKey); err == nil {
		ev.Certs = certs
	}
}

// ders returns the certificates of a file, PEM or one in DER.
func ders(b []byte) [][]byte {
	var list [][]byte
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		list = append(list, block.Bytes)
	}
	if list == nil {
		return [][]byte{b}
	}
	return list
}

func readInput(c *cobra.Command, path string, limit int64) ([]byte, error) {
	in := c.InOrStdin()
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s has more than %d bytes", path, limit)
	}
	return b, err
}
