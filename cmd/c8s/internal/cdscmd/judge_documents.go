// SPDX-License-Identifier: Apache-2.0

package cdscmd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/url"
	"time"

	"github.com/c8s-dev/c8s/cds/beacon"
	"github.com/c8s-dev/c8s/cds/client"
	"github.com/c8s-dev/c8s/cds/translog"
	"github.com/c8s-dev/c8s/policy"
)

// maxBeaconAge is three periods: a CDS that is cut off stops making them.
const maxBeaconAge = 30 * time.Second

// resting says that a layer rests on one that is missing.
func (j *judge) resting(name, on string) error {
	j.r.add(name, Missing, "not looked at: it rests on "+on, "")
	return nil
}

// log checks that the log is signed with the key of the bundle and begins with
// the bundle: it is this CDS's.
func (j *judge) log(ctx context.Context) error {
	const name = "log"
	if j.bundle == nil {
		return j.resting(name, "keys")
	}
	auditor, latest, err := j.latest(ctx)
	if err != nil {
		return j.judged(name, err)
	}
	if err := client.OwnLog(ctx, auditor, *latest, j.bundle); err != nil {
		return j.judged(name, err)
	}
	j.r.proven(name, "%d entries, root %s", latest.Size, latest.Root)
	return nil
}

func (j *judge) latest(ctx context.Context) (*translog.Auditor, *translog.Checkpoint, error) {
	auditor, err := client.Getter(j.p.get).Auditor(j.bundle)
	if err != nil {
		return nil, nil, err
	}
	latest, _, err := auditor.Latest(ctx)
	return auditor, latest, err
}

// judged refutes a layer, unless the CDS only does not answer.
func (j *judge) judged(name string, err error) error {
	var refused *client.RefusedError
	var network *net.OpError
	var call *url.Error
	if errors.As(err, &refused) && refused.Detail == "" || errors.As(err, &network) || errors.As(err, &call) {
		return j.unavailable(name, err)
	}
	j.r.add(name, Refuted, err.Error(), "")
	return nil
}

// manifest verifies what is in force: with a manifest step by step from that
// one, as a node does; without, by the operators alone.
func (j *judge) manifest(ctx context.Context) error {
	const name = "manifest"
	if j.bundle == nil {
		return j.resting(name, "keys")
	}
	if j.stale {
		return j.resting(name, "collateral")
	}
	if j.signed != nil {
		now, err := j.asNode(ctx)
		if err != nil {
			return j.judged(name, err)
		}
		j.inForce = now.Manifest
		j.r.proven(name, "version %d of %s in force since %s (log entry %d), %s", now.Manifest.Manifest.Version, j.bundle.TrustDomain,
			time.Unix(now.ManifestProof.Time, 0).UTC().Format(time.RFC3339), now.ManifestProof.LogIndex, now.Manifest.Digest)
		return nil
	}
	raw, err := j.p.get(ctx, "/v1/manifest")
	if err != nil {
		return j.unavailable(name, err)
	}
	signed, err := policy.Open(raw, j.operators)
	if err != nil {
		j.r.add(name, Missing, "your operators did not sign what is in force: "+err.Error(), "if the operators changed, give a --manifest that yours signed")
		return nil
	}
	j.inForce = signed
	j.r.add(name, Missing, fmt.Sprintf("your operators signed version %d (%s); nothing says that it follows what you know", signed.Manifest.Version, signed.Digest), "give --manifest")
	return nil
}

// asNode reads what is in force on a connection of its own.
func (j *judge) asNode(ctx context.Context) (*client.InForce, error) {
	cl, err := client.New(client.Config{
		Addrs: []string{j.p.addr}, Operators: j.operators, Manifest: j.signed, Now: func() time.Time { return j.now }, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, err
	}
	d, err := cl.Documents(ctx)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	if d.Bundle().Digest() != j.bundle.Digest() {
		return nil, fmt.Errorf("on another connection the keys are %s, on this one %s", d.Bundle().Digest(), j.bundle.Digest())
	}
	return d.InForce(ctx)
}

// witnesses counts who cosigned the log.
func (j *judge) witnesses(ctx context.Context) error {
	const name = "witnesses"
	if j.inForce == nil {
		return j.resting(name, "manifest")
	}
	m := j.inForce.Manifest
	if m.WitnessQuorum == 0 {
		j.r.add(name, Missing, "the manifest in force asks for none: different parties may be shown different logs", "name witnesses and a witnessQuorum; see 'c8s log watch --cosign'")
		return nil
	}
	raw, err := j.p.get(ctx, "/log/checkpoint.cosigned")
	if errors.Is(err, fs.ErrNotExist) {
		j.r.add(name, Missing, fmt.Sprintf("nobody cosigned the log, the manifest asks for %d", m.WitnessQuorum), "start the witnesses: 'c8s log watch --cosign … --submit'")
		return nil
	}
	if err != nil {
		return j.unavailable(name, err)
	}
	size, by, err := j.cosigned(ctx, raw, m)
	if err != nil {
		return j.judged(name, err)
	}
	found := fmt.Sprintf("%d witnesses cosigned the first %d entries, the manifest asks for %d", len(by), size, m.WitnessQuorum)
	if len(by) < m.WitnessQuorum {
		j.r.add(name, Missing, found, "find out which witnesses are down")
		return nil
	}
	j.r.proven(name, "%s", found)
	return nil
}

// cosigned verifies a cosigned checkpoint, which must be of the very log that
// is shown here.
func (j *judge) cosigned(ctx context.Context, signed []byte, m *policy.Manifest) (int64, []translog.Cosignature, error) {
	verifier, err := j.bundle.LogVerifier()
	if err != nil {
		return 0, nil, err
	}
	auditor, latest, err := j.latest(ctx)
	if err != nil {
		return 0, nil, err
	}
	c, by, err := client.Cosigned(ctx, auditor, verifier, signed, *latest, m)
	if err != nil {
		return 0, nil, err
	}
	return c.Size, by, nil
}

func (j *judge) beacon(ctx context.Context) error {
	const name = "beacon"
	if j.bundle == nil {
		return j.resting(name, "keys")
	}
	raw, err := j.p.get(ctx, "/v1/beacon")
	if err != nil {
		return j.unavailable(name, err)
	}
	key, err := j.bundle.BeaconKey()
	if err != nil {
		return err
	}
	b, err := beacon.Verify(raw, key, j.bundle.TrustDomain, j.now, maxBeaconAge)
	if err != nil {
		return j.judged(name, err)
	}
	j.r.proven(name, "%s, clock: %s", b.Time.UTC().Format(time.RFC3339), b.Clock)
	return nil
}

func (j *judge) ready(ctx context.Context) error {
	const name = "ready"
	if err := j.p.ready(ctx); err != nil {
		return j.unavailable(name, err)
	}
	j.r.proven(name, "it gives challenges")
	return nil
}
