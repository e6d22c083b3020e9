// SPDX-License-Identifier: Apache-2.0

// Package proof holds the documents by which an ingress shows what it is, and
// the one way to judge them. Its invariant: nothing that an ingress says is
// believed unless a TEE that the operators accept committed to exactly these
// bytes, after a moment that the CDS signed, for the very TLS key that the
// caller's connection ends at. docs/proof.md has the formats byte by byte.
//
// It does no I/O and knows no time: whoever verifies brings the manifest, the
// deny list and the CDS's keys, each verified before.
package proof

import "time"

// The places of an ingress's documents, on every host it serves.
const (
	PathDiscovery   = "/.well-known/c8s"
	PathAttestation = PathDiscovery + "/attestation"
	PathCDS         = PathDiscovery + "/cds" // the CDS's own paths follow
	PathStatus      = PathDiscovery + "/status"
)

// The schemas, which are the only ones that are read.
const (
	StatementSchema   = "c8s.dev/ingress-statement/v1"
	AttestationSchema = "c8s.dev/ingress-attestation/v1"
	DiscoverySchema   = "c8s.dev/ingress-discovery/v1"
)

// DefaultMaxAge is how old a proof's beacon may be for most clients. Proofs are
// made every minute.
const DefaultMaxAge = 5 * time.Minute

// The sizes of nonces, in bytes.
const (
	MinNonce = 16
	MaxNonce = 64
)

// Codes of refusals. Those of beacon, chain, manifest, deny list and evidence
// are passed on as their packages have them.
const (
	CodeMalformed       = "proof-malformed"
	CodeTrustDomain     = "proof-trust-domain"
	CodeRole            = "proof-role"
	CodeCertificate     = "proof-certificate"
	CodeReceipt         = "proof-receipt"
	CodeMachine         = "proof-machine"
	CodeManifest        = "proof-manifest"
	CodeManifestBehind  = "proof-manifest-behind"
	CodeManifestAhead   = "proof-manifest-ahead"
	CodeDenyList        = "proof-denylist"
	CodeDenyListBehind  = "proof-denylist-behind"
	CodeDenyListAhead   = "proof-denylist-ahead"
	CodeKey             = "proof-key"
	CodeHost            = "proof-host"
	CodeNonce           = "proof-nonce"
	CodeSimulated       = "proof-simulated"     // of an open step
	CodeCollateral      = "proof-no-collateral" // of an open step
	CodeAgainst         = "proof-incomplete-question"
	CodeDiscoveryFormat = "proof-discovery-malformed"
)
