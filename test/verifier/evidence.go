// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fxamacker/cbor/v2"
)

const typeSNP = "application/vnd.c8s.sev-snp+cbor"

// evidence is a conceptual message wrapper (docs/vectors/README.md).
type evidence struct {
	Type string
	evidenceValue
	hash string

	facts *facts // established by verify
	guest *guest
}

type evidenceRecord struct {
	_         struct{} `cbor:",toarray"`
	Type      string
	Value     []byte
	Indicator uint64
}

type evidenceValue struct {
	Report     []byte          `cbor:"report"`
	Certs      [][]byte        `cbor:"certs,omitempty"`
	Product    string          `cbor:"product,omitempty"`
	EventLog   []byte          `cbor:"eventlog,omitempty"`
	VTPM       cbor.RawMessage `cbor:"vtpm,omitempty"`
	Collateral []collateral    `cbor:"collateral,omitempty"`
}

type collateral struct {
	Kind  string   `cbor:"kind"`
	Body  []byte   `cbor:"body"`
	Certs [][]byte `cbor:"certs,omitempty"`
}

func parseEvidence(b []byte) (*evidence, error) {
	var r evidenceRecord
	e := &evidence{}
	if err := cmp.Or(oneCBOR(b, &r), same("indicator", 4, r.Indicator)); err != nil {
		return nil, err
	}
	if err := oneCBOR(r.Value, &e.evidenceValue); err != nil {
		return nil, err
	}
	e.Type = r.Type
	// Fresher collateral does not make other evidence.
	bare := e.evidenceValue
	bare.Collateral = nil
	value, err := encodeCBOR(bare)
	if err != nil {
		return nil, err
	}
	record, err := encodeCBOR(evidenceRecord{Type: r.Type, Value: value, Indicator: r.Indicator})
	e.hash = digestOf(record)
	return e, err
}

// evidenceDocument is what a CDS serves of evidence: the record, and what it
// commits to (docs/cds.md, "Public documents").
type evidenceDocument struct {
	Evidence   []byte
	Transcript transcript

	evidence *evidence
}

// readEvidence reads it by its hash, which must be its hash.
func (a *audit) readEvidence(hash string) (*evidenceDocument, error) {
	if !isDigest(hash) {
		return nil, &mismatch{"hash of evidence", "a digest", hash}
	}
	text, err := a.documents.get("v1/evidence/" + strings.TrimPrefix(hash, digestPrefix))
	if err != nil {
		return nil, err
	}
	var d evidenceDocument
	if err := strictJSON(text, &d); err != nil {
		return nil, err
	}
	if d.evidence, err = parseEvidence(d.Evidence); err != nil {
		return nil, err
	}
	return &d, same("hash of the evidence", hash, d.evidence.hash)
}

// checkEvidence: genuine, and made for this certificate's key or, for a pod
// that has none of its own, for the key of a node whose certificate is in the
// log too.
func (a *audit) checkEvidence() (string, error) {
	doc, err := a.readEvidence(a.issuance.Evidence)
	if err != nil {
		return "", err
	}
	a.evidence, a.purpose = doc.evidence, doc.Transcript.Purpose
	t := doc.Transcript
	if err := a.evidence.verify(t, a.issuance.at); err != nil {
		return "", err
	}
	spki := sha256.Sum256(a.leaf.RawSubjectPublicKeyInfo)
	role, own := a.claims.Role, same("key", hexOf(spki[:]), hexOf(t.SPKIHash))
	switch {
	case role != "workload":
		return "made for its key", cmp.Or(own, same("purpose", "enrol/"+role, t.Purpose))
	case t.Purpose == "enrol/guest", t.Purpose == "enrol/pod":
		return "made for its key, with a statement about the pod", cmp.Or(own, same("length of the statement's hash", sha256.Size, len(t.ClaimsHash)))
	}
	node, err := a.nodeOf(a.issuance.Evidence)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("its node's, log entry %d; what the node said of the pod, only the CDS has seen", node.index), cmp.Or(
		same("purpose", "enrol/node", t.Purpose),
		must(node.NotAfter >= a.issuance.NotAfter, "end", "not after the node's, "+node.NotAfter, a.issuance.NotAfter))
}

// nodeOf returns the issuance to the node that gave the evidence.
func (a *audit) nodeOf(hash string) (*entry, error) {
	for _, e := range a.log.entries[:a.issuance.index] {
		if e.Type == "issuance" && e.Role == "node" && e.Evidence == hash {
			return e, nil
		}
	}
	return nil, &mismatch{"certificate of the node with this evidence", "a log entry before the pod's", "none"}
}

// checkClaims compares what the certificate says with what was just verified.
func (a *audit) checkClaims() (string, error) {
	if a.evidence.facts == nil {
		return "", undecided("nothing was established about the machine")
	}
	c, f := a.claims, a.evidence.facts
	return fmt.Sprintf("%s %s, machine %.16s…, measurement %.16s…, simulated %v", f.tee, f.product, f.machine, f.measurement, f.simulated), cmp.Or(
		same("TEE", f.tee, c.TEE), same("product", f.product, c.Product), same("paravisor", f.paravisor, c.Paravisor),
		same("simulated", f.simulated, c.Simulated), same("measurement", f.measurement, hexOf(c.Measurement)),
		same("host data", f.hostData, hexOf(c.HostData)), same("TCB", hexOf(f.tcb.bytes()), hexOf(c.TCB)), same("machine", f.machine, c.Machine),
		same("root", f.root, digestPrefix+hexOf(c.Root)), same("collateral", f.collateral, c.Collateral), same("registers", 0, len(c.Registers)))
}

// checkAcceptedThen asks everything, by the manifest and at the time of issue.
// A pod that gave no evidence of its own runs on a node.
func (a *audit) checkAcceptedThen() (string, error) {
	m, err := a.manifestOf(a.issuance.Manifest)
	if err != nil {
		return "", err
	}
	role := a.claims.Role
	if role == "workload" && a.purpose != "enrol/guest" {
		role = "node"
	}
	return m.judged(role, a.evidence, a.evidence.guest, a.issuance.at)
}

// checkAcceptedNow asks what every peer asks on every connection: only what
// the certificate says.
func (a *audit) checkAcceptedNow() (string, error) {
	found, err := a.inForce().judged(a.claims.Role, a.evidence, nil, a.now)
	if err != nil && a.claims.Role == "workload" { // of a node, then
		return a.inForce().judged("node", a.evidence, nil, a.now)
	}
	return found, err
}

// judged is accepts for evidence that may be of a kind that this program does
// not check: then the manifest must at least have a substrate of such a kind.
func (m *manifest) judged(role string, e *evidence, g *guest, at time.Time) (string, error) {
	if e.facts != nil {
		by, err := m.accepts(role, e.facts, g, at)
		return fmt.Sprintf("manifest %d, %s", m.Version, by), err
	}
	if slices.ContainsFunc(m.Substrates, func(s substrate) bool {
		return slices.Contains(s.Roles, role) && (s.SNP == nil || s.Paravisor != "none")
	}) {
		return "", undecided("nothing was established about the machine")
	}
	return "", &mismatch{"evidence for the role " + role, "of a kind that manifest " + fmt.Sprint(m.Version) + " accepts", e.Type}
}
