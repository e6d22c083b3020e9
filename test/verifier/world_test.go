// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/tls"
	"errors"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/sim"
	"github.com/c8s-dev/c8s/attest/sim/simtest"
	"github.com/c8s-dev/c8s/cds/cdstest"
	"github.com/c8s-dev/c8s/cds/client"
	"github.com/c8s-dev/c8s/cds/translog"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

// world is a running CDS under a manifest that two of three operators sign.
type world struct {
	*cdstest.CDS
	t      testing.TB
	client *client.Client
	denied *policy.SignedDenyList // in force
}

// newWorld accepts the simulated machines "cds", "node" and "other" for all
// roles, and what edits add.
func newWorld(t testing.TB, edits ...func(*policy.Manifest)) *world {
	t.Helper()
	accept := func(m *policy.Manifest) {
		own := func(o *sim.Options) { o.HostData = m.Operators.Digest() }
		simtest.Accept(simtest.New(t, "cds", own), simtest.New(t, "node", own), simtest.New(t, "other", own))(m)
		for i := range m.Substrates {
			m.Substrates[i].Roles = append(m.Substrates[i].Roles, policy.RoleWorkload, policy.RoleIngress)
		}
		for _, edit := range edits {
			edit(m)
		}
	}
	w := &world{CDS: cdstest.New(t, policytest.WithOperators(3, 2), policytest.With(accept)), t: t}
	w.client = w.Client()
	return w
}

func (w *world) url() string { return "https://" + w.Addr }

func (w *world) pod(node *client.Credential, own attest.Attester) *client.Credential {
	w.t.Helper()
	pod := client.Pod{
		Namespace: "default", Name: "web-0", UID: "uid-web-0", Images: []policy.Digest{policytest.Digest(policytest.Web)},
		Addrs: []netip.Addr{netip.MustParseAddr("10.81.1.2")}, Attester: own,
	}
	enrol := func() (*client.Credential, error) { return w.client.EnrolPod(w.t.Context(), node, pod) }
	if node == nil {
		enrol = func() (*client.Credential, error) { return w.client.EnrolGuest(w.t.Context(), pod) }
	}
	cred, err := enrol()
	if err != nil {
		w.t.Fatal(err)
	}
	return cred
}

// publish puts the next manifest in force.
func (w *world) publish(edit func(*policy.Manifest)) {
	w.t.Helper()
	w.Fixture = w.Next(w.t, edit)
	if err := w.Server.Publish(w.t.Context(), w.Envelope); err != nil {
		w.t.Fatal(err)
	}
}

// deny puts the next deny list in force.
func (w *world) deny(entries ...policy.Denial) {
	w.t.Helper()
	w.denied = w.DenyList(w.t, w.denied, entries...)
	if _, err := w.client.PublishDenyList(w.t.Context(), w.denied.Envelope); err != nil {
		w.t.Fatal(err)
	}
}

// web is what an auditor reads documents with.
func web() *http.Client {
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} //nolint:gosec // as the program does, and for its reason
}

// files writes what the auditor brings along: the operators' file and the
// certificate.
func (w *world) files(dir string, cred *client.Credential) (operators, certificate string) {
	w.t.Helper()
	w.TrustIn(dir)
	operators, certificate = filepath.Join(dir, "operators.json"), filepath.Join(dir, "certificate.pem")
	writeChain(w.t, certificate, cred.TLS.Certificate)
	return operators, certificate
}

// mirror makes a folder of the documents: the log with package translog, the
// rest with what the program says it read.
func (w *world) mirror(dir string, cred *client.Credential) {
	w.t.Helper()
	operators, certificate := w.files(dir, cred)
	if out, code := verifier(w.t, "-operators", operators, "-documents", w.url(), "-beacon", "1h", "-save", dir, certificate); code != exitGood {
		w.t.Fatalf("a good certificate is not accepted:\n%s", out)
	}
	if err := os.RemoveAll(filepath.Join(dir, "log")); err != nil {
		w.t.Fatal(err)
	}
	d, err := w.client.Documents(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	defer d.Close()
	key, err := d.Bundle().LogVerifier()
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := translog.NewAuditor(key.Name(), key, translog.HTTPFetcher(web(), w.url()+"/log")).Mirror(w.t.Context(), filepath.Join(dir, "log")); err != nil {
		w.t.Fatal(err)
	}
}

// document reads what anybody may read.
func (w *world) document(path string) []byte {
	w.t.Helper()
	b, err := httpGet(web(), w.url()+"/"+path)
	if err != nil {
		w.t.Fatalf("%s: %v", path, err)
	}
	return b
}

func write(t testing.TB, path string, b []byte) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, b, 0o644)); err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// program is the verifier, built once.
var program string //nolint:gochecknoglobals // set by TestMain

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "c8s-verifier-")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		program = filepath.Join(dir, "verifier")
		if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
			panic(string(out))
		}
		return m.Run()
	}())
}

// verifier runs the program.
func verifier(t testing.TB, args ...string) (string, int) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), program, args...).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if exit != nil {
		return string(out), exit.ExitCode()
	}
	return string(out), 0
}

// judge runs the program on a mirror.
func judge(t testing.TB, dir string, more ...string) (string, int) {
	t.Helper()
	args := append(more, "-operators", filepath.Join(dir, "operators.json"), "-documents", dir, filepath.Join(dir, "certificate.pem"))
	return verifier(t, args...)
}
