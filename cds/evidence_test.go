// SPDX-License-Identifier: Apache-2.0

package cds

import (
	"crypto/sha256"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/policy"
)

func TestEvidenceIsBoundedPerMachineAndForgottenInTime(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	s := newEvidenceStore(func() time.Time { return now })
	known := func(hash [sha256.Size]byte) bool {
		_, err := s.judge(hash, &policy.Signed{}, func(*attest.Evidence, [64]byte) *attest.Verdict { return &attest.Verdict{} })
		return err == nil
	}
	keep := func(machine string, n byte) [sha256.Size]byte {
		return s.keep(machine, &attest.Evidence{TEE: attest.TEESEVSNP, Report: []byte(machine + string(rune(n)))}, [64]byte{}, time.Hour)
	}
	other := keep("quiet", 0)
	first := keep("busy", 0)
	for n := range byte(maxPerMachine) {
		keep("busy", n+1)
	}
	if known(first) {
		t.Errorf("more than %d pieces of one machine are kept", maxPerMachine)
	}
	if !known(other) {
		t.Error("a busy machine pushed out another's evidence")
	}
	now = now.Add(time.Hour)
	if known(other) {
		t.Error("evidence is used past its time")
	}
	last := keep("busy", 99)
	if !known(last) || len(s.of["busy"]) != 1 {
		t.Errorf("%d pieces of busy are kept, want the last alone", len(s.of["busy"]))
	}
}
