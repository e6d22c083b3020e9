// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"time"
)

// Severity says how much a finding matters.
type Severity string

// The severities. An error is hardly meant, a warning wants a reason, an
// information is for whoever reads the manifest for the first time.
const (
	SeverityError   Severity = "error"
	SeverityWarning Severity = "warning"
	SeverityInfo    Severity = "info"
)

// lintSoon is how long before a value expires Lint says so.
const lintSoon = 14 * 24 * time.Hour

// Finding is something in a valid manifest that may not be meant.
type Finding struct {
	Code     Code     `json:"code"`
	Path     string   `json:"path"` // as in Change
	Severity Severity `json:"severity"`
	Message  string   `json:"message"`
	Remedy   string   `json:"remedy,omitempty"`
}

func (f Finding) String() string {
	s := fmt.Sprintf("%s: %s: %s: %s", f.Severity, f.Path, f.Code, f.Message)
	if f.Remedy != "" {
		s += "; " + f.Remedy
	}
	return s
}

// Lint finds what a valid manifest says that may not be meant: what admits more
// than it seems to, what admits nothing, and what will soon. Findings come in
// the order of the manifest.
func Lint(m *Manifest, now time.Time) []Finding {
	if m == nil || m.index == nil {
		d := undecided()
		return []Finding{{Code: d.Code, Path: "$", Severity: SeverityError, Message: "expected " + d.Expected + ", got " + d.Actual, Remedy: d.Remedy}}
	}
	l := &linter{m: m, now: now}
	l.people()
	l.sameNode()
	for i := range m.Substrates {
		l.substrate(&m.Substrates[i])
		l.unions(i)
	}
	l.sharedMeasurements()
	l.publishers()
	for i := range m.Workloads {
		l.workload(&m.Workloads[i])
	}
	l.sharedImages()
	l.ingress()
	return l.findings
}

type linter struct {
	m        *Manifest
	now      time.Time
	findings []Finding
}

func (l *linter) add(code Code, path string, s Severity, message, remedy string) {
	l.findings = append(l.findings, Finding{Code: code, Path: path, Severity: s, Message: message, Remedy: remedy})
}

func (l *linter) people() {
	m := l.m
	if m.Production && m.Operators.Threshold == 1 {
		l.add(LintOneOperator, "operators.threshold", SeverityWarning, "one operator alone can change everything in production", "let two or more operators sign")
	}
	if m.Production && m.Recovery == nil {
		l.add(LintNoRecovery, "recovery", SeverityWarning, "after the loss of every replica nobody can bring the mesh's root back", "name the keys of people who together can recover it")
	}
	if len(m.Witnesses) > 0 && m.WitnessQuorum == 0 {
		l.add(LintNoQuorum, "witnessQuorum", SeverityWarning, "witnesses are named and none must cosign", "say how many must")
	}
}
