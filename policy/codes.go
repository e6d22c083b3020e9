// SPDX-License-Identifier: Apache-2.0

package policy

// Outcomes of any question.
const (
	CodeAllowed   Code = "allowed"
	CodeUndecided Code = "undecided" // a zero Decision, or a document that was not parsed
)

// Documents that cannot be read as strict JSON.
const (
	CodeTooLarge     Code = "json-too-large"
	CodeInvalidUTF8  Code = "json-invalid-utf8"
	CodeSyntax       Code = "json-syntax"
	CodeTrailing     Code = "json-trailing-data"
	CodeTooDeep      Code = "json-too-deep"
	CodeDuplicateKey Code = "json-duplicate-key"
	CodeUnknownField Code = "json-unknown-field"
	CodeMissingField Code = "json-missing-field"
	CodeNull         Code = "json-null"
	CodeWrongType    Code = "json-wrong-type"
)

// Documents that read well and say something impossible.
const (
	CodeSchema              Code = "schema-unknown"
	CodeTrustDomainInvalid  Code = "trust-domain-invalid"
	CodeVersionInvalid      Code = "version-invalid"
	CodePreviousInvalid     Code = "previous-invalid"
	CodeThresholdInvalid    Code = "threshold-invalid"
	CodeOperatorKeyInvalid  Code = "operator-key-invalid"
	CodeNameInvalid         Code = "name-invalid"
	CodeNameDuplicate       Code = "name-duplicate"
	CodeListEmpty           Code = "list-empty"
	CodeListTooLong         Code = "list-too-long"
	CodeValueDuplicate      Code = "value-duplicate"
	CodeDigestInvalid       Code = "digest-invalid"
	CodeHexInvalid          Code = "hex-invalid"
	CodeAnyNotAlone         Code = "any-not-alone"
	CodeRoleUnknown         Code = "role-unknown"
	CodeTEEUnknown          Code = "tee-unknown"
	CodeProductUnknown      Code = "product-unknown"
	CodeVMPLInvalid         Code = "vmpl-invalid"
	CodeParavisorUnknown    Code = "paravisor-unknown"
	CodeSigningKeyUnknown   Code = "signing-key-unknown"
	CodePlatformUnknown     Code = "platform-unknown"
	CodeStatusUnknown       Code = "tcb-status-unknown"
	CodeRegisterUnknown     Code = "register-unknown"
	CodeCollateralUse       Code = "collateral-use-unknown"
	CodePortInvalid         Code = "port-invalid"
	CodeProtocolUnknown     Code = "protocol-unknown"
	CodePeerUnknown         Code = "peer-unknown"
	CodeTimeInvalid         Code = "time-invalid"
	CodeReferenceUnknown    Code = "reference-unknown" // a time for a value that is not listed
	CodeProductionSimulated Code = "production-simulated"
	CodeProductionDebug     Code = "production-debug"
	CodeProductionTCB       Code = "production-tcb-floor"

	CodeProductionCollateral Code = "production-collateral"

	CodeProductionRecovery Code = "production-recovery"
	CodeRecoveryKeyInvalid Code = "recovery-key-invalid"
	CodeWitnessKeyInvalid  Code = "witness-key-invalid"
	CodeWitnessQuorum      Code = "witness-quorum-invalid"

	CodeSignerKeyInvalid   Code = "signer-key-invalid"
	CodeSignerUnknown      Code = "signer-unknown"
	CodeImageRuleInvalid   Code = "image-rule-invalid"
	CodeEnvRuleInvalid     Code = "env-rule-invalid"
	CodeTextInvalid        Code = "text-invalid"
	CodePathInvalid        Code = "path-invalid"
	CodeUserInvalid        Code = "user-invalid"
	CodeMountSourceUnknown Code = "mount-source-unknown"
	CodeCapabilityUnknown  Code = "capability-unknown"
	CodeNamespaceUnknown   Code = "host-namespace-unknown"
	CodeSocketUnknown      Code = "socket-unknown"
	CodeRlimitUnknown      Code = "rlimit-unknown"
	CodeBootstrapInvalid   Code = "bootstrap-invalid"
	CodeUnlistedUnknown    Code = "unlisted-unknown"
	CodeSameNodeUnknown    Code = "same-node-unknown"
	CodeCIDRInvalid        Code = "cidr-invalid"
	CodeExternalInvalid    Code = "external-rule-invalid"
	CodeHostNetworkRules   Code = "host-network-rules"
	CodeIngressBackend     Code = "ingress-backend-invalid"
	CodeModeUnknown        Code = "ingress-mode-unknown"

	CodeDenyKindUnknown Code = "deny-kind-unknown"
	CodeSerialInvalid   Code = "serial-invalid"
)

