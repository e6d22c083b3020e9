// SPDX-License-Identifier: Apache-2.0

package policy

func readSigner(f *fields) Signer {
	s := Signer{Name: f.text("name"), Algorithm: f.text("algorithm"), PublicKey: f.text("publicKey")}
	f.done()
	return s
}

func readImage(f *fields) Image {
	i := Image{Name: f.text("name"), Signers: optionalTexts(f, "signers")}
	if f.has("digest") || i.Signers == nil {
		i.Digest = Digest(f.text("digest"))
	}
	i.Repository = f.optional("repository")
	if f.has("run") {
		i.Run = readRun(f.object("run"))
	}
	f.done()
	return i
}

func readRun(f *fields) *Run {
	r := &Run{Args: optionalTexts(f, "args")}
	optionalList(f, "env", &r.Env, readEnvRule)
	r.ServiceEnv = f.optionalTruth("serviceEnv")
	r.Cwd = f.optional("cwd")
	r.User = f.optional("user")
	r.Groups = optionalNumbers[uint32](f, "groups", 32)
	optionalList(f, "mounts", &r.Mounts, readMountRule)
	r.Devices = optionalTexts(f, "devices")
	r.Capabilities = optionalTexts(f, "capabilities")
	r.Privileged = f.optionalTruth("privileged")
	r.HostNamespaces = optionalTexts(f, "hostNamespaces")
	r.Sockets = optionalTexts(f, "sockets")
	r.Rlimits = optionalTexts(f, "rlimits")
	r.Sysctls = optionalTexts(f, "sysctls")
	r.Stdin = f.optionalTruth("stdin")
	f.done()
	return r
}

func readEnvRule(f *fields) EnvRule {
	e := EnvRule{Name: f.text("name"), Any: f.optionalTruth("any")}
	if f.has("value") {
		value := f.text("value")
		e.Value = &value
	}
	f.done()
	return e
}

func readMountRule(f *fields) MountRule {
	m := MountRule{Destination: f.text("destination"), Source: f.text("source"), ReadOnly: f.optionalTruth("readOnly"), Required: f.optionalTruth("required")}
	f.done()
	return m
}

func readExec(f *fields) Exec {
	e := Exec{Args: texts[string](f, "args"), TTY: f.optionalTruth("tty")}
	f.done()
	return e
}
