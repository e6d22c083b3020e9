// SPDX-License-Identifier: Apache-2.0

package ratls

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"slices"

	"github.com/c8s-dev/c8s/policy"
)

// wire is the extension's CBOR map: small integer keys, raw bytes.
type wire struct {
	Version         uint64            `cbor:"0,keyasint"`
	Role            string            `cbor:"1,keyasint"`
	TEE             string            `cbor:"2,keyasint"`
	Product         string            `cbor:"3,keyasint"`
	Simulated       bool              `cbor:"4,keyasint"`
	Measurement     []byte            `cbor:"5,keyasint"`
	HostData        []byte            `cbor:"6,keyasint"`
	TCB             *[5]uint8         `cbor:"7,keyasint,omitempty"` // SNP: FMC, boot loader, TEE, SNP, microcode
	Machine         string            `cbor:"8,keyasint"`
	Root            []byte            `cbor:"9,keyasint"`
	Workload        string            `cbor:"10,keyasint,omitempty"`
	WorkloadDigest  []byte            `cbor:"11,keyasint,omitempty"`
	ManifestVersion uint64            `cbor:"12,keyasint"`
	ManifestDigest  []byte            `cbor:"13,keyasint"`
	Namespace       string            `cbor:"14,keyasint,omitempty"`
	Pod             string            `cbor:"15,keyasint,omitempty"`
	PodUID          string            `cbor:"16,keyasint,omitempty"`
	EvidenceHash    []byte            `cbor:"17,keyasint"`
	Paravisor       string            `cbor:"18,keyasint"`
	Registers       map[string][]byte `cbor:"19,keyasint,omitempty"`
	TDXTCB          *wireTDXTCB       `cbor:"20,keyasint,omitempty"`
	Collateral      bool              `cbor:"21,keyasint"`
}

type wireTDXTCB struct {
	Status           string   `cbor:"1,keyasint"`
	Advisories       []string `cbor:"2,keyasint,omitempty"`
	EvaluationNumber uint32   `cbor:"3,keyasint"`
}

const claimsVersion = 1

func (c *Claims) wire() (*wire, error) {
	w := &wire{
		Version: claimsVersion, Role: string(c.Role), TEE: c.TEE, Product: c.Product, Paravisor: c.Paravisor, Simulated: c.Simulated,
		Machine: c.Machine, Collateral: c.Collateral,
		Workload: c.Workload, ManifestVersion: c.ManifestVersion,
		Namespace: c.Namespace, Pod: c.Pod, PodUID: c.PodUID, EvidenceHash: c.EvidenceHash[:],
	}
	if c.TEE == policy.TEESEVSNP {
		w.TCB = &[5]uint8{c.TCB.FMC, c.TCB.BootLoader, c.TCB.TEE, c.TCB.SNP, c.TCB.Microcode}
	}
	if t := c.TDXTCB; t.Status != "" {
		w.TDXTCB = &wireTDXTCB{t.Status, t.Advisories, t.EvaluationNumber}
	}
	if err := w.setHex(c); err != nil {
		return nil, err
	}
	for _, f := range []struct {
		name string
		from policy.Digest
		to   *[]byte
	}{
		{"root", c.Root, &w.Root}, {"workload digest", c.WorkloadDigest, &w.WorkloadDigest}, {"manifest digest", c.ManifestDigest, &w.ManifestDigest},
	} {
		if f.from == "" {
			continue // whether it may be absent is validate's question
		}
		if !f.from.Valid() {
			return nil, fmt.Errorf("%s %.80q is not a digest", f.name, f.from)
		}
		b, err := hex.DecodeString(string(f.from[len(digestPrefix):]))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.name, err)
		}
		*f.to = b
	}
	return w, w.validate()
}

func (w *wire) setHex(c *Claims) (err error) {
	if w.Measurement, err = unhex("measurement", c.Measurement); err != nil {
		return err
	}
	if w.HostData, err = unhex("host data", c.HostData); err != nil {
		return err
	}
	if len(c.Registers) > 0 {
		w.Registers = make(map[string][]byte, len(c.Registers))
	}
	for _, r := range c.Registers {
		if w.Registers[r.Name], err = unhex(r.Name, r.Value); err != nil {
			return err
		}
	}
	if len(w.Registers) != len(c.Registers) {
		return fmt.Errorf("a register stands twice")
	}
	return nil
}

func unhex(name, text string) ([]byte, error) {
	b, err := hex.DecodeString(text)
	if err != nil || hex.EncodeToString(b) != text {
		return nil, fmt.Errorf("%s is not lower-case hexadecimal", name)
	}
	return b, nil
}

const digestPrefix = "sha256:"

