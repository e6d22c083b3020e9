// SPDX-License-Identifier: Apache-2.0

package collateralcmd

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/collateral"
	"github.com/c8s-dev/c8s/attest/snp"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
)

type fetchCommand struct {
	products, chips, tcbs, fmspcs, cas, evidence []string
	hint, cache                                  string
	endpoints                                    collateral.Endpoints
	patience                                     time.Duration
	output                                       desk.Output
}

func newFetch() *cobra.Command {
	f := fetchCommand{endpoints: collateral.VendorEndpoints()}
	c := &cobra.Command{
		Use:   "fetch --cache DIR (--evidence FILE | --snp-product NAME | --fmspc HEX)...",
		Short: "Ask the vendors for what verification needs",
		Long: `Fetches what verification of the given evidence or platforms needs, and keeps it
in a folder that other commands read. What the folder already has and is not
stale is not asked for again.

AMD's server answers about one chip certificate in 10 seconds and then refuses
for minutes; c8s spaces its requests, and waits up to --patience for each.

Exit codes: 0 all is there, 1 something is missing or stale, 2 wrong usage.`,
		Example: `  # all that one machine's evidence needs
  c8s collateral fetch --evidence report.bin --cache ./collateral

  # a product's chain and CRL, and one chip's certificate (FMC.boot.TEE.SNP.microcode)
  c8s collateral fetch --snp-product Milan --chip-id 4f1a... --tcb 0.3.0.8.115 --cache ./collateral

  # an Intel platform, from a mirror
  c8s collateral fetch --fmspc b0c06f000000 --pcs-url https://pccs.example --cache ./collateral`,
		Args: desk.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return f.run(c) },
	}
	fl := c.Flags()
	fl.StringArrayVar(&f.evidence, "evidence", nil, "SNP report, TDX quote or CMW record (may be repeated)")
	fl.StringVar(&f.hint, "evidence-product", "", "AMD product of version 2 reports, which do not say it")
	fl.StringArrayVar(&f.products, "snp-product", nil, "AMD product: Milan, Genoa or Turin (may be repeated)")
	fl.StringArrayVar(&f.chips, "chip-id", nil, "with one --snp-product: chip id in hex (may be repeated, with a --tcb each)")
	fl.StringArrayVar(&f.tcbs, "tcb", nil, "TCB of the chip: FMC.bootLoader.TEE.SNP.microcode; FMC is 0 before Turin")
	fl.StringArrayVar(&f.fmspcs, "fmspc", nil, "Intel platform: 6 bytes in hex (may be repeated)")
	fl.StringArrayVar(&f.cas, "ca", []string{collateral.CAPlatform}, "with --fmspc: CA of the PCK certificates, platform or processor (may be repeated)")
	fl.StringVar(&f.cache, "cache", "", "folder to keep the answers in (required)")
	fl.StringVar(&f.endpoints.KDS, "kds-url", f.endpoints.KDS, "AMD's key distribution service, or a mirror")
	fl.StringVar(&f.endpoints.PCS, "pcs-url", f.endpoints.PCS, "Intel's provisioning certification service, or a PCCS")
	fl.StringVar(&f.endpoints.IntelRoot, "intel-root-crl-url", f.endpoints.IntelRoot, "CRL of Intel's root")
	fl.DurationVar(&f.patience, "patience", 2*time.Minute, "how long one thing may take with all tries and pauses")
	f.output.Register(c)
	return c
}

func (f *fetchCommand) run(c *cobra.Command) error {
	if err := f.check(); err != nil {
		return err
	}
	requests, err := f.requests()
	if err != nil {
		return err
	}
	store, err := f.store(c)
	if err != nil {
		return err
	}
	say := c.ErrOrStderr()
	var items []collateral.Item
	failed, now := 0, time.Now()
	for n, r := range requests {
		_, _ = fmt.Fprintf(say, "[%d/%d] %s\n", n+1, len(requests), r)
		i, err := store.Get(c.Context(), r)
		switch {
		case err != nil:
			_, _ = fmt.Fprintf(say, "        %v\n", err)
			failed++
			continue
		case i.Stale(now):
			_, _ = fmt.Fprintf(say, "        stale since %s, and no newer one to be had\n", i.NextUpdate.Format(time.RFC3339))
			failed++
		}
		items = append(items, i)
	}
	if err := write(c, f.output, rowsOf(items, now)); err != nil {
		return err
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d are missing or stale", failed, len(requests))
	}
	return nil
}

