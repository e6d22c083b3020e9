// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

const (
	maxVMPL        = 3  // SEV-SNP has four levels
	measurementLen = 48 // bytes, SHA-384: launch digest, MRTD, RTMR
	snpHostDataLen = 32 // bytes, HOST_DATA
	chipIDLen      = 64 // bytes, CHIP_ID
	turinChipIDLen = 8  // bytes, the part of CHIP_ID that Turin uses
	platformIDLen  = 16 // bytes, Intel's PPID and PIID
	fmspcLen       = 6  // bytes
	xfamLen        = 8  // bytes
	pcrLen         = 32 // bytes, the SHA-256 bank
	numRTMR        = 4
	numPCR         = 24
	maxProvider    = 64 // bytes of a VLEK's CSP id
)

func readSubstrates(f *fields) []Substrate {
	substrates := []Substrate{}
	f.list("substrates", func(n *node, path string) {
		substrates = append(substrates, readSubstrate(object(n, path, f.report)))
	})
	return substrates
}

func readSubstrate(f *fields) Substrate {
	s := Substrate{
		Name: f.text("name"), Roles: texts[Role](f, "roles"), TEE: f.text("tee"), Product: f.text("product"),
		Paravisor: f.text("paravisor"), Simulated: f.truth("simulated"), Roots: texts[Digest](f, "roots"),
		Machines: texts[string](f, "machines"), Measurements: texts[string](f, "measurements"), HostData: texts[string](f, "hostData"),
		Registers: map[string][]string{},
	}
	registers := f.object("registers")
	if registers.node != nil {
		for _, name := range registers.node.keys {
			s.Registers[name] = texts[string](registers, name)
		}
	}
	s.Expires = readExpires(f)
	switch s.TEE { // the other TEE's rules are then an unknown field
	case TEESEVSNP:
		s.SNP = readSNP(f.object("snp"))
	case TEETDX:
		s.TDX = readTDX(f.object("tdx"))
	default: // validation says so; no need to call the rules unknown as well
		f.asked = append(f.asked, "snp", "tdx")
	}
	c := f.object("collateral")
	s.Collateral = CollateralRules{Use: c.text("use"), MaxAgeDays: uint32(c.number("maxAgeDays", 32))}
	c.done()
	f.done()
	return s
}

func readSNP(f *fields) *SNPRules {
	s := &SNPRules{
		SigningKey: f.text("signingKey"), MinTCB: readTCB(f.object("minTCB")), MinLaunchTCB: readTCB(f.object("minLaunchTCB")),
		AllowProvisional: f.truth("allowProvisional"), MinGuestSVN: uint32(f.number("minGuestSVN", 32)),
		IDKeys: texts[string](f, "idKeys"), AuthorKeys: texts[string](f, "authorKeys"), RequirePlatform: texts[string](f, "requirePlatform"),
	}
	g := f.object("guest")
	s.Guest = SNPGuest{
		AllowDebug: g.truth("allowDebug"), AllowMigration: g.truth("allowMigration"), AllowSMT: g.truth("allowSMT"),
		RequireSingleSocket: g.truth("requireSingleSocket"),
	}
	abi := g.object("minABI")
	s.Guest.MinABI = ABIVersion{Major: uint8(abi.number("major", 8)), Minor: uint8(abi.number("minor", 8))}
	abi.done()
	s.Guest.VMPL = uint32(g.number("vmpl", 32))
	g.done()
	f.done()
	return s
}

func readTCB(f *fields) *TCB {
	t := &TCB{
		FMC: uint8(f.number("fmc", 8)), BootLoader: uint8(f.number("bootLoader", 8)), TEE: uint8(f.number("tee", 8)),
		SNP: uint8(f.number("snp", 8)), Microcode: uint8(f.number("microcode", 8)),
	}
	f.done()
	return t
}

func readTDX(f *fields) *TDXRules {
	t := &TDXRules{
		Statuses: texts[string](f, "statuses"), Advisories: texts[string](f, "advisories"),
		MinEvaluationNumber: uint32(f.number("minEvaluationNumber", 32)),
		Owners:              texts[string](f, "owners"), OwnerConfigs: texts[string](f, "ownerConfigs"),
		ServiceTDs: texts[string](f, "serviceTDs"), XFAMs: texts[string](f, "xfams"), Events: texts[string](f, "events"),
	}
	g := f.object("guest")
	t.Guest = TDXGuest{
		AllowDebug: g.truth("allowDebug"), AllowMigration: g.truth("allowMigration"),
		AllowPerfmon: g.truth("allowPerfmon"), RequireSeptVEDisable: g.truth("requireSeptVEDisable"),
	}
	g.done()
	f.done()
	return t
}

func validateSubstrates(substrates []Substrate, production bool, r *report) {
	needed(len(substrates), "$.substrates", "at least one substrate", "nothing could be trusted to run anything", r)
	names := map[string]bool{}
	for i := range substrates {
		v := substrateValidator{s: &substrates[i], path: elementPath("$.substrates", i), r: r}
		checkLabel(v.s.Name, v.at("name"), names, r)
		v.common()
		v.registers()
		switch v.s.TEE {
		case TEESEVSNP:
			v.snp()
		case TEETDX:
			v.tdx()
		default:
			checkWord(v.s.TEE, v.at("tee"), CodeTEEUnknown, r, TEESEVSNP, TEETDX)
		}
		v.expires()
		if production {
			v.production()
		}
	}
}

