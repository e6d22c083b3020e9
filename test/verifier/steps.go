// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/x509"
	"time"
)

// audit is what is known of one certificate so far.
type audit struct {
	now           time.Time
	beaconAge     time.Duration
	operatorsFile []byte
	documents     *documents
	leaf, issuer  *x509.Certificate

	operators operators   // whom the auditor trusts
	manifests []*manifest // oldest first; the last is in force
	claims    *claims     // of the leaf
	bundle    *bundle     // the CDS's keys
	root      *x509.Certificate
	log       *transparencyLog
	issuance  *entry    // of the leaf
	evidence  *evidence // behind the leaf
	purpose   string    // of that evidence
	deny      *denyList // nil: there is none

	ingress *ingressQuestion // nil: a certificate alone is judged
}

// step is one link of the chain. It says what it found, or what is wrong.
type step struct {
	name, what string
	run        func(*audit) (string, error)
}

// steps are the whole chain. The numbers are those of docs/verify.md.
func steps() []step {
	return []step{
		// 1: what the operators say.
		{"operators", "the operators' file is usable", (*audit).readOperators},
		{"manifests", "each manifest is signed by those the one before it names", (*audit).readManifests},
		{"denylist", "the deny list is signed by the operators", (*audit).readDenyList},
		// 2: what the certificate says.
		{"leaf", "the certificate has the form, name and dates it must have", (*audit).checkLeaf},
		{"leaf-manifest", "it was issued under one of these manifests", (*audit).checkLeafManifest},
		// 3: who the CDS is.
		{"bundle", "the CDS's keys are those of a CDS launched for these operators", (*audit).readBundle},
		{"bundle-evidence", "a measured CDS says that they are its keys", (*audit).checkBundleEvidence},
		{"chain", "leaf, issuer and the CDS's root are a chain", (*audit).checkChain},
		// 4: what the log has.
		{"log", "the log is signed by the CDS, and its entries and tiles are what was signed", (*audit).readLog},
		{"log-bundle", "it begins with the CDS's keys", (*audit).checkLogBundle},
		{"log-policy", "it has every manifest and deny list, in order, up to those in force", (*audit).checkLogPolicy},
		{"log-issuer", "it has the issuer, and the evidence behind it is of a CDS", (*audit).checkLogIssuer},
		{"log-issuance", "it has the certificate, issued under the manifest then in force", (*audit).checkLogIssuance},
		{"witnesses", "as many witnesses cosigned it as the manifest asks for", (*audit).checkWitnesses},
		// 5: what stands behind the certificate.
		{"evidence", "the evidence is the one named, genuine, and made for this certificate", (*audit).checkEvidence},
		{"claims", "the certificate says what the evidence says", (*audit).checkClaims},
		{"accepted-then", "the manifest of the certificate accepts that machine", (*audit).checkAcceptedThen},
		{"accepted-now", "the manifest in force accepts it today", (*audit).checkAcceptedNow},
		// 6: what the CDS says of the operators' word, and who is denied.
		{"countersigned", "the CDS countersigned what is in force", (*audit).checkCountersigned},
		{"denied", "the deny list does not name the certificate or what is behind it", (*audit).checkDenied},
		// 7: how old all this is.
		{"beacon", "the CDS says what time it is", (*audit).checkBeacon},
	}
}
