// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"time"
)

// IntermediateLife is how long an intermediate is valid. It is replaced after
// half of that.
const IntermediateLife = 24 * time.Hour

// maxReplica is the length of a replica's name: with what stands before it, it
// fits a common name (RFC 5280, upper bound 64).
const maxReplica = 48

// Intermediate issues leaves for one replica. Its key was born here and is
// nowhere else, so a leaf tells which replica issued it.
type Intermediate struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewIntermediate makes an intermediate with a fresh key. Nothing it signs may
// be handed out before the log has its certificate.
func (r *Root) NewIntermediate(replica string, now time.Time) (*Intermediate, error) {
	if !isReplicaName(replica) {
		return nil, fmt.Errorf("making an issuing CA: the replica's name is %q, expected 1 to %d letters, digits, dots, dashes and underscores", replica, maxReplica)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making an issuing CA's key: %w", err)
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	notAfter := now.Add(IntermediateLife)
	if notAfter.After(r.cert.NotAfter) {
		notAfter = r.cert.NotAfter
	}
	tmpl := authority(r.TrustDomain(), "c8s issuing CA "+replica, now, notAfter)
	tmpl.SerialNumber, tmpl.MaxPathLenZero = serial, true
	der, err := x509.CreateCertificate(rand.Reader, tmpl, r.cert, key.Public(), r.key)
	if err != nil {
		return nil, fmt.Errorf("signing an issuing CA's certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("reading an issuing CA's certificate: %w", err)
	}
	return &Intermediate{cert: cert, key: key}, nil
}

func isReplicaName(s string) bool {
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '.' && c != '-' && c != '_' {
			return false
		}
	}
	return s != "" && len(s) <= maxReplica
}

// Certificate is what leaves are issued under. It is shared: do not write to it.
func (i *Intermediate) Certificate() *x509.Certificate { return i.cert }
