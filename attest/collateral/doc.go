// SPDX-License-Identifier: Apache-2.0

// Package collateral fetches, keeps and carries what vendors publish beside
// evidence: AMD's certificates and CRLs, Intel's TCB info, QE identity and
// CRLs. Its invariant: what it returns is byte for byte what was published for
// exactly that request, or at least claims to be, and whatever cannot be read
// as that is never returned and never kept.
//
// It judges nothing. Only self-consistency is checked here: that a body parses
// as what it is said to be and names the product, chip, FMSPC or CA that was
// asked for. Signatures, revocation and dates are the verifier's, so that the
// same code decides whoever brought the collateral: this package, a bundle, or
// the peer that stapled it. An item beyond its next update is returned, with
// its dates, when no newer one can be had: whether that is too old is policy.
//
// Nothing here holds secrets. Requests do tell the vendor which chips are used;
// a mirror (see Endpoints) or a Bundle avoids that.
package collateral

import "github.com/c8s-dev/c8s/attest"

// The stable codes of this package's refusals.
const (
	CodeRequest         = "collateral-request"          // cannot be asked for
	CodeThrottled       = "collateral-throttled"        // the server wants a pause longer than the caller has
	CodeUnreachable     = "collateral-unreachable"      // no usable answer from the server
	CodeNotFound        = "collateral-not-found"        // the server says there is no such thing
	CodeStatus          = "collateral-status"           // the server refuses the request
	CodeTooLarge        = "collateral-too-large"        // above a cap
	CodeRedirect        = "collateral-redirect"         // the server points elsewhere
	CodeContent         = "collateral-content"          // is not what was asked for
	CodeIssuerChain     = "collateral-issuer-chain"     // certificates of an issuer cannot be read
	CodeMissing         = "collateral-missing"          // an offline source does not have it
	CodeStore           = "collateral-store"            // the folder of a store cannot be used
	CodeBundleFormat    = "collateral-bundle-format"    // not a bundle
	CodeBundleSignature = "collateral-bundle-signature" // not signed by those who are trusted
	CodeFile            = "collateral-file"             // a file that is no collateral
	CodeEvidence        = "collateral-evidence"         // evidence that does not say what it needs
	CodeLimit           = "collateral-limit"            // no more fits beside the evidence
)

func fail(code, expected, actual, remedy string) error {
	return attest.NewFailure(code, expected, actual, remedy)
}

const maxQuoted = 96

// short keeps an untrusted value from filling a message.
func short(s string) string {
	if len(s) > maxQuoted {
		return s[:maxQuoted] + "…"
	}
	return s
}
