// SPDX-License-Identifier: Apache-2.0

package measure

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/c8s-dev/c8s/attest"
)

// cpuModel is a row of QEMU's builtin_x86_defs. The versions of a model differ
// in features, never in the signature.
type cpuModel struct {
	name                    string
	versions                int
	family, model, stepping uint32
}

func cpuModels() []cpuModel {
	return []cpuModel{
		{"EPYC", 5, 23, 1, 2},
		{"EPYC-Rome", 5, 23, 49, 0},
		{"EPYC-Milan", 3, 25, 1, 1},
		{"EPYC-Genoa", 2, 25, 17, 0},
		{"EPYC-Turin", 1, 26, 0, 0},
	}
}

const nameIBPB = "EPYC-IBPB" // QEMU's old name of EPYC-v2

// VCPUTypes returns the known names.
func VCPUTypes() []string {
	names := []string{nameIBPB}
	for _, m := range cpuModels() {
		names = append(names, m.name)
		for v := 1; v <= m.versions; v++ {
			names = append(names, fmt.Sprintf("%s-v%d", m.name, v))
		}
	}
	return names
}

// signature encodes as CPUID function 1 returns it in EAX, AMD 25481 "CPUID
// Specification". Processors of a family from 15 on are meant, as all with SEV.
func signature(family, model, stepping uint32) uint32 {
	return (family-15)<<20 | (model>>4)<<16 | 15<<8 | (model&15)<<4 | stepping
}

// ParseVCPUType reads one of VCPUTypes, family/model/stepping in decimal like
// 25/1/1, or a signature like 0xa00f11.
func ParseVCPUType(text string) (uint32, error) {
	if text == nameIBPB {
		text = "EPYC-v2"
	}
	for _, m := range cpuModels() {
		if text == m.name {
			return signature(m.family, m.model, m.stepping), nil
		}
		for v := 1; v <= m.versions; v++ {
			if text == fmt.Sprintf("%s-v%d", m.name, v) {
				return signature(m.family, m.model, m.stepping), nil
			}
		}
	}
	if digits, ok := strings.CutPrefix(text, "0x"); ok {
		if v, err := strconv.ParseUint(digits, 16, 32); err == nil && v != 0 {
			return uint32(v), nil
		}
	} else if s, ok := parseFamily(text); ok {
		return s, nil
	}
	return 0, attest.NewFailure(CodeVCPUType, "a vCPU type", fmt.Sprintf("%.40q", text),
		"give family/model/stepping like 25/1/1, a signature like 0xa00f11, or one of "+strings.Join(VCPUTypes(), ", "))
}

func parseFamily(text string) (uint32, bool) {
	parts := strings.Split(text, "/")
	if len(parts) != 3 {
		return 0, false
	}
	limits := [3][2]uint64{{15, 270}, {0, 255}, {0, 15}}
	var v [3]uint32
	for i, p := range parts {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || n < limits[i][0] || n > limits[i][1] {
			return 0, false
		}
		v[i] = uint32(n)
	}
	return signature(v[0], v[1], v[2]), true
}
