// SPDX-License-Identifier: Apache-2.0

package manifestcmd_test

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/operatorkey"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

func TestLintReportsWhatPolicyFinds(t *testing.T) {
	d := newDesk(t)
	f := policytest.New(t)
	d.Write("m.json", f.Envelope)
	at := time.Date(2027, 4, 1, 0, 0, 0, 0, time.UTC)
	var got []policy.Finding
	r := d.Run("lint @m.json -o json --time " + at.Format(time.RFC3339))
	if err := json.Unmarshal([]byte(r.Out), &got); err != nil {
		t.Fatal(err)
	}
	want := policy.Lint(f.Manifest, at)
	if len(want) == 0 || !slices.Equal(got, want) {
		t.Errorf("found %v, want %v", got, want)
	}
}

func TestLintFailsForErrorsAndWithStrictForWarnings(t *testing.T) {
	d := newDesk(t)
	f := policytest.New(t, policytest.With(func(m *policy.Manifest) {
		m.Workloads[0].Peers.To = append(m.Workloads[0].Peers.To, policy.PeerRule{Workload: "web", Ports: []uint16{9}, Protocol: "tcp"})
	}))
	d.Write("warns.json", f.Payload)
	if r := d.Must("lint @warns.json"); !strings.Contains(r.Out, "warning: ") || !strings.Contains(r.Out, string(policy.LintDeadRule)) {
		t.Errorf("said %q", r.Out)
	}
	d.Refused(exit.Refused, "lint @warns.json --strict", "must be dealt with")
	f = policytest.New(t, policytest.With(func(m *policy.Manifest) {
		m.Substrates[0].SNP.Guest.AllowDebug = true
	}))
	d.Write("fails.json", f.Payload)
	d.Refused(exit.Refused, "lint @fails.json", "must be dealt with")
}

func TestLintListsWhatIsNotFilledIn(t *testing.T) {
	d := newDesk(t)
	d.Must("init --trust-domain c8s.test --new-key @op.pem -o @m.json --operators-out @o.json")
	r := d.Run("lint @m.json")
	for _, path := range []string{"$.substrates[0].measurements[0]", "$.workloads[0].images[0].digest"} {
		if r.Code != exit.Refused || !strings.Contains(r.Out, "error: "+path) {
			t.Errorf("exit %d, no %s in %q", r.Code, path, r.Out)
		}
	}
	d.Refused(exit.Misuse, "lint @m.json --time tomorrow", "--time")
	d.Refused(exit.Misuse, "lint", "Usage:")
	d.Refused(exit.Refused, "lint @missing", "no such file")
}

func TestANextVersionMayWait(t *testing.T) {
	d := newDesk(t)
	f := policytest.New(t)
	d.Write("one.json", f.Envelope)
	d.Must("next @one.json -o @two.json --not-before 2027-01-01T00:00:00Z")
	if r := d.Must("show @two.json"); !strings.Contains(r.Out, "not before 2027-01-01T00:00:00Z") {
		t.Errorf("showed %s", r.Out)
	}
	signed, err := policy.Sign(d.Read("two.json"), f.Keys...)
	if err != nil {
		t.Fatal(err)
	}
	d.Write("two.signed.json", signed)
	d.Must("next @two.signed.json -o @three.json")
	if m := parse(t, d.Read("three.json")); m.NotBefore != "" {
		t.Errorf("the time lock %s was taken over", m.NotBefore)
	}
	d.Refused(exit.Refused, "next @one.json --not-before tomorrow", string(policy.CodeTimeInvalid))
}

func TestAKeyCanBeMadeWithoutAManifest(t *testing.T) {
	for _, algorithm := range []string{policy.AlgorithmEd25519, policy.AlgorithmECDSAP256} {
		d := newDesk(t)
		d.Must("new-key @alice.pem --algorithm " + algorithm)
		if r := d.Must("public-key @alice.pem.pub"); r.Out != string(d.Read("alice.pem.pub")) || !strings.Contains(r.ErrOut, algorithm+", keyid sha256:") {
			t.Errorf("wrote %q, said %q", r.Out, r.ErrOut)
		}
		if info, err := os.Stat(d.Path("alice.pem")); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("key file: %v, %v; want mode 0600", info.Mode(), err)
		}
		before := d.Read("alice.pem")
		d.Refused(exit.Refused, "new-key @alice.pem", "--force")
		d.Refused(exit.Misuse, "new-key @bob.pem --algorithm rsa", "--algorithm")
		if !slices.Equal(before, d.Read("alice.pem")) {
			t.Error("the key was replaced")
		}
	}
}

func TestRecoveryKeysAreWrittenAndNamedInManifests(t *testing.T) {
	d := newDesk(t)
	r := d.Must("recovery-key new --name alice -o @alice.recovery.pem")
	var entry policy.RecoveryKey
	if err := json.Unmarshal([]byte(r.Out), &entry); err != nil || entry.Name != "alice" {
		t.Fatalf("wrote %q, %v", r.Out, err)
	}
	if info, err := os.Stat(d.Path("alice.recovery.pem")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("key file: %v, %v; want mode 0600", info.Mode(), err)
	}
	key, err := operatorkey.ReadRecoveryKey(d.Path("alice.recovery.pem"), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	public, err := key.Public()
	if err != nil || base64.StdEncoding.EncodeToString(public[:]) != entry.PublicKey {
		t.Errorf("the file's public key is %x, %v; the entry's %s", public, err, entry.PublicKey)
	}
	f := policytest.New(t, policytest.With(func(m *policy.Manifest) {
		m.Recovery = &policy.Recovery{Threshold: 1, Keys: []policy.RecoveryKey{entry}}
	}))
	d.Write("m.json", f.Payload)
	if r := d.Must("show @m.json"); !strings.Contains(r.Out, entry.PublicKey) {
		t.Errorf("showed %s", r.Out)
	}
	d.Refused(exit.Refused, "recovery-key new --name alice -o @alice.recovery.pem", "--force")
	d.Refused(exit.Misuse, "recovery-key new -o @bob.pem", "--name")
	d.Refused(exit.Misuse, "recovery-key new --name bob -o -", "-o FILE")

	// The two kinds of keys do not stand in for each other.
	d.Refused(exit.Refused, "sign @m.json --key @alice.recovery.pem", "cannot sign")
	d.Must(initLine("--new-key @op.pem"))
	if _, err := operatorkey.ReadRecoveryKey(d.Path("op.pem"), io.Discard); err == nil || !strings.Contains(err.Error(), "recovery-key new") {
		t.Errorf("a signing key was read as a recovery key: %v", err)
	}
}
