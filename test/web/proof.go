// SPDX-License-Identifier: Apache-2.0

package web

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// Simulated checks what `c8s verify -o json` said of a service on simulated
// hardware: all that operators, log and TLS say is proven, and what is open is
// so for want of hardware, of its vendor's collateral, and of witnesses.
func Simulated(said string) error {
	var report struct {
		Steps []struct{ Name, State, Code, Actual string }
	}
	raw, _, _ := strings.Cut(said, "\nc8s: ")
	if err := json.Unmarshal([]byte(raw), &report); err != nil {
		return fmt.Errorf("reading the report: %w: %s", err, said)
	}
	var errs []error
	proven := map[string]bool{}
	for _, step := range report.Steps {
		proven[step.Name] = step.State == "proven"
		open := step.Name == "witnesses" || step.Name == "collateral" || strings.Contains(step.Name, "hardware") || strings.Contains(step.Name+step.Actual, "imulated")
		if step.State != "proven" && (step.State != "open" || !open) {
			errs = append(errs, fmt.Errorf("not proven, and not for want of hardware: %+v", step))
		}
	}
	for _, want := range []string{"connection", "anchor", "manifest-signed", "cds", "in-force", "log", "memory", "statement"} {
		if !proven[want] {
			errs = append(errs, fmt.Errorf("step %s is not proven", want))
		}
	}
	return errors.Join(errs...)
}
