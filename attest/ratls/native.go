// SPDX-License-Identifier: Apache-2.0

package ratls

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"fmt"
	"math/big"
	"time"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/appraise"
	"github.com/c8s-dev/c8s/policy"
)

// NativeLifetime is how long a native certificate lives. Its dates are part of
// what the evidence commits to, so whoever steals the key cannot extend them.
const NativeLifetime = 24 * time.Hour

// clockSkew is how far the clocks of two machines may differ.
const clockSkew = 5 * time.Minute

// cmwOID is id-pe-cmw of RFC 9999; diceCMWOID is TCG DICE's older number for
// the same wrapper, which is read but not written.
func cmwOID() asn1.ObjectIdentifier     { return asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 35} }
func diceCMWOID() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{2, 23, 133, 5, 4, 9} }

// NativeCertificate makes a self-signed certificate for key that carries fresh
// evidence for the key, the purpose and the certificate's dates.
func NativeCertificate(ctx context.Context, key crypto.Signer, att attest.Attester, purpose string, now time.Time) (tls.Certificate, error) {
	cert, err := nativeCertificate(ctx, key, att, purpose, now)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("making a native raTLS certificate: %w", err)
	}
	return cert, nil
}

func nativeCertificate(ctx context.Context, key crypto.Signer, att attest.Attester, purpose string, now time.Time) (tls.Certificate, error) {
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return tls.Certificate{}, err
	}
	notBefore := now.Add(-clockSkew).UTC().Truncate(time.Second)
	notAfter := now.Add(NativeLifetime).UTC().Truncate(time.Second)
	ev, err := att.Attest(ctx, nativeReportData(purpose, spki, notBefore, notAfter))
	if err != nil {
		return tls.Certificate{}, err
	}
	cmw, err := attest.MarshalCMW(ev)
	if err != nil {
		return tls.Certificate{}, err
	}
	value, err := attest.EncodeExtension(cmw)
	if err != nil {
		return tls.Certificate{}, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return tls.Certificate{}, err
	}
	t := &x509.Certificate{
		SerialNumber: serial.Add(serial, big.NewInt(1)), Subject: pkix.Name{CommonName: "c8s native " + purpose},
		NotBefore: notBefore, NotAfter: notAfter, BasicConstraintsValid: true,
		KeyUsage:        x509.KeyUsageDigitalSignature,
		ExtKeyUsage:     []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		ExtraExtensions: []pkix.Extension{{Id: cmwOID(), Value: value}},
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}

// nativeReportData binds the dates by the transcript's field for claims made
// beside the evidence: SHA-256 of two big-endian Unix times after a tag.
func nativeReportData(purpose string, spki []byte, notBefore, notAfter time.Time) [64]byte {
	claims := []byte("c8s/native-validity/v1\x00")
	claims = binary.BigEndian.AppendUint64(claims, uint64(notBefore.Unix())) //nolint:gosec // after 1970
	claims = binary.BigEndian.AppendUint64(claims, uint64(notAfter.Unix()))  //nolint:gosec // after 1970
	claimsHash, spkiHash := sha256.Sum256(claims), sha256.Sum256(spki)
	return attest.Transcript{Purpose: "native/" + purpose, SPKIHash: spkiHash[:], ClaimsHash: claimsHash[:]}.ReportData()
}

// VerifyNative checks a native certificate and appraises its evidence for the
// role under the manifest. The verdict is there whenever the evidence could be
// read; the error is nil only if everything was accepted.
func VerifyNative(leaf *x509.Certificate, purpose string, m *policy.Manifest, role policy.Role, now time.Time) (*attest.Verdict, error) {
	ev, data, err := NativeEvidence(leaf, purpose, now)
	if err != nil {
		return nil, err
	}
	v := appraise.Appraise(ev, appraise.Request{Policy: m, Role: role, Now: now, ReportData: data})
	return v, v.Err()
}

// NativeEvidence checks a native certificate and returns its evidence with the
// report data that binds it to the certificate. Nothing of the evidence itself
// was checked.
func NativeEvidence(leaf *x509.Certificate, purpose string, now time.Time) (ev *attest.Evidence, reportData [64]byte, err error) {
	if leaf == nil {
		return nil, reportData, refuse(CodeNoCertificate, "verifying a native certificate: there is none")
	}
	if err := checkNative(leaf, now); err != nil {
		return nil, reportData, err
	}
	cmw, err := cmwOf(leaf)
	if err != nil {
		return nil, reportData, err
	}
	if ev, err = attest.ParseCMW(cmw); err != nil {
		return nil, reportData, refuse(CodeEvidence, "verifying a native certificate: %w", err)
	}
	return ev, nativeReportData(purpose, leaf.RawSubjectPublicKeyInfo, leaf.NotBefore, leaf.NotAfter), nil
}

func checkNative(leaf *x509.Certificate, now time.Time) error {
	if leaf.IsCA || leaf.KeyUsage != x509.KeyUsageDigitalSignature || len(leaf.UnhandledCriticalExtensions) != 0 {
		return refuse(CodeNative, "verifying a native certificate: it is not for digital signatures alone")
	}
	if err := leaf.CheckSignature(leaf.SignatureAlgorithm, leaf.RawTBSCertificate, leaf.Signature); err != nil {
		return refuse(CodeNative, "verifying a native certificate: it is not signed by its own key: %w", err)
	}
	if now.Before(leaf.NotBefore) || now.After(leaf.NotAfter) {
		return refuse(CodeNativeDates, "verifying a native certificate: it is valid from %s to %s, now is %s", leaf.NotBefore, leaf.NotAfter, now)
	}
	if life := leaf.NotAfter.Sub(leaf.NotBefore); life > NativeLifetime+clockSkew+time.Second {
		return refuse(CodeNativeDates, "verifying a native certificate: it lives for %s, at most %s accepted", life, NativeLifetime)
	}
	return nil
}

// cmwOf returns the record of the one CMW extension.
func cmwOf(leaf *x509.Certificate) ([]byte, error) {
	var value []byte
	found := 0
	for _, ext := range leaf.Extensions {
		if ext.Id.Equal(cmwOID()) || ext.Id.Equal(diceCMWOID()) {
			value = ext.Value
			found++
		}
	}
	if found != 1 {
		return nil, refuse(CodeEvidence, "verifying a native certificate: %d extensions with evidence, expected one", found)
	}
	cmw, err := attest.DecodeExtension(value)
	if err != nil {
		return nil, refuse(CodeEvidence, "verifying a native certificate: %w", err)
	}
	return cmw, nil
}
