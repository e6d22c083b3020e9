// SPDX-License-Identifier: Apache-2.0

package snp

import (
	"crypto/ecdsa"
	"crypto/sha512"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
)

// Compose writes r in the layout that ParseReport reads and signs it with key,
// as firmware does with a VCEK or VLEK. Only a simulator has such a key.
func (r *Report) Compose(random io.Reader, key *ecdsa.PrivateKey) ([]byte, error) {
	b := make([]byte, ReportSize)
	le := binary.LittleEndian
	le.PutUint32(b[offVersion:], r.Version)
	le.PutUint32(b[offGuestSVN:], r.GuestSVN)
	le.PutUint64(b[offPolicy:], r.Policy)
	le.PutUint32(b[offVMPL:], r.VMPL)
	le.PutUint32(b[offAlgorithm:], algorithmP384)
	le.PutUint64(b[offPlatform:], r.PlatformInfo)
	flags := uint32(r.SigningKey) << flagSigningKey
	if r.AuthorKeyUsed {
		flags |= flagAuthorKey
	}
	if r.MaskChipKey {
		flags |= flagMaskChipKey
	}
	le.PutUint32(b[offFlags:], flags)
	if r.Version >= cpuidVersion {
		copy(b[offFamily:], []byte{r.CPUID.Family, r.CPUID.Model, r.CPUID.Stepping})
	}
	copy(b[offCurrentVer:], []byte{r.CurrentVersion.Build, r.CurrentVersion.Minor, r.CurrentVersion.Major})
	copy(b[offCommitVer:], []byte{r.CommittedVersion.Build, r.CommittedVersion.Minor, r.CommittedVersion.Major})
	if r.Version >= mitigationVersion {
		le.PutUint64(b[offMitigation:], r.Mitigations[0])
		le.PutUint64(b[offMitigation+8:], r.Mitigations[1])
	}
	for _, f := range r.byteFields() {
		copy(b[f.offset:], f.value)
	}
	return b, sign(b, random, key)
}

func sign(report []byte, random io.Reader, key *ecdsa.PrivateKey) error {
	digest := sha512.Sum384(report[:signedSize])
	r, s, err := ecdsa.Sign(random, key, digest[:])
	if err != nil {
		return fmt.Errorf("signing a report: %w", err)
	}
	for i, v := range [][]byte{r.FillBytes(make([]byte, scalarSize)), s.FillBytes(make([]byte, scalarSize))} {
		slices.Reverse(v)
		copy(report[offSignature+i*fieldSize:], v)
	}
	return nil
}
