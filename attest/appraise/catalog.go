// SPDX-License-Identifier: Apache-2.0

package appraise

// CheckID names one check. A policy's rules follow in a verdict under their
// codes, see policy.SubstrateRules.
type CheckID string

// The checks of evidence, in the order in which a verdict has them.
const (
	CheckRequest CheckID = "request"
	CheckTEE     CheckID = "evidence-tee"

	CheckReport       CheckID = "report"
	CheckProduct      CheckID = "report-product"
	CheckCertificates CheckID = "certificates"
	CheckChain        CheckID = "chain"
	CheckDates        CheckID = "chain-dates"

	CheckSigningKey      CheckID = "signing-key"
	CheckEndorsedProduct CheckID = "endorsement-product"
	CheckEndorsedTCB     CheckID = "endorsement-tcb"
	CheckEndorsedChip    CheckID = "endorsement-chip"
	CheckQESignature     CheckID = "qe-signature"
	CheckQEBinding       CheckID = "qe-binding"
	CheckSignature       CheckID = "signature"
	CheckTDAttributes    CheckID = "td-attributes"
	CheckEventLog        CheckID = "event-log"

	CheckRuntime      CheckID = "paravisor-runtime"
	CheckTPMQuote     CheckID = "paravisor-quote"
	CheckTPMRegisters CheckID = "paravisor-registers"
	CheckReportData   CheckID = "report-data"

	CheckCollateral   CheckID = "collateral-evidence"
	CheckDecision     CheckID = "policy-decision" // only on refusal: the policy's answer as a whole
	CheckTCBCommitted CheckID = "tcb-committed"
)

// Codes of failures that are this package's own.
const (
	CodeRequest           = "request-incomplete"
	CodeTEE               = "tee-unsupported"
	CodeReportData        = "report-data"
	CodeNotReached        = "not-reached"
	CodeTCBCommitted      = "tcb-committed"
	CodeCollateralMissing = "collateral-missing"
	CodeCollateralExpired = "collateral-expired"
	CodeRevoked           = "revoked"
)

// Explanation says what a check is about.
type Explanation struct {
	ID       CheckID
	TEE      string // "" for every TEE
	Expected string // what passes, in general
	Source   string // document and section that asks for it
	Meaning  string // what it protects from
}

// Explain returns the explanations of all checks, in the order of a verdict:
// those of evidence, then the policy's rules.
func Explain() []Explanation {
	var list []Explanation
	for _, id := range []CheckID{
		CheckRequest, CheckTEE, CheckReport, CheckProduct, CheckCertificates, CheckChain, CheckDates,
		CheckSigningKey, CheckEndorsedProduct, CheckEndorsedTCB, CheckEndorsedChip, CheckQESignature, CheckQEBinding,
		CheckSignature, CheckTDAttributes, CheckEventLog, CheckRuntime, CheckTPMQuote, CheckTPMRegisters, CheckReportData,
		CheckCollateral, CheckDecision, CheckTCBCommitted,
	} {
		e := explain(id)
		list = append(list, Explanation{id, e.tee, e.expected, e.source, e.meaning})
	}
	return append(list, explainRules()...)
}

type entry struct{ tee, expected, source, meaning string }

const (
	docABI  = "AMD 56860 (SEV-SNP firmware ABI), "
	docVCEK = "AMD 57230 (VCEK and KDS), "
	docTDX  = "Intel TDX DCAP quoting library API, "
	docPCK  = "Intel SGX PCK certificate and CRL profile, "
	docC8s  = "docs/attestation.md, "

	snpOnly, tdxOnly = "sev-snp", "tdx"
)

