// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/crypto/acme"
)

// session is a conversation with the CA under our account.
type session struct {
	client     *acme.Client
	dir        acme.Directory
	cfg        *ACME
	challenges *challenges
}

// userAgent tells the CA whom to talk to about us.
const userAgent = "c8s-ingress (+https://github.com/c8s-dev/c8s)"

func (s *Store) openSession(ctx context.Context) (*session, error) {
	directory := s.cfg.ACME.Directory
	s.mu.Lock()
	acc := s.state.accounts[directory]
	if acc == nil {
		key, err := newKey(s.cfg.Now()) // never the TLS key: RFC 8555 section 11.1
		if err != nil {
			s.mu.Unlock()
			return nil, err
		}
		acc = &account{private: key.private}
		s.state.accounts[directory] = acc
		s.dirty = true
		s.save() // before the CA knows it, so that there is one account for all starts
	}
	uri, private := acc.uri, acc.private
	s.mu.Unlock()

	o := &session{
		client:     s.acmeClient(private, uri),
		cfg:        s.cfg.ACME,
		challenges: &s.challenges,
	}
	var err error
	if o.dir, err = o.client.Discover(ctx); err != nil {
		return nil, err
	}
	if err := o.checkProfile(); err != nil {
		return nil, err
	}
	if uri != "" {
		return o, nil
	}
	if err := o.register(ctx); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	acc.uri = string(o.client.KID)
	s.dirty = true
	s.save()
	s.cfg.Log.Info("account with the CA", "directory", directory, "account", acc.uri)
	return o, nil
}

// checkProfile is asked before any order: the wrong one would cost an order each.
func (o *session) checkProfile() error {
	if _, ok := o.dir.Profiles[acme.ProfileName(o.cfg.Profile)]; ok || o.cfg.Profile == "" {
		return nil
	}
	var offered []string
	for name := range o.dir.Profiles {
		offered = append(offered, string(name))
	}
	slices.Sort(offered)
	return &Refusal{
		Code: CodeProfile, Rule: "profile of the certificate", Expected: o.cfg.Profile, Actual: shown(strings.Join(offered, ", ")),
		Remedy: "configure a profile that the CA offers, or none",
	}
}

func (s *Store) acmeClient(key crypto.Signer, uri string) *acme.Client {
	return &acme.Client{
		Key: key, HTTPClient: s.client, DirectoryURL: s.cfg.ACME.Directory, RetryBackoff: nap,
		UserAgent: userAgent, KID: acme.KeyID(uri),
	}
}

func (o *session) register(ctx context.Context) error {
	if o.dir.ExternalAccountRequired && o.cfg.EAB == nil {
		return &Refusal{
			Code: CodeAccount, Rule: "account with the CA", Expected: "an external account binding, which this CA requires", Actual: "none",
			Remedy: "get key id and key from the CA and configure them",
		}
	}
	a := &acme.Account{Contact: o.cfg.Contact}
	if e := o.cfg.EAB; e != nil {
		a.ExternalAccountBinding = &acme.ExternalAccountBinding{KID: e.KeyID, Key: e.Key}
	}
	_, err := o.client.Register(ctx, a, acme.AcceptTOS)
	if err != nil && !errors.Is(err, acme.ErrAccountAlreadyExists) {
		return fmt.Errorf("registering an account: %w", err)
	}
	if o.client.KID == "" {
		return errors.New("registering an account: the CA does not say which it made")
	}
	return nil
}

// obtain gets a certificate for one name. A failed challenge ends an order, so
// each way to answer one takes an order of its own; before is asked for each
// order, and before the certificate is asked for.
func (o *session) obtain(ctx context.Context, name string, key *tlsKey, before func(step) error) ([][]byte, error) {
	var failed []string
	var first error
	for {
		if err := before(stepOrder); err != nil {
			return nil, errors.Join(first, err)
		}
		way, chain, err := o.try(ctx, name, key, failed, before)
		var challenge *challengeError
		switch {
		case errors.As(err, &challenge):
			failed = append(failed, way)
			first = errors.Join(first, err)
			if len(failed) < len(o.cfg.Challenges) {
				continue
			}
			return nil, first
		case err != nil && len(failed) > 0: // no other way is offered, or something else went wrong
			return nil, errors.Join(first, err)
		}
		return chain, err
	}
}

// step is what the CA is about to be asked for.
type step int

const (
	stepOrder step = iota
	stepFinalize
)

// challengeError says that the CA did not find the answer to a challenge.
type challengeError struct {
	way string
	err error
}

