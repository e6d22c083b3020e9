// SPDX-License-Identifier: Apache-2.0

package policy

import "time"

// AppraisalSchema is the schema of an AppraisalPolicy.
const AppraisalSchema = "c8s.dev/appraisal-policy/v1"

// AppraisalPolicy is the part of a manifest about machines, alone: for whoever
// verifies evidence without being in the mesh. It is not signed; whoever uses it
// says where it came from. One built by hand answers with a refusal.
type AppraisalPolicy struct {
	Schema     string      `json:"schema"`     // AppraisalSchema
	Production bool        `json:"production"` // as in a manifest
	Substrates []Substrate `json:"substrates"`

	roles roles // by ParseAppraisalPolicy only
}

// ParseAppraisalPolicy reads an appraisal policy as strictly as Parse does a
// manifest. The error is an *InvalidError with every problem found.
func ParseAppraisalPolicy(b []byte) (*AppraisalPolicy, error) {
	const doing = "parsing the appraisal policy"
	r := &report{}
	root := parseTree(b, MaxPayload, r)
	if root == nil {
		return nil, r.err(doing)
	}
	f := object(root, "$", r)
	p := &AppraisalPolicy{Schema: f.text("schema"), Production: f.truth("production"), Substrates: readSubstrates(f)}
	f.done()
	if err := r.err(doing); err != nil {
		return nil, err
	}
	if p.Schema != AppraisalSchema {
		r.add(CodeSchema, "$.schema", quote(AppraisalSchema), quote(p.Schema), "")
	}
	validateSubstrates(p.Substrates, p.Production, r)
	if err := r.err("checking the appraisal policy"); err != nil {
		return nil, err
	}
	p.roles = indexRoles(p.Substrates)
	return p, nil
}

// AcceptSubstrate is Manifest.AcceptSubstrate for the policy's substrates.
func (p *AppraisalPolicy) AcceptSubstrate(role Role, facts SubstrateFacts, guest GuestFacts, now time.Time) SubstrateMatch {
	if p == nil || p.roles == nil {
		return SubstrateMatch{Decision: undecided()}
	}
	return p.roles.accept(role, facts, guest, now)
}

// EncodeAppraisalPolicy writes p as ParseAppraisalPolicy reads it.
func EncodeAppraisalPolicy(p *AppraisalPolicy) ([]byte, error) {
	if p == nil {
		return nil, undecided()
	}
	plain := *p
	plain.Substrates = filledSubstrates(p.Substrates)
	return encode("encoding the appraisal policy", plain, func(b []byte) error { _, err := ParseAppraisalPolicy(b); return err })
}
