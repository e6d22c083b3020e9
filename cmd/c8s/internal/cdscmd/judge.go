// SPDX-License-Identifier: Apache-2.0

package cdscmd

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/appraise"
	"github.com/c8s-dev/c8s/attest/ratls"
	"github.com/c8s-dev/c8s/cds/api"
	"github.com/c8s-dev/c8s/cds/client"
	"github.com/c8s-dev/c8s/cds/trust"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/attestcmd"
	"github.com/c8s-dev/c8s/policy"
)

// judge asks a CDS for everything it can prove.
type judge struct {
	p           *probe
	operators   policy.Operators
	signed      *policy.Signed // nil: not given
	measurement string         // empty: not given
	now         time.Time
	r           *Report

	bundle  *trust.Bundle
	inForce *policy.Signed // nil: not known
	stale   bool           // nothing but collateral is wrong; nodes refuse that
}

// all stops where a layer is refuted on which the others rest. The error says
// that the CDS could not be asked.
func (j *judge) all(ctx context.Context) error {
	defer j.r.conclude()
	if err := j.evidence(); err != nil {
		j.r.add("connection", Refuted, err.Error(), "")
		return nil
	}
	if j.r.refuted() {
		return nil
	}
	for _, layer := range []func(context.Context) error{j.keys, j.log, j.manifest, j.witnesses, j.beacon, j.ready} {
		if err := layer(ctx); err != nil {
			return err
		}
	}
	return nil
}

// evidence judges what the certificate carries: first what needs no reference
// values, then those.
func (j *judge) evidence() error {
	ev, data, err := ratls.NativeEvidence(j.p.leaf, api.PurposeServer, j.now)
	if err != nil {
		return err
	}
	j.r.proven("connection", "TLS 1.3 with %s, a certificate with evidence of %d bytes", j.p.addr, len(ev.Report))
	_, genuine := appraise.Propose(ev, appraise.Request{Role: policy.RoleCDS, Now: j.now, ReportData: data})
	j.r.Evidence = genuine
	j.hardware(genuine)
	j.hostData(genuine)
	if j.r.refuted() {
		return nil
	}
	verdict := genuine
	if j.signed != nil {
		verdict = appraise.Appraise(ev, appraise.Request{Policy: j.signed.Manifest, Role: policy.RoleCDS, Now: j.now, ReportData: data})
		j.r.Evidence = verdict
	}
	j.referenceValues(verdict)
	j.collateral(verdict)
	return nil
}

func (j *judge) hardware(v *attest.Verdict) {
	const bound = string(appraise.CheckReportData)
	var failed *attest.Check
	session := "" // why the session's key is not proven
	for i, c := range v.Checks {
		switch ok := c.Status == attest.Pass || c.Status == attest.NotApplicable; {
		case c.ID == bound && !ok:
			session = c.Actual
		case !ok && failed == nil:
			failed = &v.Checks[i]
		}
	}
	switch {
	case failed != nil:
		j.r.add("hardware", Refuted, fmt.Sprintf("check %s: expected %s, found %s", failed.ID, failed.Expected, failed.Actual), failed.Remedy)
	case v.Simulated:
		j.r.add("hardware", Missing, fmt.Sprintf("%s %s, SIMULATED: signed by a root made for development (%s)", v.TEE, v.Product, v.Root), "it proves nothing; run the CDS on a machine with a TEE")
	case attestcmd.VendorOf(v.Root) == "":
		j.r.add("hardware", Missing, fmt.Sprintf("%s %s, signed up to %s, which is no vendor's root that this program knows", v.TEE, v.Product, v.Root), "anybody can make a root: compare it with what the vendor publishes")
	default:
		j.r.proven("hardware", "%s %s, machine %s, root of %s", v.TEE, v.Product, v.Machine, attestcmd.VendorOf(v.Root))
	}
	if session != "" {
		j.r.add("session-key", Refuted, "the evidence is for another key or purpose: "+session, "somebody may be in between")
	} else {
		j.r.proven("session-key", "the evidence is for the key of this connection, and its dates")
	}
}

