// SPDX-License-Identifier: Apache-2.0

// Package appraise decides whether evidence is good enough for a role under a
// manifest. Its invariant: every check it knows is in the verdict, and evidence
// is accepted only if all of them were made and none failed. A check that could
// not be made, because an earlier one failed, has failed.
//
// Parsing and cryptography are attest/snp's, reference values are policy's;
// this package only joins them and explains.
package appraise

import (
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/snp"
	"github.com/c8s-dev/c8s/policy"
)

// Request says what evidence is appraised for. All of it is required.
type Request struct {
	Manifest   *policy.Manifest
	Role       policy.Role // what the evidence's owner wants to be
	ReportData [64]byte    // attest.Transcript.ReportData of what it must be bound to
	Now        time.Time   // at which certificates must be valid
}

// Check ids. The rules of the manifest follow under the codes of policy.
const (
	CheckRequest         = "request"
	CheckTEE             = "evidence-tee"
	CheckReport          = "report"
	CheckProduct         = "report-product"
	CheckSigningKey      = "signing-key"
	CheckCertificates    = "certificates"
	CheckChain           = "chain"
	CheckDates           = "chain-dates"
	CheckEndorsedProduct = "endorsement-product"
	CheckEndorsedTCB     = "endorsement-tcb"
	CheckEndorsedChip    = "endorsement-chip"
	CheckSignature       = "signature"
	CheckReportData      = "report-data"
	CheckTCBCommitted    = "tcb-committed"
	CheckDecision        = "manifest-decision" // only on refusal: the manifest's answer as a whole
)

// Codes of failures that are not another package's.
const (
	CodeRequest      = "request-incomplete"
	CodeTEE          = "tee-unsupported"
	CodeReportData   = "report-data"
	CodeNotReached   = "not-reached"
	CodeTCBCommitted = "tcb-committed"
	CodeVLEK         = "signing-key-vlek"
)

const (
	docABI   = "AMD 56860 (SEV-SNP firmware ABI), "
	docVCEK  = "AMD 57230 (VCEK and KDS), "
	docC8s   = "docs/attest.md, "
	docRules = "the signed manifest, "
)

// Appraise judges evidence. It never returns nil.
func Appraise(ev *attest.Evidence, req Request) *attest.Verdict {
	a := &appraisal{v: &attest.Verdict{TEE: attest.TEESEVSNP}}
	if ev != nil {
		a.ev = *ev
		a.v.TEE = ev.TEE
	}
	a.preconditions(ev, req)
	a.evidence(req)
	a.policy(req)
	a.v.Conclude()
	return a.v
}

// appraisal collects the checks. report, chain and product are set once they
// are known; the checks that need them fail without.
type appraisal struct {
	v       *attest.Verdict
	ev      attest.Evidence
	report  *snp.Report
	chain   *snp.Chain
	product snp.Product
}

func (a *appraisal) add(c attest.Check) { a.v.Checks = append(a.v.Checks, c) }

// result adds a check whose failure is an *attest.Failure.
func (a *appraisal) result(id, source, want string, err error, actual string) {
	c := attest.Check{ID: id, Status: attest.Pass, Expected: want, Actual: actual, Source: source}
	if err != nil {
		c.Status, c.Code, c.Actual = attest.Fail, id, err.Error()
		var e *attest.Failure
		if errors.As(err, &e) {
			c.Code, c.Expected, c.Actual, c.Remedy = e.Code, e.Expected, e.Actual, e.Remedy
		}
	}
	a.add(c)
}

func (a *appraisal) notReached(id, source, want, missing string) {
	a.add(attest.Check{ID: id, Status: attest.Fail, Code: CodeNotReached, Expected: want, Actual: "not checked: no usable " + missing, Source: source})
}

func (a *appraisal) preconditions(ev *attest.Evidence, req Request) {
	want := "evidence, a manifest, a role, report data and a time"
	c := attest.Check{ID: CheckRequest, Status: attest.Pass, Expected: want, Actual: "all given", Source: docC8s + "Appraisal"}
	switch {
	case ev == nil:
		c.Actual = "no evidence"
	case req.Manifest == nil:
		c.Actual = "no manifest"
	case req.Role == "":
		c.Actual = "no role"
	case req.ReportData == [64]byte{}:
		c.Actual = "no report data"
	case req.Now.IsZero():
		c.Actual = "no time"
	}
	if c.Actual != "all given" {
		c.Status, c.Code = attest.Fail, CodeRequest
	}
	a.add(c)

	c = attest.Check{ID: CheckTEE, Status: attest.Pass, Expected: attest.TEESEVSNP, Actual: fmt.Sprintf("%.32q", a.ev.TEE), Source: docC8s + "Evidence"}
	if a.ev.TEE != attest.TEESEVSNP {
		c.Status, c.Code = attest.Fail, CodeTEE
	}
	a.add(c)
}

// evidence makes the checks that need no manifest.
func (a *appraisal) evidence(req Request) {
	a.parse()
	a.certificates(req.Now)
	a.binding(req.ReportData)
}

