// SPDX-License-Identifier: Apache-2.0

package tdx

// Codes of refusals. Each is the Code of an *attest.Failure.
const (
	// The quote.
	CodeQuoteFormat    = "quote-format"    // lengths that do not fit each other or the bytes
	CodeQuoteVersion   = "quote-version"   // neither 4 nor 5, or a body of an unknown type
	CodeQuoteReserved  = "quote-reserved"  // a reserved byte is not zero
	CodeQuoteAlgorithm = "quote-algorithm" // the attestation key is not ECDSA P-256
	CodeQuoteTEE       = "quote-tee"       // not a quote of a TD
	CodeQuoteVendor    = "quote-vendor"    // not a quote of Intel's quoting enclave
	CodeQuotePadding   = "quote-padding"   // bytes other than zero after the quote, or too many
	CodeCertification  = "quote-certification-data"

	// The signatures of the quote.
	CodeQuoteSignature = "quote-signature"     // the attestation key did not sign these bytes
	CodeQEReport       = "qe-report-signature" // the PCK did not sign the quoting enclave's report
	CodeQEBinding      = "qe-binding"          // the quoting enclave vouches for another attestation key

	// The PCK certificate chain.
	CodeCertificates = "certificates-missing" // not PCK, PCK CA and root
	CodeCertificate  = "certificate-format"   // not PEM of X.509 certificates, or too large
	CodeEndorsement  = "endorsement-format"   // Intel's SGX extensions are missing, unknown or malformed
	CodeChain        = "chain"                // signature, key, name or use of a certificate
	CodeChainExpired = "chain-expired"        // outside the validity of a certificate
	CodeRevoked      = "revoked"              // a certificate of the PCK chain is on a list of its issuer

	// Collateral. None of these says anything bad about the evidence.
	CodeCollateralMissing   = "collateral-missing"   // a piece is not there, or is for another platform
	CodeCollateralFormat    = "collateral-format"    // malformed, of an unknown version, or too large
	CodeCollateralSignature = "collateral-signature" // not signed under the root of the PCK chain
	CodeCollateralExpired   = "collateral-expired"   // outside its dates
	CodeCollateralRevoked   = "collateral-revoked"   // the certificate that signs collateral is revoked

	// The TCB.
	CodeTDXModule  = "tdx-module"        // the TDX module is none that Intel names
	CodeQEIdentity = "qe-identity"       // the quoting enclave is not Intel's
	CodeTCBUnknown = "tcb-level-unknown" // below every level Intel lists

	// The event log.
	CodeEventLog = "event-log-format" // malformed, or not of SHA-384
	CodeReplay   = "event-log-replay" // the log does not give the register's value
)
