// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

// sample returns the payload of the sample manifest.
func sample(t testing.TB) []byte {
	t.Helper()
	return policytest.New(t).Payload
}

// edited parses the sample as loose JSON, lets edit change it, and writes it.
func edited(t testing.TB, edit func(doc map[string]any)) []byte {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader(sample(t)))
	dec.UseNumber()
	var doc map[string]any
	if err := dec.Decode(&doc); err != nil {
		t.Fatal(err)
	}
	edit(doc)
	text, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func substrate(doc map[string]any) map[string]any {
	return doc["substrates"].([]any)[0].(map[string]any)
}

func snp(doc map[string]any) map[string]any {
	return substrate(doc)["snp"].(map[string]any)
}

func workload(doc map[string]any) map[string]any {
	return doc["workloads"].([]any)[0].(map[string]any)
}

func peerRule(doc map[string]any) map[string]any {
	return workload(doc)["peers"].(map[string]any)["to"].([]any)[0].(map[string]any)
}

func wantProblem(t *testing.T, err error, code policy.Code, path string) {
	t.Helper()
	var invalid *policy.InvalidError
	if !errors.As(err, &invalid) {
		t.Fatalf("error = %v, want %s at %s", err, code, path)
	}
	for _, p := range invalid.Problems {
		if p.Code == code && p.Path == path {
			if p.Expected == "" || p.Actual == "" {
				t.Errorf("problem %+v lacks expected or actual", p)
			}
			return
		}
	}
	t.Errorf("problems = %v, want %s at %s", err, code, path)
}

func TestParseReadsBackWhatEncodeWrites(t *testing.T) {
	f := policytest.New(t)
	again, err := policy.Encode(f.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(again, f.Payload) {
		t.Errorf("encoding twice differs:\n%s\n%s", f.Payload, again)
	}
	if f.Manifest.Digest() != policy.DigestOf(f.Payload) || f.Digest != f.Manifest.Digest() {
		t.Errorf("digest = %s, want that of the payload", f.Manifest.Digest())
	}
}

func TestEncodeRefusesWhatParseRefuses(t *testing.T) {
	m := policytest.Manifest(policytest.New(t).Operators)
	m.Substrates[0].SNP.MinTCB = nil
	_, err := policy.Encode(m)
	wantProblem(t, err, policy.CodeNull, "$.substrates[0].snp.minTCB")
	if _, err := policy.Encode(nil); err == nil {
		t.Error("encoding nothing succeeded")
	}
}

func TestParseRefusesTextThatIsNotStrictJSON(t *testing.T) {
	good := string(sample(t))
	replace := func(old, with string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("the sample has no %q", old)
		}
		return strings.Replace(good, old, with, 1)
	}
	tests := []struct {
		name, text string
		code       policy.Code
		path       string
	}{
		{"empty", "", policy.CodeSyntax, "$"},
		{"cut off", good[:len(good)/2], policy.CodeSyntax, "$"},
		{"trailing comma", replace("\n}\n", ",\n}\n"), policy.CodeSyntax, "$"},
		{"missing comma", `{"schema":"a" "version":1}`, policy.CodeSyntax, "$"},
		{"comment", "// hello\n" + good, policy.CodeSyntax, "$"},
		{"trailing object", good + "{}", policy.CodeTrailing, "$"},
		{"trailing word", good + " x", policy.CodeTrailing, "$"},
		{"trailing zero byte", good + "\x00", policy.CodeTrailing, "$"},
		{"byte order mark", "\ufeff" + good, policy.CodeSyntax, "$"},
		{"too large", good + strings.Repeat(" ", policy.MaxPayload), policy.CodeTooLarge, "$"},
		{"invalid UTF-8", replace("c8s.test", "c8s.\xff"), policy.CodeInvalidUTF8, "$"},
		{"half a surrogate pair", replace("c8s.test", `c8s.\ud800`), policy.CodeInvalidUTF8, "$.trustDomain"},
		{"half a surrogate pair in a key", replace(`"schema"`, `"\udfff"`), policy.CodeInvalidUTF8, "$"},
		{"too deep", strings.Repeat("[", 17) + strings.Repeat("]", 17), policy.CodeTooDeep, "$" + strings.Repeat("[0]", 16)},
		{"very deep", strings.Repeat(`{"a":`, 100_000), policy.CodeTooDeep, "$" + strings.Repeat(".a", 16)},
		{"not an object", "[]", policy.CodeWrongType, "$"},
		{"null document", "null", policy.CodeNull, "$"},
		{"duplicate key", replace(`"version": 1`, `"version": 1, "version": 1`), policy.CodeDuplicateKey, "$.version"},
		{"duplicate key by escape", replace(`"version": 1`, `"version": 1, "\u0076ersion": 2`), policy.CodeDuplicateKey, "$.version"},
		{"duplicate key deep inside", replace(`"vmpl": 0`, `"vmpl": 0, "vmpl": 0`), policy.CodeDuplicateKey, "$.substrates[0].snp.guest.vmpl"},
		{"duplicate key in an unknown field", replace(`"version": 1`, `"version": 1, "x": {"a": 1, "a": 2}`), policy.CodeDuplicateKey, "$.x.a"},
		{"key in another case", replace(`"production"`, `"Production"`), policy.CodeUnknownField, "$.Production"},
		{"key in another case beside the right one", replace(`"version": 1`, `"version": 1, "VERSION": 2`), policy.CodeUnknownField, "$.VERSION"},
		{"key with a Kelvin sign", replace(`"hostAccess"`, `"ho\u017ftAccess"`), policy.CodeUnknownField, "$.workloads[0][\"hoſtAccess\"]"},
		{"unknown field", replace(`"version": 1`, `"version": 1, "extra": 1`), policy.CodeUnknownField, "$.extra"},
		{"fraction", replace(`"version": 1`, `"version": 1.0`), policy.CodeWrongType, "$.version"},
		{"exponent", replace(`"version": 1`, `"version": 1e0`), policy.CodeWrongType, "$.version"},
		{"negative", replace(`"version": 1`, `"version": -1`), policy.CodeWrongType, "$.version"},
		{"number too large", replace(`"version": 1`, `"version": 18446744073709551616`), policy.CodeWrongType, "$.version"},
		{"TCB part above a byte", replace(`"snp": 8`, `"snp": 256`), policy.CodeWrongType, "$.substrates[0].snp.minTCB.snp"},
		{"port above 16 bits", replace("6379", "65536"), policy.CodeWrongType, "$.workloads[0].peers.to[0].ports[0]"},
		{"string for a number", replace(`"version": 1`, `"version": "1"`), policy.CodeWrongType, "$.version"},
		{"number for a boolean", replace(`"production": false`, `"production": 0`), policy.CodeWrongType, "$.production"},
		{"object for a list", replace(`"namespaces": []`, `"namespaces": {}`), policy.CodeWrongType, "$.workloads[0].namespaces"},
		{"null in a list", replace(`"namespaces": []`, `"namespaces": [null]`), policy.CodeNull, "$.workloads[0].namespaces[0]"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m, err := policy.Parse([]byte(tt.text))
			if m != nil {
				t.Error("a manifest came with the refusal")
			}
			wantProblem(t, err, tt.code, tt.path)
		})
	}
}

