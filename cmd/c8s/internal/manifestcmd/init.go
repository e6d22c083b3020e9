// SPDX-License-Identifier: Apache-2.0

package manifestcmd

import (
	"cmp"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/attest/sim/devtee"
	"github.com/c8s-dev/c8s/attest/snp"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/operatorkey"
	"github.com/c8s-dev/c8s/policy"
)

// The placeholders break the rules for their fields on purpose: a manifest
// that still has one cannot be signed.
const (
	fillRoot        = "FILL IN: sha256: and the SHA-256 of the vendor root certificate's DER"
	fillMeasurement = "FILL IN: the launch digest of the node image, 96 hex digits"
	fillImage       = "FILL IN: sha256: and the image digest"
)

// amdListDays is how old AMD's revocation list may be: it is issued for about a
// year.
const amdListDays = 400

// vendorRoot returns the digest of AMD's root certificate (ARK) for a product.
func vendorRoot(product string) string {
	for _, r := range snp.VendorRoots() {
		if string(r.Product) == product {
			return string(r.Digest)
		}
	}
	return fillRoot
}

type initCommand struct {
	trustDomain  string
	newKey       string
	algorithm    string
	operatorKeys []string
	threshold    int
	product      string
	simulated    bool
	simDir       string
	policy       string
	roots        []string
	measurements []string
	machines     []string
	minTCB       string
	workloads    []string
	out          string
	operatorsOut string
	force        bool
}

func newInit() *cobra.Command {
	var i initCommand
	c := &cobra.Command{
		Use:   "init",
		Short: "Write a starting manifest, and an operator key if wanted",
		Long: `Writes a manifest with every field, and the operators' file that daemons start
from. The accepted root is AMD's for the product, or with --simulated the one you
give. What init cannot know is marked FILL IN: until those values are replaced,
'c8s manifest sign' refuses the file and says where they are. 'c8s measure snp'
computes launch digests.

For TDX, for Azure, or to accept machines like one you have, take the machines
from an appraisal policy with --policy: 'c8s attest show -o policy' drafts one.

HOST_DATA is set to the digest of the operators, which is what machines must be
launched with. Files that exist are not replaced unless --force is given.`,
		Example: `  # one operator, with a new key in operator.pem
  c8s manifest init --trust-domain example.org --new-key operator.pem

  # two of three operators, who keep their own keys
  c8s manifest init --trust-domain example.org --threshold 2 \
    --operator-key alice=alice.pub --operator-key bob=bob.pub --operator-key eve=eve.pub

  # machines like the one that gave this evidence
  c8s attest show evidence.cbor -o policy >policy.json
  c8s manifest init --trust-domain example.org --new-key operator.pem --policy policy.json

  # for development: accepts machines that run this very binary with --tee=sim --sim-dir sim
  c8s manifest init --trust-domain dev.example.org --new-key operator.pem --sim-dir sim \
    --workload web=sha256:<64 digits>`,
		Args: desk.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return i.run(c) },
	}
	f := c.Flags()
	f.StringVar(&i.trustDomain, "trust-domain", "", "name of the mesh, like example.org (required)")
	f.StringVar(&i.newKey, "new-key", "", "make an operator key: private part to this file, public part to the file with .pub added")
	f.StringVar(&i.algorithm, "algorithm", policy.AlgorithmEd25519, "algorithm of the new key: ed25519 or ecdsa-p256")
	f.StringArrayVar(&i.operatorKeys, "operator-key", nil, "public key of an operator, as [NAME=]FILE or PKCS#11 URI (may be repeated)")
	f.IntVar(&i.threshold, "threshold", 1, "how many operators must sign a manifest")
	f.StringVar(&i.product, "product", policy.ProductMilan, "SEV-SNP processor line: Milan, Genoa or Turin")
	f.BoolVar(&i.simulated, "simulated", false, "accept simulated machines instead of real ones; the manifest is then not a production one")
	f.StringVar(&i.simDir, "sim-dir", "", "accept the simulated machines of this folder, running this binary; implies --simulated")
	f.StringVar(&i.policy, "policy", "", "appraisal policy whose machines are accepted, as nodes and CDS; goes with none of the flags about machines")
	f.StringArrayVar(&i.roots, "root", nil, "digest of an accepted root certificate, if not AMD's for the product (may be repeated)")
	f.StringArrayVar(&i.measurements, "measurement", nil, "accepted launch digest (may be repeated)")
	f.StringArrayVar(&i.machines, "machine", []string{policy.Any}, "accepted chip id (may be repeated)")
	f.StringVar(&i.minTCB, "min-tcb", "0,0,0,0", "lowest accepted versions: boot loader, TEE, SNP, microcode; for Turin with the FMC before them")
	f.StringArrayVar(&i.workloads, "workload", nil, "workload with one image, as NAME=DIGEST (may be repeated)")
	f.StringVarP(&i.out, "out", "o", "manifest.json", "file for the manifest")
	f.StringVar(&i.operatorsOut, "operators-out", "operators.json", "file for the operators: the trust anchor of daemons and of 'verify'")
	f.BoolVar(&i.force, "force", false, "replace files that exist, keys too")
	return c
}

