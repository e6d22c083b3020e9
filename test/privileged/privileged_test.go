// SPDX-License-Identifier: Apache-2.0

package privileged

import (
	"os"
	"testing"
)

// outcome records what was asked of it instead of stopping the test.
type outcome struct {
	testing.TB
	skipped, failed bool
}

func (o *outcome) Helper()               {}
func (o *outcome) Skip(...any)           { o.skipped = true }
func (o *outcome) Fatalf(string, ...any) { o.failed = true; panic(o) }

func TestRequire(t *testing.T) {
	for _, tc := range []struct {
		name            string
		uid             int
		required        string
		skipped, failed bool
	}{
		{"root runs", 0, "", false, false},
		{"root runs where required", 0, "1", false, false},
		{"others skip", 1000, "", true, false},
		{"zero means not required", 1000, "0", true, false},
		{"others fail where required", 1000, "1", false, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := &outcome{TB: t}
			func() {
				defer func() {
					if r := recover(); r != nil && r != any(o) {
						panic(r)
					}
				}()
				require(o, tc.uid, tc.required)
			}()
			if o.skipped != tc.skipped || o.failed != tc.failed {
				t.Errorf("skipped %v failed %v, want %v %v", o.skipped, o.failed, tc.skipped, tc.failed)
			}
		})
	}
}

func TestRequireLetsRootThrough(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: this is the test of that very check")
	}
	Require(t)
}