func write(c *cobra.Command, o desk.Output, rows []row) error {
	document := struct {
		Items []row `json:"items"`
	}{rows}
	return o.Write(c, document, func(w io.Writer) error { return writeRows(w, rows) })
}

func (f *fetchCommand) check() error {
	switch {
	case f.cache == "":
		return exit.Usage(errors.New("--cache is required: the folder to keep the answers in"))
	case len(f.evidence)+len(f.products)+len(f.fmspcs) == 0:
		return exit.Usage(errors.New("nothing to fetch: give --evidence, --snp-product or --fmspc"))
	case len(f.chips) != len(f.tcbs):
		return exit.Usage(errors.New("each --chip-id needs a --tcb: AMD issues a certificate for each TCB"))
	case len(f.chips) > 0 && len(f.products) != 1:
		return exit.Usage(errors.New("--chip-id goes with one --snp-product"))
	case f.patience <= 0:
		return exit.Usage(errors.New("--patience must be positive"))
	}
	return nil
}

// requests lists what is wanted, each once.
func (f *fetchCommand) requests() ([]collateral.Request, error) {
	l := list{seen: make(map[collateral.Request]bool)}
	for _, path := range f.evidence {
		ev, err := readEvidence(path, f.hint)
		if err != nil {
			return nil, err
		}
		needs, err := collateral.Needs(ev)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		l.add(nil, needs...)
	}
	for n, chip := range f.chips {
		id, err := hex.DecodeString(chip)
		if err != nil {
			return nil, exit.Usage(fmt.Errorf("--chip-id: %w", err))
		}
		tcb, err := collateral.ParseTCB(f.tcbs[n])
		if err != nil {
			return nil, exit.Usage(fmt.Errorf("--tcb: %w", err))
		}
		r, err := collateral.VCEK(f.products[0], id, tcb)
		l.add(err, r)
	}
	for _, p := range f.products {
		for _, kind := range []collateral.Kind{collateral.AMDVCEKChain, collateral.AMDVLEKChain, collateral.AMDCRL} {
			r, err := collateral.OfProduct(kind, p)
			l.add(err, r)
		}
	}
	for _, id := range f.fmspcs {
		r, err := collateral.TCBInfo(id)
		l.add(err, r)
	}
	if len(f.fmspcs) > 0 {
		for _, ca := range f.cas {
			r, err := collateral.PCKCRL(ca)
			l.add(err, r)
		}
		l.add(nil, collateral.QEIdentity(), collateral.RootCRL())
	}
	if l.err != nil {
		return nil, exit.Usage(l.err)
	}
	return l.all, nil
}

type list struct {
	all  []collateral.Request
	seen map[collateral.Request]bool
	err  error
}

func (l *list) add(err error, requests ...collateral.Request) {
	if err != nil {
		l.err = errors.Join(l.err, err)
		return
	}
	for _, r := range requests {
		if !l.seen[r] {
			l.seen[r] = true
			l.all = append(l.all, r)
		}
	}
}

// readEvidence tells the formats apart by their first bytes; the parsers then
// are strict.
func readEvidence(path, hint string) (*attest.Evidence, error) {
	b, err := readFile(path, attest.MaxCMW)
	if err != nil {
		return nil, fmt.Errorf("reading the evidence: %w", err)
	}
	if ev, err := attest.ParseCMW(b); err == nil {
		return ev, nil
	}
	if len(b) == snp.ReportSize {
		return &attest.Evidence{TEE: attest.TEESEVSNP, Product: hint, Report: b}, nil
	}
	return &attest.Evidence{TEE: attest.TEETDX, Report: b}, nil
}

func (f *fetchCommand) store(c *cobra.Command) (*collateral.Store, error) {
	config := collateral.DefaultFetcherConfig()
	config.Endpoints, config.Overall = f.endpoints, f.patience
	fetcher, err := collateral.NewFetcher(config)
	if err != nil {
		return nil, exit.Usage(err)
	}
	return openCache(c, f.cache, fetcher)
}

func openCache(c *cobra.Command, dir string, up collateral.Upstream) (*collateral.Store, error) {
	log := slog.New(slog.NewTextHandler(c.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	config := collateral.DefaultStoreConfig(up, log)
	config.Dir = dir
	return collateral.NewStore(config)
}
