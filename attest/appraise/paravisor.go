// SPDX-License-Identifier: Apache-2.0

package appraise

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/azure"
	"github.com/c8s-dev/c8s/policy"
)

// paravisor checks what the evidence is bound to. Without a paravisor that is
// REPORT_DATA. With one, REPORT_DATA vouches for the paravisor's runtime claims,
// these name a key of its virtual TPM, and the TPM's quote is bound.
func (a *appraisal) paravisor() {
	missing := ""
	if a.bound == nil {
		missing = "report"
	}
	tpm := a.ev.VTPM
	if tpm == nil {
		a.v.Paravisor = policy.ParavisorNone
		for _, id := range []CheckID{CheckRuntime, CheckTPMQuote, CheckTPMRegisters} {
			a.notApplicable(id, "no paravisor's TPM beside the report")
		}
		a.reportData(missing, a.bound)
		return
	}
	a.v.Paravisor = policy.ParavisorAzure
	a.vtpm(tpm, missing)
}

func (a *appraisal) reportData(missing string, got []byte) {
	if a.req.Unbound && missing == "" {
		a.notApplicable(CheckReportData, "unbound by request: "+hex.EncodeToString(got))
		return
	}
	a.check(CheckReportData, missing, func() result { return a.bind(got) })
}

func (a *appraisal) vtpm(tpm *attest.VTPM, missing string) {
	ready := a.ready
	a.ready = false // until the quote is good: the guest is in the PCRs
	var runtime *azure.Runtime
	a.check(CheckRuntime, missing, func() (r result) {
		if err := azure.CheckBinding(tpm.Runtime, [64]byte(a.bound)); err != nil {
			return found("", err)
		}
		var err error
		runtime, err = azure.ParseRuntime(tpm.Runtime)
		return found("REPORT_DATA is the hash of the runtime claims", err)
	})
	if runtime == nil {
		missing = "runtime claims"
	}
	var quote *azure.Quote
	a.check(CheckTPMQuote, missing, func() result {
		q, err := azure.ParseQuote(tpm.Quote)
		if err == nil {
			err = runtime.VerifyQuote(tpm.Quote, tpm.Signature)
		}
		if err != nil {
			return found("", err)
		}
		quote = q
		return found("RSASSA with SHA-256 by the key of the runtime claims", nil)
	})
	if quote == nil {
		missing = "quote"
	}
	a.check(CheckTPMRegisters, missing, func() result {
		if err := quote.CheckPCRs(tpm.PCRs); err != nil {
			return found("", err)
		}
		a.registers(tpm.PCRs)
		a.ready = ready
		return found(fmt.Sprintf("%d registers", len(a.v.Registers)), nil)
	})
	a.quoteNonce(missing, quote)
}

func (a *appraisal) quoteNonce(missing string, quote *azure.Quote) {
	switch {
	case missing != "":
		a.check(CheckReportData, missing, nil)
	case a.req.Nonce != nil:
		a.check(CheckReportData, "", func() result { return a.bindNonce(quote.ExtraData, a.req.Nonce) })
	case a.req.Unbound:
		a.notApplicable(CheckReportData, "unbound by request: "+hex.EncodeToString(quote.ExtraData))
	default:
		want := azure.QualifyingData(a.req.ReportData)
		a.check(CheckReportData, "", func() result { return a.bindNonce(quote.ExtraData, want[:]) })
	}
}

func (a *appraisal) bindNonce(got, want []byte) result {
	if len(want) == 0 || !bytes.Equal(got, want) {
		return found("", attest.NewFailure(CodeReportData, hex.EncodeToString(want)+" in the TPM's quote", hex.EncodeToString(got),
			"the evidence is for another key, nonce, session or purpose: ask for fresh evidence"))
	}
	return found(hex.EncodeToString(got), nil)
}

func (a *appraisal) registers(pcrs [][]byte) {
	for i, value := range pcrs {
		if len(value) > 0 {
			a.v.Registers = append(a.v.Registers, policy.Register{Name: "pcr" + strconv.Itoa(i), Value: hex.EncodeToString(value)})
		}
	}
	slices.SortFunc(a.v.Registers, func(x, y policy.Register) int { return cmp.Compare(x.Name, y.Name) })
}