func (i *initCommand) run(c *cobra.Command) (err error) {
	if i.trustDomain == "" {
		return exit.Usage(errors.New("--trust-domain is required"))
	}
	if i.newKey == "" && len(i.operatorKeys) == 0 {
		return exit.Usage(errors.New("an operator is required: make a key with --new-key FILE, or give public ones with --operator-key FILE"))
	}
	if i.simDir != "" {
		if len(i.roots)+len(i.measurements) > 0 {
			return exit.Usage(errors.New("--sim-dir knows root and measurement: leave out --root and --measurement"))
		}
		i.simulated = true
	}
	if i.policy != "" && (i.simulated || len(i.roots)+len(i.measurements) > 0 || c.Flags().Changed("machine") || c.Flags().Changed("min-tcb") || c.Flags().Changed("product")) {
		return exit.Usage(errors.New("--policy knows the machines: leave out --simulated, --sim-dir, --product, --root, --measurement, --machine and --min-tcb"))
	}
	if err := desk.CheckFree(i.force, i.outputs()...); err != nil {
		return err
	}
	ring := operatorkey.NewRing(c)
	defer func() { err = errors.Join(err, ring.Close()) }()
	operators, writeKeys, err := i.operators(ring)
	if err != nil {
		return err
	}
	m, err := i.manifest(operators)
	if err != nil {
		return err
	}
	text, err := encodeLoose(m)
	if err != nil {
		return err
	}
	operatorsText, err := encodeLoose(operators)
	if err != nil {
		return err
	}
	if err := writeKeys(); err != nil {
		return err
	}
	if err := desk.WriteFile(i.operatorsOut, operatorsText, desk.ModePublic, i.force); err != nil {
		return err
	}
	if err := desk.WriteFile(i.out, text, desk.ModePublic, i.force); err != nil {
		return err
	}
	return i.report(c, text)
}

func (i *initCommand) outputs() []string {
	paths := []string{i.out, i.operatorsOut}
	if i.newKey != "" {
		paths = append(paths, i.newKey, i.newKey+operatorkey.PublicSuffix)
	}
	return paths
}

// operators returns who may sign, and how to write a new key: last, when
// nothing else can be wrong any more.
func (i *initCommand) operators(ring *operatorkey.Ring) (policy.Operators, func() error, error) {
	o := policy.Operators{Threshold: i.threshold}
	write := func() error { return nil }
	for _, arg := range i.operatorKeys {
		key, err := ring.Operator(arg)
		if err != nil {
			return o, nil, err
		}
		o.Keys = append(o.Keys, key)
	}
	if i.newKey != "" {
		key, err := operatorkey.Generate(i.algorithm)
		if err != nil {
			return o, nil, err
		}
		described, err := policy.NewOperatorKey(fmt.Sprintf("operator-%d", len(o.Keys)+1), key.Public())
		if err != nil {
			return o, nil, err
		}
		o.Keys = append(o.Keys, described)
		write = func() error { return operatorkey.Write(i.newKey, key, i.force) }
	}
	return o, write, o.Validate()
}

func (i *initCommand) manifest(operators policy.Operators) (*policy.Manifest, error) {
	substrates, err := i.substrates(operators)
	if err != nil {
		return nil, err
	}
	m := &policy.Manifest{
		Schema: policy.Schema, TrustDomain: i.trustDomain, Version: 1, Production: !i.simulated, Operators: operators, Substrates: substrates,
	}
	for _, arg := range orFill(i.workloads, "example="+fillImage) {
		name, digest, ok := strings.Cut(arg, "=")
		if !ok {
			return nil, exit.Usage(fmt.Errorf("--workload must be NAME=DIGEST, not %q", arg))
		}
		m.Workloads = append(m.Workloads, policy.Workload{Name: name, Images: []policy.Image{{Name: name, Digest: policy.Digest(digest)}}})
	}
	return m, nil
}

