// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/c8s-dev/c8s/cds/api"
	"github.com/c8s-dev/c8s/cds/kept"
	"github.com/c8s-dev/c8s/cds/trust"
	"github.com/c8s-dev/c8s/policy"
)

const (
	watchRetryMin = 200 * time.Millisecond
	watchRetryMax = 10 * time.Second
)

// Published says what became of a document.
type Published struct {
	Version   uint64    `json:"version"`
	InForce   bool      `json:"inForce"`
	NotBefore time.Time `json:"notBefore,omitzero"` // when it will be
}

// PublishManifest offers a new operator-signed manifest to the CDS.
func (c *Client) PublishManifest(ctx context.Context, envelope []byte) (*Published, error) {
	return c.publish(ctx, func(p api.PolicyClient) (*api.Published, error) {
		return p.PublishManifest(ctx, &api.Document{Envelope: envelope})
	})
}

// PublishDenyList offers a new operator-signed deny list to the CDS.
func (c *Client) PublishDenyList(ctx context.Context, envelope []byte) (*Published, error) {
	return c.publish(ctx, func(p api.PolicyClient) (*api.Published, error) {
		return p.PublishDenyList(ctx, &api.Document{Envelope: envelope})
	})
}

func (c *Client) publish(ctx context.Context, call func(api.PolicyClient) (*api.Published, error)) (*Published, error) {
	var out *Published
	err := c.onAny(ctx, nil, func(s *session) error {
		done, err := call(s.policy())
		if err != nil {
			return explain(err)
		}
		out = &Published{Version: done.GetVersion(), InForce: done.GetInForce()}
		if !out.InForce {
			out.NotBefore = done.GetNotBefore().AsTime()
		}
		return nil
	})
	return out, err
}

// News is what a watch brought. Only what changed is set.
type News struct {
	Manifest *policy.Signed
	DenyList *policy.SignedDenyList
}

// Watch follows the operators' word until ctx ends, and calls fn with what is
// accepted. It reconnects, to any replica, with back-off.
func (c *Client) Watch(ctx context.Context, fn func(News)) error {
	wait := watchRetryMin
	for ctx.Err() == nil {
		began := c.cfg.Now()
		err := c.watchOnce(ctx, fn)
		if ctx.Err() != nil {
			break
		}
		if c.cfg.Now().Sub(began) > watchRetryMax {
			wait = watchRetryMin
		}
		pause := wait/2 + rand.N(wait/2+1) // watchers that were cut off together come back apart
		c.cfg.Log.Warn("watch of the CDS interrupted", "err", err, "retryIn", pause)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		wait = min(2*wait, watchRetryMax)
	}
	return ctx.Err()
}

func (c *Client) watchOnce(ctx context.Context, fn func(News)) error {
	s, err := c.connect(ctx, nil)
	if err != nil {
		return err
	}
	defer s.close()
	stream, err := s.policy().Watch(ctx, &api.WatchRequest{})
	if err != nil {
		return explain(err)
	}
	defer stream.Close()
	for stream.Receive() {
		if news := c.adopt(s, stream.Msg()); news != (News{}) {
			fn(news)
		}
		if err := c.stillVerified(s); err != nil {
			c.replicas.note(s.addr, false)
			return err
		}
	}
	c.replicas.note(s.addr, false)
	return explain(stream.Err())
}

// adopt puts in force what it accepts of a message. What it refuses the CDS
// cannot make this machine take; it stays useful otherwise.
func (c *Client) adopt(s *session, msg *api.State) (news News) {
	if len(msg.GetCheckpoint()) > 0 {
		if _, err := c.memory.remember(s.bundle, msg.GetCheckpoint()); err != nil {
			c.cfg.Log.Error("checkpoint from the CDS refused", "err", err)
			return News{}
		}
	}
	var err error
	if len(msg.GetManifest()) > 0 {
		if news.Manifest, err = c.adoptManifest(s.bundle, msg.GetManifest(), msg.GetManifestCountersignature()); err != nil {
			c.cfg.Log.Error("manifest from the CDS refused", "code", policy.CodeOf(err), "err", err)
		}
	}
	if len(msg.GetDenyList()) > 0 {
		if news.DenyList, err = c.adoptDenyList(s.bundle, msg.GetDenyList(), msg.GetDenyListCountersignature()); err != nil {
			c.cfg.Log.Error("deny list from the CDS refused", "code", policy.CodeOf(err), "err", err)
		}
	}
	return news
}

// adoptManifest puts a manifest in force: nil for one that already is. A
// machine that was away may have missed versions; it takes a later one if its
// own operators signed it, since they may speak for any version.
func (c *Client) adoptManifest(b *trust.Bundle, envelope, countersignature []byte) (*policy.Signed, error) {
	c.adopting.Lock()
	defer c.adopting.Unlock()
	now := c.Manifest()
	next, err := policy.Open(envelope, now.Manifest.Operators)
	if err != nil {
		return nil, err
	}
	decision := policy.Succeeds(now, next)
	switch decision.Code {
	case policy.CodeManifestUnchanged:
		return nil, nil
	case policy.CodeManifestGap:
		c.cfg.Log.Warn("manifest versions were missed", "from", now.Manifest.Version, "to", next.Manifest.Version)
	default:
		if err := decision.Err(); err != nil {
			return nil, err
		}
	}
	if err := countersigned(b, countersignature, trust.ManifestSubject(next)); err != nil {
		return nil, err
	}
	if err := c.putInForce(b, next); err != nil {
		return nil, err
	}
	return next, nil
}

// putInForce makes a verified manifest the client's own. That this CDS had it
// is written down first: another one, with other keys, needs a later one.
func (c *Client) putInForce(b *trust.Bundle, next *policy.Signed) error {
	if err := c.memory.under(b, next.Manifest.Version); err != nil {
		return err
	}
	if path := c.path(manifestFile); path != "" {
		if err := kept.SaveManifest(path, next); err != nil {
			return err
		}
	}
	c.manifest.Store(next)
	return nil
}

func (c *Client) adoptDenyList(b *trust.Bundle, envelope, countersignature []byte) (*policy.SignedDenyList, error) {
	next, err := policy.OpenDenyList(envelope, c.Manifest().Manifest.Operators)
	if err != nil {
		return nil, err
	}
	if err := countersigned(b, countersignature, trust.DenyListSubject(next)); err != nil {
		return nil, err
	}
	changed, err := c.denyList.Adopt(next)
	if !changed || err != nil {
		return nil, err
	}
	return next, nil
}

// countersigned checks the CDS's word that a document is in force, and logged.
func countersigned(b *trust.Bundle, envelope []byte, subject trust.Subject) error {
	key, err := b.CountersignKey()
	if err != nil {
		return err
	}
	if _, err := trust.VerifyCountersignature(envelope, key, subject); err != nil {
		return &RefusedError{Code: CodeCountersignature, Detail: err.Error()}
	}
	return nil
}
