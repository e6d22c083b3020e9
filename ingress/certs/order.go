// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// stepACME gets every certificate that is due. Names do not wait for each
// other: one whose DNS is wrong takes its time alone.
func (s *Store) stepACME(ctx context.Context) time.Time {
	names, next := s.due()
	if len(names) == 0 {
		return next
	}
	var ca *session
	if err := s.asAccount(ctx, func(ctx context.Context) (err error) {
		ca, err = s.openSession(ctx)
		return err
	}); err != nil {
		return s.cfg.Now().Add(look)
	}
	var group errgroup.Group
	group.SetLimit(atOnce)
	var limited atomic.Int32 // names that met a rate limit
	for _, name := range names[:min(len(names), inOneStep)] {
		group.Go(func() error {
			if limited.Load() < sharedLimit && s.order(ctx, ca, name) == CodeRateLimit {
				limited.Add(1)
			}
			return nil
		})
	}
	_ = group.Wait() // each has noted what went wrong
	if limited.Load() >= sharedLimit {
		s.holdAccount()
	}
	_, next = s.due()
	return next
}

const (
	// inOneStep bounds a step, so that Run comes to see names that changed.
	inOneStep = 32
	// sharedLimit is after how many names a rate limit is taken for one of the
	// account, and not of a name: then no name is tried for accountHold.
	sharedLimit = 3
	accountHold = time.Hour
)

func (s *Store) holdAccount() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.triesOf(unitAccount).wait(s.cfg.Now(), unitAccount, accountHold)
	s.note(unitAccount, &Refusal{
		Code: CodeRateLimit, Rule: "rate limits of the CA for the account", Expected: "fewer requests",
		Actual: fmt.Sprintf("%d names refused in a row", sharedLimit), Remedy: "the next try comes by itself; restarting does not help",
	})
}

// asAccount does what is not about one name. What fails is tried again later
// for all of them, and costs none of them an order.
func (s *Store) asAccount(ctx context.Context, do func(context.Context) error) error {
	s.mu.Lock()
	t, now := s.state.triesOf(unitAccount), s.cfg.Now()
	t.tidy(now)
	waits := t.Next.After(now)
	s.mu.Unlock()
	if waits {
		return errors.New("it is not time yet")
	}
	ctx, cancel := context.WithTimeout(ctx, s.patience)
	defer cancel()
	err := do(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.note(unitAccount, nil)
		return nil
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return err // we end; it is nobody's fault
	}
	t = s.state.triesOf(unitAccount)
	t.Failures++
	t.wait(s.cfg.Now(), unitAccount, askedToWait(err))
	s.note(unitAccount, explain(err))
	s.dirty = true
	s.save()
	return err
}

// due lists the names whose turn it is, and says when the next one's is.
func (s *Store) due() (names []string, next time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.cfg.Now()
	next = now.Add(look)
	for _, name := range s.names {
		if wildcard(name) {
			s.note(name, &Refusal{
				Code: CodeWildcard, Rule: "names that ACME is asked for", Expected: "a single name: a wildcard takes a challenge in the DNS (RFC 8555 section 8.4), which this ingress does not do",
				Actual: name, Remedy: "list the names below it one by one, or use a CA by CSR",
			})
			continue
		}
		if at := s.dueAt(name, now); at.After(now) {
			next = earliest(next, at)
		} else {
			names = append(names, name)
		}
	}
	return names, next
}

