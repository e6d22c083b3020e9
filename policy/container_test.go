// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"testing"

	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

func TestAContainerAsItsImageSaysIsAdmitted(t *testing.T) {
	f := policytest.New(t)
	w, image, d := f.Manifest.Bind(policy.PodFacts{Namespace: "x"}, policytest.Container(policytest.Web))
	wantDecision(t, d, policy.CodeAllowed)
	if w == nil || w.Name != policytest.Web || image == nil || image.Digest != policytest.Digest(policytest.Web) {
		t.Errorf("bound to %+v by %+v", w, image)
	}
}
