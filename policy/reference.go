// SPDX-License-Identifier: Apache-2.0

package policy

// The words of a substrate.
const (
	TEESEVSNP = "sev-snp"
	TEETDX    = "tdx"

	ProductMilan = "Milan" // and no Zen 3 after it
	ProductGenoa = "Genoa" // with Siena and Bergamo, which share its keys
	ProductTurin = "Turin"

	ParavisorNone  = "none"
	ParavisorAzure = "azure" // Microsoft's, between the hypervisor and the guest, with a virtual TPM

	SigningKeyVCEK = "vcek" // of one chip at one TCB
	SigningKeyVLEK = "vlek" // of a cloud provider's machines

	CollateralRequired  = "required"
	CollateralUnchecked = "unchecked" // revocation and TCB status are not looked at
)

// None is the word for a value that must not be there; Log is the word for a
// register whose events are judged one by one, by TDXRules.Events.
const (
	None = "none"
	Log  = "log"
)

// Substrate describes machines that may carry one or more roles. Every list is
// a list of accepted values; an empty one is refused at Parse. It is the
// appraisal policy for evidence of RFC 9334, with its reference values.
type Substrate struct {
	Name         string              `json:"name"` // DNS label
	Roles        []Role              `json:"roles"`
	TEE          string              `json:"tee"`               // TEESEVSNP or TEETDX
	Product      string              `json:"product"`           // SNP: "Milan", "Genoa" or "Turin"; TDX: FMSPC, 12 hex digits, or "any"
	Paravisor    string              `json:"paravisor"`         // "none" or "azure"
	Simulated    bool                `json:"simulated"`         // true accepts only simulated evidence, false only real
	Roots        []Digest            `json:"roots"`             // SHA-256 of the DER of accepted root certificates
	Machines     []string            `json:"machines"`          // see SubstrateFacts.Machine, or the single word "any"
	Measurements []string            `json:"measurements"`      // SNP launch digests or TDX MRTDs, 96 hex digits each
	HostData     []string            `json:"hostData"`          // SNP HOST_DATA (64) or TDX MRCONFIGID (96 hex digits), or "any"
	Registers    map[string][]string `json:"registers"`         // TDX: rtmr0 to rtmr3, also "log" alone; with a paravisor: pcr0 to pcr23. Values or "any"
	Expires      map[string]string   `json:"expires,omitempty"` // when a value of these lists no longer counts: RFC 3339, UTC, whole seconds
	SNP          *SNPRules           `json:"snp,omitempty"`
	TDX          *TDXRules           `json:"tdx,omitempty"`
	Collateral   CollateralRules     `json:"collateral"`
}

// SNPRules are what only SEV-SNP reports say (AMD 56860, ATTESTATION_REPORT).
type SNPRules struct {
	SigningKey       string   `json:"signingKey"`       // "vcek" or "vlek"
	MinTCB           *TCB     `json:"minTCB"`           // floor of the reported and of the committed TCB
	MinLaunchTCB     *TCB     `json:"minLaunchTCB"`     // floor of the TCB the guest was launched under
	AllowProvisional bool     `json:"allowProvisional"` // firmware that can still be rolled back
	MinGuestSVN      uint32   `json:"minGuestSVN"`
	IDKeys           []string `json:"idKeys"`          // digests of ID block signers, 96 hex digits, "none" or "any"
	AuthorKeys       []string `json:"authorKeys"`      // digests of author keys, 96 hex digits, "none" or "any"
	RequirePlatform  []string `json:"requirePlatform"` // PLATFORM_INFO that must be so, see PlatformFlags
	Guest            SNPGuest `json:"guest"`
}

// SNPGuest is what the guest may have been launched with. Its zero value is
// the strictest but for MinABI and RequireSingleSocket.
type SNPGuest struct {
	AllowDebug          bool       `json:"allowDebug"`          // host may read the guest's memory
	AllowMigration      bool       `json:"allowMigration"`      // a migration agent may move the guest
	AllowSMT            bool       `json:"allowSMT"`            // sibling threads may share a core
	RequireSingleSocket bool       `json:"requireSingleSocket"` // the guest never leaves one socket
	MinABI              ABIVersion `json:"minABI"`              // lowest firmware the guest asks for
	VMPL                uint32     `json:"vmpl"`                // the one privilege level evidence may come from, 0 to 3
}