type substrateValidator struct {
	s    *Substrate
	path string
	r    *report
}

func (v *substrateValidator) at(key string) string { return memberPath(v.path, key) }

func (v *substrateValidator) common() {
	s, r := v.s, v.r
	needed(len(s.Roles), v.at("roles"), "at least one role", "name the roles this substrate may carry", r)
	each(s.Roles, v.at("roles"), r, func(role Role, path string) {
		checkWord(string(role), path, CodeRoleUnknown, r, string(RoleNode), string(RoleWorkload), string(RoleCDS), string(RoleIngress))
	})
	checkWord(s.Paravisor, v.at("paravisor"), CodeParavisorUnknown, r, ParavisorNone, ParavisorAzure)
	needed(len(s.Roots), v.at("roots"), "at least one root certificate digest", "give the SHA-256 of the vendor root's DER", r)
	each(s.Roots, v.at("roots"), r, func(d Digest, path string) { checkDigest(d, path, r) })
	checkAny(s.Machines, "machine ids", v.at("machines"), r, v.machine)
	needed(len(s.Measurements), v.at("measurements"), "at least one launch digest", "there is no way to accept every measurement", r)
	each(s.Measurements, v.at("measurements"), r, func(m, path string) { checkHex(m, measurementLen, path, r) })
	checkWord(s.Collateral.Use, v.at("collateral")+".use", CodeCollateralUse, r, CollateralRequired, CollateralUnchecked)
	if s.Collateral.Use == CollateralRequired && s.Collateral.MaxAgeDays == 0 {
		r.add(CodeCollateralUse, v.at("collateral")+".maxAgeDays", "1 or more", "0", "Intel's collateral is issued for 30 days, AMD's for about a year")
	}
}

func (v *substrateValidator) machine(id, path string) {
	if v.s.TEE == TEESEVSNP && isSNPMachine(id) || v.s.TEE == TEETDX && isTDXMachine(id) {
		return
	}
	badMachine(id, path, v.r)
}

func isSNPMachine(id string) bool {
	provider, named := strings.CutPrefix(id, MachineProvider)
	return named && isPrintableUpTo(provider, maxProvider) || isLowerHex(id, chipIDLen) || isLowerHex(id, turinChipIDLen)
}

func isTDXMachine(id string) bool {
	return isLowerHex(strings.TrimPrefix(id, MachinePPID), platformIDLen)
}

func badMachine(id, path string, r *report) {
	r.add(CodeHexInvalid, path, "a chip id, PIID or PPID in lower-case hexadecimal, or a VLEK's provider", quote(id), `SNP: 128 digits, Turin 16, or "csp:<provider>"; TDX: 32 digits, or "ppid:" and 32 digits`)
}

// registers: a register that is not named would not be checked, so a trust
// domain's four all are, and a paravisor's TPM needs at least one.
func (v *substrateValidator) registers() {
	s, path := v.s, v.at("registers")
	pcrs := 0
	for _, name := range slices.Sorted(maps.Keys(s.Registers)) {
		at := memberPath(path, name)
		size := measurementLen
		if strings.HasPrefix(name, "pcr") {
			size = pcrLen
			pcrs++
		}
		if !v.knowsRegister(name) {
			v.r.add(CodeRegisterUnknown, at, "rtmr0 to rtmr3 for TDX, pcr0 to pcr23 with a paravisor", quote(name), "")
		}
		if s.TEE == TEETDX && isLog(s.Registers[name]) && size == measurementLen {
			needed(len(s.TDX.Events), v.at("tdx")+".events", "at least one digest", "a register of \"log\" accepts only events that are listed", v.r)
			continue
		}
		checkWords(s.Registers[name], size, at, v.r)
	}
	for i := range numRTMR {
		if name := rtmrName(i); s.TEE == TEETDX && s.Registers[name] == nil {
			v.r.add(CodeMissingField, memberPath(path, name), "accepted values of the register", "no such field", `write ["any"] to accept every value`)
		}
	}
	if s.Paravisor == ParavisorAzure && pcrs == 0 {
		v.r.add(CodeListEmpty, path, "at least one PCR", "none", "the launch measurement is the paravisor's: the guest is in the PCRs")
	}
}

func rtmrName(i int) string { return "rtmr" + strconv.Itoa(i) }

func (v *substrateValidator) knowsRegister(name string) bool {
	for i := range numRTMR {
		if v.s.TEE == TEETDX && name == rtmrName(i) {
			return true
		}
	}
	for i := range numPCR {
		if v.s.Paravisor == ParavisorAzure && name == "pcr"+strconv.Itoa(i) {
			return true
		}
	}
	return false
}