// Every field of the format is required and may not be null.
func TestParseRequiresEveryField(t *testing.T) {
	var doc any
	if err := json.Unmarshal(sample(t), &doc); err != nil {
		t.Fatal(err)
	}
	seen := 0
	var walk func(v any, path string)
	walk = func(v any, path string) {
		switch v := v.(type) {
		case []any:
			for i, e := range v {
				walk(e, fmt.Sprintf("%s[%d]", path, i))
			}
		case map[string]any:
			for key, value := range v {
				seen++
				at := path + "." + key
				check := func(code policy.Code) {
					text, err := json.Marshal(doc)
					if err != nil {
						t.Fatal(err)
					}
					_, err = policy.Parse(text)
					wantProblem(t, err, code, at)
				}
				v[key] = nil
				check(policy.CodeNull)
				delete(v, key)
				check(policy.CodeMissingField)
				v[key] = value
				walk(value, at)
			}
		}
	}
	walk(doc, "$")
	if seen < 50 {
		t.Errorf("only %d fields were tried", seen)
	}
}

func TestParseRefusesImpossibleValues(t *testing.T) {
	h48 := policytest.Hex(1, 48)
	tests := []struct {
		name string
		edit func(doc map[string]any)
		code policy.Code
		path string
	}{
		{"schema", func(d map[string]any) { d["schema"] = "c8s.dev/manifest/v2" }, policy.CodeSchema, "$.schema"},
		{"trust domain with upper case", func(d map[string]any) { d["trustDomain"] = "C8s.test" }, policy.CodeTrustDomainInvalid, "$.trustDomain"},
		{"trust domain empty", func(d map[string]any) { d["trustDomain"] = "" }, policy.CodeTrustDomainInvalid, "$.trustDomain"},
		{"trust domain as URI", func(d map[string]any) { d["trustDomain"] = "spiffe://c8s.test" }, policy.CodeTrustDomainInvalid, "$.trustDomain"},
		{"trust domain too long", func(d map[string]any) { d["trustDomain"] = strings.Repeat("a", 256) }, policy.CodeTrustDomainInvalid, "$.trustDomain"},
		{"version zero", func(d map[string]any) { d["version"] = 0 }, policy.CodeVersionInvalid, "$.version"},
		{"first version with a previous", func(d map[string]any) { d["previous"] = policytest.Digest("x") }, policy.CodePreviousInvalid, "$.previous"},
		{"later version without a previous", func(d map[string]any) { d["version"] = 2 }, policy.CodeDigestInvalid, "$.previous"},
		{"no substrates", func(d map[string]any) { d["substrates"] = []any{} }, policy.CodeListEmpty, "$.substrates"},
		{"no roles", func(d map[string]any) { substrate(d)["roles"] = []any{} }, policy.CodeListEmpty, "$.substrates[0].roles"},
		{"role", func(d map[string]any) { substrate(d)["roles"] = []any{"pod"} }, policy.CodeRoleUnknown, "$.substrates[0].roles[0]"},
		{"role twice", func(d map[string]any) { substrate(d)["roles"] = []any{"node", "node"} }, policy.CodeValueDuplicate, "$.substrates[0].roles[1]"},
		{"TEE", func(d map[string]any) { substrate(d)["tee"] = "SEV-SNP" }, policy.CodeTEEUnknown, "$.substrates[0].tee"},
		{"product", func(d map[string]any) { substrate(d)["product"] = "milan" }, policy.CodeProductUnknown, "$.substrates[0].product"},
		{"no roots", func(d map[string]any) { substrate(d)["roots"] = []any{} }, policy.CodeListEmpty, "$.substrates[0].roots"},
		{"any root", func(d map[string]any) { substrate(d)["roots"] = []any{"any"} }, policy.CodeDigestInvalid, "$.substrates[0].roots[0]"},
		{"no measurements", func(d map[string]any) { substrate(d)["measurements"] = []any{} }, policy.CodeListEmpty, "$.substrates[0].measurements"},
		{"any measurement", func(d map[string]any) { substrate(d)["measurements"] = []any{"any"} }, policy.CodeHexInvalid, "$.substrates[0].measurements[0]"},
		{"short measurement", func(d map[string]any) { substrate(d)["measurements"] = []any{h48[2:]} }, policy.CodeHexInvalid, "$.substrates[0].measurements[0]"},
		{"upper-case measurement", func(d map[string]any) { substrate(d)["measurements"] = []any{strings.Repeat("AA", 48)} }, policy.CodeHexInvalid, "$.substrates[0].measurements[0]"},
		{"measurement twice", func(d map[string]any) { substrate(d)["measurements"] = []any{h48, h48} }, policy.CodeValueDuplicate, "$.substrates[0].measurements[1]"},
		{"no host data", func(d map[string]any) { substrate(d)["hostData"] = []any{} }, policy.CodeListEmpty, "$.substrates[0].hostData"},
		{"empty host data", func(d map[string]any) { substrate(d)["hostData"] = []any{""} }, policy.CodeHexInvalid, "$.substrates[0].hostData[0]"},
		{"any among others", func(d map[string]any) { substrate(d)["hostData"] = []any{"any", policytest.Hex(1, 32)} }, policy.CodeAnyNotAlone, "$.substrates[0].hostData"},
		{"any twice", func(d map[string]any) { substrate(d)["machines"] = []any{"any", "any"} }, policy.CodeAnyNotAlone, "$.substrates[0].machines"},
		{"Any", func(d map[string]any) { substrate(d)["machines"] = []any{"Any"} }, policy.CodeHexInvalid, "$.substrates[0].machines[0]"},
		{"no machines", func(d map[string]any) { substrate(d)["machines"] = []any{} }, policy.CodeListEmpty, "$.substrates[0].machines"},
		{"VMPL", func(d map[string]any) { snp(d)["guest"].(map[string]any)["vmpl"] = 4 }, policy.CodeVMPLInvalid, "$.substrates[0].snp.guest.vmpl"},
		{"paravisor", func(d map[string]any) { substrate(d)["paravisor"] = "" }, policy.CodeParavisorUnknown, "$.substrates[0].paravisor"},
		{"signing key", func(d map[string]any) { snp(d)["signingKey"] = "vek" }, policy.CodeSigningKeyUnknown, "$.substrates[0].snp.signingKey"},
		{"ID keys", func(d map[string]any) { snp(d)["idKeys"] = []any{} }, policy.CodeListEmpty, "$.substrates[0].snp.idKeys"},
		{"author key", func(d map[string]any) { snp(d)["authorKeys"] = []any{"None"} }, policy.CodeHexInvalid, "$.substrates[0].snp.authorKeys[0]"},
		{"platform", func(d map[string]any) { snp(d)["requirePlatform"] = []any{"ecc", "magic"} }, policy.CodePlatformUnknown, "$.substrates[0].snp.requirePlatform[1]"},
		{"platform twice", func(d map[string]any) { snp(d)["requirePlatform"] = []any{"ecc", "ecc"} }, policy.CodeValueDuplicate, "$.substrates[0].snp.requirePlatform[1]"},
		{"collateral use", func(d map[string]any) { substrate(d)["collateral"] = map[string]any{"use": "", "maxAgeDays": 1} }, policy.CodeCollateralUse, "$.substrates[0].collateral.use"},
		{"collateral of no age", func(d map[string]any) {
			substrate(d)["collateral"] = map[string]any{"use": "required", "maxAgeDays": 0}
		}, policy.CodeCollateralUse, "$.substrates[0].collateral.maxAgeDays"},
		{"RTMR of SNP", func(d map[string]any) { substrate(d)["registers"] = map[string]any{"rtmr0": []any{"any"}} }, policy.CodeRegisterUnknown, "$.substrates[0].registers.rtmr0"},
		{"PCR without a paravisor", func(d map[string]any) { substrate(d)["registers"] = map[string]any{"pcr0": []any{"any"}} }, policy.CodeRegisterUnknown, "$.substrates[0].registers.pcr0"},
		{"paravisor without PCRs", func(d map[string]any) { substrate(d)["paravisor"] = "azure" }, policy.CodeListEmpty, "$.substrates[0].registers"},
		{"PCR 24", func(d map[string]any) {
			substrate(d)["paravisor"], substrate(d)["registers"] = "azure", map[string]any{"pcr24": []any{"any"}}
		}, policy.CodeRegisterUnknown, "$.substrates[0].registers.pcr24"},
		{"PCR of another size", func(d map[string]any) {
			substrate(d)["paravisor"], substrate(d)["registers"] = "azure", map[string]any{"pcr0": []any{policytest.Hex(1, 48)}}
		}, policy.CodeHexInvalid, "$.substrates[0].registers.pcr0[0]"},
		{"chip id of another size", func(d map[string]any) { substrate(d)["machines"] = []any{policytest.Hex(1, 16)} }, policy.CodeHexInvalid, "$.substrates[0].machines[0]"},
		{"nameless provider", func(d map[string]any) { substrate(d)["machines"] = []any{"csp:"} }, policy.CodeHexInvalid, "$.substrates[0].machines[0]"},
		{"substrate name", func(d map[string]any) { substrate(d)["name"] = "-" }, policy.CodeNameInvalid, "$.substrates[0].name"},
		{"substrate twice", func(d map[string]any) { d["substrates"] = []any{substrate(d), substrate(d)} }, policy.CodeNameDuplicate, "$.substrates[1].name"},
		{"workload name with a slash", func(d map[string]any) { workload(d)["name"] = "a/b" }, policy.CodeNameInvalid, "$.workloads[0].name"},
		{"workload name too long", func(d map[string]any) { workload(d)["name"] = strings.Repeat("a", 64) }, policy.CodeNameInvalid, "$.workloads[0].name"},
		{"workload twice", func(d map[string]any) { workload(d)["name"] = policytest.DB }, policy.CodeNameDuplicate, "$.workloads[1].name"},
		{"no images", func(d map[string]any) { workload(d)["images"] = []any{} }, policy.CodeListEmpty, "$.workloads[0].images"},
		{"image twice", func(d map[string]any) {
			image := workload(d)["images"].([]any)[0]
			workload(d)["images"] = []any{image, image}
		}, policy.CodeValueDuplicate, "$.workloads[0].images[1].digest"},
		{"image tag for a digest", func(d map[string]any) { workload(d)["images"].([]any)[0].(map[string]any)["digest"] = "latest" }, policy.CodeDigestInvalid, "$.workloads[0].images[0].digest"},
		{"image name with an escape", func(d map[string]any) { workload(d)["images"].([]any)[0].(map[string]any)["name"] = "\x1b[2J" }, policy.CodeNameInvalid, "$.workloads[0].images[0].name"},
		{"namespace", func(d map[string]any) { workload(d)["namespaces"] = []any{"a_b"} }, policy.CodeNameInvalid, "$.workloads[0].namespaces[0]"},
		{"unknown peer", func(d map[string]any) { peerRule(d)["workload"] = "nobody" }, policy.CodePeerUnknown, "$.workloads[0].peers.to[0].workload"},
		{"peer twice", func(d map[string]any) {
			workload(d)["peers"].(map[string]any)["to"] = []any{peerRule(d), peerRule(d)}
		}, policy.CodeValueDuplicate, "$.workloads[0].peers.to[1].workload"},
		{"no ports", func(d map[string]any) { peerRule(d)["ports"] = []any{} }, policy.CodeListEmpty, "$.workloads[0].peers.to[0].ports"},
		{"port zero", func(d map[string]any) { peerRule(d)["ports"] = []any{0} }, policy.CodePortInvalid, "$.workloads[0].peers.to[0].ports[0]"},
		{"port twice", func(d map[string]any) { peerRule(d)["ports"] = []any{1, 1} }, policy.CodeValueDuplicate, "$.workloads[0].peers.to[0].ports[1]"},
		{"protocol", func(d map[string]any) { peerRule(d)["protocol"] = "sctp" }, policy.CodeProtocolUnknown, "$.workloads[0].peers.to[0].protocol"},
		{"simulated in production", func(d map[string]any) { d["production"] = true }, policy.CodeProductionSimulated, "$.substrates[0].simulated"},
		{"debug in production", func(d map[string]any) {
			d["production"], snp(d)["guest"].(map[string]any)["allowDebug"] = true, true
		}, policy.CodeProductionDebug, "$.substrates[0].snp.guest.allowDebug"},
		{"no TCB floor in production", func(d map[string]any) {
			d["production"] = true
			snp(d)["minTCB"] = policy.TCB{}
		}, policy.CodeProductionTCB, "$.substrates[0].snp.minTCB"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := policy.Parse(edited(t, tt.edit))
			wantProblem(t, err, tt.code, tt.path)
		})
	}
}

