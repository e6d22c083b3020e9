// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"
)

func TestRoutesRefuseWhatTheyCannotMean(t *testing.T) {
	for _, raw := range []string{``, `[]`, `{"10.81.1.1/24":"10.80.0.1"}`, `{"10.81.1.0/24":""}`, `{"10.81.1.0/24":"0.0.0.0"}`, `{"x":"10.80.0.1"}`} {
		if _, err := ParseRoutes([]byte(raw)); err == nil {
			t.Errorf("%q was accepted", raw)
		}
	}
}

func FuzzRoutes(f *testing.F) {
	f.Add([]byte(`{"10.81.1.0/24":"10.80.0.1"}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		routes, err := ParseRoutes(raw)
		if err != nil {
			return
		}
		for _, e := range routes {
			if !e.Node.IsValid() || e.Prefix != e.Prefix.Masked() {
				t.Fatalf("accepted a useless route %+v", e)
			}
		}
	})
}
