// SPDX-License-Identifier: Apache-2.0

// Package guest is what runs inside an emulated machine: it is the machine's
// first process, runs test binaries one after the other and switches off.
package guest

import "time"

// Where the driver puts things in the guest.
const (
	PlanFile  = "/plan.json"
	Results   = "/dev/ttyS1"
	ModuleDir = "/modules"
)

// Plan says what a guest does.
type Plan struct {
	Modules []string `json:"modules"` // names, in the order of loading
	Suites  []Suite  `json:"suites"`
	Env     []string `json:"env"`
}

// Suite is one test binary.
type Suite struct {
	Name  string        `json:"name"`
	Path  string        `json:"path"`
	Dir   string        `json:"dir"`
	Run   string        `json:"run,omitempty"`  // tests, as for go test -run; all if empty
	Skip  string        `json:"skip,omitempty"` // as for go test -skip
	Limit time.Duration `json:"limit"`
}
