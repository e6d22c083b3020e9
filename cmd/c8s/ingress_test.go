// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
	"github.com/c8s-dev/c8s/ingress/attester"
	"github.com/c8s-dev/c8s/ingress/certs"
	"github.com/c8s-dev/c8s/ingress/daemon"
)

// ingressWith parses flags as `c8s ingress` does.
func ingressWith(t *testing.T, args ...string) *ingressFlags {
	t.Helper()
	var f ingressFlags
	c := &cobra.Command{Use: "ingress"}
	f.register(c)
	if err := c.ParseFlags(args); err != nil {
		t.Fatal(err)
	}
	return &f
}

var (
	ingressBase  = []string{"--address=10.80.0.1", "--cds=10.80.0.100:15009"}
	ingressFiles = []string{"--no-kubernetes", "--routes=pods.json", "--services=services.json", "--ingress-routes=routes.json"}
	ingressACME  = []string{"--acme-directory=letsencrypt"}
)

func TestIngressSaysWhatIsWrongWithItsFlags(t *testing.T) {
	join := func(parts ...[]string) (all []string) {
		for _, p := range parts {
			all = append(all, p...)
		}
		return all
	}
	for name, tt := range map[string]struct {
		args []string
		says string // empty: nothing is wrong
	}{
		"in Kubernetes":           {join(ingressBase, ingressACME), ""},
		"with files":              {join(ingressBase, ingressFiles, ingressACME), ""},
		"routes of a file in k8s": {join(ingressBase, ingressACME, []string{"--ingress-routes=r"}), ""},
		"an internal CA":          {join(ingressBase, []string{"--csr-out=a", "--certificate=b", "--certificate-root=c"}), ""},
		"no address":              {join(ingressACME, ingressBase[1:]), "--address is required"},
		"no CDS":                  {join(ingressACME, ingressBase[:1]), "--cds is required"},
		"an address of itself":    {join(ingressBase[1:], ingressACME, []string{"--address=127.0.0.1"}), "want the address at which nodes reach this machine"},
		"no address at all":       {join(ingressBase[1:], ingressACME, []string{"--address=edge"}), `--address is "edge", want an IP address`},
		"a CDS without port":      {join(ingressBase[:1], ingressACME, []string{"--cds=10.80.0.100"}), "want address and port"},
		"no certificates":         {ingressBase, "nobody issues certificates"},
		"two issuers":             {join(ingressBase, ingressACME, []string{"--self-signed"}), "exclude each other"},
		"half an internal CA":     {join(ingressBase, []string{"--csr-out=a"}), "go together"},
		"a root without it":       {join(ingressBase, ingressACME, []string{"--certificate-root=c"}), "goes with --csr-out"},
		"ACME flags without it":   {join(ingressBase, []string{"--self-signed", "--acme-contact=a@b.example"}), "go with --acme-directory"},
		"a word that is none":     {join(ingressBase, []string{"--acme-directory=lets-encrypt"}), "letsencrypt-staging or an https URL"},
		"a directory in clear":    {join(ingressBase, []string{"--acme-directory=http://ca.example/dir"}), "https URL"},
		"an unknown challenge":    {join(ingressBase, ingressACME, []string{"--acme-challenge=dns-01"}), "tls-alpn-01 or http-01"},
		"no Services":             {join(ingressBase, ingressACME, []string{"--no-kubernetes", "--routes=p", "--ingress-routes=r"}), "--services is required"},
		"no routes":               {join(ingressBase, ingressACME, []string{"--no-kubernetes", "--routes=p", "--services=s"}), "--ingress-routes is required"},
		"Services and Kubernetes": {join(ingressBase, ingressACME, []string{"--services=s"}), "--services goes with --no-kubernetes"},
		"a class and a file":      {join(ingressBase, ingressACME, []string{"--ingress-routes=r", "--ingress-class=c8s"}), "mean nothing"},
		"a proxy's host bits":     {join(ingressBase, ingressACME, []string{"--proxy-protocol-from=10.1.2.3/8"}), "did you mean 10.0.0.0/8"},
		"no prefix":               {join(ingressBase, ingressACME, []string{"--forwarded-from=lb"}), "neither an address nor a prefix"},
		"a port that is none":     {join(ingressBase, ingressACME, []string{"--https-address=:https"}), "no number up to 65535"},
		"no https":                {join(ingressBase, ingressACME, []string{"--https-address="}), "--https-address is required"},
		"proofs too rarely":       {join(ingressBase, ingressACME, []string{"--proof-period=5m"}), "from 1s to 4m0s"},
		"metrics without a port":  {join(ingressBase, ingressACME, []string{"--metrics-address=15022"}), "--metrics-address: "},
		"no time to drain":        {join(ingressBase, ingressACME, []string{"--drain=0s"}), "must be positive"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ingressWith(t, tt.args...).check()
			switch {
			case tt.says == "" && err != nil:
				t.Error(err)
			case tt.says != "" && (err == nil || !strings.Contains(err.Error(), tt.says)):
				t.Errorf("error %v, want %q", err, tt.says)
			case tt.says != "" && exit.Code(err) != exit.Misuse:
				t.Errorf("exit code %d", exit.Code(err))
			}
		})
	}
}

