// SPDX-License-Identifier: Apache-2.0

package translog

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/policy"
)

var testTime = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

func digest(s string) policy.Digest { return policy.DigestOf([]byte(s)) }

// entries has one of each type, in an order a log could have.
func entries() []Entry {
	return []Entry{
		{Type: TypeBundle, Time: testTime, Digest: digest("bundle")},
		{Type: TypeManifest, Time: testTime, Digest: digest("manifest 1"), Version: 1},
		{Type: TypeRecovery, Time: testTime.Add(time.Second), Digest: digest("shares"), Threshold: 2, Shares: 3},
		{Type: TypeJoin, Time: testTime.Add(time.Minute), Evidence: digest("replica")},
		{
			Type: TypeIntermediate, Time: testTime.Add(time.Minute), Certificate: digest("intermediate"), Issuer: digest("root"),
			Evidence: digest("replica"), NotAfter: testTime.Add(24 * time.Hour),
		},
		{
			Type: TypeIssuance, Time: testTime.Add(time.Hour), Certificate: digest("leaf"), Issuer: digest("intermediate"),
			Evidence: digest("node"), Manifest: digest("manifest 1"), Role: policy.RoleNode, NotAfter: testTime.Add(2 * time.Hour),
		},
		{Type: TypeManifest, Time: testTime.Add(2 * time.Hour), Digest: digest("manifest 2"), Version: 2, Previous: digest("manifest 1")},
		{Type: TypeDenylist, Time: testTime.Add(3 * time.Hour), Digest: digest("deny list"), Version: 1},
		{Type: TypeBundle, Time: testTime.Add(4 * time.Hour), Digest: digest("bundle 2"), Previous: digest("bundle")},
		{
			Type: TypePending, Time: testTime.Add(5 * time.Hour), Digest: digest("manifest 3"), Version: 3, Previous: digest("manifest 2"),
			NotBefore: testTime.Add(48 * time.Hour),
		},
	}
}

func TestEntriesKeepTheirValues(t *testing.T) {
	largest := Entry{
		Type: TypeManifest, Time: time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
		Digest: digest("x"), Version: 1<<64 - 1, Previous: digest("y"),
	}
	for _, e := range append(entries(), largest) {
		b, err := e.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		got, err := ParseEntry(b)
		if err != nil || *got != e {
			t.Errorf("%s: %+v, %v", b, got, err)
		}
	}
}

func TestTimesAreWrittenInUTCAndWholeSeconds(t *testing.T) {
	e := Entry{Type: TypeJoin, Time: testTime.Add(999 * time.Millisecond).In(time.FixedZone("", 3600)), Evidence: digest("x")}
	b, err := e.Marshal()
	if err != nil || !bytes.Contains(b, []byte(`"time":"2026-03-04T05:06:07Z"`)) {
		t.Errorf("%s, %v", b, err)
	}
}

func TestEntriesThatWouldLoseOrMissAValueAreNotEncoded(t *testing.T) {
	for name, change := range map[string]func(e *Entry){
		"no type":              func(e *Entry) { e.Type = "" },
		"unknown type":         func(e *Entry) { e.Type = "release" },
		"no time":              func(e *Entry) { e.Time = time.Time{} },
		"no certificate":       func(e *Entry) { e.Certificate = "" },
		"no issuer":            func(e *Entry) { e.Issuer = "" },
		"no evidence":          func(e *Entry) { e.Evidence = "" },
		"no manifest":          func(e *Entry) { e.Manifest = "" },
		"no role":              func(e *Entry) { e.Role = "" },
		"a role with a quote":  func(e *Entry) { e.Role = `no"de` },
		"a long role":          func(e *Entry) { e.Role = policy.Role(strings.Repeat("a", 33)) },
		"no end":               func(e *Entry) { e.NotAfter = time.Time{} },
		"an end after 9999":    func(e *Entry) { e.NotAfter = time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC) },
		"digest in upper case": func(e *Entry) { e.Evidence = policy.Digest(strings.ToUpper(string(e.Evidence))) },
		"a version":            func(e *Entry) { e.Version = 1 },
		"a previous":           func(e *Entry) { e.Previous = digest("x") },
		"shares":               func(e *Entry) { e.Shares = 1 },
		"manifest, version 0":  func(e *Entry) { *e = Entry{Type: TypeManifest, Time: testTime, Digest: digest("x")} },
		"recovery, 0 of 0":     func(e *Entry) { *e = Entry{Type: TypeRecovery, Time: testTime, Digest: digest("x")} },
		"recovery, 3 of 2": func(e *Entry) {
			*e = Entry{Type: TypeRecovery, Time: testTime, Digest: digest("x"), Threshold: 3, Shares: 2}
		},
		"recovery, 2 of 256": func(e *Entry) {
			*e = Entry{Type: TypeRecovery, Time: testTime, Digest: digest("x"), Threshold: 2, Shares: 256}
		},
		"recovery, -1 of 3": func(e *Entry) {
			*e = Entry{Type: TypeRecovery, Time: testTime, Digest: digest("x"), Threshold: -1, Shares: 3}
		},
		"bundle with a version": func(e *Entry) { *e = Entry{Type: TypeBundle, Time: testTime, Digest: digest("x"), Version: 1} },
	} {
		e := entries()[5]
		if _, err := e.Marshal(); err != nil {
			t.Fatal(err)
		}
		change(&e)
		if b, err := e.Marshal(); err == nil {
			t.Errorf("%s: %s", name, b)
		}
	}
}

