// SPDX-License-Identifier: Apache-2.0

package attest

// CollateralKind names a sort of endorsement that comes from the vendor's
// servers, not from the machine.
type CollateralKind string

// The kinds. Each says of itself what it is for (issuer, FMSPC), is signed by
// the vendor, and has dates.
const (
	AMDCRL          CollateralKind = "amd-crl"           // Body: DER, by the ARK
	IntelTCBInfo    CollateralKind = "intel-tcb-info"    // Body: JSON {tcbInfo, signature}; Certs: signer, root
	IntelQEIdentity CollateralKind = "intel-qe-identity" // Body: JSON {enclaveIdentity, signature}; Certs: signer, root
	IntelPCKCRL     CollateralKind = "intel-pck-crl"     // Body: DER, by the PCK CA; Certs: PCK CA, root
	IntelRootCRL    CollateralKind = "intel-root-crl"    // Body: DER, by the root
)

// Collateral is one such endorsement, byte for byte as the vendor published it.
// It is trusted for its signature and dates only, so it does not matter who
// brings it: it may be stapled to evidence.
type Collateral struct {
	Kind  CollateralKind
	Body  []byte
	Certs [][]byte // DER, signer first; empty where the evidence's own chain signs
}

// Caps on collateral from the network. Intel's TCB info has up to 20 KB, its
// CRLs grow slowly.
const (
	MaxCollateral     = 12       // items beside one piece of evidence
	MaxCollateralBody = 64 << 10 // bytes
)
