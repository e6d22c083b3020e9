// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// avoidFor is how long a replica that failed is asked last.
const avoidFor = 10 * time.Second

// replicas orders the addresses of the CDS: those that failed lately come
// last, the others in a random order, so that callers spread.
type replicas struct {
	addrs []string
	now   func() time.Time

	mu     sync.Mutex
	failed map[string]time.Time
}

func newReplicas(addrs []string, now func() time.Time) *replicas {
	return &replicas{addrs: addrs, now: now, failed: map[string]time.Time{}}
}

func (r *replicas) order() []string {
	now := r.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	var good, bad []string
	for _, i := range rand.Perm(len(r.addrs)) {
		addr := r.addrs[i]
		if at, ok := r.failed[addr]; ok && now.Sub(at).Abs() < avoidFor {
			bad = append(bad, addr)
			continue
		}
		good = append(good, addr)
	}
	return append(good, bad...)
}

func (r *replicas) note(addr string, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if ok {
		delete(r.failed, addr)
		return
	}
	r.failed[addr] = r.now()
}

// onAny calls do with a session to one replica after another, until one does
// not fail, or refuses in a way that the others would too.
func (c *Client) onAny(ctx context.Context, node *Credential, do func(*session) error) error {
	var problems []error
	for _, addr := range c.replicas.order() {
		err := c.onOne(ctx, addr, node, do)
		c.replicas.note(addr, err == nil || !worthAnother(err))
		if err == nil || ctx.Err() != nil || !worthAnother(err) {
			return err
		}
		problems = append(problems, fmt.Errorf("%s: %w", addr, err))
	}
	if len(problems) == 1 {
		return problems[0]
	}
	return errors.Join(problems...)
}

func (c *Client) onOne(ctx context.Context, addr string, node *Credential, do func(*session) error) error {
	s, err := c.connectTo(ctx, addr, node)
	if err != nil {
		return err
	}
	defer s.close()
	return do(s)
}

// connect opens a session to the first replica that can be verified.
func (c *Client) connect(ctx context.Context, node *Credential) (*session, error) {
	var problems []error
	for _, addr := range c.replicas.order() {
		s, err := c.connectTo(ctx, addr, node)
		c.replicas.note(addr, err == nil)
		if err == nil {
			return s, nil
		}
		problems = append(problems, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(problems...)
}

// worthAnother reports whether another replica may do what one failed to do.
func worthAnother(err error) bool {
	var refused *RefusedError
	return !errors.As(err, &refused) || refused.elsewhere()
}