func (a *appraisal) parse() {
	const (
		wantReport  = "a report of version 2 to 5, nothing unknown in it"
		wantProduct = "Milan, Genoa or Turin"
		wantKey     = "a report signed by the VCEK"
	)
	var err error
	if a.report, err = snp.ParseReport(a.ev.Report); err != nil {
		a.report = nil
		a.result(CheckReport, docABI+"ATTESTATION_REPORT", wantReport, err, "")
		a.notReached(CheckProduct, docABI+"ATTESTATION_REPORT, CPUID fields", wantProduct, "report")
		a.notReached(CheckSigningKey, docABI+"ATTESTATION_REPORT, SIGNING_KEY", wantKey, "report")
		return
	}
	r := a.report
	a.result(CheckReport, docABI+"ATTESTATION_REPORT", wantReport, nil, fmt.Sprintf("version %d, guest policy %#x", r.Version, r.Policy))
	product, err := r.Product(a.ev.Product)
	if err == nil {
		a.product = product
	}
	a.v.Product = string(product)
	a.result(CheckProduct, docABI+"ATTESTATION_REPORT, CPUID fields", wantProduct, err, string(product))
	a.result(CheckSigningKey, docABI+"ATTESTATION_REPORT, SIGNING_KEY", wantKey, vcekOnly(r), r.SigningKey.String())

	a.v.Measurement = hex.EncodeToString(r.Measurement[:])
	a.v.HostData = hex.EncodeToString(r.HostData[:])
	a.v.Machine = hex.EncodeToString(r.ChipID[:])
}

// vcekOnly refuses reports that no VCEK signed: without a chip id a manifest
// cannot pin the machine.
func vcekOnly(r *snp.Report) error {
	if r.SigningKey == snp.KeyVLEK {
		return attest.NewFailure(CodeVLEK, "a report signed by the chip's VCEK", "one signed by a provider's VLEK", "ask the host for reports signed by the VCEK")
	}
	return r.CheckSigningKey()
}

func (a *appraisal) certificates(now time.Time) {
	const wantCerts = "VCEK, ASK and ARK"
	chain, err := snp.ParseChain(a.ev.Certs)
	a.result(CheckCertificates, docVCEK+"VCEK Certificate", wantCerts, err, fmt.Sprintf("%d certificates", len(a.ev.Certs)))
	if err == nil {
		a.chain = chain
		a.v.Root = policy.DigestOf(chain.Root.Raw)
		a.v.Simulated = chain.Simulated()
	}
	for _, check := range []struct {
		id, source, want string
		needsReport      bool
		make             func() error
		actual           func() string
	}{
		{
			CheckChain, docVCEK + "certificate chain", "ARK signs itself and the ASK, the ASK signs the VCEK", false,
			func() error { return chain.Verify() }, func() string { return "root " + string(a.v.Root) },
		},
		{
			CheckDates, "RFC 5280 section 4.1.2.5", "all certificates valid at " + now.UTC().Format(time.RFC3339), false,
			func() error { return chain.CheckDates(now) }, func() string { return "VCEK until " + chain.Leaf.NotAfter.UTC().Format(time.RFC3339) },
		},
		{
			CheckEndorsedProduct, docVCEK + "productName", "the product of the report", true,
			func() error { return chain.CheckProduct(a.product) }, func() string { return string(chain.Endorsement.Product) },
		},
		{
			CheckEndorsedTCB, docVCEK + "SPL extensions", "the reported TCB", true,
			func() error { return chain.CheckTCB(a.report) }, func() string { return chain.Endorsement.TCB.String() },
		},
		{
			CheckEndorsedChip, docVCEK + "hwID", "the chip id of the report", true,
			func() error { return chain.CheckChip(a.report) }, func() string { return hex.EncodeToString(chain.Endorsement.ChipID) },
		},
		{
			CheckSignature, docABI + "ATTESTATION_REPORT, SIGNATURE", "the VCEK's, over the bytes received", true,
			func() error { return chain.VerifySignature(a.report) }, func() string { return "ECDSA P-384 with SHA-384" },
		},
	} {
		switch {
		case a.chain == nil:
			a.notReached(check.id, check.source, check.want, "certificates")
		case check.needsReport && a.report == nil:
			a.notReached(check.id, check.source, check.want, "report")
		default:
			a.result(check.id, check.source, check.want, check.make(), check.actual())
		}
	}
}

func (a *appraisal) binding(want [64]byte) {
	const source = docC8s + "Transcript"
	if a.report == nil {
		a.notReached(CheckReportData, source, hex.EncodeToString(want[:]), "report")
		return
	}
	got := a.report.ReportData
	c := attest.Check{ID: CheckReportData, Status: attest.Pass, Expected: hex.EncodeToString(want[:]), Actual: hex.EncodeToString(got[:]), Source: source}
	if subtle.ConstantTimeCompare(got[:], want[:]) != 1 || want == [64]byte{} {
		c.Status, c.Code = attest.Fail, CodeReportData
		c.Remedy = "the evidence is for another key, nonce, session or purpose: ask for fresh evidence"
	}
	a.add(c)
}
