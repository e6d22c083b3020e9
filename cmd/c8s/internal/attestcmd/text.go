// SPDX-License-Identifier: Apache-2.0

package attestcmd

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/snp"
	"github.com/c8s-dev/c8s/policy"
)

// facts prints what the evidence says, then the checks.
func facts(out io.Writer, s policy.Substrate, v *attest.Verdict) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	line := func(name, format string, args ...any) { fmt.Fprintf(w, "%s\t%s\n", name, fmt.Sprintf(format, args...)) }
	line("TEE", "%s %s, paravisor %s%s", v.TEE, v.Product, v.Paravisor, simulated(v.Simulated))
	line("root", "%s%s", v.Root, knownRoot(v.Root))
	line("machine", "%s", v.Machine)
	line("measurement", "%s", v.Measurement)
	line("host data", "%s", v.HostData)
	for _, name := range slices.Sorted(maps.Keys(s.Registers)) {
		line(name, "%s", strings.Join(s.Registers[name], " "))
	}
	if s.SNP != nil {
		snpFacts(line, s.SNP)
	}
	if s.TDX != nil {
		tdxFacts(line, s.TDX, v)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "\n%s", v)
	return err
}

func snpFacts(line func(name, format string, args ...any), s *policy.SNPRules) {
	line("signed by", "%s", s.SigningKey)
	line("TCB", "%s", s.MinTCB)
	line("launch TCB", "%s", s.MinLaunchTCB)
	g := s.Guest
	line("guest", "debug=%t migration=%t smt=%t singleSocket=%t abi=%s vmpl=%d svn=%d", g.AllowDebug, g.AllowMigration, g.AllowSMT, g.RequireSingleSocket, g.MinABI, g.VMPL, s.MinGuestSVN)
	line("platform", "%s", strings.Join(s.RequirePlatform, " "))
	line("ID key", "%s", strings.Join(s.IDKeys, " "))
	line("author key", "%s", strings.Join(s.AuthorKeys, " "))
	line("provisional", "%t", s.AllowProvisional)
}

func tdxFacts(line func(name, format string, args ...any), s *policy.TDXRules, v *attest.Verdict) {
	line("TCB", "%s", v.TDXTCB)
	line("owner", "%s", strings.Join(s.Owners, " "))
	line("owner config", "%s", strings.Join(s.OwnerConfigs, " "))
	line("service TD", "%s", strings.Join(s.ServiceTDs, " "))
	g := s.Guest
	line("guest", "debug=%t migration=%t perfmon=%t septVEDisable=%t xfam=%s", g.AllowDebug, g.AllowMigration, g.AllowPerfmon, g.RequireSeptVEDisable, strings.Join(s.XFAMs, " "))
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
