// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// leastLeft is how long an intermediate must still live to issue: with less,
// its leaves would end before their holders have renewed them.
const leastLeft = 5 * time.Minute

// ErrNoIntermediate says that nothing can be issued now.
var ErrNoIntermediate = errors.New("no issuing CA is in use")

// Issuer issues leaves under the replica's intermediate. It is safe for
// concurrent use.
type Issuer struct {
	root    *Root
	life    time.Duration
	now     func() time.Time
	current atomic.Pointer[Intermediate]
}

// NewIssuer returns an issuer without an intermediate. Its leaves live for
// life, which is at most MaxLife; zero means MaxLife.
func NewIssuer(root *Root, life time.Duration, now func() time.Time) (*Issuer, error) {
	if root == nil || now == nil {
		return nil, errors.New("making the issuer of certificates: the root or the clock is missing")
	}
	if life < 0 || life > MaxLife {
		return nil, fmt.Errorf("making the issuer of certificates: a certificate life of %s, must be at most %s", life, MaxLife)
	}
	if life == 0 {
		life = MaxLife
	}
	return &Issuer{root: root, life: life, now: now}, nil
}

// Root is the certificate every leaf chains to.
func (i *Issuer) Root() *x509.Certificate { return i.root.cert }

// Use issues under another intermediate from now on. It must be of the
// issuer's root and be in the log.
func (i *Issuer) Use(next *Intermediate) error {
	if next == nil {
		return fmt.Errorf("changing the issuing CA: %w", ErrNoIntermediate)
	}
	if err := next.cert.CheckSignatureFrom(i.root.cert); err != nil {
		return fmt.Errorf("changing the issuing CA: it is not of this root: %w", err)
	}
	i.current.Store(next)
	return nil
}

// Intermediate is the one in use, or nil.
func (i *Issuer) Intermediate() *Intermediate { return i.current.Load() }

// RenewAt is when the intermediate should be replaced: the zero time, which is
// at once, where there is none.
func (i *Issuer) RenewAt() time.Time {
	current := i.current.Load()
	if current == nil {
		return time.Time{}
	}
	c := current.cert
	return c.NotBefore.Add(c.NotAfter.Sub(c.NotBefore) / 2)
}

// usable returns the intermediate, if leaves can be issued under it.
func (i *Issuer) usable() (*Intermediate, error) {
	current := i.current.Load()
	if current == nil {
		return nil, ErrNoIntermediate
	}
	if left := current.cert.NotAfter.Sub(i.now()); left < leastLeft {
		return nil, fmt.Errorf("%w: the last ends in %s, at least %s needed", ErrNoIntermediate, left.Truncate(time.Second), leastLeft)
	}
	return current, nil
}

// Ready returns why nothing can be issued now, or nil.
func (i *Issuer) Ready() error {
	_, err := i.usable()
	return err
}

// Validity returns the life of a leaf issued now that may not outlive limit; a
// zero limit does not limit. A leaf never outlives its intermediate.
func (i *Issuer) Validity(limit time.Time) (notBefore, notAfter time.Time) {
	now := i.now()
	notAfter = now.Add(min(i.life, MaxLife-skew))
	if current := i.current.Load(); current != nil && current.cert.NotAfter.Before(notAfter) {
		notAfter = current.cert.NotAfter
	}
	if !limit.IsZero() && limit.Before(notAfter) {
		notAfter = limit
	}
	return now.Add(-skew), notAfter
}

// Issue signs a leaf and returns it with its chain: the leaf and the
// intermediate, without the root. The template comes from ratls.Template, which
// keeps what verifiers check next to what issuers write; it is written to.
func (i *Issuer) Issue(tmpl *x509.Certificate, public crypto.PublicKey) (leaf *x509.Certificate, chain [][]byte, err error) {
	leaf, chain, err = i.issue(tmpl, public)
	if err != nil {
		return nil, nil, fmt.Errorf("issuing a certificate: %w", err)
	}
	return leaf, chain, nil
}

func (i *Issuer) issue(tmpl *x509.Certificate, public crypto.PublicKey) (*x509.Certificate, [][]byte, error) {
	issuer, err := i.usable()
	if err != nil {
		return nil, nil, err
	}
	if life := tmpl.NotAfter.Sub(tmpl.NotBefore); life <= 0 || life > MaxLife {
		return nil, nil, fmt.Errorf("its life would be %s, must be between 0 and %s", life, MaxLife)
	}
	if tmpl.NotAfter.After(issuer.cert.NotAfter) {
		return nil, nil, fmt.Errorf("it would end at %s, after its issuer (%s)", tmpl.NotAfter, issuer.cert.NotAfter)
	}
	if tmpl.IsCA || tmpl.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0 {
		return nil, nil, errors.New("it would be a CA")
	}
	if tmpl.SerialNumber, err = newSerial(); err != nil {
		return nil, nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, issuer.cert, public, issuer.key)
	if err != nil {
		return nil, nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, err
	}
	return leaf, [][]byte{leaf.Raw, issuer.cert.Raw}, nil
}
