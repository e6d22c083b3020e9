// SPDX-License-Identifier: Apache-2.0

package tdx

import "encoding/binary"

// Bits of TD_ATTRIBUTES (Intel TDX Module ABI, TD_ATTRIBUTES).
const (
	attributeDebug         = 1 << 0
	attributesTUD          = 0xff // a TD with any of these is not to be trusted
	attributeSeptVEDisable = 1 << 28
	attributeMigratable    = 1 << 29
	attributePKS           = 1 << 30
	attributeKeyLocker     = 1 << 31
	attributePerfmon       = 1 << 63
)

// Attributes returns TD_ATTRIBUTES as a number.
func (q *Quote) Attributes() uint64 { return binary.LittleEndian.Uint64(q.TDAttributes[:]) }

// ExtendedFeatures returns XFAM as a number.
func (q *Quote) ExtendedFeatures() uint64 { return binary.LittleEndian.Uint64(q.XFAM[:]) }

// Debug reports whether the host can read and change the TD's memory.
func (q *Quote) Debug() bool { return q.Attributes()&attributeDebug != 0 }

// UnderDebug reports whether any attribute of the group TUD is set: debugging,
// profiling, or one that is not yet known. Such a TD is not to be trusted.
func (q *Quote) UnderDebug() bool { return q.Attributes()&attributesTUD != 0 }

// SeptVEDisable reports whether the host cannot make the TD take exceptions on
// its private memory.
func (q *Quote) SeptVEDisable() bool { return q.Attributes()&attributeSeptVEDisable != 0 }

// Migratable reports whether a service TD can move the TD to another machine.
func (q *Quote) Migratable() bool { return q.Attributes()&attributeMigratable != 0 }

// ProtectionKeys reports whether the TD may use supervisor protection keys.
func (q *Quote) ProtectionKeys() bool { return q.Attributes()&attributePKS != 0 }

// KeyLocker reports whether the TD may use Key Locker.
func (q *Quote) KeyLocker() bool { return q.Attributes()&attributeKeyLocker != 0 }

// Perfmon reports whether the TD may use performance monitoring.
func (q *Quote) Perfmon() bool { return q.Attributes()&attributePerfmon != 0 }