func TestIngressReadsWhatItNeedsForTheCA(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	eab, roots := file("eab.json", `{"keyId": "ours", "key": "c2VjcmV0LXNlY3JldA"}`), file("roots.pem", "PEM")
	c, err := ingressWith(t, "--acme-directory=letsencrypt-staging", "--acme-contact=ops@bank.example,mailto:b@bank.example", "--acme-eab-file="+eab, "--acme-ca-file="+roots).certs.config()
	if err != nil {
		t.Fatal(err)
	}
	if a := c.ACME; a.Directory != certs.LetsEncryptStaging || strings.Join(a.Contact, " ") != "mailto:ops@bank.example mailto:b@bank.example" ||
		a.EAB.KeyID != "ours" || string(a.EAB.Key) != "secret-secret" || string(a.Roots) != "PEM" {
		t.Errorf("%+v", a)
	}
	for _, bad := range []string{`{"keyId": "ours", "key": "secret secret"}`, `{"keyId": "secret"}`, `secret`} {
		_, err := ingressWith(t, "--acme-directory=letsencrypt", "--acme-eab-file="+file("bad.json", bad)).certs.config()
		if err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: error %v, want one without the secret", bad, err)
		}
	}
	if c, err = ingressWith(t, "--csr-out=a", "--certificate=b", "--certificate-root="+roots).certs.config(); err != nil || c.CSR == nil || c.CSR.Request != "a" || c.CSR.Chain != "b" || string(c.CSR.Root) != "PEM" {
		t.Errorf("%+v %v", c, err)
	}
	if c, err = ingressWith(t, "--self-signed").certs.config(); err != nil || !c.SelfSigned {
		t.Errorf("%+v %v", c, err)
	}
}

func TestIngressListensWhereItIsTold(t *testing.T) {
	f := ingressWith(t, "--https-address=127.0.0.1:0", "--http-address=127.0.0.1:0", "--http3", "--proxy-protocol-from=10.0.0.0/8,192.0.2.1")
	in, err := f.listen.open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer closeListeners(&in)
	if len(in.HTTPS) != 1 || len(in.HTTP) != 1 || in.QUIC == nil || len(in.Proxies) != 2 || in.Proxies[1].String() != "192.0.2.1/32" {
		t.Errorf("%+v", in)
	}
	if udp, tcp := in.QUIC.LocalAddr().String(), in.HTTPS[0].Addr().String(); udp != tcp {
		t.Errorf("HTTP/3 at %s, TLS at %s", udp, tcp)
	}
	taken := ingressWith(t, "--https-address="+in.HTTPS[0].Addr().String())
	if _, err := taken.listen.open(t.Context()); err == nil || !strings.Contains(err.Error(), "listening for https") {
		t.Errorf("on a port that is taken: %v", err)
	}
}

func TestIngressStatusIsForPeople(t *testing.T) {
	now := time.Date(2026, 11, 29, 9, 30, 0, 0, time.UTC)
	no := false
	s := &daemon.Status{
		Name: "edge", Version: "v1", ID: "spiffe://bank.example/ingress/1", NotReady: "the ingress has no routes yet", Enrolment: "the CDS is gone", Simulated: true,
		TrustDomain: "bank.example", Manifest: daemon.Document{Version: 3, Digest: "sha256:aa"}, DenyList: &daemon.Document{Version: 1},
		Proof: attester.Status{
			Proofs:  []attester.ProofStatus{{Key: "sha256:bb", Beacon: now.Add(-30 * time.Second), Until: now.Add(270 * time.Second)}, {Key: "sha256:cc", Beacon: now.Add(-time.Hour), Until: now.Add(-time.Minute)}},
			Failing: now.Add(-time.Minute), Code: "cds-unreachable", Error: "no replica answers",
		},
		Certificates: []certs.Status{
			{Name: "bank.example", State: "valid", Issuer: "CN=CA", NotAfter: now.Add(24 * time.Hour)},
			{Name: "shop.example", State: "missing", Problem: &certs.Refusal{Code: "acme-dns", Rule: "DNS", Remedy: "point it here"}, NextTry: now.Add(time.Minute)},
		},
		Hosts:  []string{"bank.example", "shop.example"},
		Places: daemon.Places{Static: 1, Services: 2, Endpoints: 3, Ignored: 4, Connected: &no},
	}
	var out strings.Builder
	if err := writeIngressStatus(&out, s, now); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"edge, v1", "no: the ingress has no routes yet", "failing: the CDS is gone", "SIMULATED", "version 3 of bank.example", "30s old, accepted for 4m30s",
		"1h0m0s old: clients refuse it", "cds-unreachable: no replica answers", "4 ignored", "the API server was never reached", "24h0m0s", "acme-dns", "again in 1m0s",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the status does not say %q:\n%s", want, out.String())
		}
	}
}