func (w *wire) claims() (*Claims, error) {
	if err := w.validate(); err != nil {
		return nil, err
	}
	c := &Claims{
		Role: policy.Role(w.Role),
		SubstrateFacts: policy.SubstrateFacts{
			TEE: w.TEE, Product: w.Product, Paravisor: w.Paravisor, Simulated: w.Simulated, Root: digest(w.Root), Machine: w.Machine,
			Measurement: hex.EncodeToString(w.Measurement), HostData: hex.EncodeToString(w.HostData), Collateral: w.Collateral,
		},
		Workload: w.Workload, WorkloadDigest: digest(w.WorkloadDigest),
		ManifestVersion: w.ManifestVersion, ManifestDigest: digest(w.ManifestDigest),
		Namespace: w.Namespace, Pod: w.Pod, PodUID: w.PodUID, EvidenceHash: [32]byte(w.EvidenceHash),
	}
	if t := w.TCB; t != nil {
		c.TCB = policy.TCB{FMC: t[0], BootLoader: t[1], TEE: t[2], SNP: t[3], Microcode: t[4]}
	}
	if t := w.TDXTCB; t != nil {
		c.TDXTCB = policy.TDXTCB{Status: t.Status, Advisories: t.Advisories, EvaluationNumber: t.EvaluationNumber}
	}
	for name, value := range w.Registers {
		c.Registers = append(c.Registers, policy.Register{Name: name, Value: hex.EncodeToString(value)})
	}
	slices.SortFunc(c.Registers, func(a, b policy.Register) int { return cmp.Compare(a.Name, b.Name) })
	return c, nil
}

func digest(b []byte) policy.Digest {
	if len(b) == 0 {
		return ""
	}
	return policy.Digest(digestPrefix + hex.EncodeToString(b))
}

// validate checks shapes only: what the values mean is the manifest's question.
func (w *wire) validate() error {
	for _, f := range []struct {
		name  string
		b     []byte
		sizes []int
	}{
		{"measurement", w.Measurement, []int{48}},
		{"host data", w.HostData, []int{32, 48}}, // SNP, TDX
		{"root", w.Root, []int{32}},
		{"manifest digest", w.ManifestDigest, []int{32}},
		{"evidence hash", w.EvidenceHash, []int{32}},
	} {
		if !slices.Contains(f.sizes, len(f.b)) {
			return fmt.Errorf("%s of %d bytes, expected one of %d", f.name, len(f.b), f.sizes)
		}
	}
	for _, f := range []struct {
		name, s string
		max     int
		needed  bool
	}{
		{"TEE", w.TEE, maxShortText, true},
		{"product", w.Product, maxShortText, true},
		{"paravisor", w.Paravisor, maxShortText, true},
		{"machine", w.Machine, maxMachine, true},
		{"workload", w.Workload, maxShortText, false},
		{"namespace", w.Namespace, maxShortText, false},
		{"pod", w.Pod, maxName, false},
		{"pod UID", w.PodUID, maxShortText, false},
	} {
		if len(f.s) > f.max || !printable(f.s) || f.needed && f.s == "" {
			return fmt.Errorf("%s is not 1 to %d printable ASCII characters", f.name, f.max)
		}
	}
	if w.ManifestVersion == 0 {
		return fmt.Errorf("manifest version is zero")
	}
	if (w.TCB != nil) != (w.TEE == policy.TEESEVSNP) {
		return fmt.Errorf("a TCB_VERSION goes with SEV-SNP, and with it only")
	}
	return w.validateMeasured()
}

func (w *wire) validateMeasured() error {
	if len(w.Registers) > maxRegisters {
		return fmt.Errorf("%d registers, at most %d accepted", len(w.Registers), maxRegisters)
	}
	for name, value := range w.Registers {
		if len(name) > maxShortText || !printable(name) || len(value) != 32 && len(value) != 48 {
			return fmt.Errorf("register %.32q with %d bytes, expected 32 or 48", name, len(value))
		}
	}
	if t := w.TDXTCB; t != nil {
		if t.Status == "" || len(t.Advisories) > maxAdvisories {
			return fmt.Errorf("TCB status %.32q with %d advisories, at most %d accepted", t.Status, len(t.Advisories), maxAdvisories)
		}
		for _, s := range append([]string{t.Status}, t.Advisories...) {
			if s == "" || len(s) > maxShortText || !printable(s) {
				return fmt.Errorf("TCB status or advisory is not 1 to %d printable ASCII characters", maxShortText)
			}
		}
	}
	return w.validateRole()
}

func (w *wire) validateRole() error {
	switch policy.Role(w.Role) {
	case policy.RoleWorkload:
		if w.Workload == "" || len(w.WorkloadDigest) != 32 || w.Namespace == "" || w.Pod == "" || w.PodUID == "" {
			return fmt.Errorf("role %q without workload, its digest, namespace, pod or pod UID", w.Role)
		}
	case policy.RoleNode, policy.RoleCDS, policy.RoleIngress:
		if w.Workload != "" || len(w.WorkloadDigest) != 0 || w.Namespace != "" || w.Pod != "" || w.PodUID != "" {
			return fmt.Errorf("role %q with the claims of a workload", w.Role)
		}
	default:
		return fmt.Errorf("unknown role %.32q", w.Role)
	}
	return nil
}

func printable(s string) bool {
	for i := range len(s) {
		if s[i] <= 0x20 || s[i] > 0x7e {
			return false
		}
	}
	return true
}
