// SPDX-License-Identifier: Apache-2.0

package nri

import (
	"fmt"

	"github.com/c8s-dev/c8s/policy"
)

// Refusals that are not a manifest's. docs/nri.md lists them.
const (
	CodeManifestMissing  policy.Code = "manifest-missing"        // none is in force yet
	CodeForeignContainer policy.Code = "container-not-of-a-pod"  // it did not come from Kubernetes
	CodeConfigUnreadable policy.Code = "container-config-unread" // the OCI configuration, or an added process
	CodeImageUnknown     policy.Code = "image-unknown"           // what a container is made from cannot be found
	CodePodUnknown       policy.Code = "pod-unknown"             // the runtime did not announce it
	CodePodRefused       policy.Code = "pod-refused"             // a container that runs in it is not admitted
	CodeContainerUnknown policy.Code = "container-unknown"
	CodeSandboxSetting   policy.Code = "sandbox-setting"
	CodePodNotOpen       policy.Code = "pod-not-open" // its network identity did not come in time
	CodeUpdateNotAllowed policy.Code = "update-not-allowed"
)

// maxCause bounds what a refusal repeats of an error.
const maxCause = 1 << 10

func refusal(code policy.Code, rule, expected string, cause any, remedy string) error {
	return policy.Decision{Code: code, Rule: rule, Expected: expected, Actual: fmt.Sprintf("%.*s", maxCause, fmt.Sprint(cause)), Remedy: remedy}
}

func noManifest() error {
	return refusal(CodeManifestMissing, "the node's manifest", "one in force", "none", "the node has not reached a CDS yet: see 'c8s status'")
}

func podUnknown(sandbox string) error {
	return refusal(CodePodUnknown, "the node's pods", "a pod that the runtime announced through NRI", fmt.Sprintf("%.80q", sandbox),
		"containerd must have NRI enabled, and the node daemon must be connected to it")
}

func containerUnknown(id string) error {
	return refusal(CodeContainerUnknown, "the node's containers", "one that was admitted", fmt.Sprintf("%.80q", id), "")
}
