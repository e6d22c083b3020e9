// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/client/proof"
	"github.com/c8s-dev/c8s/client/proof/prooftest"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

// ingressDir has all documents of one attestation, as its README says.
const ingressDir = "../../docs/vectors/ingress"

// ingressWorld is an ingress of a real CDS, whose documents w reads.
func ingressWorld(t *testing.T) (*prooftest.World, *world) {
	t.Helper()
	p := prooftest.New(t)
	return p, &world{CDS: p.CDS, t: t, client: p.Client}
}

func judgeIngress(t *testing.T, dir, file string, more ...string) (string, int) {
	t.Helper()
	return verifier(t, append(more, "-operators", filepath.Join(dir, "operators.json"), "-documents", dir, "-ingress", file)...)
}

// TestIngressSample judges the attestation of the documentation, and with
// -update makes a new one.
func TestIngressSample(t *testing.T) {
	if *update {
		makeIngressSample(t)
	}
	at := strings.TrimSpace(string(read(t, filepath.Join(ingressDir, "at"))))
	if out, code := judgeIngress(t, ingressDir, filepath.Join(ingressDir, "attestation.json"), "-at", at, "-host", prooftest.Host); code != exitGood {
		t.Errorf("exit code %d, want %d\n%s", code, exitGood, out)
	}
}

func makeIngressSample(t *testing.T) {
	p, w := ingressWorld(t)
	p.Deny(policytest.Deny(policy.DenyWorkload, policytest.DB))
	p.Publish(func(m *policy.Manifest) { m.Workloads[1].HostAccess = true })
	dir := t.TempDir()
	w.mirror(dir, p.Credential)
	text, err := p.Good().Encode()
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "attestation.json"), text)
	write(t, filepath.Join(dir, "at"), []byte(time.Now().UTC().Format(time.RFC3339)+"\n"))
	if err := errors.Join(os.Remove(filepath.Join(dir, "manifest.signed.json")), os.RemoveAll(ingressDir), os.CopyFS(ingressDir, os.DirFS(dir))); err != nil {
		t.Fatal(err)
	}
}

// What client/proof refuses, the program that shares no code with it refuses
// at the step that is about it.
func TestIngressesAreRefusedEachByItsStep(t *testing.T) {
	p, w := ingressWorld(t)
	dir := t.TempDir()
	w.mirror(dir, p.Credential)
	other := prooftest.New(t)
	nonce := bytes.Repeat([]byte{3}, 16)
	document := p.Document("/v1/beacon")
	good := p.Attest(p.TEE, p.Statement(), document, nil)
	key := strings.TrimPrefix(string(good.Statement.TLSKey), "sha256:")
	for _, c := range []struct {
		name, step string // empty: everything is good
		edit       func(*proof.Attestation)
		args       []string
	}{
		{"good", "", nil, []string{"-tls-key", key}},
		{"good, by a wildcard", "", nil, []string{"-host", "www.bank.test"}},
		{"good, with a nonce", "", func(a *proof.Attestation) { *a = *p.Attest(p.TEE, p.Statement(), document, nonce) }, []string{"-nonce", hex.EncodeToString(nonce)}},
		{"another connection", "ingress-statement", nil, []string{"-tls-key", strings.Repeat("0", 64)}},
		{"another host", "ingress-statement", nil, []string{"-host", "shop.test"}},
		{"a nonce that nobody sent", "ingress-statement", func(a *proof.Attestation) { a.Nonce = nonce }, nil},
		{"another certificate", "ingress-statement", func(a *proof.Attestation) { a.Statement.Certificate = policytest.Digest("x") }, nil},
		{"another manifest", "ingress-statement", func(a *proof.Attestation) { a.Statement.Manifest.Digest = policytest.Digest("x") }, nil},
		{"a deny list that there is not", "ingress-statement", func(a *proof.Attestation) {
			a.Statement.DenyList = proof.Followed{Version: 1, Digest: policytest.Digest("x")}
		}, nil},
		{"another place in the log", "ingress-receipt", func(a *proof.Attestation) { a.Receipt.Index-- }, nil},
		{"another beacon", "ingress-beacon", func(a *proof.Attestation) { a.Beacon = other.Document("/v1/beacon") }, nil},
		{"an old beacon", "ingress-beacon", nil, []string{"-at", time.Now().UTC().Add(6 * time.Minute).Format(time.RFC3339)}},
		{"another HPKE key", "ingress-evidence", func(a *proof.Attestation) { a.Statement.HPKE.PublicKey = other.HPKE.PublicKey().Bytes() }, nil},
		{"other software", "ingress-evidence", func(a *proof.Attestation) { a.Statement.Software = "v9" }, nil},
		{"another machine", "ingress-machine", func(a *proof.Attestation) {
			*a = *p.Attest(p.CDS.Attester(prooftest.Other), p.Statement(), document, nil)
		}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := *good
			if c.edit != nil {
				c.edit(&a)
			}
			text, err := a.Encode()
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(t.TempDir(), "attestation.json")
			write(t, file, text)
			out, code := judgeIngress(t, dir, file, append([]string{"-host", prooftest.Host}, c.args...)...)
			if c.step == "" {
				if code != exitGood {
					t.Errorf("exit code %d\n%s", code, out)
				}
				return
			}
			if code != exitBad || !strings.Contains(out, "FAIL "+c.step) {
				t.Errorf("exit code %d, want step %s to fail\n%s", code, c.step, out)
			}
		})
	}
	for name, bad := range map[string][]byte{"nothing": {}, "spaces": []byte(" {}"), "no chain": []byte("{}")} {
		file := filepath.Join(t.TempDir(), "attestation.json")
		write(t, file, bad)
		if out, code := judgeIngress(t, dir, file, "-host", prooftest.Host); code != exitUsage {
			t.Errorf("%s: exit code %d\n%s", name, code, out)
		}
	}
}

// The statement is hashed as it stands in the attestation.
func TestStatementTextIsTheEncoding(t *testing.T) {
	text := read(t, filepath.Join(ingressDir, "attestation.json"))
	a, err := proof.ParseAttestation(text)
	if err != nil {
		t.Fatal(err)
	}
	want, err := a.Statement.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := statementText(text)
	if err != nil || !bytes.Equal(got, want) || !json.Valid(got) {
		t.Errorf("%s, want %s: %v", got, want, err)
	}
}