// explain is a function, so that nobody can change it.
func explain(id CheckID) entry {
	switch id {
	case CheckRequest:
		return entry{
			"", "evidence, a policy, a role, report data or the word that there is none, and a time", docC8s + "Appraisal",
			"A verifier that was not told what to compare with would accept anything.",
		}
	case CheckTEE:
		return entry{"", "sev-snp or tdx", docC8s + "Evidence", "Evidence of another kind would be read by the wrong rules."}
	case CheckReport:
		return entry{
			"", "a known version, nothing unknown in it", docABI + "ATTESTATION_REPORT; " + docTDX + "quote format",
			"Bits whose meaning is unknown could mean anything. The signature is checked over the bytes received.",
		}
	case CheckProduct:
		return entry{
			snpOnly, "Milan, Genoa or Turin", docABI + "ATTESTATION_REPORT, CPUID fields",
			"TCB and chip id have another layout on every processor line.",
		}
	case CheckCertificates:
		return entry{
			"", "the vendor's chain from the signing key to a root", docVCEK + "certificates; " + docPCK + "certificates",
			"Without its chain a signature proves nothing.",
		}
	case CheckChain:
		return entry{
			"", "every certificate signed by the next, the root by itself", "RFC 5280 section 6.1",
			"A key that the vendor did not certify may belong to anybody. Which root is trusted is the policy's rule root.",
		}
	case CheckDates:
		return entry{"", "all certificates valid at the time of appraisal", "RFC 5280 section 4.1.2.5", "Keys outlive the vendor's word for them."}
	case CheckSigningKey:
		return entry{
			snpOnly, "the kind of key that the report names", docABI + "ATTESTATION_REPORT, SIGNING_KEY",
			"A provider's VLEK speaks for all of its machines, a VCEK for one.",
		}
	case CheckEndorsedProduct:
		return entry{snpOnly, "the product of the report", docVCEK + "productName", "A key of another processor line signed the report."}
	case CheckEndorsedTCB:
		return entry{
			snpOnly, "the reported TCB", docVCEK + "SPL extensions",
			"The patch level is the vendor's word, not the machine's: a key of an old level cannot claim a new one.",
		}
	case CheckEndorsedChip:
		return entry{snpOnly, "the chip id of the report", docVCEK + "hwID", "A report of one machine with the certificate of another."}
	case CheckQESignature:
		return entry{tdxOnly, "the quoting enclave's report, signed by the platform's PCK", docTDX + "QE report", "An enclave that Intel did not certify made the quote."}
	case CheckQEBinding:
		return entry{
			tdxOnly, "SHA-256 of attestation key and authentication data in the QE report", docTDX + "QE report data",
			"The quote's key was not made by the quoting enclave that vouches for it.",
		}
	case CheckSignature:
		return entry{"", "the signing key's, over the bytes received", docABI + "ATTESTATION_REPORT, SIGNATURE; " + docTDX + "quote signature", "The report was changed."}
	case CheckTDAttributes:
		return entry{
			tdxOnly, "no attributes that are unknown", "Intel TDX module ABI, ATTRIBUTES",
			"Bits whose meaning is unknown could weaken the trust domain.",
		}
	case CheckEventLog:
		return entry{
			tdxOnly, "a log that replays to the quote's RTMRs, where there is one", "Intel TDX virtual firmware design guide, CCEL; TCG PC client profile",
			"A log that does not lead to the signed registers tells a story about another boot.",
		}
	case CheckRuntime:
		return entry{
			"", "runtime claims whose hash is REPORT_DATA, where there is a paravisor", "Microsoft, Azure confidential VM guest attestation",
			"The hardware's report would vouch for another paravisor's keys.",
		}
	case CheckTPMQuote:
		return entry{
			"", "a quote by the key of the runtime claims, where there is a paravisor", "TPM 2.0 part 2, TPMS_ATTEST",
			"Registers that the paravisor's TPM did not sign.",
		}
	case CheckTPMRegisters:
		return entry{
			"", "registers whose digest is in the quote, and no others", "TPM 2.0 part 2, TPMS_QUOTE_INFO",
			"A quote over other or no registers says nothing about the guest.",
		}
	case CheckReportData:
		return entry{
			"", "the transcript's hash", docC8s + "Transcript",
			"Evidence made for another key, nonce, session or purpose: a replay or a relay.",
		}
	case CheckCollateral:
		return entry{
			"", "the vendor's revocation lists and, for TDX, TCB info and QE identity: signed, current, naming nothing of this evidence", docVCEK + "CRL; Intel PCS API v4",
			"Revoked keys and outdated platforms. Stale collateral has its own codes: the evidence may be good.",
		}
	case CheckDecision:
		return entry{"", "acceptance", docC8s + "Appraisal", "The policy's answer as a whole; it counts whatever its rules say one by one."}
	case CheckTCBCommitted:
		return entry{
			snpOnly, "both at least the policy's floor", docABI + "COMMITTED_TCB and REPORTED_TCB",
			"Firmware that is not committed can be rolled back by the host.",
		}
	}
	return entry{}
}
