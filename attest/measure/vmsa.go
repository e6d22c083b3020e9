// SPDX-License-Identifier: Apache-2.0

package measure

import "encoding/binary"

// bootEIP is the reset vector of the x86 architecture, where the first vCPU
// starts.
const bootEIP = 0xfffffff0

// Offsets in the save area, AMD 24593 appendix B, table "State-save area".
const (
	vmsaES       = 0x000
	vmsaCS       = 0x010
	vmsaSS       = 0x020
	vmsaDS       = 0x030
	vmsaFS       = 0x040
	vmsaGS       = 0x050
	vmsaGDTR     = 0x060
	vmsaLDTR     = 0x070
	vmsaIDTR     = 0x080
	vmsaTR       = 0x090
	vmsaEFER     = 0x0d0
	vmsaCR4      = 0x148
	vmsaCR0      = 0x158
	vmsaDR7      = 0x160
	vmsaDR6      = 0x168
	vmsaRFLAGS   = 0x170
	vmsaRIP      = 0x178
	vmsaPAT      = 0x268
	vmsaRDX      = 0x310
	vmsaFeatures = 0x3b0
	vmsaXCR0     = 0x3e8
	vmsaMXCSR    = 0x408
	vmsaFCW      = 0x410
)

// registers are the initial values in which monitors differ.
type registers struct {
	csAttributes, ssAttributes, trAttributes uint16
	pat, rdx                                 uint64
	mxcsr                                    uint32
	fcw                                      uint16
}

func initialRegisters(m Monitor, eip, signature uint32) registers {
	const patReset = 0x0007040600070406 // AMD 24593, "Page attribute table"
	switch m {
	case EC2:
		r := registers{csAttributes: 0x9b, ssAttributes: 0x92, trAttributes: 0x83, pat: patReset, rdx: 0x600}
		if eip == bootEIP {
			r.csAttributes = 0x9a
		}
		return r
	case GCE:
		return registers{csAttributes: 0x9b, ssAttributes: 0x93, trAttributes: 0x8b, pat: 0x00070106, rdx: 0x600}
	default: // QEMU; SNPInput.check lets nothing else through
		return registers{
			csAttributes: 0x9b, ssAttributes: 0x93, trAttributes: 0x8b, pat: patReset,
			rdx: uint64(signature), mxcsr: 0x1f80, fcw: 0x37f,
		}
	}
}

// saveArea returns the page that holds a vCPU's registers before its first
// instruction: the reset state of the x86 architecture with what KVM and the
// monitor change in it.
func saveArea(m Monitor, eip, signature uint32, features uint64) [pageSize]byte {
	var page [pageSize]byte
	r := initialRegisters(m, eip, signature)
	segment := func(at int, selector, attributes uint16, base uint64) {
		binary.LittleEndian.PutUint16(page[at:], selector)
		binary.LittleEndian.PutUint16(page[at+2:], attributes)
		binary.LittleEndian.PutUint32(page[at+4:], 0xffff)
		binary.LittleEndian.PutUint64(page[at+8:], base)
	}
	for _, at := range []int{vmsaES, vmsaDS, vmsaFS, vmsaGS} {
		segment(at, 0, 0x93, 0)
	}
	segment(vmsaCS, 0xf000, r.csAttributes, uint64(eip&0xffff0000))
	segment(vmsaSS, 0, r.ssAttributes, 0)
	segment(vmsaGDTR, 0, 0, 0)
	segment(vmsaIDTR, 0, 0, 0)
	segment(vmsaLDTR, 0, 0x82, 0)
	segment(vmsaTR, 0, r.trAttributes, 0)
	put := func(at int, v uint64) { binary.LittleEndian.PutUint64(page[at:], v) }
	put(vmsaEFER, 0x1000) // SVME, set by KVM
	put(vmsaCR4, 0x40)    // MCE, set by KVM
	put(vmsaCR0, 0x10)
	put(vmsaDR7, 0x400)
	put(vmsaDR6, 0xffff0ff0)
	put(vmsaRFLAGS, 0x2)
	put(vmsaRIP, uint64(eip&0xffff))
	put(vmsaPAT, r.pat)
	put(vmsaRDX, r.rdx)
	put(vmsaFeatures, features)
	put(vmsaXCR0, 0x1)
	binary.LittleEndian.PutUint32(page[vmsaMXCSR:], r.mxcsr)
	binary.LittleEndian.PutUint16(page[vmsaFCW:], r.fcw)
	return page
}