// Envelopes and signatures.
const (
	CodePayloadType     Code = "envelope-payload-type"
	CodeBase64          Code = "envelope-base64"
	CodeSignatures      Code = "envelope-signatures" // none, or too many
	CodeThresholdUnmet  Code = "signature-threshold"
	CodeKeyUnsupported  Code = "key-unsupported"
	CodePayloadMismatch Code = "envelope-payload-mismatch"
)

// The order of manifests.
const (
	CodeManifestRolledBack   Code = "manifest-rolled-back"
	CodeManifestForked       Code = "manifest-forked"
	CodeManifestUnchanged    Code = "manifest-unchanged"
	CodeManifestGap          Code = "manifest-gap"
	CodeManifestUnauthorised Code = "manifest-unauthorised"
	CodeManifestBehind       Code = "manifest-behind" // a peer already has a newer one
	CodeManifestUnknown      Code = "manifest-unknown"
)

// The order of deny lists.
const (
	CodeDenyListRolledBack Code = "denylist-rolled-back"
	CodeDenyListForked     Code = "denylist-forked"
	CodeDenyListUnchanged  Code = "denylist-unchanged"
	CodeDenyListGap        Code = "denylist-gap"
)

// What is denied, by what.
const (
	CodeDeniedSerial      Code = "denied-serial"
	CodeDeniedKey         Code = "denied-key"
	CodeDeniedMachine     Code = "denied-machine"
	CodeDeniedMeasurement Code = "denied-measurement"
	CodeDeniedWorkload    Code = "denied-workload"
)

// Pods, peers and substrates.
const (
	CodeNoImages              Code = "no-images"
	CodeImageUnlisted         Code = "image-unlisted"
	CodeImagesSpan            Code = "images-span-workloads"
	CodeNamespaceNotAllowed   Code = "namespace-not-allowed"
	CodeWorkloadUnlisted      Code = "workload-unlisted"
	CodeWorkloadAmbiguous     Code = "workload-ambiguous"
	CodeWorkloadChanged       Code = "workload-changed"
	CodePeerNotAllowedEgress  Code = "peer-not-allowed-egress"
	CodePeerNotAllowedIngress Code = "peer-not-allowed-ingress"
	CodePortNotAllowed        Code = "port-not-allowed"
	CodeProtocolNotAllowed    Code = "protocol-not-allowed"
	CodeTrustDomain           Code = "trust-domain"
	CodeRole                  Code = "role"
	CodeTEE                   Code = "tee"
	CodeProduct               Code = "product"
	CodeSimulated             Code = "simulated"
	CodeRoot                  Code = "root"
	CodeMeasurement           Code = "measurement"
	CodeHostData              Code = "host-data"
	CodeTCBFloor              Code = "tcb-floor"
	CodeMachineUnpinned       Code = "machine-unpinned"
	CodeParavisor             Code = "paravisor"
	CodeRegisters             Code = "registers"
	CodeTCBStatus             Code = "tcb-status"
	CodeTCBEvaluation         Code = "tcb-evaluation"
	CodeTCBAdvisories         Code = "tcb-advisories"
	CodeCollateral            Code = "collateral"
	CodeReferenceExpired      Code = "reference-expired" // listed, and no longer counts
)

// Endpoints and clients outside the mesh.
const (
	CodeNameNotAllowed     Code = "name-not-allowed"
	CodeExternalNotAllowed Code = "external-not-allowed"
	CodeExternalName       Code = "external-name-not-answered"
	CodeExternalPort       Code = "external-port-not-allowed"
	CodeExternalSNI        Code = "external-sni-not-allowed"
	CodePublishNotAllowed  Code = "publish-not-allowed"
	CodePublishClient      Code = "publish-client-not-allowed"
	CodeIngressHost        Code = "ingress-host-unknown"
	CodeIngressWorkload    Code = "ingress-workload-not-allowed"
	CodeIngressMode        Code = "ingress-mode-not-allowed"
	CodeIngressPort        Code = "ingress-port-not-allowed"
)