func TestOtherSpellingsOfAnEntryAreRefused(t *testing.T) {
	manifest, err := entries()[6].Marshal()
	if err != nil {
		t.Fatal(err)
	}
	replace := func(old, new string) string {
		changed := strings.Replace(string(manifest), old, new, 1)
		if changed == string(manifest) {
			t.Fatalf("%q is not in %s", old, manifest)
		}
		return changed
	}
	for name, text := range map[string]string{
		"empty":                "",
		"null":                 "null",
		"array":                "[" + string(manifest) + "]",
		"cut":                  string(manifest[:len(manifest)-1]),
		"something after":      string(manifest) + "\n",
		"something before":     " " + string(manifest),
		"space":                replace(`":`, `": `),
		"other order":          `{"time":"2026-03-04T05:06:07Z","type":"join","evidence":"` + string(digest("x")) + `"}`,
		"unknown type":         replace(`"manifest"`, `"release"`),
		"unknown field":        replace(`}`, `,"more":1}`),
		"missing field":        replace(`"version":2,`, ``),
		"twice":                replace(`"version":2,`, `"version":2,"version":2,`),
		"other case":           replace(`"version"`, `"Version"`),
		"escape":               replace(`"manifest"`, `"\u006danifest"`),
		"leading zero":         replace(`"version":2`, `"version":02`),
		"fraction":             replace(`"version":2`, `"version":2.0`),
		"exponent":             replace(`"version":2`, `"version":2e0`),
		"sign":                 replace(`"version":2`, `"version":+2`),
		"version 0":            replace(`"version":2`, `"version":0`),
		"version too large":    replace(`"version":2`, `"version":18446744073709551616`),
		"version as text":      replace(`"version":2`, `"version":"2"`),
		"digest in upper case": replace(`sha256:`, `SHA256:`),
		"empty digest":         replace(string(digest("manifest 2")), ``),
		"time zone":            replace(`07:06:07Z"`, `07:06:07+00:00"`),
		"fraction of a second": replace(`07:06:07Z"`, `07:06:07.0Z"`),
		"comma for a fraction": replace(`07:06:07Z"`, `07:06:07,5Z"`),
		"no time":              replace(`2026-03-04T07:06:07Z`, ``),
		"hour 24":              replace(`T07:`, `T24:`),
		"year 10000":           replace(`2026-`, `10000-`),
	} {
		if e, err := ParseEntry([]byte(text)); err == nil {
			t.Errorf("%s: %s is accepted as %+v", name, text, e)
		} else if len(err.Error()) > 600 {
			t.Errorf("%s: an error of %d bytes", name, len(err.Error()))
		}
	}
}

func FuzzParseEntry(f *testing.F) {
	for _, e := range entries() {
		b, err := e.Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"type":"recovery","time":"2026-03-04T05:06:07Z","digest":"","threshold":01,"shares":300}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := ParseEntry(b)
		if err != nil {
			return
		}
		again, err := e.Marshal()
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%s becomes %s, %v", b, again, err)
		}
		if len(b) > 600 {
			t.Fatalf("an entry of %d bytes", len(b))
		}
	})
}
