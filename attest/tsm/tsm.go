// SPDX-License-Identifier: Apache-2.0

// Package tsm asks this machine's TEE for evidence through Linux's configfs-tsm
// (kernel 6.7 and later). What it returns always has the report data that was
// asked for and certificates that were inside the host's table; whether any of
// it is genuine is for the verifier to say.
package tsm

import (
	"context"
	"fmt"
	"strings"

	"github.com/google/go-configfs-tsm/configfs/configfsi"
	"github.com/google/go-configfs-tsm/configfs/linuxtsm"
	"github.com/google/go-configfs-tsm/report"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/snp"
)

// ReportPath is where Linux offers TEE reports.
const ReportPath = configfsi.TsmPrefix + "/report"

const providerSNP = "sev_guest"

// Attester implements attest.Attester. The TEE answers one question at a time.
type Attester struct {
	client configfsi.Client
	turn   chan struct{} // holds one token; a mutex that respects contexts
}

// Open uses this machine's TEE.
func Open() (*Attester, error) {
	client, err := linuxtsm.MakeClient()
	if err != nil {
		return nil, fmt.Errorf("looking for a TEE at %s: %w: on a confidential VM, load the sev-guest module, mount configfs on /sys/kernel/config "+
			"and run Linux 6.7 or later; on any other machine, use a simulated TEE (--tee=sim)", ReportPath, err)
	}
	return New(client), nil
}

// New uses any implementation of the interface, such as a simulated TEE.
func New(client configfsi.Client) *Attester {
	a := &Attester{client: client, turn: make(chan struct{}, 1)}
	a.turn <- struct{}{}
	return a
}

// Attest asks for a report over reportData and the host's certificates.
func (a *Attester) Attest(ctx context.Context, reportData [64]byte) (*attest.Evidence, error) {
	select {
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for the TEE: %w", ctx.Err())
	case <-a.turn:
		defer func() { a.turn <- struct{}{} }()
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("waiting for the TEE: %w", err)
	}
	ev, err := a.attest(reportData)
	if err != nil {
		return nil, fmt.Errorf("asking the TEE for evidence: %w", err)
	}
	return ev, nil
}

func (a *Attester) attest(reportData [64]byte) (*attest.Evidence, error) {
	// The library never checks which provider answered, and its error for a
	// missing table does not say what to do.
	resp, err := report.Get(a.client, &report.Request{InBlob: reportData[:], GetAuxBlob: true})
	if err != nil {
		return nil, fmt.Errorf("%w: if it concerns auxblob, the host must provide the chip's certificates to its guests", err)
	}
	if p := strings.TrimSpace(resp.Provider); p != providerSNP {
		return nil, fmt.Errorf("the TEE's provider is %q, only %q (AMD SEV-SNP) is supported", p, providerSNP)
	}
	r, err := snp.ParseReport(resp.OutBlob)
	if err != nil {
		return nil, err
	}
	if r.ReportData != reportData {
		return nil, fmt.Errorf("the report is over other data than was asked for: another process may use the same entry")
	}
	table, err := snp.ParseCertTable(resp.AuxBlob)
	if err != nil {
		return nil, err
	}
	certs, err := table.Chain(r.SigningKey)
	if err != nil {
		return nil, err
	}
	chain, err := snp.ParseChain(certs)
	if err != nil {
		return nil, fmt.Errorf("reading the host's certificates: %w", err)
	}
	ev := &attest.Evidence{
		TEE: attest.TEESEVSNP, Product: string(chain.Endorsement.Product), Report: resp.OutBlob, Certs: certs,
	}
	if len(table.CRL) > 0 {
		ev.Collateral = []attest.Collateral{{Kind: attest.AMDCRL, Body: table.CRL}}
	}
	return ev, nil
}
