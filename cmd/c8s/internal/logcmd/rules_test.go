// SPDX-License-Identifier: Apache-2.0

package logcmd

import (
	"slices"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/cds/translog"
	"github.com/c8s-dev/c8s/policy"
)

func sum(name string) policy.Digest { return policy.DigestOf([]byte(name)) }

// at is the time of the tests, some minutes later.
func at(minutes int) time.Time {
	return time.Date(2026, 7, 1, 12, minutes, 0, 0, time.UTC)
}

// goodLog has one entry of every type, and obeys every rule.
func goodLog() []translog.Entry {
	issued := func(minute int, name string, manifest string) translog.Entry {
		return translog.Entry{
			Type: translog.TypeIssuance, Time: at(minute), Certificate: sum(name), Issuer: sum("ica"), Evidence: sum("evidence"),
			Manifest: sum(manifest), Role: policy.RoleNode, NotAfter: at(minute + 59),
		}
	}
	return []translog.Entry{
		{Type: translog.TypeBundle, Time: at(0), Digest: sum("bundle")},
		{Type: translog.TypeManifest, Time: at(0), Digest: sum("m1"), Version: 1},
		{Type: translog.TypeIntermediate, Time: at(1), Certificate: sum("ica"), Issuer: sum("root"), Evidence: sum("evidence"), NotAfter: at(1).Add(24 * time.Hour)},
		issued(2, "a", "m1"),
		{Type: translog.TypePending, Time: at(3), Digest: sum("m2"), Version: 2, Previous: sum("m1"), NotBefore: at(5)},
		issued(4, "b", "m1"),
		{Type: translog.TypeManifest, Time: at(5), Digest: sum("m2"), Version: 2, Previous: sum("m1")},
		issued(6, "c", "m2"),
		{Type: translog.TypeDenylist, Time: at(7), Digest: sum("d1"), Version: 1},
		{Type: translog.TypeDenylist, Time: at(8), Digest: sum("d2"), Version: 2, Previous: sum("d1")},
		{Type: translog.TypeJoin, Time: at(9), Evidence: sum("evidence")},
		{Type: translog.TypeRecovery, Time: at(10), Digest: sum("shares"), Threshold: 2, Shares: 3},
	}
}

func judge(t *testing.T, log []translog.Entry) *rules {
	t.Helper()
	r := newRules(nil)
	for i, e := range log {
		raw, err := e.Marshal()
		if err != nil {
			t.Fatalf("entry %d: %v", i, err)
		}
		r.entry(int64(i), raw)
	}
	r.end(int64(len(log)))
	return r
}

func TestALogThatKeepsItsRulesHasNoFindings(t *testing.T) {
	r := judge(t, goodLog())
	if r.breaches != 0 || len(r.found) != 0 {
		t.Fatalf("found %+v", r.found)
	}
	if r.manifest != (ref{2, sum("m2"), 6, at(5)}) || r.denyList != (ref{2, sum("d2"), 9, at(8)}) || r.counts[translog.TypeIssuance] != 3 {
		t.Errorf("manifest %+v, deny list %+v, counts %v", r.manifest, r.denyList, r.counts)
	}
}

func TestEveryBreachIsFound(t *testing.T) {
	edit := func(i int, change func(*translog.Entry)) func([]translog.Entry) []translog.Entry {
		return func(log []translog.Entry) []translog.Entry { change(&log[i]); return log }
	}
	for name, c := range map[string]struct {
		rule  string
		index int64
		edit  func([]translog.Entry) []translog.Entry
	}{
		"no keys first":                 {ruleFirst, 0, func(l []translog.Entry) []translog.Entry { return l[1:] }},
		"keys twice":                    {ruleFirst, 12, func(l []translog.Entry) []translog.Entry { b := l[0]; b.Time = at(11); return append(l, b) }},
		"time goes back":                {ruleTime, 4, edit(4, func(e *translog.Entry) { e.Time = at(1) })},
		"manifest of the same version":  {ruleManifest, 6, edit(6, func(e *translog.Entry) { e.Version = 1 })},
		"manifest of another chain":     {ruleManifest, 6, edit(6, func(e *translog.Entry) { e.Previous = sum("x") })},
		"manifest before its lock ends": {ruleLock, 6, edit(4, func(e *translog.Entry) { e.NotBefore = at(30) })},
		"pending of another chain":      {rulePending, 4, edit(4, func(e *translog.Entry) { e.Previous = sum("x") })},
		"pending without a lock":        {rulePending, 4, edit(4, func(e *translog.Entry) { e.NotBefore = at(3) })},
		"pending twice":                 {rulePending, 5, func(l []translog.Entry) []translog.Entry { return slices.Insert(l, 5, l[4]) }},
		"deny list goes back":           {ruleDenyList, 9, edit(9, func(e *translog.Entry) { e.Version = 1 })},
		"deny list of another chain":    {ruleDenyList, 9, edit(9, func(e *translog.Entry) { e.Previous = sum("x") })},
		"intermediate of another root": {ruleIntermediate, 12, func(l []translog.Entry) []translog.Entry {
			i := l[2]
			i.Time, i.Issuer = at(11), sum("x")
			return append(l, i)
		}},
		"intermediate that lives long":         {ruleLife, 2, edit(2, func(e *translog.Entry) { e.NotAfter = at(2).Add(24 * time.Hour) })},
		"issuer that was not logged":           {ruleIssuer, 3, edit(3, func(e *translog.Entry) { e.Issuer = sum("x") })},
		"issuer that was logged later":         {ruleIssuer, 2, func(l []translog.Entry) []translog.Entry { l[2], l[3] = l[3], l[2]; l[2].Time = at(1); return l }},
		"issuer that ended":                    {ruleIssuer, 3, edit(2, func(e *translog.Entry) { e.NotAfter = at(1) })},
		"certificate that outlives its issuer": {ruleLife, 3, edit(2, func(e *translog.Entry) { e.NotAfter = at(30) })},
		"certificate that lives long":          {ruleLife, 3, edit(3, func(e *translog.Entry) { e.NotAfter = at(63) })},
		"certificate under an older manifest":  {ruleInForce, 7, edit(7, func(e *translog.Entry) { e.Manifest = sum("m1") })},
		"certificate under a later manifest":   {ruleInForce, 5, edit(5, func(e *translog.Entry) { e.Manifest = sum("m2") })},
		"certificate of an unknown role":       {ruleRole, 3, edit(3, func(e *translog.Entry) { e.Role = "god" })},
		"no manifest at all":                   {ruleManifest, 1, func(l []translog.Entry) []translog.Entry { return l[:1] }},
	} {
		t.Run(name, func(t *testing.T) {
			r := judge(t, c.edit(goodLog()))
			if len(r.found) == 0 || r.found[0].Rule != c.rule || r.found[0].Index != c.index {
				t.Errorf("found %+v, want %s at %d first", r.found, c.rule, c.index)
			}
		})
	}
}

func TestUnreadableEntriesAndManyBreachesAreCounted(t *testing.T) {
	r := newRules(nil)
	for i := range int64(maxFindings + 7) {
		r.entry(i, []byte(`{"type":"god"}`))
	}
	if r.breaches != maxFindings+7 || len(r.found) != maxFindings || r.found[0].Rule != ruleFormat {
		t.Errorf("%d breaches, %d listed", r.breaches, len(r.found))
	}
}

func BenchmarkRules(b *testing.B) {
	e := goodLog()[3]
	raw, err := e.Marshal()
	if err != nil {
		b.Fatal(err)
	}
	r := newRules(nil)
	for b.Loop() {
		r.entry(3, raw)
	}
}
