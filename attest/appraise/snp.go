// SPDX-License-Identifier: Apache-2.0

package appraise

import (
	"encoding/hex"
	"fmt"
	"time"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/snp"
	"github.com/c8s-dev/c8s/policy"
)

// snpEvidence is what the checks of an SEV-SNP report establish step by step;
// what is nil or empty could not be established.
type snpEvidence struct {
	report  *snp.Report
	product snp.Product
	chain   *snp.Chain // its signatures are verified
	tcbs    *snp.TCBs
}

func (a *appraisal) snp() {
	e := &snpEvidence{}
	a.snpReport(e)
	a.snpChain(e)
	a.snpEndorsement(e)
	a.snpFacts(e)
	a.committed = func(s *policy.Substrate) { a.snpCommitted(e, s) }
	if e.chain != nil {
		a.collateral = func() result { return a.snpRevocation(e.chain) }
	}
}

func (e *snpEvidence) missing() string {
	switch {
	case e.report == nil:
		return "report"
	case e.chain == nil:
		return "certificates"
	}
	return ""
}

func (a *appraisal) snpReport(e *snpEvidence) {
	a.check(CheckReport, "", func() result {
		r, err := snp.ParseReport(a.ev.Report)
		if err != nil {
			return found("", err)
		}
		e.report, a.bound = r, r.ReportData[:]
		return found(fmt.Sprintf("SEV-SNP report version %d, guest policy %#x", r.Version, r.Policy), nil)
	})
	missing := e.missing()
	if missing == "certificates" { // not needed yet
		missing = ""
	}
	a.check(CheckProduct, missing, func() result {
		p, err := e.report.Product(a.ev.Product)
		if err == nil {
			e.product, a.v.Product = p, string(p)
		}
		return found(string(p), err)
	})
}

func (a *appraisal) snpChain(e *snpEvidence) {
	var err error
	a.check(CheckCertificates, "", func() result {
		e.chain, err = a.req.Cache.snp.Chain(a.ev.Certs)
		if err != nil && attest.FailureCode(err) != snp.CodeChain {
			return found("", err)
		}
		return found(fmt.Sprintf("%d certificates", len(a.ev.Certs)), nil)
	})
	missing := ""
	if e.chain == nil && attest.FailureCode(err) != snp.CodeChain {
		missing = "certificates"
	}
	a.check(CheckChain, missing, func() result {
		if err != nil {
			e.chain = nil
			return found("", err)
		}
		a.v.Root, a.v.Simulated = policy.DigestOf(e.chain.Root.Raw), e.chain.Simulated()
		return found("root "+string(a.v.Root), nil)
	})
	if e.chain == nil {
		missing = "certificates"
	}
	a.check(CheckDates, missing, func() result {
		return found("valid at "+stamp(a.req.Now)+", leaf until "+stamp(e.chain.Leaf.NotAfter), e.chain.CheckDates(a.req.Now))
	})
}

func (a *appraisal) snpEndorsement(e *snpEvidence) {
	missing := e.missing()
	a.check(CheckSigningKey, missing, func() result {
		return found(e.report.SigningKey.String(), e.chain.CheckSigner(e.report))
	})
	needsProduct := missing
	if missing == "" && e.product == "" {
		needsProduct = "product"
	}
	a.check(CheckEndorsedProduct, needsProduct, func() result {
		return found(string(e.chain.Endorsement.Product), e.chain.CheckProduct(e.product))
	})
	a.check(CheckEndorsedTCB, missing, func() result {
		return found(e.chain.Endorsement.TCB.String(), e.chain.CheckTCB(e.report))
	})
	if missing == "" && e.chain.Endorsement.Signer == snp.KeyVLEK {
		a.notApplicable(CheckEndorsedChip, fmt.Sprintf("a VLEK of provider %q names no chip", e.chain.Endorsement.CSPID))
	} else {
		a.check(CheckEndorsedChip, missing, func() result {
			return found(hex.EncodeToString(e.chain.Endorsement.ChipID), e.chain.CheckChip(e.report))
		})
	}
	a.check(CheckSignature, missing, func() result {
		return found("ECDSA P-384 with SHA-384 by the "+e.chain.Endorsement.Signer.String(), e.chain.VerifySignature(e.report))
	})
}

