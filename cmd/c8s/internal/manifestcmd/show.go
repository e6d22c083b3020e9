// SPDX-License-Identifier: Apache-2.0

package manifestcmd

import (
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

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
			if err := output.Check(); err != nil {
				return err
			}
			d, err := load(c, args[0])
			if err != nil {
				return err
			}
			s := newShown(d)
			if output.JSON() {
				return desk.WriteJSON(c.OutOrStdout(), s)
			}
			return s.print(c.OutOrStdout())
		},
	}
	output.Register(c)
	return c
}

func newShown(d *document) *shown {
	operators := d.manifest.Operators.Digest()
	s := &shown{Digest: d.manifest.Digest(), OperatorsDigest: hex.EncodeToString(operators[:]), KeyIDs: []string{}, Manifest: d.manifest}
	if d.envelope != nil {
		for _, sig := range d.envelope.Signatures {
			s.KeyIDs = append(s.KeyIDs, sig.KeyID)
		}
	}
	return s
}

func (s *shown) print(out io.Writer) error {
	m := s.Manifest
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	line := func(key, format string, args ...any) { _, _ = fmt.Fprintf(w, key+"\t"+format+"\n", args...) }
	line("trust domain", "%s", m.TrustDomain)
	line("version", "%d%s", m.Version, kindOf(m.Production))
	line("digest", "%s", s.Digest)
	if m.Previous != "" {
		line("previous", "%s", m.Previous)
	}
	if m.NotBefore != "" {
		line("in force", "not before %s", m.NotBefore)
	}
	if len(s.KeyIDs) == 0 {
		line("signatures", "none")
	}
	for _, id := range s.KeyIDs {
		line("signature", "by %q, NOT CHECKED (see 'c8s manifest verify')", id)
	}
	line("operators", "%d of %d, HOST_DATA %s", m.Operators.Threshold, len(m.Operators.Keys), s.OperatorsDigest)
	for _, k := range m.Operators.Keys {
		id, _ := k.ID() // Parse has accepted the key
		line("", "%s  %s  %s", k.Name, k.Algorithm, id)
	}
	printPeople(line, m)
	for i := range m.Substrates {
		printSubstrate(line, &m.Substrates[i])
	}
	for i := range m.Workloads {
		printWorkload(line, &m.Workloads[i])
	}
	return w.Flush()
}

// printPeople names who else than the operators has a part in the mesh.
func printPeople(line func(string, string, ...any), m *policy.Manifest) {
	if m.Recovery != nil {
		line("recovery", "%d of %d", m.Recovery.Threshold, len(m.Recovery.Keys))
		for _, k := range m.Recovery.Keys {
			line("", "%s  x25519  %s", k.Name, k.PublicKey)
		}
	}
	if len(m.Witnesses) > 0 {
		line("witnesses", "%d of %d", m.WitnessQuorum, len(m.Witnesses))
		for _, w := range m.Witnesses {
			line("", "%s  %s", w.Name, w.Key)
		}
	}
}

func printSubstrate(line func(string, string, ...any), t *policy.Substrate) {
	simulated := ""
	if t.Simulated {
		simulated = "  SIMULATED: proves nothing"
	}
	line("substrate "+t.Name, "%s %s, paravisor %s, for roles %s%s", t.TEE, t.Product, t.Paravisor, joined(t.Roles), simulated)
	line("", "roots %s", joined(t.Roots))
	line("", "measurements %s", joined(t.Measurements))
	line("", "host data %s", joined(t.HostData))
	for _, name := range slices.Sorted(maps.Keys(t.Registers)) {
		line("", "%s %s", name, joined(t.Registers[name]))
	}
	switch {
	case t.SNP != nil:
		g := t.SNP.Guest
		line("", "signed by %s, at least %s, launched at least %s", t.SNP.SigningKey, t.SNP.MinTCB, t.SNP.MinLaunchTCB)
		line("", "guest debug=%t migration=%t smt=%t singleSocket=%t abi=%s vmpl=%d svn=%d provisional=%t", g.AllowDebug, g.AllowMigration, g.AllowSMT, g.RequireSingleSocket, g.MinABI, g.VMPL, t.SNP.MinGuestSVN, t.SNP.AllowProvisional)
		line("", "ID keys %s, author keys %s, platform %s", joined(t.SNP.IDKeys), joined(t.SNP.AuthorKeys), joined(t.SNP.RequirePlatform))
	case t.TDX != nil:
		g := t.TDX.Guest
		line("", "TCB status %s, advisories %s, evaluation from %d", joined(t.TDX.Statuses), joined(t.TDX.Advisories), t.TDX.MinEvaluationNumber)
		line("", "guest debug=%t migration=%t perfmon=%t septVEDisable=%t, xfam %s", g.AllowDebug, g.AllowMigration, g.AllowPerfmon, g.RequireSeptVEDisable, joined(t.TDX.XFAMs))
		line("", "owners %s, configurations %s, service TDs %s", joined(t.TDX.Owners), joined(t.TDX.OwnerConfigs), joined(t.TDX.ServiceTDs))
	}
	line("", "collateral %s, up to %d days old", t.Collateral.Use, t.Collateral.MaxAgeDays)
	line("", "machines %s%s", joined(t.Machines), anyMachine(t.Machines))
	for _, value := range slices.Sorted(maps.Keys(t.Expires)) {
		line("", "until %s %s", t.Expires[value], value)
	}
}

// anyMachine states the cost of not pinning (requirement A6).
func anyMachine(machines []string) string {
	if slices.Contains(machines, policy.Any) {
		return "  (a key leaked from any such machine could pose as yours)"
	}
	return ""
}

func printWorkload(line func(string, string, ...any), w *policy.Workload) {
	access := ""
	if w.HostAccess {
		access = "  reachable from its node"
	}
	namespaces := joined(w.Namespaces)
	if namespaces == "" {
		namespaces = "every namespace"
	}
	line("workload "+w.Name, "in %s%s", namespaces, access)
	for _, image := range w.Images {
		line("", "image %s %s", image.Name, image.Digest)
	}
	for _, r := range w.Peers.To {
		line("", "to %s %s %v", r.Workload, r.Protocol, r.Ports)
	}
	for _, r := range w.Peers.From {
		line("", "from %s %s %v", r.Workload, r.Protocol, r.Ports)
	}
}

func joined[T ~string](list []T) string {
	texts := make([]string, len(list))
	for i, v := range list {
		texts[i] = string(v)
	}
	return strings.Join(texts, ", ")
}
