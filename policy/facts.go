// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"time"
)

// How machines are named that have no id of their own in the evidence: all
// those of a VLEK's cloud provider, and those of a PCK without a platform id.
const (
	MachineProvider = "csp:"
	MachinePPID     = "ppid:"
)

// SubstrateFacts say what a piece of evidence proves about a machine, in the
// manifest's spelling. Certificates repeat them, so that every reader can judge
// them by the manifest it has.
type SubstrateFacts struct {
	TEE         string     `json:"tee"`
	Product     string     `json:"product"` // SNP: the processor line; TDX: the FMSPC, 12 hex digits
	Paravisor   string     `json:"paravisor"`
	Simulated   bool       `json:"simulated"`
	Root        Digest     `json:"root"`        // SHA-256 of the root certificate's DER
	Machine     string     `json:"machine"`     // SNP: chip id, 128 or (Turin) 16 hex digits, or "csp:" and the provider of a VLEK; TDX: PIID, 32 hex digits, or "ppid:" and the PPID
	Measurement string     `json:"measurement"` // 96 hex digits
	HostData    string     `json:"hostData"`    // SNP: 64, TDX: 96 hex digits
	Registers   []Register `json:"registers,omitempty"`
	TCB         TCB        `json:"tcb"`        // SNP: part by part the lower of the reported and the committed
	TDXTCB      TDXTCB     `json:"tdxTCB"`     // TDX with collateral
	Collateral  bool       `json:"collateral"` // revocation and TCB status were judged by the vendor's word
}

// Register is a measurement that grows after launch: "rtmr0" to "rtmr3", "pcr0"
// to "pcr23".
type Register struct {
	Name  string `json:"name"`
	Value string `json:"value"` // lower-case hexadecimal
}

// TDXTCB is Intel's judgement of a platform.
type TDXTCB struct {
	Status           string   `json:"status,omitempty"`
	Advisories       []string `json:"advisories,omitempty"`
	EvaluationNumber uint32   `json:"evaluationNumber,omitempty"`
}

func (t TDXTCB) String() string {
	if t.Status == "" {
		return "unknown"
	}
	return fmt.Sprintf("%s, evaluation %d, advisories %v", t.Status, t.EvaluationNumber, t.Advisories)
}

// GuestFacts are the parts of fresh evidence that a certificate does not repeat.
type GuestFacts struct {
	Debug, Migration bool // what the guest was launched to allow

	// SEV-SNP
	SigningKey        string // SigningKeyVCEK or SigningKeyVLEK
	SMT, SingleSocket bool
	ABI               ABIVersion
	VMPL              uint32
	GuestSVN          uint32
	LaunchTCB         TCB
	Provisional       bool
	IDKey, AuthorKey  string // digest, 96 hex digits, or None
	Platform          []string

	// TDX
	Perfmon, SeptVEDisable bool
	Owner, OwnerConfig     string     // 96 hex digits
	ServiceTD              string     // 96 hex digits, or None where the quote has no such field or zeros
	XFAM                   string     // 16 hex digits
	Events                 []Register // what the event log extended each register with, in order; nil without a log that replays

	CollateralAge time.Duration // of the oldest piece
}
