// SPDX-License-Identifier: Apache-2.0

// Package ratls makes sure that the other end of a TLS connection is who its
// evidence says: a certificate is accepted only if it is complete, its name
// follows from its claims, and nothing in it is left for the caller to check
// except the manifest.
//
// There are two kinds of certificates. Native ones carry the evidence itself
// and need no issuer: the CDS starts with one. Issued ones carry claims that a
// CDS derived from evidence, in one extension, and chain to the CDS roots.
package ratls
