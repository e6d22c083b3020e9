// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"strings"
	"testing"
)

// said runs the program and returns its output.
func said(t *testing.T, args ...string) string {
	t.Helper()
	var out bytes.Buffer
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(&out)
	root.SetErr(&out)
	if err := root.Execute(); err != nil {
		t.Fatalf("%v: %v", args, err)
	}
	return out.String()
}

func TestShellsComplete(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if !strings.Contains(said(t, "completion", shell), "c8s") {
			t.Errorf("no completion for %s", shell)
		}
	}
	const nothing, files, folders = "NoFileComp", "FilterFileExt", "FilterDirs"
	for line, want := range map[string][]string{
		"cds":                                 {"verify", "recovery", nothing},
		"cds verify":                          {nothing},
		"cds recovery":                        {"fetch", "restore", "show", "sign"},
		"cds recovery restore --recovery-key": {"pem", files},
		"ingress":                             {"status", "ready", nothing},
		"ingress --acme-directory":            {"letsencrypt", "letsencrypt-staging", nothing},
		"ingress --acme-challenge":            {"tls-alpn-01", "http-01", nothing},
		"ingress --ingress-routes":            {"json", files},
		"ingress status --output":             {"text", "json", nothing},
		"log":                                 {"watch", "verify", "prove", "witness-key"},
		"log watch --mirror":                  {folders},
		"log verify --output":                 {"text", "json", nothing},
		"log prove cert.pem --check":          {"json", files},
		"manifest publish --operators":        {"json", files},
		"manifest publish --cds":              {nothing},
		"denylist publish --output":           {"text", "json", nothing},
		"flows --verdict":                     {"allowed", "refused", "closed", nothing},
		"flows --protocol":                    {"tcp", "udp", nothing},
		"node --lsm":                          {"auto", "off", "require", nothing},
		"ingress --log-level":                 {"debug", "info", "warn", "error", nothing},
		"ingress --tee":                       {"auto", "sim", nothing},
		"node --state-dir":                    {folders},
		"flows --direction":                   {"egress", "ingress", "kernel", nothing},
	} {
		got := said(t, append(append([]string{"__complete"}, strings.Fields(line)...), "")...)
		for _, w := range want {
			if !strings.Contains(got, w) {
				t.Errorf("%q completes to %q, want %q in it", line, got, w)
			}
		}
	}
}
