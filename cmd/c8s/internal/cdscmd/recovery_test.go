// SPDX-License-Identifier: Apache-2.0

package cdscmd_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/attest/sim"
	"github.com/c8s-dev/c8s/cds/api"
	"github.com/c8s-dev/c8s/cds/cdstest"
	"github.com/c8s-dev/c8s/cds/keys"
	"github.com/c8s-dev/c8s/cds/recovery"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk/desktest"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/operatorkey"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

const trusting = " --operators @operators.json --manifest @manifest.signed.json"

// prepared is a CDS with a kit on the desk: two operators who both must sign,
// and three holders of recovery keys of whom two are needed.
func prepared(t *testing.T) (*desktest.Desk, *cdstest.CDS) {
	t.Helper()
	dir := t.TempDir()
	to := &policy.Recovery{Threshold: 2}
	for _, name := range []string{"alice", "bob", "carol"} {
		public, err := operatorkey.NewRecoveryKey(filepath.Join(dir, name+".recovery.pem"), false)
		if err != nil {
			t.Fatal(err)
		}
		to.Keys = append(to.Keys, policy.RecoveryKey{Name: name, PublicKey: base64.StdEncoding.EncodeToString(public[:])})
	}
	c := cdstest.Prepare(t, policytest.WithOperators(2, 2), policytest.With(func(m *policy.Manifest) { m.Recovery = to }))
	c.Start(cdstest.Forgetful{Attester: c.Attester("cds")})
	d := desktest.New(t, command)
	d.Dir = dir
	c.TrustIn(dir)
	for i, key := range c.Keys {
		if err := operatorkey.Write(d.Path(fmt.Sprintf("operator-%d.pem", i)), key, false); err != nil {
			t.Fatal(err)
		}
	}
	fetched(t, d, c)
	d.Must("recovery sign @recovery.json --key @operator-0.pem -o @kit.json")
	d.Refused(exit.Refused, "recovery show @kit.json --operators @operators.json", "signature-threshold")
	d.Must("recovery sign @kit.json --key @operator-1.pem -o @kit.json")
	return d, c
}

// fetched waits for the shares, which the CDS makes after it has become ready.
func fetched(t *testing.T, d *desktest.Desk, c *cdstest.CDS) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	line := "recovery fetch -o @recovery.json --cds " + c.Addr + trusting
	for end := time.Now().Add(20 * time.Second); ; <-tick.C {
		r := d.Run(line)
		if r.Code == exit.OK {
			if !strings.Contains(r.ErrOut, "2 of 3 shares (alice, bob, carol), log entry") {
				t.Errorf("said %q", r.ErrOut)
			}
			return
		}
		if time.Now().After(end) || !strings.Contains(r.ErrOut, "no shares yet") && !strings.Contains(r.ErrOut, "no such entry") {
			t.Fatalf("exit %d: %s", r.Code, r.ErrOut)
		}
	}
}

