// SPDX-License-Identifier: Apache-2.0

package denylistcmd

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/operatorkey"
	"github.com/c8s-dev/c8s/policy"
)

const editInputs = `An unsigned FILE is edited in place, or into the file that -o names. From a
signed one the next version is started, with the present one's digest as its
previous: it stays as it is, and -o names the new file. FILE may be "-". What
changed is printed as 'c8s denylist diff' does.`

// denials are the flags that name entries, one for each kind.
type denials struct {
	values map[policy.DenyKind]*[]string
}

func (d *denials) register(c *cobra.Command) {
	d.values = map[policy.DenyKind]*[]string{}
	for kind, usage := range map[policy.DenyKind]string{
		policy.DenySerial:      "serial number of a certificate, in hexadecimal as 'c8s flows' prints it",
		policy.DenyKey:         "public key: sha256: and the digest of its SubjectPublicKeyInfo, or its PEM file",
		policy.DenyMachine:     "machine, as it is written in manifests: SNP chip id, TDX PIID, csp:... or ppid:...",
		policy.DenyMeasurement: "launch measurement, 96 hexadecimal digits",
		policy.DenyWorkload:    "name of a workload's entry",
	} {
		d.values[kind] = c.Flags().StringArray(string(kind), nil, usage+" (may be repeated)")
	}
}

// list returns the entries in the order of the kinds.
func (d *denials) list(ring *operatorkey.Ring, reason string) ([]policy.Denial, error) {
	var list []policy.Denial
	for _, kind := range policy.DenyKinds() {
		for _, value := range *d.values[kind] {
			if kind == policy.DenyKey {
				digest, err := keyDigest(ring, value)
				if err != nil {
					return nil, err
				}
				value = string(digest)
			}
			list = append(list, policy.Denial{Kind: kind, Value: value, Reason: reason})
		}
	}
	if len(list) == 0 {
		return nil, exit.Usage(errors.New("name at least one --serial, --key, --machine, --measurement or --workload"))
	}
	return list, nil
}

func keyDigest(ring *operatorkey.Ring, value string) (policy.Digest, error) {
	if d := policy.Digest(value); d.Valid() {
		return d, nil
	}
	public, err := ring.Public(value)
	if err != nil {
		return "", err
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return "", fmt.Errorf("encoding the public key: %w", err)
	}
	return policy.DigestOf(der), nil
}

type editCommand struct {
	denials
	edit        desk.Destination
	reason      string
	trustDomain string
}

func newAdd() *cobra.Command {
	var e editCommand
	c := &cobra.Command{
		Use:   "add FILE --reason WHY (--serial | --key | --machine | --measurement | --workload) VALUE...",
		Short: "Deny something more",
		Long: `Adds entries. The reason is read by whoever is refused. When FILE does not exist
a first version is written, for the mesh that --trust-domain names.

` + editInputs,
		Example: `  c8s denylist add denylist.json --trust-domain example.org --machine <chip id> --reason "stolen"
  c8s denylist add denylist.signed.json -o next.json --measurement <96 digits> --reason "CVE-2026-0001"`,
		Args: desk.UsageArgs(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error { return e.run(c, args[0], e.add) },
	}
	e.register(c)
	c.Flags().StringVar(&e.reason, "reason", "", "why: up to 256 printable ASCII characters (required)")
	c.Flags().StringVar(&e.trustDomain, "trust-domain", "", "name of the mesh, for a first version (required then)")
	e.edit.Register(c)
	return c
}

func newRemove() *cobra.Command {
	var e editCommand
	c := &cobra.Command{
		Use:   "remove FILE (--serial | --key | --machine | --measurement | --workload) VALUE...",
		Short: "Accept again what was denied",
		Long: `Takes entries off the list: what they denied is accepted again as soon as the
new version is published.

` + editInputs,
		Example: `  c8s denylist remove denylist.signed.json -o next.json --workload web`,
		Args:    desk.UsageArgs(cobra.ExactArgs(1)),
		RunE:    func(c *cobra.Command, args []string) error { return e.run(c, args[0], e.remove) },
	}
	e.register(c)
	e.edit.Register(c)
	return c
}

func (e *editCommand) run(c *cobra.Command, path string, change func(*policy.DenyList, []policy.Denial) error) (err error) {
	if c.Flags().Lookup("reason") != nil && e.reason == "" {
		return exit.Usage(errors.New("--reason is required: whoever is refused reads it"))
	}
	ring := operatorkey.NewRing(c)
	defer func() { err = errors.Join(err, ring.Close()) }()
	entries, err := e.list(ring, e.reason)
	if err != nil {
		return err
	}
	before, after, signed, err := e.open(c, path)
	if err != nil {
		return err
	}
	if err := change(after, entries); err != nil {
		return err
	}
	text, err := policy.EncodeDenyList(after)
	if err != nil {
		return fmt.Errorf("%w (nothing was written)", err)
	}
	out, force, err := e.edit.Target(path, signed)
	if err != nil {
		return err
	}
	if before == nil {
		force = e.edit.Force // the file may have appeared in the meantime
	}
	if err := desk.Emit(c.OutOrStdout(), out, text, force); err != nil {
		return err
	}
	return desk.PrintChanges(c.ErrOrStderr(), policy.DiffDenyLists(before, after))
}

// open returns the list as it is and the one to edit: a copy, the successor of
// a signed one, or a first version.
func (e *editCommand) open(c *cobra.Command, path string) (before, after *policy.DenyList, signed bool, err error) {
	if _, err := os.Lstat(path); path != desk.Stdio && c.Flags().Lookup("trust-domain") != nil && errors.Is(err, fs.ErrNotExist) {
		if e.trustDomain == "" {
			return nil, nil, false, exit.Usage(fmt.Errorf("%s does not exist: give --trust-domain to write a first version", path))
		}
		return nil, &policy.DenyList{Schema: policy.DenyListSchema, TrustDomain: e.trustDomain, Version: 1}, false, nil
	}
	d, err := lists().Read(c, path)
	if err != nil {
		return nil, nil, false, err
	}
	if e.trustDomain != "" && e.trustDomain != d.Content.TrustDomain {
		return nil, nil, false, fmt.Errorf("%s is the deny list of %s, not of %s", path, d.Content.TrustDomain, e.trustDomain)
	}
	after = &policy.DenyList{
		Schema: d.Content.Schema, TrustDomain: d.Content.TrustDomain, Version: d.Content.Version, Previous: d.Content.Previous,
		Entries: slices.Clone(d.Content.Entries),
	}
	if d.Signed() {
		after.Version, after.Previous = d.Content.Version+1, d.Content.Digest()
	}
	return d.Content, after, d.Signed(), nil
}

func (e *editCommand) add(l *policy.DenyList, entries []policy.Denial) error {
	for _, d := range entries {
		if i := find(l, d); i >= 0 {
			return fmt.Errorf("adding to the deny list: %s %s is denied already (%s)", d.Kind, d.Value, l.Entries[i].Reason)
		}
		l.Entries = append(l.Entries, d)
	}
	return nil
}

func (e *editCommand) remove(l *policy.DenyList, entries []policy.Denial) error {
	for _, d := range entries {
		i := find(l, d)
		if i < 0 {
			return fmt.Errorf("removing from the deny list: %s %s is not denied; 'c8s denylist show' lists what is", d.Kind, d.Value)
		}
		l.Entries = slices.Delete(l.Entries, i, i+1)
	}
	return nil
}

func find(l *policy.DenyList, d policy.Denial) int {
	return slices.IndexFunc(l.Entries, func(e policy.Denial) bool { return e.Kind == d.Kind && e.Value == d.Value })
}