func (e *challengeError) Error() string { return e.way + ": " + e.err.Error() }
func (e *challengeError) Unwrap() error { return e.err }

func (o *session) try(ctx context.Context, name string, key *tlsKey, failed []string, before func(step) error) (way string, chain [][]byte, err error) {
	var opts []acme.OrderOption
	if o.cfg.Profile != "" {
		opts = append(opts, acme.WithOrderIssuanceProfile(acme.ProfileName(o.cfg.Profile)))
	}
	order, err := o.client.AuthorizeOrder(ctx, acme.DomainIDs(name), opts...)
	if err != nil {
		return "", nil, fmt.Errorf("ordering a certificate: %w", err)
	}
	if order.URI == "" || len(order.AuthzURLs) != 1 {
		return "", nil, fmt.Errorf("ordering a certificate for one name: the CA wants %d authorizations, expected one", len(order.AuthzURLs))
	}
	if way, err = o.authorize(ctx, order.AuthzURLs[0], name, failed); err != nil {
		return way, nil, err
	}
	if order, err = o.client.WaitOrder(ctx, order.URI); err != nil {
		return way, nil, fmt.Errorf("waiting for the order: %w", err)
	}
	csr, err := certificateRequest(key, []string{name})
	if err != nil {
		return way, nil, err
	}
	if err := before(stepFinalize); err != nil {
		return way, nil, err
	}
	if chain, _, err = o.client.CreateCertFromOrder(ctx, order, csr, true); err != nil {
		return way, nil, fmt.Errorf("getting the certificate: %w", err)
	}
	return way, chain, nil
}

// authorize answers a challenge for the name, in the first configured way that
// the CA offers and that has not failed yet.
func (o *session) authorize(ctx context.Context, url, name string, failed []string) (way string, err error) {
	authz, err := o.client.GetAuthorization(ctx, url)
	if err != nil {
		return "", fmt.Errorf("reading the authorization: %w", err)
	}
	if authz.Identifier.Type != "dns" || authz.Identifier.Value != name || authz.Wildcard {
		return "", fmt.Errorf("reading the authorization: it is for %s", shown(authz.Identifier.Value))
	}
	if authz.Status == acme.StatusValid {
		return "", nil // the CA remembers an earlier one
	}
	challenge, err := o.choose(authz, failed)
	if err != nil {
		return "", err
	}
	takeDown, err := o.show(challenge, name)
	if err != nil {
		return challenge.Type, err
	}
	defer takeDown()
	if _, err := o.client.Accept(ctx, challenge); err != nil {
		return challenge.Type, fmt.Errorf("answering the challenge %s: %w", challenge.Type, err)
	}
	if _, err := o.client.WaitAuthorization(ctx, url); err != nil {
		if invalid := (*acme.AuthorizationError)(nil); errors.As(err, &invalid) {
			return challenge.Type, &challengeError{way: challenge.Type, err: err}
		}
		return challenge.Type, fmt.Errorf("waiting for the authorization by %s: %w", challenge.Type, err)
	}
	return challenge.Type, nil
}

func (o *session) choose(authz *acme.Authorization, failed []string) (*acme.Challenge, error) {
	var offered []string
	for _, way := range o.cfg.Challenges {
		for _, c := range authz.Challenges {
			if c.Type == way && !slices.Contains(failed, way) {
				return c, nil
			}
		}
	}
	for _, c := range authz.Challenges {
		offered = append(offered, c.Type)
	}
	return nil, &Refusal{
		Code: CodeNoChallenge, Rule: "challenges of the CA", Expected: strings.Join(o.cfg.Challenges, " or ") + " (and not " + strings.Join(failed, ", ") + " again)",
		Actual: shown(strings.Join(offered, ", ")), Remedy: "enable one that the CA offers, or use another CA",
	}
}

// show puts the answer to a challenge where the CA will look for it.
func (o *session) show(c *acme.Challenge, name string) (takeDown func(), err error) {
	if !validToken(c.Token) {
		return nil, fmt.Errorf("answering the challenge %s: its token is not one of RFC 8555", c.Type)
	}
	if c.Type == HTTP01 {
		text, err := o.client.HTTP01ChallengeResponse(c.Token)
		if err != nil {
			return nil, fmt.Errorf("answering the challenge %s: %w", c.Type, err)
		}
		return o.challenges.showToken(name, c.Token, text), nil
	}
	cert, err := o.client.TLSALPN01ChallengeCert(c.Token, name)
	if err != nil {
		return nil, fmt.Errorf("answering the challenge %s: %w", c.Type, err)
	}
	return o.challenges.showCertificate(name, &cert), nil
}
