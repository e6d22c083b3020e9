// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// sample is the audit of the documentation's certificate, all steps done.
func sample(t *testing.T) *audit {
	t.Helper()
	in := func(name string) string { return filepath.Join(sampleDir, name) }
	at := strings.TrimSpace(string(read(t, in("at"))))
	a, err := begin([]string{"-operators", in("operators.json"), "-documents", sampleDir, "-at", at, "-beacon", "1m", in("certificate.pem")}, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range steps() {
		if _, err := s.run(a); err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
	}
	return a
}

// Each case spoils one thing after all was good, and asks the step again that
// is there to notice.
func TestEveryConditionCounts(t *testing.T) {
	const hour = time.Hour
	leaf := func(edit func(*x509.Certificate)) func(*audit) {
		return func(a *audit) { l := *a.leaf; edit(&l); a.leaf = &l }
	}
	issued := func(edit func(*entry)) func(*audit) { return func(a *audit) { edit(a.log.last("issuance")) } }
	issuer := func(edit func(*entry)) func(*audit) { return func(a *audit) { edit(a.log.last("intermediate")) } }
	fact := func(edit func(*facts)) func(*audit) {
		return func(a *audit) { f := *a.evidence.facts; edit(&f); a.evidence.facts = &f }
	}
	claim := func(edit func(*claims)) func(*audit) { return func(a *audit) { edit(a.claims) } }
	latest := func(edit func(*manifest)) func(*audit) { return func(a *audit) { edit(a.inForce()) } }
	for name, tt := range map[string]struct {
		ask   func(*audit) (string, error)
		spoil func(*audit)
	}{
		"operators: a threshold of none": {(*audit).readOperators, func(a *audit) {
			a.operatorsFile = bytes.Replace(a.operatorsFile, []byte(`"threshold":2`), []byte(`"threshold":0`), 1)
		}},
		"operators: a threshold above all": {(*audit).readOperators, func(a *audit) {
			a.operatorsFile = bytes.Replace(a.operatorsFile, []byte(`"threshold":2`), []byte(`"threshold":4`), 1)
		}},
		"operators: another algorithm": {(*audit).readOperators, func(a *audit) {
			a.operatorsFile = bytes.Replace(a.operatorsFile, []byte(`ed25519`), []byte(`ecdsa-p256`), 1)
		}},
		"operators: one key twice":       {(*audit).readOperators, func(a *audit) { a.operatorsFile = withKeyTwice(t, a.operatorsFile) }},
		"denylist: another trust domain": {(*audit).readDenyList, latest(func(m *manifest) { m.TrustDomain = "x" })},
		"leaf: two names":                {(*audit).checkLeaf, leaf(func(l *x509.Certificate) { l.URIs = append(l.URIs, l.URIs[0]) })},
		"leaf: a DNS name":               {(*audit).checkLeaf, leaf(func(l *x509.Certificate) { l.DNSNames = []string{"x"} })},
		"leaf: another name": {(*audit).checkLeaf, leaf(func(l *x509.Certificate) {
			l.URIs = []*url.URL{{Scheme: "spiffe", Host: "c8s.test", Path: "/workload/db"}}
		})},
		"leaf: a CA":                         {(*audit).checkLeaf, leaf(func(l *x509.Certificate) { l.IsCA = true })},
		"leaf: may sign certificates":        {(*audit).checkLeaf, leaf(func(l *x509.Certificate) { l.KeyUsage |= x509.KeyUsageCertSign })},
		"leaf: may not sign":                 {(*audit).checkLeaf, leaf(func(l *x509.Certificate) { l.KeyUsage = 0 })},
		"leaf: for clients only":             {(*audit).checkLeaf, leaf(func(l *x509.Certificate) { l.ExtKeyUsage = l.ExtKeyUsage[1:] })},
		"leaf: two claims":                   {(*audit).checkLeaf, leaf(func(l *x509.Certificate) { l.Extensions = append(l.Extensions, l.Extensions...) })},
		"leaf: too early":                    {(*audit).checkLeaf, func(a *audit) { a.now = a.leaf.NotBefore.Add(-time.Second) }},
		"leaf: too late":                     {(*audit).checkLeaf, func(a *audit) { a.now = a.leaf.NotAfter.Add(time.Second) }},
		"leaf-manifest: another namespace":   {(*audit).checkLeafManifest, func(a *audit) { a.confine(t) }},
		"leaf-manifest: another entry":       {(*audit).checkLeafManifest, claim(func(c *claims) { c.WorkloadDigest[0] ^= 1 })},
		"leaf: an unknown role":              {(*audit).checkLeaf, func(a *audit) { a.rename(t, "king", "web") }},
		"leaf: a workload without a name":    {(*audit).checkLeaf, func(a *audit) { a.rename(t, "workload", "") }},
		"leaf: claims of another version":    {(*audit).checkLeaf, func(a *audit) { c := *a.claims; c.Version++; a.claim(t, &c) }},
		"bundle: another schema":             {(*audit).readBundle, replace("v1/endorsement", "cds-bundle/v1", "cds-bundle/v2")},
		"bundle: endorsed by another schema": {(*audit).readBundle, replace("v1/endorsement", "cds-endorsement/v1", "cds-endorsement/v2")},
		"beacon: another schema":             {(*audit).checkBeacon, replace("v1/beacon", "beacon/v1", "beacon/v2")},
		"evidence: other evidence":           {(*audit).checkEvidence, func(a *audit) { a.swapEvidence() }},
		"leaf-manifest: its version":         {(*audit).checkLeafManifest, claim(func(c *claims) { c.ManifestVersion++ })},
		"leaf-manifest: its digest":          {(*audit).checkLeafManifest, claim(func(c *claims) { c.ManifestDigest[0] ^= 1 })},
		"bundle: another trust domain":       {(*audit).readBundle, latest(func(m *manifest) { m.TrustDomain = "x" })},
		"bundle: other operators":            {(*audit).readBundle, func(a *audit) { a.operators.Threshold-- }},
		"bundle: lives too long":             {(*audit).readBundle, func(a *audit) { a.stretch(t) }},
		"bundle: too early":                  {(*audit).readBundle, func(a *audit) { a.now = a.now.Add(-hour) }},
		"bundle: too late":                   {(*audit).readBundle, func(a *audit) { a.now = a.now.Add(25 * hour) }},
		"bundle-evidence: other dates":       {(*audit).checkBundleEvidence, func(a *audit) { a.bundle.endorsement.NotAfter-- }},
		"bundle-evidence: of another kind":   {(*audit).checkBundleEvidence, func(a *audit) { a.bundle.endorsement.Evidence = evidenceOfTDX(t) }},
		"bundle-evidence: other operators":   {(*audit).checkBundleEvidence, func(a *audit) { a.operators.Threshold-- }},
		"bundle-evidence: another role":      {(*audit).checkBundleEvidence, latest(func(m *manifest) { dropRole(m, "cds") })},
		"chain: directly under the root":     {(*audit).checkChain, func(a *audit) { a.root = a.issuer }},
		"chain: too late":                    {(*audit).checkChain, func(a *audit) { a.now = a.now.Add(25 * hour) }},
		"log: another origin":                {(*audit).readLog, func(a *audit) { a.bundle.TrustDomain = "x" }},
		"log: an empty checkpoint":           {(*audit).readLog, func(a *audit) { a.documents.read["log/checkpoint"] = nil }},
		"log-bundle: another one":            {(*audit).checkLogBundle, func(a *audit) { a.bundle.text = nil }},
		"log-policy: another previous":       {(*audit).checkLogPolicy, func(a *audit) { a.log.last("manifest").Previous = "" }},
		"log-policy: the version again":      {(*audit).checkLogPolicy, func(a *audit) { a.log.last("manifest").Version = 1 }},
		"log-policy: another manifest":       {(*audit).checkLogPolicy, latest(func(m *manifest) { m.digest = "" })},
		"log-policy: no deny list":           {(*audit).checkLogPolicy, func(a *audit) { a.deny = nil }},
		"log-issuer: another root":           {(*audit).checkLogIssuer, issuer(func(e *entry) { e.Issuer = "" })},
		"log-issuer: another end":            {(*audit).checkLogIssuer, issuer(func(e *entry) { e.NotAfter = "" })},
		"log-issuer: other evidence":         {(*audit).checkLogIssuer, func(a *audit) { a.log.last("intermediate").Evidence = a.issuance.Evidence }},
		"log-issuer: another certificate":    {(*audit).checkLogIssuer, func(a *audit) { a.documents.read["v1/certificate/"+digestOf(a.issuer.Raw)] = a.root.Raw }},
		"log-issuer: before any manifest":    {(*audit).checkLogIssuer, func(a *audit) { a.log.last("intermediate").index = 1 }},
		"log-issuer: another role":           {(*audit).checkLogIssuer, func(a *audit) { dropRole(a.manifests[0], "cds") }},
		"log-issuance: its issuer":           {(*audit).checkLogIssuance, issued(func(e *entry) { e.Issuer = "" })},
		"log-issuance: its evidence":         {(*audit).checkLogIssuance, issued(func(e *entry) { e.Evidence = "" })},
		"log-issuance: its manifest":         {(*audit).checkLogIssuance, issued(func(e *entry) { e.Manifest = "" })},
		"log-issuance: its role":             {(*audit).checkLogIssuance, issued(func(e *entry) { e.Role = "node" })},
		"log-issuance: its end":              {(*audit).checkLogIssuance, issued(func(e *entry) { e.NotAfter = e.Time })},
		"log-issuance: its time":             {(*audit).checkLogIssuance, issued(func(e *entry) { e.at = e.at.Add(-hour) })},
		"log-issuance: before its issuer":    {(*audit).checkLogIssuance, func(a *audit) { a.log.last("intermediate").index = a.issuance.index }},
		"log-issuance: the claims' manifest": {(*audit).checkLogIssuance, claim(func(c *claims) { c.ManifestDigest[0] ^= 1 })},
		"log-issuance: before its manifest":  {(*audit).checkLogIssuance, func(a *audit) { a.manifests[0].NotBefore = stamp(a.now.Add(hour)) }},
		"evidence: outlives its node":        {(*audit).checkEvidence, issued(func(e *entry) { e.NotAfter = stamp(e.at.AddDate(1, 0, 0)) })},
		"evidence: of a node not logged":     {(*audit).checkEvidence, func(a *audit) { a.log.entries = slices.Delete(a.log.entries, 3, 4) }},
		"evidence: of an issuing key": {(*audit).checkEvidence, func(a *audit) {
			for i := range a.log.entries {
				a.log.entries[i].Evidence = a.log.last("intermediate").Evidence
			}
		}},
		"evidence: for another role":      {(*audit).checkEvidence, claim(func(c *claims) { c.Role = "cds" })},
		"claims: TEE":                     {(*audit).checkClaims, fact(func(f *facts) { f.tee = "" })},
		"claims: product":                 {(*audit).checkClaims, fact(func(f *facts) { f.product = "" })},
		"claims: paravisor":               {(*audit).checkClaims, fact(func(f *facts) { f.paravisor = "" })},
		"claims: simulated":               {(*audit).checkClaims, fact(func(f *facts) { f.simulated = false })},
		"claims: measurement":             {(*audit).checkClaims, fact(func(f *facts) { f.measurement = "" })},
		"claims: host data":               {(*audit).checkClaims, fact(func(f *facts) { f.hostData = "" })},
		"claims: patch level":             {(*audit).checkClaims, fact(func(f *facts) { f.tcb.FMC++ })},
		"claims: machine":                 {(*audit).checkClaims, fact(func(f *facts) { f.machine = "" })},
		"claims: root":                    {(*audit).checkClaims, fact(func(f *facts) { f.root = "" })},
		"claims: collateral":              {(*audit).checkClaims, fact(func(f *facts) { f.collateral = false })},
		"claims: registers":               {(*audit).checkClaims, claim(func(c *claims) { c.Registers = map[string][]byte{"pcr0": nil} })},
		"accepted-then: no such machine":  {(*audit).checkAcceptedThen, func(a *audit) { a.manifests[0].Substrates = nil }},
		"accepted-then: of another kind":  {(*audit).checkAcceptedThen, func(a *audit) { a.evidence.facts = nil }},
		"accepted-now: of another kind":   {(*audit).checkAcceptedNow, func(a *audit) { a.evidence.facts = nil }},
		"accepted-then: for another role": {(*audit).checkAcceptedThen, func(a *audit) { dropRole(a.manifests[0], "node") }},
		"accepted-then: the guest":        {(*audit).checkAcceptedThen, func(a *audit) { a.evidence.guest.debug = true }},
		"accepted-then: production":       {(*audit).checkAcceptedThen, func(a *audit) { a.manifests[0].Production = true }},
		"accepted-now: no such machine":   {(*audit).checkAcceptedNow, latest(func(m *manifest) { m.Substrates = nil })},
		"accepted-now: no collateral":     {(*audit).checkAcceptedNow, fact(func(f *facts) { f.collateral = false })},
		"countersigned: another version":  {(*audit).checkCountersigned, latest(func(m *manifest) { m.Version++ })},
		"countersigned: another time":     {(*audit).checkCountersigned, func(a *audit) { e := a.log.last("denylist"); e.at = e.at.Add(hour) }},
		"countersigned: another entry":    {(*audit).checkCountersigned, func(a *audit) { a.log.last("denylist").index++ }},
		"denied: a kind that is unknown":  {(*audit).checkDenied, func(a *audit) { a.deny.Entries[0].Kind = "x" }},
		"beacon: another trust domain":    {(*audit).checkBeacon, func(a *audit) { a.bundle.TrustDomain = "x" }},
		"beacon: another key":             {(*audit).checkBeacon, func(a *audit) { a.bundle.Beacon = a.bundle.Countersign }},
		"beacon: too old":                 {(*audit).checkBeacon, func(a *audit) { a.now = a.now.Add(2 * time.Minute) }},
		"beacon: of the future":           {(*audit).checkBeacon, func(a *audit) { a.now = a.now.Add(-2 * time.Minute) }},
	} {
		t.Run(name, func(t *testing.T) {
			a := sample(t)
			tt.spoil(a)
			if found, err := tt.ask(a); err == nil || isUndecided(err) {
				t.Errorf("not refused: %s, %v", found, err)
			}
		})
	}
}

func replace(path, from, to string) func(*audit) {
	return func(a *audit) {
		a.documents.read[path] = bytes.Replace(a.documents.read[path], []byte(from), []byte(to), 1)
	}
}

// confine gives the entry a namespace that is not the pod's.
func (a *audit) confine(t *testing.T) {
	t.Helper()
	for _, m := range a.manifests {
		m.Workloads[0].Namespaces = []string{"another"}
		digest, err := m.Workloads[0].digest(m.Signers)
		if err != nil {
			t.Fatal(err)
		}
		a.claims.WorkloadDigest = unhex(t, strings.TrimPrefix(digest, digestPrefix))
	}
}

// claim puts claims into the leaf.
func (a *audit) claim(t *testing.T, c *claims) {
	t.Helper()
	b, err := encodeCBOR(c)
	if err != nil {
		t.Fatal(err)
	}
	l := *a.leaf
	l.Extensions = slices.Clone(l.Extensions)
	for i, e := range l.Extensions {
		if _, err := parseClaims(e.Value); err == nil {
			l.Extensions[i].Value = b
		}
	}
	a.leaf = &l
}

// rename has leaf and claims agree on another role and workload.
func (a *audit) rename(t *testing.T, role, workload string) {
	t.Helper()
	c := *a.claims
	c.Role, c.Workload = role, workload
	a.claim(t, &c)
	name := workload
	if role != "workload" {
		sum := sha256.Sum256([]byte("c8s/machine/v1\x00" + c.Machine))
		name = hexOf(sum[:8])
	}
	l := *a.leaf
	l.URIs = []*url.URL{{Scheme: "spiffe", Host: "c8s.test", Path: "/" + role + "/" + name}}
	a.leaf = &l
}

// swapEvidence serves the evidence of another certificate by this hash.
func (a *audit) swapEvidence() {
	path := func(hash string) string { return "v1/evidence/" + strings.TrimPrefix(hash, digestPrefix) }
	mine, other := a.issuance.Evidence, a.log.last("intermediate").Evidence
	a.documents.read[path(mine)] = a.documents.read[path(other)]
}

// stretch makes the endorsement live a second too long.
func (a *audit) stretch(t *testing.T) {
	t.Helper()
	var e endorsement
	if err := json.Unmarshal(a.documents.read["v1/endorsement"], &e); err != nil {
		t.Fatal(err)
	}
	e.NotAfter = e.NotBefore + int64(maxEndorsed/time.Second) + 1
	b, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	a.documents.read["v1/endorsement"] = b
}

func evidenceOfTDX(t *testing.T) []byte {
	t.Helper()
	return unhex(t, vectors[evidenceVectors](t, "cmw.json").Accepted[2].CBOR)
}

func dropRole(m *manifest, role string) {
	for i := range m.Substrates {
		s := &m.Substrates[i]
		s.Roles = slices.DeleteFunc(s.Roles, func(r string) bool { return r == role })
	}
}

func withKeyTwice(t *testing.T, file []byte) []byte {
	t.Helper()
	var o operators
	if err := json.Unmarshal(file, &o); err != nil {
		t.Fatal(err)
	}
	o.Keys[1] = o.Keys[0]
	o.Keys[1].Name = "another"
	b, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The operators signed it, and still it does not follow.
func TestManifestsMustFollowEachOther(t *testing.T) {
	operators, sign := newOperator(t)
	first := map[string]any{"schema": "c8s.dev/manifest/v1", "trustDomain": "c8s.test", "version": 1, "previous": "", "operators": operators}
	payload := func(m map[string]any) []byte {
		b, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	digest := digestOf(payload(first))
	for name, tt := range map[string]struct {
		good         bool
		payloadType  string
		key, instead any
	}{
		"as it should be":         {true, manifestType, "version", 2},
		"a version left out":      {true, manifestType, "version", 3},
		"the same version":        {false, manifestType, "version", 1},
		"another trust domain":    {false, manifestType, "trustDomain", "x"},
		"another schema":          {false, manifestType, "schema", "c8s.dev/manifest/v2"},
		"a member that is new":    {false, manifestType, "allowEverything", true},
		"another kind of payload": {false, denyListType, "version", 2},
	} {
		second := map[string]any{"schema": "c8s.dev/manifest/v1", "trustDomain": "c8s.test", "version": 2, "previous": digest, "operators": operators}
		second[tt.key.(string)] = tt.instead
		a := &audit{operators: operators, documents: &documents{read: map[string][]byte{
			"v1/manifest": sign(tt.payloadType, payload(second)), "v1/document/" + digest: sign(manifestType, payload(first)),
		}}}
		if found, err := a.readManifests(); (err == nil) != tt.good {
			t.Errorf("%s: %v, found %q", name, err, found)
		}
	}
}

// newOperator is one who signs alone.
func newOperator(t *testing.T) (operators, func(payloadType string, payload []byte) []byte) {
	t.Helper()
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	o := operators{Threshold: 1, Keys: []operatorKey{{Name: "a", Algorithm: "ed25519", PublicKey: base64.StdEncoding.EncodeToString(der)}}}
	return o, func(payloadType string, payload []byte) []byte {
		message := fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(payloadType), payloadType, len(payload), payload)
		envelope, err := json.Marshal(map[string]any{"payloadType": payloadType, "payload": payload, "signatures": []any{map[string]any{"sig": ed25519.Sign(key, message)}}})
		if err != nil {
			t.Fatal(err)
		}
		return envelope
	}
}

// What is served by a digest must have it.
func TestHistoryIsWhatTheDigestsSay(t *testing.T) {
	operators, sign := newOperator(t)
	text := `{"schema":"c8s.dev/manifest/v1","trustDomain":"c8s.test","version":%d,"previous":"%s","operators":%s}`
	names, err := json.Marshal(operators)
	if err != nil {
		t.Fatal(err)
	}
	first, other := fmt.Appendf(nil, text, 1, "", names), fmt.Appendf(nil, text, 1, "", append(names, ' '))
	second := fmt.Appendf(nil, text, 2, digestOf(first), names)
	for name, served := range map[string][]byte{"the one": first, "another": other} {
		a := &audit{operators: operators, documents: &documents{read: map[string][]byte{
			"v1/manifest": sign(manifestType, second), "v1/document/" + digestOf(first): sign(manifestType, served),
		}}}
		if _, err := a.readManifests(); (err == nil) != (name == "the one") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDenyListsAreOfThisMesh(t *testing.T) {
	operators, sign := newOperator(t)
	for text, good := range map[string]bool{
		`{"schema":"c8s.dev/denylist/v1","trustDomain":"c8s.test","version":1,"previous":"","entries":[]}`: true,
		`{"schema":"c8s.dev/denylist/v2","trustDomain":"c8s.test","version":1,"previous":"","entries":[]}`: false,
		`{"schema":"c8s.dev/denylist/v1","trustDomain":"x","version":1,"previous":"","entries":[]}`:        false,
		`{"schema":"c8s.dev/denylist/v1","trustDomain":"c8s.test","version":1,"entries":[],"entries":[]}`:  false,
	} {
		a := &audit{manifests: []*manifest{{TrustDomain: "c8s.test", Operators: operators}}}
		a.documents = &documents{read: map[string][]byte{"v1/denylist": sign(denyListType, []byte(text))}}
		if _, err := a.readDenyList(); (err == nil) != good {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestEntriesOfUnknownTypesAreRefused(t *testing.T) {
	for text, good := range map[string]bool{
		`{"type":"join","time":"2026-03-04T05:06:07Z","evidence":""}`: true,
		`{"type":"release","time":"2026-03-04T05:06:07Z"}`:            false,
		`{"time":"2026-03-04T05:06:07Z"}`:                             false,
	} {
		if e, err := parseEntry([]byte(text)); (err == nil) != good {
			t.Errorf("%s: %v, %+v", text, err, e)
		}
	}
}

func TestCheckpointsHaveOneSpelling(t *testing.T) {
	root := base64.StdEncoding.EncodeToString(make([]byte, 32))
	for text, good := range map[string]bool{
		"o\n1\n" + root + "\n": true, "o\n01\n" + root + "\n": false, "o\n0\n" + root + "\n": false, "o\n-1\n" + root + "\n": false,
		"o\n99999999999\n" + root + "\n": false, "p\n1\n" + root + "\n": false, "o\n1\n" + root: false, "o\n1\n" + root + "\nx\n": false,
		"o\n1\nAAAA\n": false, "o\n1\n" + root[1:] + "\n": false,
	} {
		if size, _, err := parseCheckpoint(text, "o"); (err == nil) != good {
			t.Errorf("%q: %v, size %d", text, err, size)
		}
	}
}
