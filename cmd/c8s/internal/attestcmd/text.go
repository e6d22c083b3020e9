// SPDX-License-Identifier: Apache-2.0

package attestcmd

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/snp"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/policy"
)

// facts prints what the evidence says, then the checks.
func facts(out io.Writer, s policy.Substrate, v *attest.Verdict) error {
	t := desk.NewTable(out)
	t.Line("TEE", "%s %s, paravisor %s%s", v.TEE, v.Product, v.Paravisor, simulated(v.Simulated))
	t.Line("root", "%s%s", v.Root, knownRoot(v.Root))
	t.Line("machine", "%s", v.Machine)
	t.Line("measurement", "%s", v.Measurement)
	t.Line("host data", "%s", v.HostData)
	for _, name := range slices.Sorted(maps.Keys(s.Registers)) {
		t.Line(name, "%s", strings.Join(s.Registers[name], " "))
	}
	if s.SNP != nil {
		snpFacts(t, s.SNP)
	}
	if s.TDX != nil {
		tdxFacts(t, s.TDX, v)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "\n%s", v)
	return err
}

func snpFacts(t desk.Table, s *policy.SNPRules) {
	t.Line("signed by", "%s", s.SigningKey)
	t.Line("TCB", "%s", s.MinTCB)
	t.Line("launch TCB", "%s", s.MinLaunchTCB)
	g := s.Guest
	t.Line("guest", "debug=%t migration=%t smt=%t singleSocket=%t abi=%s vmpl=%d svn=%d", g.AllowDebug, g.AllowMigration, g.AllowSMT, g.RequireSingleSocket, g.MinABI, g.VMPL, s.MinGuestSVN)
	t.Line("platform", "%s", strings.Join(s.RequirePlatform, " "))
	t.Line("ID key", "%s", strings.Join(s.IDKeys, " "))
	t.Line("author key", "%s", strings.Join(s.AuthorKeys, " "))
	t.Line("provisional", "%t", s.AllowProvisional)
}

func tdxFacts(t desk.Table, s *policy.TDXRules, v *attest.Verdict) {
	t.Line("TCB", "%s", v.TDXTCB)
	t.Line("owner", "%s", strings.Join(s.Owners, " "))
	t.Line("owner config", "%s", strings.Join(s.OwnerConfigs, " "))
	t.Line("service TD", "%s", strings.Join(s.ServiceTDs, " "))
	g := s.Guest
	t.Line("guest", "debug=%t migration=%t perfmon=%t septVEDisable=%t xfam=%s", g.AllowDebug, g.AllowMigration, g.AllowPerfmon, g.RequireSeptVEDisable, strings.Join(s.XFAMs, " "))
}

func simulated(b bool) string {
	if b {
		return ", SIMULATED: proves nothing"
	}
	return ""
}

// knownRoot names a vendor's root, for orientation only.
func knownRoot(d policy.Digest) string {
	if vendor := VendorOf(d); vendor != "" {
		return " (" + vendor + ")"
	}
	return ""
}

// VendorOf names the vendor's root with that digest, "" for one that is none.
// Which roots are trusted is a policy's question.
func VendorOf(root policy.Digest) string {
	for _, r := range snp.VendorRoots() {
		if r.Digest == root {
			return "AMD " + string(r.Product)
		}
	}
	if root == intelRoot {
		return "Intel SGX Root CA"
	}
	return ""
}

// intelRoot is the SHA-256 of Intel's SGX Root CA, published at
// https://certificates.trustedservices.intel.com/Intel_SGX_Provisioning_Certification_RootCA.cer.
const intelRoot policy.Digest = "sha256:44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3"
