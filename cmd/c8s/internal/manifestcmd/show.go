// SPDX-License-Identifier: Apache-2.0

package manifestcmd

import (
	"encoding/hex"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/policy"
)

// shown is the JSON output of show.
type shown struct {
	Digest          policy.Digest    `json:"digest"`
	OperatorsDigest string           `json:"operatorsDigest"` // HOST_DATA
	KeyIDs          []string         `json:"keyids"`          // of the signatures, not checked
	Manifest        *policy.Manifest `json:"manifest"`
}

func newShow() *cobra.Command {
	var output desk.Output
	c := &cobra.Command{
		Use:   "show FILE",
		Short: "Print a manifest, signed or not, without checking signatures",
		Long: `Prints what a manifest says and its digests. Signatures are listed but not
checked: that is what 'c8s manifest verify' is for. FILE may be "-".`,
		Example: `  c8s manifest show manifest.signed.json
  c8s manifest show manifest.json -o json`,
		Args: desk.UsageArgs(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			d, err := desk.Manifests().Read(c, args[0])
			if err != nil {
				return err
			}
			operators := d.Content.Operators.Digest()
			s := shown{Digest: d.Content.Digest(), OperatorsDigest: hex.EncodeToString(operators[:]), KeyIDs: d.KeyIDs(), Manifest: d.Content}
			return output.Write(c, s, s.print)
		},
	}
	output.Register(c)
	return c
}

func (s *shown) print(out io.Writer) error {
	m := s.Manifest
	t := desk.NewTable(out)
	t.Line("trust domain", "%s", m.TrustDomain)
	t.Line("version", "%d%s", m.Version, kindOf(m.Production))
	t.Line("digest", "%s", s.Digest)
	if m.Previous != "" {
		t.Line("previous", "%s", m.Previous)
	}
	if m.NotBefore != "" {
		t.Line("in force", "not before %s", m.NotBefore)
	}
	if len(s.KeyIDs) == 0 {
		t.Line("signatures", "none")
	}
	for _, id := range s.KeyIDs {
		t.Line("signature", "by %q, NOT CHECKED (see 'c8s manifest verify')", id)
	}
	t.Line("operators", "%d of %d, HOST_DATA %s", m.Operators.Threshold, len(m.Operators.Keys), s.OperatorsDigest)
	for _, k := range m.Operators.Keys {
		id, _ := k.ID() // Parse has accepted the key
		t.Line("", "%s  %s  %s", k.Name, k.Algorithm, id)
	}
	printPeople(t, m)
	printRuntime(t, m)
	for i := range m.Substrates {
		printSubstrate(t, &m.Substrates[i])
	}
	for i := range m.Workloads {
		printWorkload(t, &m.Workloads[i])
	}
	for i := range m.Ingress {
		printIngress(t, &m.Ingress[i])
	}
	return t.Flush()
}

// printPeople names who else than the operators has a part in the mesh.
func printPeople(t desk.Table, m *policy.Manifest) {
	if m.Recovery != nil {
		t.Line("recovery", "%d of %d", m.Recovery.Threshold, len(m.Recovery.Keys))
		for _, k := range m.Recovery.Keys {
			t.Line("", "%s  x25519  %s", k.Name, k.PublicKey)
		}
	}
	if len(m.Witnesses) > 0 {
		t.Line("witnesses", "%d of %d", m.WitnessQuorum, len(m.Witnesses))
		for _, w := range m.Witnesses {
			t.Line("", "%s  %s", w.Name, w.Key)
		}
	}
}

func printSubstrate(t desk.Table, s *policy.Substrate) {
	simulated := ""
	if s.Simulated {
		simulated = "  SIMULATED: proves nothing"
	}
	t.Line("substrate "+s.Name, "%s %s, paravisor %s, for roles %s%s", s.TEE, s.Product, s.Paravisor, joined(s.Roles), simulated)
	t.Line("", "roots %s", joined(s.Roots))
	t.Line("", "measurements %s", joined(s.Measurements))
	t.Line("", "host data %s", joined(s.HostData))
	for _, name := range slices.Sorted(maps.Keys(s.Registers)) {
		t.Line("", "%s %s", name, joined(s.Registers[name]))
	}
	switch {
	case s.SNP != nil:
		g := s.SNP.Guest
		t.Line("", "signed by %s, at least %s, launched at least %s", s.SNP.SigningKey, s.SNP.MinTCB, s.SNP.MinLaunchTCB)
		t.Line("", "guest debug=%t migration=%t smt=%t singleSocket=%t abi=%s vmpl=%d svn=%d provisional=%t", g.AllowDebug, g.AllowMigration, g.AllowSMT, g.RequireSingleSocket, g.MinABI, g.VMPL, s.SNP.MinGuestSVN, s.SNP.AllowProvisional)
		t.Line("", "ID keys %s, author keys %s, platform %s", joined(s.SNP.IDKeys), joined(s.SNP.AuthorKeys), joined(s.SNP.RequirePlatform))
	case s.TDX != nil:
		g := s.TDX.Guest
		t.Line("", "TCB status %s, advisories %s, evaluation from %d", joined(s.TDX.Statuses), joined(s.TDX.Advisories), s.TDX.MinEvaluationNumber)
		t.Line("", "guest debug=%t migration=%t perfmon=%t septVEDisable=%t, xfam %s", g.AllowDebug, g.AllowMigration, g.AllowPerfmon, g.RequireSeptVEDisable, joined(s.TDX.XFAMs))
		t.Line("", "owners %s, configurations %s, service TDs %s", joined(s.TDX.Owners), joined(s.TDX.OwnerConfigs), joined(s.TDX.ServiceTDs))
	}
	t.Line("", "collateral %s, up to %d days old", s.Collateral.Use, s.Collateral.MaxAgeDays)
	t.Line("", "machines %s%s", joined(s.Machines), anyMachine(s.Machines))
	for _, value := range slices.Sorted(maps.Keys(s.Expires)) {
		t.Line("", "until %s %s", s.Expires[value], value)
	}
}

// anyMachine states the cost of not pinning (requirement A6).
func anyMachine(machines []string) string {
	if slices.Contains(machines, policy.Any) {
		return "  (a key leaked from any such machine could pose as yours)"
	}
	return ""
}

func joined[T ~string](list []T) string {
	texts := make([]string, len(list))
	for i, v := range list {
		texts[i] = string(v)
	}
	return strings.Join(texts, ", ")
}
