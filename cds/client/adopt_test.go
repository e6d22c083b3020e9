// SPDX-License-Identifier: Apache-2.0

package client

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/cds/api"
	"github.com/c8s-dev/c8s/cds/translog"
	"github.com/c8s-dev/c8s/cds/trust"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

func (s *service) sign(subject trust.Subject) []byte {
	s.t.Helper()
	signed, err := trust.Countersign(s.keys.Countersign, subject, 1, time.Now())
	if err != nil {
		s.t.Fatal(err)
	}
	return signed
}

// What the service says of a document counts only beside the operators' word,
// and theirs only beside the service's.
func TestOnlyWhatOperatorsAndServiceSignedIsPutInForce(t *testing.T) {
	f := policytest.New(t, policytest.WithOperators(2, 2))
	s, stranger := newService(t, f), newService(t, f)
	next := f.Next(t, func(m *policy.Manifest) { m.Workloads[0].HostAccess = false })
	later := next.Next(t, func(m *policy.Manifest) { m.Workloads[0].HostAccess = true })
	fork := f.Next(t, func(m *policy.Manifest) { m.Workloads[1].HostAccess = true })
	half, err := policy.Sign(later.Payload, f.Keys[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name                       string
		envelope, countersignature []byte
		code                       string // "" is accepted
		own                        bool   // the code is the client's
	}{
		{"not countersigned", next.Envelope, nil, CodeCountersignature, true},
		{"countersigned by another", next.Envelope, stranger.sign(trust.ManifestSubject(next.Signed)), CodeCountersignature, true},
		{"another's countersignature", next.Envelope, s.sign(trust.ManifestSubject(fork.Signed)), CodeCountersignature, true},
		{"a forged countersignature", next.Envelope, flip(s.sign(trust.ManifestSubject(next.Signed))), CodeCountersignature, true},
		{"the next", next.Envelope, s.sign(trust.ManifestSubject(next.Signed)), "", false},
		{"an older one", f.Envelope, s.sign(trust.ManifestSubject(f.Signed)), "manifest-rolled-back", false},
		{"a forked history", fork.Envelope, s.sign(trust.ManifestSubject(fork.Signed)), "manifest-forked", false},
		{"with fewer signatures", half, s.sign(trust.ManifestSubject(later.Signed)), "signature-threshold", false},
		{"of other operators", policytest.New(t).Envelope, nil, "signature-threshold", false},
		{"nonsense", []byte("{}"), nil, "", true},
	} {
		c := newClient(t, f, t.TempDir())
		if err := c.memory.recognise(s.bundle); err != nil {
			t.Fatal(err)
		}
		if tt.name != "the next" {
			if _, err := c.adoptManifest(s.bundle, next.Envelope, s.sign(trust.ManifestSubject(next.Signed))); err != nil {
				t.Fatal(err)
			}
			if tt.own && tt.code != "" { // the same with one that would be next
				c = newClient(t, f, t.TempDir())
			}
		}
		before := c.Manifest()
		got, err := c.adoptManifest(s.bundle, tt.envelope, tt.countersignature)
		switch {
		case tt.name == "the next":
			if err != nil || got.Digest != next.Digest {
				t.Errorf("%s: %v", tt.name, err)
			}
			continue
		case err == nil || got != nil:
			t.Errorf("%s: in force is %v (%v)", tt.name, got, err)
		case tt.own && tt.code != "":
			codeIs(t, tt.name, err, tt.code)
		case tt.code != "" && string(policy.CodeOf(err)) != tt.code:
			t.Errorf("%s: %v, want %s", tt.name, err, tt.code)
		}
		if c.Manifest() != before {
			t.Errorf("%s: the manifest in force changed", tt.name)
		}
	}
}

func flip(b []byte) []byte {
	b[len(b)/2] ^= 1
	return b
}

func TestDenyListNeedsTheServicesWordAndIsNeverOlder(t *testing.T) {
	f := policytest.New(t)
	s, dir := newService(t, f), t.TempDir()
	first := f.DenyList(t, nil, policytest.Deny(policy.DenyWorkload, "web"))
	second := f.DenyList(t, first, policytest.Deny(policy.DenyWorkload, "db"))
	c := newClient(t, f, dir)
	_, err := c.adoptDenyList(s.bundle, first.Envelope, nil)
	codeIs(t, "not countersigned", err, CodeCountersignature)
	for _, list := range []*policy.SignedDenyList{first, second} {
		if got, err := c.adoptDenyList(s.bundle, list.Envelope, s.sign(trust.DenyListSubject(list))); err != nil || got.Digest != list.Digest {
			t.Fatal(err)
		}
	}
	c = newClient(t, f, dir)
	if got := c.DenyList(); got == nil || got.Digest != second.Digest {
		t.Errorf("after a restart %v is in force", got)
	}
	if _, err := c.adoptDenyList(s.bundle, first.Envelope, s.sign(trust.DenyListSubject(first))); policy.CodeOf(err) != policy.CodeDenyListRolledBack {
		t.Errorf("an older one: %v", err)
	}
}

// Another CDS, with other keys, needs a manifest that the one before never had.
func TestAnotherCDSNeedsALaterManifest(t *testing.T) {
	f := policytest.New(t)
	known, other, third := newService(t, f), newService(t, f), newService(t, f)
	next := f.Next(t, func(m *policy.Manifest) { m.Workloads[0].HostAccess = false })
	later := next.Next(t, func(m *policy.Manifest) { m.Workloads[0].HostAccess = true })
	dir := t.TempDir()
	c := newClient(t, f, dir)
	if err := c.memory.recognise(known.bundle); err != nil {
		t.Fatal(err)
	}
	if _, err := c.memory.remember(known.bundle, known.log(translog.Entry{Type: translog.TypeJoin, Time: time.Now(), Evidence: policytest.Digest("x")}).GetCheckpoint()); err != nil {
		t.Fatal(err)
	}
	refused := func(what string) {
		t.Helper()
		codeIs(t, what, c.memory.recognise(other.bundle), CodeReplaced)
	}
	refused("at once")
	// The known CDS brings a manifest on a connection that it has: the other one
	// may use that manifest, too, and must not be taken for the operators' new one.
	if news := c.adopt(&session{bundle: known.bundle}, &api.State{Manifest: next.Envelope, ManifestCountersignature: known.sign(trust.ManifestSubject(next.Signed))}); news.Manifest == nil {
		t.Fatal("the next manifest is not taken")
	}
	refused("under a manifest that the known one brought")
	c = newClient(t, f, dir)
	refused("after a restart")
	// A crash may come between the two files that are written: then the manifest
	// is older than the note, never the other way round.
	if err := os.Remove(filepath.Join(dir, manifestFile)); err != nil {
		t.Fatal(err)
	}
	c = newClient(t, f, dir)
	refused("with the manifest lost")
	c = newClient(t, later, dir) // as the operators give it to the machine
	if err := c.memory.recognise(other.bundle); err != nil {
		t.Fatalf("under a later manifest: %v", err)
	}
	if c.memory.checkpoint() != nil {
		t.Error("the other log's checkpoint is still shown")
	}
	codeIs(t, "a third one", c.memory.recognise(third.bundle), CodeReplaced)
	codeIs(t, "the first again", c.memory.recognise(known.bundle), CodeReplaced)
}

func TestDamagedMemoryStopsTheStart(t *testing.T) {
	f := policytest.New(t)
	s := newService(t, f)
	for _, file := range []string{manifestFile, denyListFile, checkpointFile, bundleFile} {
		dir := t.TempDir()
		c := newClient(t, f, dir)
		list := f.DenyList(t, nil)
		if err := c.memory.recognise(s.bundle); err != nil {
			t.Fatal(err)
		}
		if _, err := c.adoptDenyList(s.bundle, list.Envelope, s.sign(trust.DenyListSubject(list))); err != nil {
			t.Fatal(err)
		}
		if _, err := c.memory.remember(s.bundle, s.log(translog.Entry{Type: translog.TypeJoin, Time: time.Now(), Evidence: policytest.Digest(file)}).GetCheckpoint()); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, file)
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, raw[:len(raw)/2], 0o600); err != nil {
			t.Fatal(err)
		}
		cfg := c.cfg
		if _, err := New(cfg); err == nil {
			t.Errorf("half of %s is good enough", file)
		}
	}
}
