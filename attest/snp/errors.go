// SPDX-License-Identifier: Apache-2.0

package snp

// Codes of refusals. Each is the Code of an *attest.Failure.
const (
	// The report.
	CodeReportFormat   = "report-format"         // not 1,184 bytes
	CodeReportVersion  = "report-version"        // none of 2 to 5
	CodeReportReserved = "report-reserved"       // a reserved byte is not zero
	CodeAlgorithm      = "report-algorithm"      // not ECDSA P-384 with SHA-384
	CodePolicyBits     = "guest-policy-unknown"  // a guest policy bit without a known meaning
	CodePlatformBits   = "platform-info-unknown" // a platform bit without a known meaning
	CodeSigningKey     = "signing-key"           // signed by neither VCEK nor VLEK, or not by the kind of the chain's leaf
	CodeSignature      = "signature"             // the leaf's key did not sign these bytes

	// The product and its TCB layout.
	CodeProductUnknown  = "product-unknown"  // not Milan, Genoa or Turin
	CodeProductMismatch = "product-mismatch" // report, certificate and hint name different products
	CodeTCBReserved     = "tcb-reserved"     // a part of a TCB_VERSION that the product does not have

	// The certificates.
	CodeCertTable      = "cert-table"            // the host's table is malformed
	CodeCertificates   = "certificates-missing"  // not leaf, intermediate and root
	CodeCertificate    = "certificate-format"    // not an X.509 certificate, or too large
	CodeEndorsement    = "endorsement-format"    // AMD's extensions are missing, unknown or malformed
	CodeChain          = "chain"                 // signature, key, name or use of a certificate
	CodeChainExpired   = "chain-expired"         // outside the validity of a certificate
	CodeEndorsedTCB    = "endorsement-tcb"       // the leaf is for another TCB than the reported one
	CodeEndorsedChip   = "endorsement-chip"      // the leaf is of another chip, or the report names none
	CodeNoEndorsedChip = "endorsement-chip-none" // the leaf is a VLEK, which endorses no chip

	// Revocation. CodeCRLExpired means stale collateral; it says nothing bad
	// about the evidence.
	CodeCRL        = "collateral-format"    // not a complete revocation list with both dates
	CodeCRLIssuer  = "collateral-signature" // not signed by the chain's ARK
	CodeCRLExpired = "collateral-expired"   // outside thisUpdate to nextUpdate
	CodeRevoked    = "revoked"              // a certificate of the chain is on the list
)