// Containers and what they are started with.
const (
	CodeSandboxUnlisted      Code = "sandbox-unlisted"
	CodeHostNetwork          Code = "host-network"
	CodeImageConfigUnknown   Code = "image-config-unknown"
	CodeArgsNotAllowed       Code = "args-not-allowed"
	CodeEnvNotAllowed        Code = "env-not-allowed"
	CodeEnvMissing           Code = "env-missing"
	CodeCwdNotAllowed        Code = "cwd-not-allowed"
	CodeUserUnknown          Code = "user-unknown"
	CodeUserNotAllowed       Code = "user-not-allowed"
	CodeGroupNotAllowed      Code = "group-not-allowed"
	CodeStdinNotAllowed      Code = "stdin-not-allowed"
	CodeMountNotAllowed      Code = "mount-not-allowed"
	CodeMountWritable        Code = "mount-writable"
	CodeMountMissing         Code = "mount-missing"
	CodeMountPropagation     Code = "mount-propagation"
	CodeDeviceNotAllowed     Code = "device-not-allowed"
	CodeHostNamespace        Code = "host-namespace-not-allowed"
	CodeHookNotAllowed       Code = "hook-not-allowed"
	CodeSettingUnknown       Code = "setting-unknown"
	CodeRlimitNotAllowed     Code = "rlimit-not-allowed"
	CodeSysctlNotAllowed     Code = "sysctl-not-allowed"
	CodeSeccompUnknown       Code = "seccomp-unknown"
	CodeSocketNotAllowed     Code = "socket-not-allowed"
	CodePrivilegesUnknown    Code = "privileges-unknown"
	CodeCapabilityNotAllowed Code = "capability-not-allowed"
	CodePrivileged           Code = "privileged-not-allowed"
	CodeExecNotAllowed       Code = "exec-not-allowed"
	CodeExecTerminal         Code = "exec-terminal"
)

// Fresh evidence.
const (
	CodeDebug         Code = "guest-debug"
	CodeMigration     Code = "guest-migration"
	CodeSMT           Code = "guest-smt"
	CodeSocket        Code = "guest-socket"
	CodeABI           Code = "guest-abi"
	CodeVMPL          Code = "guest-vmpl"
	CodeGuestSVN      Code = "guest-svn"
	CodePerfmon       Code = "guest-perfmon"
	CodeSeptVE        Code = "guest-sept-ve"
	CodeXFAM          Code = "guest-xfam"
	CodeSigningKey    Code = "signing-key-kind"
	CodeLaunchTCB     Code = "launch-tcb"
	CodeProvisional   Code = "firmware-provisional"
	CodeIDKey         Code = "id-key"
	CodeAuthorKey     Code = "author-key"
	CodePlatform      Code = "platform"
	CodeOwner         Code = "td-owner"
	CodeOwnerConfig   Code = "td-owner-config"
	CodeServiceTD     Code = "td-service"
	CodeEvents        Code = "event-log-events"
	CodeCollateralAge Code = "collateral-age"
)

// What Lint finds.
const (
	LintOneOperator       Code = "one-operator"
	LintNoRecovery        Code = "no-recovery"
	LintNoQuorum          Code = "no-witness-quorum"
	LintSimulated         Code = "simulated-substrate"
	LintSharedMeasurement Code = "shared-measurement"
	LintFloorMissing      Code = "floor-missing"
	LintFloorBypassed     Code = "floor-bypassed"
	LintAnyMachine        Code = "any-machine"
	LintAnyHostData       Code = "any-host-data"
	LintAnyRegister       Code = "any-register"
	LintAnyAdvisory       Code = "any-advisory"
	LintUnchecked         Code = "collateral-unchecked"
	LintDebug             Code = "debug-allowed"
	LintMigration         Code = "migration-allowed"
	LintExpired           Code = "value-expired"
	LintExpiring          Code = "value-expires-soon"
	LintNothingLeft       Code = "nothing-left"
	LintSharedImage       Code = "shared-image"
	LintImageTag          Code = "image-tag"
	LintImageName         Code = "image-name-contradicts"
	LintDeadRule          Code = "dead-rule"
	LintUnreachable       Code = "workload-unreachable"
	LintEveryNamespace    Code = "every-namespace"
	LintHostAccess        Code = "host-access"
	LintNoSandbox         Code = "no-sandbox"
	LintAnyKey            Code = "any-key"
	LintAnyRepository     Code = "any-repository"
	LintAnyArgs           Code = "any-args"
	LintAnyEnv            Code = "any-env"
	LintHostPath          Code = "host-path"
	LintPrivileged        Code = "privileged"
	LintHostNamespace     Code = "host-namespace"
	LintSockets           Code = "sockets"
	LintStdin             Code = "stdin"
	LintExec              Code = "exec"
	LintNodeNetwork       Code = "node-network"
	LintUnusedSigner      Code = "unused-signer"
	LintSameNode          Code = "same-node-local"
	LintWideCIDR          Code = "wide-cidr"
	LintWideName          Code = "wide-name"
	LintNodeAddress       Code = "node-address"
	LintPublished         Code = "published-to-any"
	LintNoIngress         Code = "no-ingress-substrate"
	LintNoIngressRule     Code = "no-ingress-rule"
	LintWildcardHost      Code = "wildcard-host"
	LintIngressReaches    Code = "ingress-reaches"
)
