// SPDX-License-Identifier: Apache-2.0

package attester

import (
	"context"
	"errors"
	"io/fs"

	"github.com/c8s-dev/c8s/cds/client"
	"github.com/c8s-dev/c8s/policy"
)

// warm fetches what a client needs to judge a proof that was just made, so that
// it can be judged for as long as it is believed, also by somebody who comes
// for the first time after the CDS is gone. What cannot be fetched is left to
// those who ask.
func (c *cache) warm(ctx context.Context, next *shown) {
	get := client.Getter(c.fill)
	word, _ := next.word()
	paths := []string{"/v1/endorsement", "/v1/denylist", "/log/checkpoint.cosigned"}
	for _, f := range word {
		if f.Digest != "" { // there is a deny list
			paths = append(paths, "/v1/countersignature/"+string(f.Digest))
		}
	}
	for _, path := range paths {
		_, _ = get(ctx, path)
	}
	if a, err := get.Auditor(next.bundle); err == nil {
		if latest, _, err := a.Latest(ctx); err == nil {
			_ = client.OwnLog(ctx, a, *latest, next.bundle)
		}
	}
	newest, err := get(ctx, "/v1/manifest")
	if err != nil || c.chained == word[0].Digest {
		return
	}
	all := func(*policy.Manifest) bool { return false }
	if _, err := get.Chain(ctx, newest, all); err == nil || errors.Is(err, fs.ErrNotExist) {
		c.chained = word[0].Digest
	}
}

// fill is a [client.Getter] on the ingress's own account.
func (c *cache) fill(ctx context.Context, path string) ([]byte, error) {
	d := c.held(path)
	if d == nil || !c.fresh(d, c.cfg.Now()) {
		k, _ := kindOf(path)
		var err error
		if d, err = c.shared(ctx, path, k); err != nil {
			c.cfg.Log.Debug("a document of the CDS could not be fetched in advance", "path", path, "err", err)
			return nil, err
		}
	}
	if d.absent {
		return nil, fs.ErrNotExist
	}
	return d.body, nil
}