func (j *judge) hostData(v *attest.Verdict) {
	want := j.operators.Digest()
	if !trust.OperatorsBound(v.HostData, j.operators) {
		j.r.add("operators", Refuted, fmt.Sprintf("HOST_DATA is %s, the digest of your operators is %s", v.HostData, hex.EncodeToString(want[:])), "it was launched for other operators: launch the CDS with the digest of yours")
		return
	}
	j.r.proven("operators", "HOST_DATA is the digest of your operators (%d of %d must sign)", j.operators.Threshold, len(j.operators.Keys))
}

func (j *judge) referenceValues(v *attest.Verdict) {
	const name = "reference-values"
	switch err := v.Err(); {
	case j.measurement != "" && v.Measurement != j.measurement:
		j.r.add(name, Refuted, fmt.Sprintf("the measurement is %s, expected %s", v.Measurement, j.measurement), "another program runs there")
	case j.signed != nil && err != nil && appraise.OnlyStale(v):
		j.stale = true
		j.r.add(name, Missing, fmt.Sprintf("measurement %s, substrate %q of manifest %d, but for what rests on collateral", v.Measurement, v.Substrate, j.signed.Manifest.Version), "")
	case j.signed != nil && err != nil:
		j.r.add(name, Refuted, err.Error(), fmt.Sprintf("manifest %d does not accept this machine as a CDS", j.signed.Manifest.Version))
	case j.signed != nil:
		j.r.proven(name, "measurement %s, substrate %q of manifest %d", v.Measurement, v.Substrate, j.signed.Manifest.Version)
	case j.measurement != "":
		j.r.add(name, Missing, "the measurement is the expected one; TCB, guest policy and the rest are not judged", "give --manifest")
	default:
		j.r.add(name, Missing, "the measurement is "+v.Measurement+": nothing was given to compare it with", "give --manifest, or --measurement with what 'c8s measure' says of your build")
	}
}

func (j *judge) collateral(v *attest.Verdict) {
	const name = "collateral"
	if v.Collateral {
		j.r.proven(name, "the vendor's collateral is current and speaks against nothing")
		return
	}
	found := "no collateral came with the evidence"
	for _, c := range v.Checks {
		if c.ID == string(appraise.CheckCollateral) {
			found = c.Actual
		}
	}
	j.r.add(name, Missing, "revocation and TCB were not checked: "+found, "start the CDS with --collateral-dir, and have the manifest require collateral")
}

// keys takes the CDS's public keys.
func (j *judge) keys(ctx context.Context) error {
	const name = "keys"
	raw, err := j.p.get(ctx, "/v1/endorsement")
	if err != nil {
		return j.unavailable(name, err)
	}
	e, err := trust.ParseEndorsement(raw)
	if err != nil {
		j.r.add(name, Refuted, err.Error(), "")
		return nil
	}
	digest := j.operators.Digest()
	if want := hex.EncodeToString(digest[:]); e.Bundle.Operators != want {
		j.r.add(name, Refuted, fmt.Sprintf("the keys are said to be for the operators %s, yours are %s", e.Bundle.Operators, want), "")
		return nil
	}
	j.bundle = &e.Bundle
	if j.signed == nil {
		j.r.add(name, Missing, fmt.Sprintf("%s, log key %s: said on this connection", j.bundle.Digest(), j.bundle.Log), "give --manifest to judge the evidence that vouches for them")
		return nil
	}
	if j.stale {
		return j.resting(name, "collateral")
	}
	if v, err := e.Verify(j.signed.Manifest, j.operators, j.now); err != nil {
		state := Refuted
		if v != nil && appraise.OnlyStale(v) {
			state = Missing
		}
		j.r.add(name, state, err.Error(), "")
		return nil
	}
	j.r.proven(name, "%s, log key %s", j.bundle.Digest(), j.bundle.Log)
	return nil
}

// unavailable says that a CDS does not give what a layer needs. What it says of
// itself is a layer that is missing; a connection that broke is an error.
func (j *judge) unavailable(name string, err error) error {
	var refused *client.RefusedError
	if !errors.As(err, &refused) {
		return fmt.Errorf("asking the CDS at %s: %w", j.p.addr, err)
	}
	j.r.add(name, Missing, "the CDS answers "+refused.Code, "see docs/cds.md for the code, and the CDS's log for the reason; a CDS that waits for recovery shares has no keys yet")
	return nil
}
