// SPDX-License-Identifier: Apache-2.0

package manifestcmd

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/policy"
)

// draft is a manifest that is being edited. It may still have FILL IN values,
// but nothing in it is unknown or ambiguous: those would be lost in writing.
type draft struct {
	path     string
	signed   bool // started from a signed manifest, whose file must stay
	before   *policy.Manifest
	manifest *policy.Manifest
}

// openDraft reads an unsigned manifest as it is, and starts the next version
// of a signed one. Signatures are not checked: 'verify' does that, and nodes
// check the chain.
func openDraft(c *cobra.Command, path string) (*draft, error) {
	raw, err := desk.ReadInput(c, path, policy.MaxEnvelope)
	if err != nil {
		return nil, fmt.Errorf("reading the manifest: %w", err)
	}
	d := &draft{path: path, signed: desk.IsEnvelope(raw)}
	payload := raw
	if d.signed {
		doc, err := desk.Manifests().Decode(path, raw)
		if err != nil {
			return nil, err
		}
		payload = doc.Payload()
	}
	if err := readable(payload); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	d.before, d.manifest = new(policy.Manifest), new(policy.Manifest)
	for _, m := range []*policy.Manifest{d.before, d.manifest} {
		if err := json.Unmarshal(payload, m); err != nil {
			return nil, fmt.Errorf("%s: reading the manifest: %w", path, err)
		}
	}
	if d.signed {
		d.manifest.Version++
		d.manifest.Previous = policy.DigestOf(payload)
		d.manifest.NotBefore = "" // the lock was the present version's
	}
	return d, nil
}

// readable accepts what Parse understands, even if it would not be signed yet.
func readable(payload []byte) error {
	_, err := policy.Parse(payload)
	var invalid *policy.InvalidError
	if !errors.As(err, &invalid) {
		return err
	}
	for _, p := range invalid.Problems {
		if strings.HasPrefix(string(p.Code), "json-") { // see Codes in docs/policy.md
			return err
		}
	}
	if invalid.More > 0 {
		return err
	}
	return nil
}

// encode writes the manifest and refuses an edit that made it worse. What else
// has to be filled in is returned.
func (d *draft) encode() ([]byte, []policy.Problem, error) {
	text, err := encodeLoose(d.manifest)
	if err != nil {
		return nil, nil, err
	}
	old, err := encodeLoose(d.before)
	if err != nil {
		return nil, nil, err
	}
	had := map[string]bool{}
	for _, p := range problemsOf(old) {
		had[string(p.Code)+p.Path] = true
	}
	var left, added []policy.Problem
	for _, p := range problemsOf(text) {
		if had[string(p.Code)+p.Path] {
			left = append(left, p)
		} else {
			added = append(added, p)
		}
	}
	if len(added) > 0 {
		return nil, nil, &policy.InvalidError{Doing: "editing the manifest (nothing was written)", Problems: added}
	}
	return text, left, nil
}

func problemsOf(payload []byte) []policy.Problem {
	var invalid *policy.InvalidError
	if _, err := policy.Parse(payload); errors.As(err, &invalid) {
		return invalid.Problems
	}
	return nil
}

// workload returns the entry of that name, to be edited.
func (d *draft) workload(name string) (*policy.Workload, error) {
	names := make([]string, len(d.manifest.Workloads))
	for i := range d.manifest.Workloads {
		if d.manifest.Workloads[i].Name == name {
			return &d.manifest.Workloads[i], nil
		}
		names[i] = d.manifest.Workloads[i].Name
	}
	return nil, fmt.Errorf("editing the manifest: there is no workload %q; there are %s; add one with 'c8s manifest add-workload'", name, strings.Join(names, ", "))
}

const editInputs = `An unsigned MANIFEST is edited in place, or into the file that -o names. From a
signed one the next version is started, with the present one's digest as its
previous: it stays as it is, and -o names the new file. MANIFEST may be "-".
Values marked FILL IN may still be there. An edit that nodes would refuse is
not written. What changed is printed as 'c8s manifest diff' does.`

// save writes the draft and says what changed.
func (d *draft) save(c *cobra.Command, f *desk.Destination) error {
	path, force, err := f.Target(d.path, d.signed)
	if err != nil {
		return err
	}
	text, left, err := d.encode()
	if err != nil {
		return err
	}
	if err := desk.Emit(c.OutOrStdout(), path, text, force); err != nil {
		return err
	}
	if err := desk.PrintChanges(c.ErrOrStderr(), policy.Diff(d.before, d.manifest)); err != nil {
		return err
	}
	if len(left) > 0 {
		_, err = fmt.Fprintf(c.ErrOrStderr(), "%d values are still to be filled in; 'c8s manifest lint %s' names them\n", len(left), path)
	}
	return err
}