func earliest(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func (s *Store) dueAt(name string, now time.Time) time.Time {
	t := s.state.triesOf(name)
	t.tidy(now)
	at := t.Next
	r := s.state.certs[name]
	if r != nil && r.source == s.source && r.key == s.state.keys[0] {
		if again := renewal(r.leaf); again.After(at) {
			at = again
		}
	}
	return at
}

// order gets one certificate, or notes why not. There is one order for a name
// at a time: only the step of Run comes here, with each name once.
func (s *Store) order(ctx context.Context, ca *session, name string) (code string) {
	s.mu.Lock()
	key := s.state.keys[0]
	s.mu.Unlock()
	within, cancel := context.WithTimeout(ctx, s.patience)
	defer cancel()
	first := true
	chain, err := ca.obtain(within, name, key, func(at step) error {
		defer func() { first = false }()
		return s.before(name, at, first)
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		err = s.take(name, chain)
	}
	if err != nil && ctx.Err() != nil {
		return "" // we end; the try was counted before it began
	}
	return s.finish(name, err)
}

// before counts what the CA is about to be asked for, on the disk first: who is
// killed in the middle must not come back as if nothing had been asked.
func (s *Store) before(name string, at step, first bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, t := s.cfg.Now(), s.state.triesOf(name)
	if at == stepFinalize {
		t.Issued = append(t.Issued, now)
		s.dirty = true
		s.save()
		return nil
	}
	if err := s.mayOrder(name, t, now); err != nil {
		return err
	}
	t.Orders = append(t.Orders, now)
	if first {
		t.Failures++
	}
	t.wait(now, name, 0)
	s.dirty = true
	s.save()
	if s.unsaved != nil && s.hasValid(name, now) {
		return s.unsaved
	}
	return nil
}

func (s *Store) mayOrder(name string, t *tries, now time.Time) error {
	if d := s.cfg.Allowed(name); !d.Allowed {
		return &Refusal{
			Code: CodeNotAllowed, Rule: "hosts of this ingress in the manifest", Expected: "that it lists " + name, Actual: shown(d.Error()),
			Remedy: "have the operators sign a manifest with this host, or take the name out of the configuration",
		}
	}
	if s.unsaved != nil && s.hasValid(name, now) {
		return s.unsaved
	}
	leaf := s.leafOf(name)
	if r := t.budget(now, s.cfg.ACME, leaf); r != nil {
		return r
	}
	return nil
}

func (s *Store) hasValid(name string, now time.Time) bool {
	leaf := s.leafOf(name)
	return leaf != nil && now.Before(leaf.NotAfter)
}

// take puts a certificate in use that passes every check.
func (s *Store) take(name string, chain [][]byte) error {
	leaf, key, err := wanted{state: s.state, names: []string{name}, only: true, now: s.cfg.Now()}.check(chain)
	if err != nil {
		return err
	}
	s.state.certs[name] = newRecord(s.source, key, leaf, chain)
	s.cfg.Log.Info("certificate issued", "name", name, "issuer", leaf.Issuer.String(), "serial", serial(leaf),
		"notAfter", leaf.NotAfter, "renewal", renewal(leaf), "key", key.hex())
	return nil
}

// finish notes how a try ended and returns the code of its refusal, if any.
// s.mu is held.
func (s *Store) finish(name string, err error) (code string) {
	now, t := s.cfg.Now(), s.state.triesOf(name)
	s.dirty = true
	if err == nil {
		t.Failures, t.Next, t.Noted = 0, time.Time{}, time.Time{}
		s.note(name, nil)
		s.met.order("issued")
	} else {
		r := explain(err)
		switch r.Code {
		case CodeNotAllowed, CodeUnsaved: // nothing was asked of the CA
			t.Noted, t.Next = now, now.Add(look)
		case CodeBudget: // which has set the time
		default:
			t.wait(now, name, askedToWait(err))
		}
		if r.Code == CodeAccount {
			s.forgetAccount(r)
		}
		code = r.Code
		s.note(name, r)
		s.met.order(code)
	}
	s.publish()
	s.save()
	return code
}

// forgetAccount has the account registered anew if the CA does not know it: its
// key stays, so a CA that errs finds the old account again.
func (s *Store) forgetAccount(r *Refusal) {
	if a := s.state.accounts[s.cfg.ACME.Directory]; a != nil && r.Expected == explanations["accountDoesNotExist"].expected {
		a.uri = ""
	}
}

// note remembers what is wrong with a unit, nil if nothing is, and logs it when
// it is news. s.mu is held.
func (s *Store) note(unit string, r *Refusal) {
	t := s.state.triesOf(unit)
	had := t.Problem
	if r == nil {
		if had != nil {
			s.cfg.Log.Info("certificates: what was wrong is over", "unit", unit, "was", had.Code)
			s.dirty = true
		}
		t.Problem, t.Failures = nil, 0
		if unit == unitAccount {
			t.Next, t.Noted = time.Time{}, time.Time{}
		}
		return
	}
	t.Problem = r
	if had != nil && *had == *r {
		return
	}
	s.dirty = true
	attrs := []any{"unit", unit, "code", r.Code, "rule", r.Rule, "expected", r.Expected, "actual", r.Actual, "remedy", r.Remedy}
	if t.Next.After(s.cfg.Now()) {
		attrs = append(attrs, "next", t.Next)
	}
	s.cfg.Log.Warn("no new certificate", attrs...)
}

// units lists what tries are noted under for a name.
func (s *Store) units(name string) []string {
	switch s.source {
	case sourceCSR:
		return []string{unitCSR}
	case sourceSelf:
		return []string{unitSelf}
	}
	return []string{name, unitAccount}
}
