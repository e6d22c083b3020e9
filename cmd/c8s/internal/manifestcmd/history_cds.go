// SPDX-License-Identifier: Apache-2.0

package manifestcmd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/cds/client"
	"github.com/c8s-dev/c8s/cds/translog"
	"github.com/c8s-dev/c8s/cds/trust"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/policy"
)

// fromCDS reads the chain from a CDS. The manifest that the operators are known
// to have signed is the anchor: what comes after it is signed, what comes before
// is named by it.
func (h *historyCommand) fromCDS(c *cobra.Command, trusted policy.Operators) (steps []step, broken, err error) {
	cl, anchor, err := h.cds.ClientOf(c, trusted, "")
	if err != nil {
		return nil, nil, err
	}
	d, err := cl.Documents(c.Context())
	if err != nil {
		return nil, nil, err
	}
	defer d.Close()
	envelopes, err := d.Manifests(c.Context())
	if err != nil {
		return nil, nil, err
	}
	links := make([]link, len(envelopes))
	for i, raw := range envelopes {
		doc, err := desk.Manifests().Decode(fmt.Sprintf("manifest %d of %d", i+1, len(envelopes)), raw)
		if err != nil {
			return nil, nil, err
		}
		links[i] = link{"", doc}
	}
	steps, broken = follow(links, nil)
	if broken == nil && !slices.ContainsFunc(steps, func(s step) bool { return s.Digest == anchor.Digest }) {
		broken = fmt.Errorf("the CDS has versions %d to %d, and none of them is your version %d (%s): give --manifest one of the chain that the operators signed, and find out what became of yours",
			steps[0].Version, steps[len(steps)-1].Version, anchor.Manifest.Version, anchor.Digest)
	}
	auditor, err := d.Auditor()
	if err != nil {
		return nil, nil, err
	}
	checkpoint, _, err := auditor.Latest(c.Context())
	if err != nil {
		return nil, nil, err
	}
	w := witness{d, auditor, *checkpoint}
	for i := range steps {
		if err := w.add(c.Context(), &steps[i], links[i].Content.TrustDomain); err != nil {
			return steps[:i], errors.Join(broken, fmt.Errorf("version %d: %w", steps[i].Version, err)), nil
		}
	}
	return steps, broken, nil
}

// witness is the CDS's log at one moment.
type witness struct {
	d          *client.Documents
	auditor    *translog.Auditor
	checkpoint translog.Checkpoint
}

// add adds what the CDS says about a version, once the log says the same.
func (w witness) add(ctx context.Context, s *step, trustDomain string) error {
	proof, err := w.d.Countersignature(ctx, trust.Subject{
		Kind: trust.KindManifest, TrustDomain: trustDomain, Version: s.Version, Digest: s.Digest, Previous: s.Previous,
	})
	if err != nil {
		return err
	}
	if proof.LogIndex >= uint64(w.checkpoint.Size) { //nolint:gosec // not negative
		return fmt.Errorf("the countersignature names entry %d of a log of %d", proof.LogIndex, w.checkpoint.Size)
	}
	index := int64(proof.LogIndex) //nolint:gosec // below the size
	err = w.auditor.Entries(ctx, w.checkpoint, index, index+1, func(_ int64, raw []byte) error {
		e, err := translog.ParseEntry(raw)
		if err == nil && (e.Type != translog.TypeManifest || e.Digest != s.Digest || e.Version != s.Version || e.Time.Unix() != proof.Time) {
			err = fmt.Errorf("log entry %d, which the countersignature names, is not about this manifest: %s", index, raw)
		}
		return err
	})
	since := time.Unix(proof.Time, 0).UTC()
	s.LogIndex, s.Since = &proof.LogIndex, &since
	return err
}
