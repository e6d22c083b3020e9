// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/c8s-dev/c8s/attest"
	cds "github.com/c8s-dev/c8s/cds/client"
	"github.com/c8s-dev/c8s/cds/translog"
	"github.com/c8s-dev/c8s/cds/trust"
	"github.com/c8s-dev/c8s/client/proof"
	"github.com/c8s-dev/c8s/policy"
)

func refusal(code, expected, actual, remedy string) error {
	return attest.NewFailure(code, expected, actual, remedy)
}

// cds takes the keys that the CDS signs with, from evidence that the manifest in
// force accepts.
func (v *reading) cds(context.Context) error {
	const expected = "evidence of a machine that the manifest accepts as CDS, launched for the operators"
	b, m := &v.endorsement.Bundle, v.w.manifest.Manifest
	if b.TrustDomain != m.TrustDomain {
		return v.r.refute(StepCDS, expected, refusal(trust.CodeTrustDomain, m.TrustDomain, b.TrustDomain, ""))
	}
	verdict, err := v.endorsement.Appraise(m, v.c.cfg.Now())
	if err != nil {
		return v.r.refute(StepCDS, expected, err)
	}
	bound := ""
	for _, hex := range v.w.operators {
		if trust.DigestBound(verdict.HostData, hex) {
			bound = hex
		}
	}
	if bound == "" || b.Operators != bound {
		return v.r.refute(StepCDS, expected, refusal(trust.CodeNotOperators, "the digest of the operators in HOST_DATA and in the bundle", verdict.HostData+", "+b.Operators, "this CDS was launched for other operators: do not use it"))
	}
	if err := recognise(v.known, b.Digest(), m.Version); err != nil {
		return v.r.refute(StepMemory, "the CDS that was seen before", err)
	}
	v.w.bundle, v.verdict = b, verdict
	v.r.proven(StepCDS, expected, "measurement %s, substrate %q, keys %s", verdict.Measurement, verdict.Substrate, b.Digest())
	v.hardware(StepCDSTEE, verdict)
	return nil
}

// hardware says what the evidence's signature is worth.
func (v *reading) hardware(step string, verdict *attest.Verdict) {
	const expected = "evidence signed up to a vendor's root, with collateral that was checked"
	switch {
	case verdict.Simulated:
		v.r.open(step, CodeSimulated, expected, fmt.Sprintf("%s %s, SIMULATED: signed by a root made for development", verdict.TEE, verdict.Product), "it proves nothing: run on machines with a TEE")
	case !verdict.Collateral:
		v.r.open(step, CodeNoCollateral, expected, fmt.Sprintf("%s %s, root %s; the manifest asks for no collateral", verdict.TEE, verdict.Product, verdict.Root), "have the manifest require collateral")
	default:
		v.r.proven(step, expected, "%s %s, machine %s, root %s", verdict.TEE, verdict.Product, verdict.Machine, verdict.Root)
	}
}

// inForce takes the CDS's word for what is in force, and since when.
func (v *reading) inForce(ctx context.Context) error {
	const expected = "the CDS's countersignature: verified, logged and in force"
	w := v.w
	c, err := v.get.Countersignature(ctx, w.bundle, trust.ManifestSubject(w.manifest))
	if err != nil {
		return v.r.refute(StepInForce, expected, err)
	}
	w.manifestSince = time.Unix(c.Time, 0)
	v.r.proven(StepInForce, expected, "since %s, log entry %d", w.manifestSince.UTC().Format(time.RFC3339), c.LogIndex)
	return nil
}

// denied reads the deny list, and asks it about the CDS.
func (v *reading) denied(ctx context.Context) error {
	const expected = "a deny list signed by the operators and countersigned, or none"
	w := v.w
	list, c, err := v.get.DenyList(ctx, w.bundle, w.manifest.Manifest)
	if err != nil {
		return v.r.refute(StepDenyList, expected, err)
	}
	now := proof.Followed{}
	if list != nil {
		w.denyList, w.denyListSince = list, time.Unix(c.Time, 0)
		now = proof.Followed{Version: list.List.Version, Digest: list.Digest}
		v.r.DenyList = &now
		if list.List.TrustDomain != w.manifest.Manifest.TrustDomain {
			return v.r.refute(StepDenyList, expected, refusal(trust.CodeTrustDomain, w.manifest.Manifest.TrustDomain, list.List.TrustDomain, ""))
		}
	}
	if v.known != nil {
		if err := notOlder("deny list", v.known.DenyList, now); err != nil {
			return v.r.refute(StepMemory, "what was seen before", err)
		}
	}
	if list == nil {
		v.r.proven(StepDenyList, expected, "none")
		return nil
	}
	if err := list.List.Denies(policy.Holder{Machine: v.verdict.Machine, Measurement: v.verdict.Measurement}).Err(); err != nil {
		return v.r.refute(StepDenyList, "a CDS that is not on it", err)
	}
	v.r.proven(StepDenyList, expected, "version %d since %s, %s", now.Version, w.denyListSince.UTC().Format(time.RFC3339), now.Digest)
	return nil
}

