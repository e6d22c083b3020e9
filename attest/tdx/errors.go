// SPDX-License-Identifier: Apache-2.0

package tdx

// The stable codes of this package's refusals.
const (
	CodeQuoteFormat         = "quote-format"
	CodeQuoteVersion        = "quote-version"
	CodeAttributes          = "td-attributes-unknown"
	CodeSignature           = "quote-signature"
	CodeQESignature         = "qe-signature"
	CodeQEBinding           = "qe-binding"
	CodeCertificates        = "pck-chain-format"
	CodeExtensions          = "pck-extensions"
	CodeChain               = "chain"
	CodeChainExpired        = "chain-expired"
	CodeRevoked             = "revoked"
	CodeCollateralMissing   = "collateral-missing"
	CodeCollateralFormat    = "collateral-format"
	CodeCollateralSignature = "collateral-signature"
	CodeCollateralExpired   = "collateral-expired"
	CodeTCBUnknown          = "tcb-unknown"
	CodeModuleUnknown       = "tdx-module-unknown"
	CodeQEUnknown           = "qe-unknown"
	CodeEventLogFormat      = "event-log-format"
	CodeEventLogReplay      = "event-log-replay"
)
