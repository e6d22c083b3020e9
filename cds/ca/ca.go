// SPDX-License-Identifier: Apache-2.0

// Package ca is the mesh's certificate authority: it signs for one trust
// domain only, and for leaves never for longer than an hour. The root's key is
// shared by the replicas and signs nothing but their intermediates, whose keys
// are born in each replica and stay there.
package ca

import (
	"crypto/rand"
	"fmt"
	"math/big"
	"time"
)

const (
	// MaxLife is the longest life of a leaf.
	MaxLife = time.Hour
	// rootLife outlives every machine that is in use today.
	rootLife = 10 * 365 * 24 * time.Hour
	// skew is how far back a certificate's life begins, for clocks that are
	// behind the CDS's.
	skew = time.Minute
)

// newSerial returns 127 random bits: positive, and within the 20 octets of
// RFC 5280 section 4.1.2.2.
func newSerial() (*big.Int, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("choosing a serial number: %w", err)
	}
	return serial.Add(serial, big.NewInt(1)), nil
}