func bundleOf(t *testing.T, c *cdstest.CDS) policy.Digest {
	t.Helper()
	d, err := c.Client().Documents(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	return d.Bundle().Digest()
}

func TestTwoOfThreeBringTheSameCDSBack(t *testing.T) {
	d, c := prepared(t)
	before := bundleOf(t, c)
	c.Stop()
	// Another machine, which cannot unseal what the first one kept.
	c.Launch(cdstest.Forgetful{Attester: c.Attester("node")})
	restore := func(who string) string {
		return "recovery restore @kit.json --recovery-key @" + who + ".recovery.pem --cds " + c.Addr + trusting
	}
	if r := d.Must(restore("alice")); !strings.Contains(r.Out, "the share of alice was taken: 1 of 2; 1 more are needed") {
		t.Errorf("said %q", r.Out)
	}
	if r := d.Must(restore("alice")); !strings.Contains(r.Out, "1 of 2") {
		t.Errorf("one share twice: %q", r.Out)
	}
	if err := c.Server.Ready(); err == nil {
		t.Fatal("one share was enough")
	}
	var got struct {
		Holder     string
		Have, Need int
	}
	if err := json.Unmarshal([]byte(d.Must(restore("carol")+" -o json").Out), &got); err != nil {
		t.Fatal(err)
	}
	if got.Holder != "carol" || got.Have != 2 || got.Need != 2 {
		t.Errorf("restored %+v", got)
	}
	c.Ready()
	if after := bundleOf(t, c); after != before {
		t.Errorf("it came back with the keys %s, and had %s", after, before)
	}
	d.Refused(exit.Refused, restore("bob"), "has its secret")
	if strings.Contains(c.Log(), "PRIVATE KEY") {
		t.Error("a private key is in the log")
	}
}

func TestRestoreGivesNoShareAway(t *testing.T) {
	d, c := prepared(t)
	c.Stop()
	c.Launch(cdstest.Forgetful{Attester: c.Attester("node")})
	line := func(kit, key string) string {
		return "recovery restore @" + kit + " --recovery-key @" + key + " --cds " + c.Addr + trusting
	}
	if _, err := operatorkey.NewRecoveryKey(d.Path("dave.recovery.pem"), false); err != nil {
		t.Fatal(err)
	}
	d.Refused(exit.Refused, line("recovery.json", "alice.recovery.pem"), "without signatures")
	d.Refused(exit.Refused, line("kit.json", "dave.recovery.pem"), "no share for the key")
	d.Refused(exit.Refused, line("kit.json", "operator-0.pem"), "not an X25519 key")
	d.Refused(exit.Misuse, "recovery restore @kit.json --cds "+c.Addr+trusting, "--recovery-key")
	d.Refused(exit.Misuse, "recovery restore @kit.json --recovery-key @alice.recovery.pem"+trusting, "one --cds")

	d.Write("replaced.json", strangersKit(t, d, c))
	d.Refused(exit.Refused, line("replaced.json", "alice.recovery.pem"), "signature-threshold")

	var changed map[string]any
	if err := json.Unmarshal(d.Read("kit.json"), &changed); err != nil {
		t.Fatal(err)
	}
	payload, err := base64.StdEncoding.DecodeString(changed["payload"].(string))
	if err != nil {
		t.Fatal(err)
	}
	changed["payload"] = []byte(strings.Replace(string(payload), `"alice"`, `"alicf"`, 1))
	text, err := json.Marshal(changed)
	if err != nil {
		t.Fatal(err)
	}
	d.Write("changed.json", text)
	d.Refused(exit.Refused, line("changed.json", "alice.recovery.pem"), "signature-threshold")
	if err := c.Server.Ready(); err == nil || strings.Contains(c.Log(), "recovery share received") {
		t.Error("a share was taken")
	}

	// The evidence is judged before anything is sent.
	c.Launch(cdstest.Forgetful{Attester: c.Attester("node", func(o *sim.Options) { o.Measurement[0] ^= 1 })})
	d.Refused(exit.Refused, line("kit.json", "alice.recovery.pem"), "measurement")
	if strings.Contains(c.Log(), "recovery share received") {
		t.Error("a share was sent to another program")
	}
}

// strangersKit is of a secret that its maker knows, for the real holders, with
// the signature of one operator of the two who must sign.
func strangersKit(t *testing.T, d *desktest.Desk, c *cdstest.CDS) []byte {
	t.Helper()
	real, err := recovery.Parse(d.Read("recovery.json"))
	if err != nil {
		t.Fatal(err)
	}
	var to []recovery.Recipient
	for _, s := range real.Shares {
		to = append(to, recovery.Recipient{Name: s.Name, Public: [32]byte(s.Public)})
	}
	made, err := recovery.Split(keys.Seed{1}, 2, to, policytest.TrustDomain)
	if err != nil {
		t.Fatal(err)
	}
	payload, err := made.Encode()
	if err != nil {
		t.Fatal(err)
	}
	envelope, err := policy.SignPayload(api.RecoveryKitType, payload, c.Keys[0])
	if err != nil {
		t.Fatal(err)
	}
	return envelope
}

func TestRecoveryKitsAreShown(t *testing.T) {
	d, c := prepared(t)
	document, err := recovery.Parse(d.Read("recovery.json"))
	if err != nil {
		t.Fatal(err)
	}
	r := d.Must("recovery show @kit.json --operators @operators.json")
	for _, want := range []string{string(document.Digest()), "2 of 3: alice, bob, carol", "operator-1, operator-2"} {
		if !strings.Contains(r.Out, want) {
			t.Errorf("show lacks %q:\n%s", want, r.Out)
		}
	}
	if r := d.Must("recovery show @kit.json"); strings.Count(r.Out, "NOT CHECKED") != 2 {
		t.Errorf("said %q", r.Out)
	}
	if r := d.Must("recovery show @recovery.json"); !strings.Contains(r.Out, "none") {
		t.Errorf("said %q", r.Out)
	}
	d.Refused(exit.Refused, "recovery show @manifest.signed.json", "not a recovery document")
	d.Refused(exit.Refused, "recovery sign @manifest.signed.json --key @operator-0.pem", "not a recovery document")
	d.Refused(exit.Misuse, "recovery sign @recovery.json", "--key is required")
	d.Refused(exit.Refused, "recovery fetch -o @kit.json --cds "+c.Addr+trusting, "the file exists")
}

func TestFetchNeedsRecoveryKeysInTheManifest(t *testing.T) {
	c := cdstest.New(t)
	d := newDesk(t, c)
	d.Refused(exit.Refused, "recovery fetch --cds "+c.Addr+trusting, "names no recovery keys")
}