// ABIVersion is a version of the SEV-SNP firmware interface.
type ABIVersion struct {
	Major uint8 `json:"major"`
	Minor uint8 `json:"minor"`
}

// AtLeast reports whether v is floor or newer.
func (v ABIVersion) AtLeast(floor ABIVersion) bool {
	return v.Major > floor.Major || v.Major == floor.Major && v.Minor >= floor.Minor
}

// TDXRules are what only TDX quotes say (Intel TDX module ABI, TDREPORT_STRUCT).
type TDXRules struct {
	Statuses            []string `json:"statuses"`            // accepted TCB statuses, "UpToDate", "SWHardeningNeeded", …
	Advisories          []string `json:"advisories"`          // Intel's advisories that may be open, "none" or "any"
	MinEvaluationNumber uint32   `json:"minEvaluationNumber"` // floor of Intel's tcbEvaluationDataNumber
	Owners              []string `json:"owners"`              // MROWNER, 96 hex digits, or "any"
	OwnerConfigs        []string `json:"ownerConfigs"`        // MROWNERCONFIG, 96 hex digits, or "any"
	ServiceTDs          []string `json:"serviceTDs"`          // MRSERVICETD of quotes that have it, 96 hex digits, "none" or "any"
	XFAMs               []string `json:"xfams"`               // extended features, 16 hex digits as in the quote, or "any"
	Events              []string `json:"events"`              // digests that the event log may extend registers of "log" with, 96 hex digits each
	Guest               TDXGuest `json:"guest"`
}

// TDXGuest is what the trust domain may have been launched with.
type TDXGuest struct {
	AllowDebug           bool `json:"allowDebug"`           // host may read the guest's memory
	AllowMigration       bool `json:"allowMigration"`       // a service TD may move the guest
	AllowPerfmon         bool `json:"allowPerfmon"`         // performance counters in the guest
	RequireSeptVEDisable bool `json:"requireSeptVEDisable"` // the host cannot raise #VE by taking pages away
}

// CollateralRules say what the vendor must have said lately: that nothing is
// revoked and, for TDX, how current the platform is.
type CollateralRules struct {
	Use        string `json:"use"`        // "required" or "unchecked"
	MaxAgeDays uint32 `json:"maxAgeDays"` // since the vendor issued the oldest piece; its own end date holds too
}

// TCB holds the security version numbers of the AMD TCB_VERSION structure
// (SEV-SNP ABI 56860, TCB_VERSION).
type TCB struct {
	FMC        uint8 `json:"fmc"` // Turin only, zero elsewhere
	BootLoader uint8 `json:"bootLoader"`
	TEE        uint8 `json:"tee"`
	SNP        uint8 `json:"snp"`
	Microcode  uint8 `json:"microcode"`
}

// AtLeast reports whether every part of t is at or above the floor. Parts are
// compared one by one: a newer microcode does not excuse an old firmware.
func (t TCB) AtLeast(floor TCB) bool {
	return t.FMC >= floor.FMC && t.BootLoader >= floor.BootLoader && t.TEE >= floor.TEE &&
		t.SNP >= floor.SNP && t.Microcode >= floor.Microcode
}

// Platform properties a substrate can ask for (AMD 56860, PLATFORM_INFO).
const (
	PlatformNoSMT            = "no-smt"
	PlatformTSME             = "tsme"
	PlatformECC              = "ecc"
	PlatformNoRAPL           = "no-rapl"
	PlatformCiphertextHiding = "ciphertext-hiding"
	PlatformAliasCheck       = "alias-check"
)

// PlatformFlags lists the words RequirePlatform may use.
func PlatformFlags() []string {
	return []string{PlatformNoSMT, PlatformTSME, PlatformECC, PlatformNoRAPL, PlatformCiphertextHiding, PlatformAliasCheck}
}

// TCBStatuses lists Intel's TCB statuses that a substrate may accept, best
// first (Intel PCS API v4, TCB info). Revoked is not among them.
func TCBStatuses() []string {
	return []string{
		"UpToDate", "SWHardeningNeeded", "ConfigurationNeeded", "ConfigurationAndSWHardeningNeeded",
		"OutOfDate", "OutOfDateConfigurationNeeded",
	}
}
