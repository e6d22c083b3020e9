// SPDX-License-Identifier: Apache-2.0

// Package certs holds the TLS key of an ingress and the certificates for it.
//
// Invariant: a private key is made in this process and leaves it only sealed to
// the TEE. No certificate is served unless it is for such a key and has a name
// that was asked for. What is served stays served until something better is
// there: a CA that is down, lies or refuses changes nothing but the status.
package certs

import (
	"context"
	"crypto/ecdsa"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// look is how often Run looks at the clock, which may be set meanwhile, and
	// lookCSR how often at the file of a chain.
	look    = time.Minute
	lookCSR = 5 * time.Second
	// atOnce is how many names are worked on at the same time.
	atOnce = 4
	// patience is how long one certificate may take, challenges included.
	patience = 3 * time.Minute
)

// Store holds keys and certificates. It is safe for concurrent use.
type Store struct {
	cfg    Config
	source string // of certificates: see sourceOf
	client *http.Client
	vault  *vault // nil: nothing is kept
	met    *metrics

	served     atomic.Pointer[served]
	challenges challenges
	poke       chan struct{} // a name came or went
	patience   time.Duration

	mu      sync.Mutex
	names   []string
	state   *state
	dirty   bool     // state is newer than the file
	unsaved *Refusal // why
	expired map[string]string
	changed chan struct{}
	shown   [][32]byte // keys, as last published
}

// Open reads the sealed state, or starts afresh where there is none or it
// cannot be read; the unreadable file is put aside. It asks nobody for
// certificates: Run does.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, fmt.Errorf("opening the store of certificates: %w", err)
	}
	s := &Store{
		cfg: cfg, source: cfg.source(), names: slices.Clone(cfg.Names),
		poke: make(chan struct{}, 1), changed: make(chan struct{}), patience: patience,
		expired: map[string]string{},
	}
	if cfg.ACME != nil {
		if s.client, err = newHTTPClient(cfg.ACME.Roots, cfg.Now); err != nil {
			return nil, fmt.Errorf("opening the store of certificates: %w", err)
		}
	}
	if s.vault, err = openVault(ctx, cfg); err != nil {
		return nil, fmt.Errorf("opening the store of certificates: %w", err)
	}
	if s.state, err = s.recall(); err != nil {
		return nil, fmt.Errorf("opening the store of certificates: %w", err)
	}
	s.met = newMetrics(s, cfg.Metrics)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.publish()
	return s, nil
}

// recall returns the kept state, or a new one.
func (s *Store) recall() (*state, error) {
	if s.vault == nil {
		s.cfg.Log.Warn("this TEE seals nothing: TLS key and certificates are gone with this process, and every start asks the CA for new ones")
	} else {
		kept, err := s.vault.load()
		if err != nil {
			return nil, err
		}
		if kept != nil {
			return kept, nil
		}
	}
	fresh := newState()
	key, err := newKey(s.cfg.Now())
	if err != nil {
		return nil, err
	}
	fresh.keys = []*tlsKey{key}
	s.dirty = true
	return fresh, nil
}

// Run gets certificates and renews them until ctx ends.
func (s *Store) Run(ctx context.Context) error {
	every := look
	if s.cfg.CSR != nil {
		every = lookCSR
	}
	for ctx.Err() == nil {
		wait := min(max(s.step(ctx).Sub(s.cfg.Now()), time.Second), every)
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-s.poke:
		case <-timer.C:
		}
		timer.Stop()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.save()
	return nil
}

// step does everything that is due, and says when to look again.
func (s *Store) step(ctx context.Context) time.Time {
	s.rotate()
	var next time.Time
	switch {
	case s.cfg.ACME != nil:
		next = s.stepACME(ctx)
	case s.cfg.CSR != nil:
		next = s.stepCSR()
	default:
		next = s.stepSelfSigned()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle()
	return next
}

// rotate makes the next key when the current one is old enough. The former
// stays while a served certificate is for it; until then there is no third.
func (s *Store) rotate() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.save() // what failed to be kept the last time
	now, current := s.cfg.Now(), s.state.keys[0]
	if current.made.After(now) { // the clock was set back
		current.made = now
	}
	if s.cfg.KeyPeriod < 0 || now.Sub(current.made) < s.cfg.KeyPeriod || len(s.state.keys) > 1 || s.unsaved != nil {
		return
	}
	next, err := newKey(now)
	if err != nil {
		s.cfg.Log.Error("the TLS key was not replaced", "err", err)
		return
	}
	s.state.keys = []*tlsKey{next, current}
	s.dirty = true
	s.save()
	s.cfg.Log.Info("new TLS key; the former one stays until all certificates are for the new one",
		"key", next.hex(), "former", current.hex())
	s.publish()
}

// SetNames replaces the names. Those that stay are served without a break, and
// Run gets certificates for the others at once.
func (s *Store) SetNames(names []string) error {
	names, err := s.cfg.checkNames(names)
	if err != nil {
		return fmt.Errorf("changing the names of the ingress: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.Equal(names, s.names) {
		return nil
	}
	s.names = names
	s.publish()
	select {
	case s.poke <- struct{}{}:
	default: // it is on its way
	}
	return nil
}

// Keys returns the public keys of all TLS keys in use or about to be, the one
// that the next certificates will be for first.
func (s *Store) Keys() []*ecdsa.PublicKey {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []*ecdsa.PublicKey
	for _, k := range s.state.keys {
		all = append(all, &k.private.PublicKey)
	}
	return all
}

// Changed returns a channel that is closed at the next change of keys or served
// certificates. Ask for it before reading them.
func (s *Store) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

// settle forgets what is of no use any more, and keeps what is. s.mu is held.
func (s *Store) settle() {
	if s.state.prune(s.cfg.Now(), s.source, s.names) {
		s.dirty = true
	}
	s.publish()
	s.save()
	s.complainAboutExpired()
}

// save seals the state into its file, if it has changed. What fails is tried
// again at the next step: serving goes on from memory. s.mu is held.
func (s *Store) save() {
	if !s.dirty || s.vault == nil {
		return
	}
	if err := s.vault.save(s.state); err != nil {
		r := &Refusal{
			Code: CodeUnsaved, Rule: "the state is on the disk before the CA is asked", Expected: "the sealed state in " + s.vault.path,
			Actual: shown(err.Error()), Remedy: "make room on the disk; until then only names without a valid certificate get one",
		}
		if s.unsaved == nil || s.unsaved.Actual != r.Actual {
			s.cfg.Log.Error("certificates and keys are not kept: a restart would lose what changed", "err", err)
		}
		s.unsaved = r
		return
	}
	if s.unsaved != nil {
		s.cfg.Log.Info("certificates and keys are kept again")
	}
	s.dirty, s.unsaved = false, nil
}

// complainAboutExpired logs each certificate that ran out once. It is served
// nevertheless: clients decide, and those that attest do not rely on it.
func (s *Store) complainAboutExpired() {
	now, in := s.cfg.Now(), s.served.Load()
	for _, name := range s.names {
		c := in.exactly(name)
		if c == nil || !now.After(c.Leaf.NotAfter) {
			delete(s.expired, name)
			continue
		}
		if serial := c.Leaf.SerialNumber.Text(16); s.expired[name] != serial {
			s.expired[name] = serial
			s.cfg.Log.Error("the certificate has expired and is served still: there is no other", "name", name,
				"serial", serial, "notAfter", c.Leaf.NotAfter)
		}
	}
}