func TestParseReportsAllProblemsAtOnceAndBoundsThem(t *testing.T) {
	_, err := policy.Parse(edited(t, func(d map[string]any) {
		d["trustDomain"], substrate(d)["tee"], peerRule(d)["protocol"] = "", "", ""
	}))
	for _, path := range []string{"$.trustDomain", "$.substrates[0].tee", "$.workloads[0].peers.to[0].protocol"} {
		if !strings.Contains(err.Error(), path) {
			t.Errorf("%q does not name %s", err, path)
		}
	}
	_, err = policy.Parse(edited(t, func(d map[string]any) {
		for i := range 10_000 {
			d[fmt.Sprintf("extra%d", i)] = strings.Repeat("x", 50)
		}
	}))
	var invalid *policy.InvalidError
	if !errors.As(err, &invalid) || len(invalid.Problems) != 100 || invalid.More != 9_900 {
		t.Errorf("problems are not bounded: %d", len(invalid.Problems))
	}
	if len(err.Error()) > 64<<10 {
		t.Errorf("the message has %d bytes", len(err.Error()))
	}
}

func TestMessagesEscapeUntrustedText(t *testing.T) {
	_, err := policy.Parse(edited(t, func(d map[string]any) {
		d["trustDomain"], d["\x1b[31mred"] = "\x1b[2J", 1
	}))
	if strings.ContainsRune(err.Error(), '\x1b') {
		t.Errorf("the message carries a terminal escape: %q", err)
	}
}

func TestUnknownFieldSuggestsTheRightCase(t *testing.T) {
	_, err := policy.Parse(bytes.Replace(sample(t), []byte(`"hostData"`), []byte(`"hostdata"`), 1))
	var invalid *policy.InvalidError
	if !errors.As(err, &invalid) || !slices.ContainsFunc(invalid.Problems, func(p policy.Problem) bool { return p.Remedy == `write "hostData"` }) {
		t.Errorf("no remedy names the field: %v", err)
	}
}

func TestProductionAcceptsRealPinnedMachines(t *testing.T) {
	policytest.New(t, policytest.With(func(m *policy.Manifest) {
		m.Production, m.Substrates[0].Collateral = true, required()
		m.Substrates[0].Simulated = false
		m.Substrates[0].Machines = []string{policytest.Hex(1, 64)}
	}))
}

func TestExampleManifestIsValid(t *testing.T) {
	text, err := os.ReadFile("../docs/manifest.example.json")
	if err != nil {
		t.Fatal(err)
	}
	m, err := policy.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	again, err := policy.Encode(m)
	if err != nil || !bytes.Equal(again, text) {
		t.Errorf("the example is not in the form Encode writes (%v)", err)
	}
}
