// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// substrate says which machines may carry which roles (docs/policy.md,
// "Substrates").
type substrate struct {
	Name, TEE, Product, Paravisor           string
	Roles                                   []string
	Simulated                               bool
	Roots, Machines, Measurements, HostData []string
	Registers                               map[string][]string
	Expires                                 map[string]string
	SNP                                     *snpRules
	TDX                                     json.RawMessage
	Collateral                              struct {
		Use        string
		MaxAgeDays int
	}
}

type snpRules struct {
	SigningKey           string
	MinTCB, MinLaunchTCB *tcb
	AllowProvisional     bool
	MinGuestSVN          uint32
	IDKeys, AuthorKeys   []string
	RequirePlatform      []string
	Guest                struct {
		AllowDebug, AllowMigration, AllowSMT, RequireSingleSocket bool
		MinABI                                                    struct{ Major, Minor uint8 }
		VMPL                                                      uint32
	}
}

// tcb has the parts of AMD's TCB_VERSION. Turin alone has an FMC.
type tcb struct {
	FMC, BootLoader, TEE, SNP, Microcode uint8
}

func (t tcb) atLeast(floor *tcb) bool {
	return floor != nil && t.FMC >= floor.FMC && t.BootLoader >= floor.BootLoader && t.TEE >= floor.TEE && t.SNP >= floor.SNP && t.Microcode >= floor.Microcode
}

// bytes is the claim's order.
func (t tcb) bytes() []byte { return []byte{t.FMC, t.BootLoader, t.TEE, t.SNP, t.Microcode} }

func (t tcb) lower(o tcb) tcb {
	return tcb{FMC: min(t.FMC, o.FMC), BootLoader: min(t.BootLoader, o.BootLoader), TEE: min(t.TEE, o.TEE), SNP: min(t.SNP, o.SNP), Microcode: min(t.Microcode, o.Microcode)}
}

// facts are what evidence proves and certificates repeat.
type facts struct {
	tee, product, paravisor, root, machine, measurement, hostData string
	simulated, collateral                                         bool
	tcb                                                           tcb // part by part the lower of the reported and the committed
}

// guest is what evidence proves beyond that; it is judged once.
type guest struct {
	signingKey                                       string
	launchTCB                                        tcb
	debug, migration, smt, singleSocket, provisional bool
	abiMajor, abiMinor                               uint8
	vmpl, svn                                        uint32
	idKey, authorKey                                 string // hexadecimal, or "none"
	platform                                         []string
	collateralAge                                    time.Duration
}

// accepts returns the substrate that accepts all of it: two never add up.
// Without guest, only the facts are judged.
func (m *manifest) accepts(role string, f *facts, g *guest, at time.Time) (string, error) {
	nearest, fewest := fmt.Errorf("no substrate may carry the role %q", role), -1
	for i := range m.Substrates {
		s := &m.Substrates[i]
		if !slices.Contains(s.Roles, role) {
			continue
		}
		problems := append(s.judge(f, at), m.judgeProduction(s)...)
		if g != nil {
			problems = append(problems, s.judgeGuest(f, g)...)
		}
		if len(problems) == 0 {
			return "substrate " + s.Name, nil
		}
		if fewest < 0 || len(problems) < fewest {
			nearest, fewest = fmt.Errorf("substrate %s: %w", s.Name, problems[0]), len(problems)
		}
	}
	return "", nearest
}

// problems returns the checks that failed.
func problems(checks ...error) []error {
	return slices.DeleteFunc(checks, func(err error) bool { return err == nil })
}

func (m *manifest) judgeProduction(s *substrate) []error {
	return problems(must(!m.Production || !s.Simulated && s.Collateral.Use == "required", "production manifest", "real machines and collateral", "neither"))
}

func (s *substrate) judge(f *facts, at time.Time) []error {
	if s.SNP == nil {
		return []error{&mismatch{"tee", s.TEE, f.tee}}
	}
	return problems(
		same("tee", s.TEE, f.tee), same("product", s.Product, f.product), same("paravisor", s.Paravisor, f.paravisor), same("simulated", s.Simulated, f.simulated),
		s.listed("roots", s.Roots, f.root, at), s.listed("measurements", s.Measurements, f.measurement, at),
		s.listed("machines", s.Machines, f.machine, at), s.listed("hostData", s.HostData, f.hostData, at),
		same("registers", len(s.Registers), 0),
		must(f.tcb.atLeast(s.SNP.MinTCB), "minTCB", fmt.Sprintf("at least %v", s.SNP.MinTCB), f.tcb),
		must(s.Collateral.Use == "unchecked" || s.Collateral.Use == "required" && f.collateral, "collateral.use", s.Collateral.Use, f.collateral))
}

// listed: the value is in the list and has not expired, or the list says any.
func (s *substrate) listed(name string, list []string, value string, at time.Time) error {
	if slices.Equal(list, []string{"any"}) && name != "roots" && name != "measurements" {
		return nil
	}
	if !slices.Contains(list, value) {
		return &mismatch{name, fmt.Sprint(list), value}
	}
	end, err := timeOr(s.Expires[value], at.Add(time.Nanosecond))
	if err != nil {
		return err
	}
	return must(at.Before(end), name, value+" before "+s.Expires[value], at.UTC())
}

func (s *substrate) judgeGuest(f *facts, g *guest) []error {
	p := s.SNP
	if p == nil {
		return nil // judge has refused
	}
	abi := g.abiMajor > p.Guest.MinABI.Major || g.abiMajor == p.Guest.MinABI.Major && g.abiMinor >= p.Guest.MinABI.Minor
	found := problems(
		same("signingKey", p.SigningKey, g.signingKey),
		must(g.launchTCB.atLeast(p.MinLaunchTCB), "minLaunchTCB", fmt.Sprintf("at least %v", p.MinLaunchTCB), g.launchTCB),
		must(!g.provisional || p.AllowProvisional, "allowProvisional", "firmware that is committed", "provisional"),
		must(g.svn >= p.MinGuestSVN, "minGuestSVN", fmt.Sprint(p.MinGuestSVN), g.svn),
		must(slices.Contains(p.IDKeys, g.idKey) || slices.Contains(p.IDKeys, "any"), "idKeys", fmt.Sprint(p.IDKeys), g.idKey),
		must(slices.Contains(p.AuthorKeys, g.authorKey) || slices.Contains(p.AuthorKeys, "any"), "authorKeys", fmt.Sprint(p.AuthorKeys), g.authorKey),
		must(!g.debug || p.Guest.AllowDebug, "allowDebug", "no debugging", "allowed"),
		must(!g.migration || p.Guest.AllowMigration, "allowMigration", "no migration", "allowed"),
		must(!g.smt || p.Guest.AllowSMT, "allowSMT", "no sibling threads", "allowed"),
		must(g.singleSocket || !p.Guest.RequireSingleSocket, "requireSingleSocket", "one socket", "several"),
		must(abi, "minABI", fmt.Sprint(p.Guest.MinABI), fmt.Sprintf("{%d %d}", g.abiMajor, g.abiMinor)),
		same("vmpl", p.Guest.VMPL, g.vmpl),
		must(s.Collateral.Use != "required" || g.collateralAge <= time.Duration(s.Collateral.MaxAgeDays)*24*time.Hour, "maxAgeDays", fmt.Sprint(s.Collateral.MaxAgeDays), g.collateralAge))
	for _, word := range p.RequirePlatform {
		found = append(found, problems(must(slices.Contains(g.platform, word), "requirePlatform", word, g.platform))...)
	}
	return found
}
