// SPDX-License-Identifier: Apache-2.0

package trust_test

import (
	"strings"
	"testing"

	"github.com/c8s-dev/c8s/cds/trust"
)

func TestDigestBound(t *testing.T) {
	digest := strings.Repeat("ab", 32)
	for hostData, want := range map[string]bool{
		digest: true, digest + strings.Repeat("0", 32): true,
		"": false, digest[:62]: false, digest + "00": false, digest + strings.Repeat("1", 32): false,
	} {
		if got := trust.DigestBound(hostData, digest); got != want {
			t.Errorf("%s: %t, want %t", hostData, got, want)
		}
	}
	if trust.DigestBound("", "") {
		t.Error("no digest is bound to no host data")
	}
}