func (i *initCommand) substrates(operators policy.Operators) ([]policy.Substrate, error) {
	switch {
	case i.policy != "":
		return i.fromPolicy()
	case i.simDir != "":
		substrate, err := devtee.Substrate(devtee.Options{Dir: i.simDir, Operators: operators})
		return []policy.Substrate{substrate}, err
	}
	tcb, err := parseTCB(i.minTCB)
	if err != nil {
		return nil, err
	}
	hostData := operators.Digest()
	root := fillRoot // a simulated vendor's root is nobody's but yours
	if !i.simulated {
		root = vendorRoot(i.product)
	}
	s := policy.Substrate{
		Name: strings.ToLower(i.product), Roles: []policy.Role{policy.RoleNode, policy.RoleCDS}, TEE: policy.TEESEVSNP,
		Product: i.product, Paravisor: policy.ParavisorNone, Simulated: i.simulated, Machines: i.machines,
		Measurements: orFill(i.measurements, fillMeasurement), HostData: []string{hex.EncodeToString(hostData[:])},
		SNP: &policy.SNPRules{
			SigningKey: policy.SigningKeyVCEK, MinTCB: tcb, MinLaunchTCB: tcb,
			IDKeys: []string{policy.None}, AuthorKeys: []string{policy.None},
		},
		Collateral: policy.CollateralRules{Use: policy.CollateralRequired, MaxAgeDays: amdListDays},
	}
	for _, root := range orFill(i.roots, root) {
		s.Roots = append(s.Roots, policy.Digest(root))
	}
	return []policy.Substrate{s}, nil
}

const maxPolicy = policy.MaxPayload

// fromPolicy takes an appraisal policy's substrates as they are, but for the
// roles, which evidence cannot tell.
func (i *initCommand) fromPolicy() ([]policy.Substrate, error) {
	text, err := desk.ReadFile(i.policy, maxPolicy)
	if err != nil {
		return nil, fmt.Errorf("reading the appraisal policy: %w", err)
	}
	p, err := policy.ParseAppraisalPolicy(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", i.policy, err)
	}
	for n := range p.Substrates {
		p.Substrates[n].Roles = []policy.Role{policy.RoleNode, policy.RoleCDS}
		i.simulated = i.simulated || p.Substrates[n].Simulated
	}
	return p.Substrates, nil
}

func parseTCB(text string) (*policy.TCB, error) {
	var t policy.TCB
	parts := strings.Split(text, ",")
	into := []*uint8{&t.FMC, &t.BootLoader, &t.TEE, &t.SNP, &t.Microcode}
	if len(parts) == len(into)-1 {
		into = into[1:]
	}
	bad := len(parts) != len(into)
	for i := 0; i < len(parts) && !bad; i++ {
		v, err := strconv.ParseUint(parts[i], 10, 8)
		*into[i], bad = uint8(v), err != nil
	}
	if bad {
		return nil, exit.Usage(fmt.Errorf("--min-tcb must be four numbers from 0 to 255 like 3,0,8,115, or five for Turin, not %q", text))
	}
	return &t, nil
}

func orFill(given []string, placeholder string) []string {
	if len(given) == 0 {
		return []string{placeholder}
	}
	return slices.Clone(given)
}

// encodeLoose writes what policy.Encode would refuse to.
func encodeLoose(v any) ([]byte, error) {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encoding: %w", err)
	}
	return append(text, '\n'), nil
}

func (i *initCommand) report(c *cobra.Command, text []byte) error {
	w := c.OutOrStdout()
	var b strings.Builder
	for _, path := range i.outputs() {
		if _, err := os.Stat(path); err == nil {
			fmt.Fprintf(&b, "wrote %s\n", path)
		}
	}
	var invalid *policy.InvalidError
	if _, err := policy.Parse(text); errors.As(err, &invalid) {
		fmt.Fprintf(&b, "\nfill in before signing:\n")
		for _, p := range invalid.Problems {
			fmt.Fprintf(&b, "  %s: %s\n", p.Path, p.Expected)
		}
	} else {
		fmt.Fprintf(&b, "\nnext: c8s manifest lint %s\n      c8s manifest sign %s --key %s -o manifest.signed.json\n", i.out, i.out, cmp.Or(i.newKey, "KEY"))
	}
	_, err := fmt.Fprint(w, b.String())
	return err
}