func (v *substrateValidator) snp() {
	s, r := v.s, v.r
	at := func(key string) string { return v.at("snp") + "." + key }
	checkWord(s.Product, v.at("product"), CodeProductUnknown, r, ProductMilan, ProductGenoa, ProductTurin)
	checkWords(s.HostData, snpHostDataLen, v.at("hostData"), r)
	checkWord(s.SNP.SigningKey, at("signingKey"), CodeSigningKeyUnknown, r, SigningKeyVCEK, SigningKeyVLEK)
	checkWords(s.SNP.IDKeys, measurementLen, at("idKeys"), r, None)
	checkWords(s.SNP.AuthorKeys, measurementLen, at("authorKeys"), r, None)
	each(s.SNP.RequirePlatform, at("requirePlatform"), r, func(flag, path string) {
		checkWord(flag, path, CodePlatformUnknown, r, PlatformFlags()...)
	})
	if s.SNP.Guest.VMPL > maxVMPL {
		r.add(CodeVMPLInvalid, at("guest")+".vmpl", fmt.Sprintf("0 to %d", maxVMPL), fmt.Sprint(s.SNP.Guest.VMPL), "")
	}
}

func (v *substrateValidator) tdx() {
	s, r := v.s, v.r
	at := func(key string) string { return v.at("tdx") + "." + key }
	if s.Product != Any {
		checkHex(s.Product, fmspcLen, v.at("product"), r)
	}
	checkWords(s.HostData, measurementLen, v.at("hostData"), r)
	needed(len(s.TDX.Statuses), at("statuses"), "at least one TCB status", `write ["UpToDate"]`, r)
	each(s.TDX.Statuses, at("statuses"), r, func(status, path string) {
		checkWord(status, path, CodeStatusUnknown, r, TCBStatuses()...)
	})
	checkAny(s.TDX.Advisories, `advisory ids like "INTEL-SA-01036", "none"`, at("advisories"), r, func(id, path string) {
		if id != None && (!isPrintable(id) || !strings.HasPrefix(id, "INTEL-SA-")) {
			r.add(CodeNameInvalid, path, `an id like "INTEL-SA-01036"`, quote(id), "")
		}
	})
	checkWords(s.TDX.Owners, measurementLen, at("owners"), r)
	checkWords(s.TDX.OwnerConfigs, measurementLen, at("ownerConfigs"), r)
	checkWords(s.TDX.ServiceTDs, measurementLen, at("serviceTDs"), r, None)
	checkWords(s.TDX.XFAMs, xfamLen, at("xfams"), r)
	each(s.TDX.Events, at("events"), r, func(e, path string) { checkHex(e, measurementLen, path, r) })
}

func (v *substrateValidator) production() {
	s, r := v.s, v.r
	if s.Simulated {
		r.add(CodeProductionSimulated, v.at("simulated"), "false in a production manifest", "true", "anybody can make simulated evidence: use real machines, or set production to false")
	}
	if s.Collateral.Use == CollateralUnchecked {
		r.add(CodeProductionCollateral, v.at("collateral")+".use", quote(CollateralRequired)+" in a production manifest", quote(s.Collateral.Use), "revoked and outdated machines would be accepted")
	}
	debug := s.SNP != nil && s.SNP.Guest.AllowDebug || s.TDX != nil && s.TDX.Guest.AllowDebug
	if debug {
		r.add(CodeProductionDebug, v.at(strings.TrimPrefix(s.TEE, "sev-"))+".guest.allowDebug", "false in a production manifest", "true", "the host can read the memory of a debuggable guest")
	}
	if s.SNP != nil && *s.SNP.MinTCB == (TCB{}) {
		r.add(CodeProductionTCB, v.at("snp")+".minTCB", "a floor above zero in a production manifest", "all zero", "take the versions from the vendor's latest security bulletin")
	}
}

func filledSubstrates(list []Substrate) []Substrate {
	list = slices.Clone(filled(list))
	for i := range list {
		s := &list[i]
		s.Roles, s.Roots, s.Measurements = filled(s.Roles), filled(s.Roots), filled(s.Measurements)
		s.HostData, s.Machines = filled(s.HostData), filled(s.Machines)
		registers := make(map[string][]string, len(s.Registers))
		for name, values := range s.Registers {
			registers[name] = filled(values)
		}
		s.Registers = registers
		if s.SNP != nil {
			snp := *s.SNP
			snp.IDKeys, snp.AuthorKeys, snp.RequirePlatform = filled(snp.IDKeys), filled(snp.AuthorKeys), filled(snp.RequirePlatform)
			s.SNP = &snp
		}
		if s.TDX != nil {
			tdx := *s.TDX
			tdx.Statuses, tdx.Advisories = filled(tdx.Statuses), filled(tdx.Advisories)
			tdx.Owners, tdx.OwnerConfigs = filled(tdx.Owners), filled(tdx.OwnerConfigs)
			tdx.ServiceTDs, tdx.XFAMs, tdx.Events = filled(tdx.ServiceTDs), filled(tdx.XFAMs), filled(tdx.Events)
			s.TDX = &tdx
		}
	}
	return list
}
