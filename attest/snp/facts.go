// SPDX-License-Identifier: Apache-2.0

package snp

import "github.com/c8s-dev/c8s/policy"

// Bits of the guest policy (56860, "Guest Policy"). The ABI version is in bits
// 15 to 0.
const (
	PolicySMT              = 1 << 16
	policyReserved         = 1 << 17 // always one
	PolicyMigration        = 1 << 18
	PolicyDebug            = 1 << 19
	PolicySingleSocket     = 1 << 20
	PolicyCXL              = 1 << 21
	PolicyAES256XTS        = 1 << 22
	PolicyRAPLDisabled     = 1 << 23
	PolicyCiphertextHiding = 1 << 24
	PolicyPageSwapDisabled = 1 << 25
	policyKnownBits        = 1<<26 - 1
)

// Bits of PLATFORM_INFO (56860, ATTESTATION_REPORT). Bit 6 is reserved.
const (
	platformSMT              = 1 << 0
	platformTSME             = 1 << 1
	platformECC              = 1 << 2
	platformRAPLDisabled     = 1 << 3
	platformCiphertextHiding = 1 << 4
	platformAliasCheck       = 1 << 5
	platformTIO              = 1 << 7

	platformKnownBits = platformSMT | platformTSME | platformECC | platformRAPLDisabled |
		platformCiphertextHiding | platformAliasCheck | platformTIO
)

// Debug reports whether the host may read the guest's memory.
func (r *Report) Debug() bool { return r.Policy&PolicyDebug != 0 }

// Migration reports whether a migration agent may move the guest.
func (r *Report) Migration() bool { return r.Policy&PolicyMigration != 0 }

// SMT reports whether the guest may run on a core with sibling threads.
func (r *Report) SMT() bool { return r.Policy&PolicySMT != 0 }

// SingleSocket reports whether the guest runs on one socket only.
func (r *Report) SingleSocket() bool { return r.Policy&PolicySingleSocket != 0 }

// CXLAllowed reports whether CXL may be populated with devices or memory.
func (r *Report) CXLAllowed() bool { return r.Policy&PolicyCXL != 0 }

// RequiresAES256XTS reports whether memory must be encrypted with AES 256 XTS.
func (r *Report) RequiresAES256XTS() bool { return r.Policy&PolicyAES256XTS != 0 }

// RequiresRAPLDisabled reports whether the power meter must be off.
func (r *Report) RequiresRAPLDisabled() bool { return r.Policy&PolicyRAPLDisabled != 0 }

// RequiresCiphertextHiding reports whether the host must not see ciphertext in DRAM.
func (r *Report) RequiresCiphertextHiding() bool { return r.Policy&PolicyCiphertextHiding != 0 }

// RequiresPageSwapDisabled reports whether the host must not move or swap pages.
func (r *Report) RequiresPageSwapDisabled() bool { return r.Policy&PolicyPageSwapDisabled != 0 }

// MinimumABI returns the lowest firmware ABI version the guest may run under.
func (r *Report) MinimumABI() (major, minor uint8) { return uint8(r.Policy >> 8), uint8(r.Policy) }

// SMTEnabled reports whether sibling threads are on in the machine.
func (r *Report) SMTEnabled() bool { return r.PlatformInfo&platformSMT != 0 }

// TSMEEnabled reports whether the machine encrypts all memory transparently.
func (r *Report) TSMEEnabled() bool { return r.PlatformInfo&platformTSME != 0 }

// ECCEnabled reports whether the machine's memory uses error correction.
func (r *Report) ECCEnabled() bool { return r.PlatformInfo&platformECC != 0 }

// RAPLDisabled reports whether the power meter is off.
func (r *Report) RAPLDisabled() bool { return r.PlatformInfo&platformRAPLDisabled != 0 }

// CiphertextHiding reports whether the host cannot see ciphertext in DRAM.
func (r *Report) CiphertextHiding() bool { return r.PlatformInfo&platformCiphertextHiding != 0 }

// AliasCheckComplete reports whether firmware found no aliased memory since the
// last reset, the answer to BadRAM (AMD-SB-3015).
func (r *Report) AliasCheckComplete() bool { return r.PlatformInfo&platformAliasCheck != 0 }

// TIOEnabled reports whether trusted devices (SEV-TIO) are on.
func (r *Report) TIOEnabled() bool { return r.PlatformInfo&platformTIO != 0 }

// IDBlock reports whether the guest was launched with an ID block, whose signer
// IDKey names. Without one, family id, image id and guest SVN are the host's.
func (r *Report) IDBlock() bool { return r.IDKey != [48]byte{} }

// Provisional reports whether the firmware that runs has not been committed, so
// that the host can go back to the committed one at any time.
func (r *Report) Provisional() bool {
	return r.Current != r.Committed || r.CurrentVersion != r.CommittedVersion
}

// TCBs are the TCB_VERSIONs of a report, read in its product's layout.
type TCBs struct {
	Current   policy.TCB // what runs now
	Reported  policy.TCB // what the signing key is derived from
	Committed policy.TCB // below which the firmware cannot be rolled back
	Launch    policy.TCB // what ran when the guest was launched
}

// TCBs reads all of the report's TCB_VERSIONs.
func (r *Report) TCBs(p Product) (t TCBs, err error) {
	for _, part := range []struct {
		raw RawTCB
		to  *policy.TCB
	}{{r.Current, &t.Current}, {r.Reported, &t.Reported}, {r.Committed, &t.Committed}, {r.Launch, &t.Launch}} {
		if *part.to, err = p.TCB(part.raw); err != nil {
			return TCBs{}, err
		}
	}
	return t, nil
}
