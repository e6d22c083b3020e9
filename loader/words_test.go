// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"testing"

	"github.com/c8s-dev/c8s/policy"
)

func TestEverySocketKindOfAManifestIsKnown(t *testing.T) {
	for _, kind := range policy.SocketKinds() {
		if _, ok := socketBits[kind]; !ok {
			t.Errorf("%s would close the pod whose entry lists it", kind)
		}
	}
	if len(socketBits) != len(policy.SocketKinds()) {
		t.Errorf("%d kinds are known, a manifest has %d", len(socketBits), len(policy.SocketKinds()))
	}
}
