// SPDX-License-Identifier: Apache-2.0

package appraise

import "github.com/c8s-dev/c8s/policy"

// explainRules explains the rules that a policy makes.
func explainRules() []Explanation {
	const substrate = docRules + "substrates[]."
	rule := func(code policy.Code, tee, field, expected, meaning string) Explanation {
		return Explanation{CheckID(code), tee, expected, substrate + field, meaning}
	}
	return []Explanation{
		rule(policy.CodeTEE, "", "tee", "the TEE of the substrate", "Each TEE proves other things."),
		rule(policy.CodeProduct, "", "product", "the processor line, or for TDX the FMSPC", "Lines differ in what they defend against."),
		rule(policy.CodeParavisor, "", "paravisor", "none, or the paravisor that is named", "With a paravisor the launch measurement is its own, and the guest is in the PCRs."),
		rule(policy.CodeSimulated, "", "simulated", "real or simulated, as said", "Anybody can make simulated evidence."),
		rule(policy.CodeRoot, "", "roots", "a listed root certificate", "Whoever holds a root can make any evidence."),
		rule(policy.CodeMeasurement, "", "measurements", "a listed launch digest or MRTD", "Other software runs in the machine."),
		rule(policy.CodeHostData, "", "hostData", "listed host data (HOST_DATA, MRCONFIGID)", "The machine was launched for somebody else, or with another configuration."),
		rule(policy.CodeRegisters, "", "registers", "exactly the named registers, with listed values", "What was loaded after launch is in the registers; one that nobody named says nothing anybody checked."),
		rule(policy.CodeMachineUnpinned, "", "machines", "a listed machine, or any", "A key taken from one accepted machine could front for all others."),
		rule(policy.CodeCollateral, "", "collateral.use", "the vendor's word where it is required", "Without it, revoked and outdated machines pass."),
		rule(policy.CodeCollateralAge, "", "collateral.maxAgeDays", "collateral that is young enough", "A host could keep back what the vendor has said since."),
		rule(policy.CodeTCBFloor, snpOnly, "snp.minTCB", "every part at or above the floor", "Known holes of old firmware."),
		rule(policy.CodeLaunchTCB, snpOnly, "snp.minLaunchTCB", "every part at or above the floor", "A guest launched by old firmware may have been changed before the update."),
		rule(policy.CodeProvisional, snpOnly, "snp.allowProvisional", "committed firmware, unless permitted", "The host can roll back firmware that is not committed."),
		rule(policy.CodeSigningKey, snpOnly, "snp.signingKey", "vcek or vlek, as said", "A VLEK speaks for all machines of a provider."),
		rule(policy.CodeIDKey, snpOnly, "snp.idKeys", "a listed ID key, or none", "The ID block names whose image it is."),
		rule(policy.CodeAuthorKey, snpOnly, "snp.authorKeys", "a listed author key, or none", "The author key vouches for the ID key."),
		rule(policy.CodePlatform, snpOnly, "snp.requirePlatform", "the platform properties that are required", "Memory aliasing and ciphertext attacks need hardware settings against them."),
		rule(policy.CodeGuestSVN, snpOnly, "snp.minGuestSVN", "an image at or above the floor", "Old images of the right signer."),
		rule(policy.CodeDebug, "", "snp|tdx.guest.allowDebug", "no debugging, unless permitted", "The host can read and change a debuggable guest."),
		rule(policy.CodeMigration, "", "snp|tdx.guest.allowMigration", "no migration, unless permitted", "A migration agent can take the guest to another machine."),
		rule(policy.CodeSMT, snpOnly, "snp.guest.allowSMT", "no sibling threads, unless permitted", "Side channels between threads of a core."),
		rule(policy.CodeSocket, snpOnly, "snp.guest.requireSingleSocket", "one socket, where required", "The link between sockets is outside the processor."),
		rule(policy.CodeABI, snpOnly, "snp.guest.minABI", "a guest that asks for new enough firmware", "The host could start it on older firmware."),
		rule(policy.CodeVMPL, snpOnly, "snp.guest.vmpl", "exactly the named privilege level", "A less privileged part of the guest, or one above it, asked for the report."),
		rule(policy.CodeTCBStatus, tdxOnly, "tdx.statuses", "a listed TCB status", "Known holes of old firmware, or a configuration that opens some."),
		rule(policy.CodeTCBEvaluation, tdxOnly, "tdx.minEvaluationNumber", "an evaluation at or above the floor", "An older evaluation may call up to date what a newer one does not."),
		rule(policy.CodeTCBAdvisories, tdxOnly, "tdx.advisories", "only listed advisories open", "Each advisory is a hole that somebody must have decided to live with."),
		rule(policy.CodePerfmon, tdxOnly, "tdx.guest.allowPerfmon", "no performance counters, unless permitted", "They tell the guest's timing."),
		rule(policy.CodeSeptVE, tdxOnly, "tdx.guest.requireSeptVEDisable", "SEPT_VE_DISABLE, where required", "The host could inject exceptions by taking pages away."),
		rule(policy.CodeXFAM, tdxOnly, "tdx.xfams", "listed extended features", "Features change what the guest must defend against."),
		rule(policy.CodeOwner, tdxOnly, "tdx.owners", "a listed MROWNER", "Launched for another owner."),
		rule(policy.CodeOwnerConfig, tdxOnly, "tdx.ownerConfigs", "a listed MROWNERCONFIG", "Launched with another owner's configuration."),
		rule(policy.CodeServiceTD, tdxOnly, "tdx.serviceTDs", "a listed service TD, or none", "A service TD is inside the trust boundary."),
		rule(policy.CodeEvents, tdxOnly, "tdx.events", "only listed events in registers of \"log\"", "Software that nobody listed was loaded."),
	}
}