// log checks that the log is this CDS's, and the one that was seen before.
func (v *reading) log(ctx context.Context) error {
	const expected = "a log that begins with these keys and extends what was seen before"
	auditor, err := v.get.Auditor(v.w.bundle)
	if err != nil {
		return v.r.refute(StepLog, expected, err)
	}
	latest, signed, err := auditor.Latest(ctx)
	if err == nil {
		err = v.extends(ctx, auditor, latest)
	}
	if err != nil {
		return v.r.refute(StepLog, expected, err)
	}
	v.checkpoint, v.size = string(signed), latest.Size
	v.r.proven(StepLog, expected, "%d entries, root %s", latest.Size, latest.Root)
	return nil
}

func (v *reading) extends(ctx context.Context, a *translog.Auditor, latest *translog.Checkpoint) error {
	if v.known == nil || v.known.CDS != v.w.bundle.Digest() {
		return cds.OwnLog(ctx, a, *latest, v.w.bundle)
	}
	verifier, err := v.w.bundle.LogVerifier()
	if err != nil {
		return err
	}
	before, err := translog.OpenCheckpoint([]byte(v.known.Checkpoint), verifier.Name(), verifier)
	if err != nil {
		return err
	}
	older, newer := *before, *latest
	if older.Size > newer.Size { // another replica may have been ahead; but it must be the same log
		older, newer = newer, older
	}
	err = a.Consistent(ctx, older, newer)
	if errors.Is(err, translog.ErrForked) {
		return refusal(CodeForked, "a log that extends the one seen before", err.Error(), "the log has two histories: keep this machine's state folder, it is the proof")
	}
	return err
}

// witnesses counts who cosigned the very log.
func (v *reading) witnesses(ctx context.Context) error {
	m := v.w.manifest.Manifest
	expected := fmt.Sprintf("%d witnesses that cosigned this log", m.WitnessQuorum)
	if m.WitnessQuorum == 0 {
		v.r.open(StepWitnesses, CodeNoWitnesses, "witnesses that cosign the log", "the manifest asks for none: different parties may be shown different logs", "have the operators name witnesses and a witnessQuorum")
		return nil
	}
	raw, err := v.get(ctx, "/log/checkpoint.cosigned")
	if errors.Is(err, fs.ErrNotExist) {
		v.r.open(StepWitnesses, CodeUnwitnessed, expected, "nobody cosigned it", "find out which witnesses are down")
		return nil
	}
	if err != nil {
		return v.r.refute(StepWitnesses, expected, err)
	}
	auditor, err := v.get.Auditor(v.w.bundle)
	if err != nil {
		return v.r.refute(StepWitnesses, expected, err)
	}
	verifier, err := v.w.bundle.LogVerifier()
	if err != nil {
		return v.r.refute(StepWitnesses, expected, err)
	}
	latest, err := translog.OpenCheckpoint([]byte(v.checkpoint), verifier.Name(), verifier)
	if err != nil {
		return v.r.refute(StepWitnesses, expected, err)
	}
	c, by, err := cds.Cosigned(ctx, auditor, verifier, raw, *latest, m)
	if err != nil {
		return v.r.refute(StepWitnesses, expected, err)
	}
	if len(by) < m.WitnessQuorum {
		v.r.open(StepWitnesses, CodeUnwitnessed, expected, fmt.Sprintf("%d cosigned the first %d entries", len(by), c.Size), "find out which witnesses are down")
		return nil
	}
	v.r.proven(StepWitnesses, expected, "%d cosigned the first %d entries", len(by), c.Size)
	return nil
}

// remember keeps what was verified, if nothing newer is known by now.
func (v *reading) remember(context.Context) error {
	const expected = "nothing older than what was seen before"
	m := v.w.manifest
	next := seen{
		Schema: memorySchema, TrustDomain: m.Manifest.TrustDomain, Anchor: v.c.cfg.Anchor.id(), Operators: v.w.operators,
		Manifest: proof.Followed{Version: m.Manifest.Version, Digest: m.Digest},
		CDS:      v.w.bundle.Digest(), MetAt: m.Manifest.Version, Checkpoint: v.checkpoint, Size: v.size,
	}
	if l := v.w.denyList; l != nil {
		next.DenyList = proof.Followed{Version: l.List.Version, Digest: l.Digest}
	}
	if err := v.c.keep(next); err != nil {
		return v.r.refute(StepMemory, expected, err)
	}
	if v.known == nil {
		v.r.proven(StepMemory, expected, "first contact with %s", m.Manifest.TrustDomain)
		return nil
	}
	v.r.proven(StepMemory, expected, "manifest %d and %d log entries were seen before", v.known.Manifest.Version, v.known.Size)
	return nil
}