// snpFacts translates the report for the policy.
func (a *appraisal) snpFacts(e *snpEvidence) {
	r := e.report
	if r == nil {
		return
	}
	a.v.Measurement, a.v.HostData = hex.EncodeToString(r.Measurement[:]), hex.EncodeToString(r.HostData[:])
	a.guest.Debug, a.guest.Migration, a.guest.SMT, a.guest.SingleSocket = r.Debug(), r.Migration(), r.SMT(), r.SingleSocket()
	a.guest.ABI.Major, a.guest.ABI.Minor = r.MinimumABI()
	a.guest.VMPL, a.guest.GuestSVN, a.guest.Provisional = r.VMPL, r.GuestSVN, r.Provisional()
	a.guest.IDKey, a.guest.AuthorKey = digestOrNone(r.IDKey), digestOrNone(r.AuthorKey)
	a.guest.Platform = snpPlatform(r)
	if e.chain == nil || e.product == "" {
		return
	}
	tcbs, err := r.TCBs(e.product)
	if err != nil {
		return // endorsement-tcb has said so
	}
	e.tcbs = &tcbs
	a.v.TCB, a.guest.LaunchTCB = lower(tcbs.Reported, tcbs.Committed), tcbs.Launch
	a.guest.SigningKey = policy.SigningKeyVCEK
	a.v.Machine = hex.EncodeToString(e.chain.Endorsement.ChipID)
	if e.chain.Endorsement.Signer == snp.KeyVLEK {
		a.guest.SigningKey = policy.SigningKeyVLEK
		a.v.Machine = policy.MachineProvider + e.chain.Endorsement.CSPID
	}
	a.ready = true
}

func digestOrNone(d [48]byte) string {
	if d == [48]byte{} {
		return policy.None
	}
	return hex.EncodeToString(d[:])
}

func snpPlatform(r *snp.Report) []string {
	var flags []string
	for _, f := range []struct {
		word string
		set  bool
	}{
		{policy.PlatformNoSMT, !r.SMTEnabled()},
		{policy.PlatformTSME, r.TSMEEnabled()},
		{policy.PlatformECC, r.ECCEnabled()},
		{policy.PlatformNoRAPL, r.RAPLDisabled()},
		{policy.PlatformCiphertextHiding, r.CiphertextHiding()},
		{policy.PlatformAliasCheck, r.AliasCheckComplete()},
	} {
		if f.set {
			flags = append(flags, f.word)
		}
	}
	return flags
}

// snpRevocation looks for a revocation list of the chain's root. Any that is
// good will do; of several bad ones the last is reported.
func (a *appraisal) snpRevocation(chain *snp.Chain) result {
	items := a.stapled(attest.AMDCRL)
	err := attest.NewFailure(CodeCollateralMissing, "the revocation list of "+chain.Root.Subject.CommonName, "none",
		"fetch it with c8s collateral fetch, and give it beside the evidence")
	for _, item := range items {
		var crl *snp.CRL
		if crl, err = a.req.Cache.snp.CRL(item.Body, chain); err != nil {
			continue
		}
		err = chain.CheckRevocation(crl, a.req.Now)
		if revoked(err) {
			return found("", err)
		}
		if err == nil {
			a.guest.CollateralAge = age(a.req.Now, crl.ThisUpdate)
			return found("none of the chain is revoked, says the list of "+stamp(crl.ThisUpdate), nil)
		}
	}
	return found("", err)
}

// snpCommitted names the committed TCB. The floor itself is already judged on
// the lower of both; this says which one was too low.
func (a *appraisal) snpCommitted(e *snpEvidence, s *policy.Substrate) {
	if s == nil || s.SNP == nil || e.tcbs == nil {
		a.check(CheckTCBCommitted, "report, certificates or substrate", nil)
		return
	}
	floor := *s.SNP.MinTCB
	a.check(CheckTCBCommitted, "", func() result {
		actual := fmt.Sprintf("committed %s, reported %s", e.tcbs.Committed, e.tcbs.Reported)
		if !e.tcbs.Committed.AtLeast(floor) || !e.tcbs.Reported.AtLeast(floor) {
			return found("", attest.NewFailure(CodeTCBCommitted, "both at least "+floor.String(), actual, "update the machine's firmware and commit it"))
		}
		return found(actual, nil)
	})
}

func lower(a, b policy.TCB) policy.TCB {
	return policy.TCB{
		FMC: min(a.FMC, b.FMC), BootLoader: min(a.BootLoader, b.BootLoader), TEE: min(a.TEE, b.TEE),
		SNP: min(a.SNP, b.SNP), Microcode: min(a.Microcode, b.Microcode),
	}
}

// age is never negative: what is issued in the future is refused elsewhere.
func age(now, issued time.Time) time.Duration { return max(0, now.Sub(issued)) }
