// SPDX-License-Identifier: Apache-2.0

package operatorkey

import (
	"bytes"
	"crypto/ed25519"
	"strings"
	"testing"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
)

func TestURIsNameOneKey(t *testing.T) {
	const module = "?module-path=/usr/lib/m.so"
	tests := []struct {
		ref  string
		want uri
	}{
		{"pkcs11:token=ops;object=alice" + module, uri{token: "ops", object: "alice"}},
		{"PKCS11:token=ops;object=alice" + module, uri{token: "ops", object: "alice"}},
		{"pkcs11:serial=0a%20B;id=%01%ff%00" + module, uri{serial: "0a B", id: []byte{1, 0xff, 0}}},
		{"pkcs11:id=%3d;type=private;model=M%2fX;manufacturer=A&B;token=%c3%a9" + module, uri{token: "é", model: "M/X", manufacturer: "A&B", id: []byte("="), kind: kindPrivate}},
		{"pkcs11:token=ops;object=a=b" + module + "&pin-source=file:/run/p?q|r", uri{token: "ops", object: "a=b", pinSource: "file:/run/p?q|r"}},
	}
	for _, tt := range tests {
		got, err := parseURI(tt.ref)
		if err != nil {
			t.Errorf("%s: %v", tt.ref, err)
			continue
		}
		tt.want.modulePath = "/usr/lib/m.so"
		if !bytes.Equal(got.id, tt.want.id) {
			t.Errorf("%s: id %x, want %x", tt.ref, got.id, tt.want.id)
		}
		got.id, tt.want.id = nil, nil
		if *got.without() != *tt.want.without() {
			t.Errorf("%s: %+v, want %+v", tt.ref, got, tt.want)
		}
	}
}

// comparableURI is a uri that == compares.
type comparableURI struct{ token, manufacturer, serial, model, object, kind, modulePath, pinSource string }

func (u *uri) without() *comparableURI {
	return &comparableURI{u.token, u.manufacturer, u.serial, u.model, u.object, u.kind, u.modulePath, u.pinSource}
}

func TestURIsThatLeaveSomethingOpenAreRefused(t *testing.T) {
	const secret = "canary-4711"
	for ref, want := range map[string]string{
		"pkcs11:":                                                                    "NAME=VALUE",
		"pkcs11:object=alice?module-path=/m":                                         "names no token",
		"pkcs11:token=ops?module-path=/m":                                            "names no key",
		"pkcs11:token=ops;object=alice":                                              "names no module",
		"pkcs11:token=ops;object=alice?module-path=m.so":                             "absolute",
		"pkcs11:token=ops;object=alice?module-path=../m.so":                          "absolute",
		"pkcs11:token=ops;object=alice?module-name=m":                                "module-name is not supported",
		"pkcs11:token=ops;object=alice?module-path=/m&pin-value=" + secret:           "pin-value would show",
		"pkcs11:token=ops;object=alice?module-path=/m&pin-value=%20" + secret:        "pin-value would show",
		"pkcs11:token=ops;object=alice?module-path=/m&pin-value= " + secret:          "must be written %20",
		"pkcs11:token=ops;token=other;object=alice?module-path=/m":                   "token is given twice",
		"pkcs11:token=ops;object=alice?module-path=/m&module-path=/n":                "module-path is given twice",
		"pkcs11:token=;object=alice?module-path=/m":                                  "token is empty",
		"pkcs11:token=ops;object=alice;?module-path=/m":                              "NAME=VALUE",
		"pkcs11:token=ops;slot-id=1;object=alice?module-path=/m":                     "slot-id is not supported",
		"pkcs11:token=ops;x-vendor=1;object=alice?module-path=/m":                    "x-vendor is not supported",
		"pkcs11:token=ops;type=cert;object=alice?module-path=/m":                     "type must be",
		"pkcs11:token=ops;object=al ice?module-path=/m":                              "must be written %20",
		"pkcs11:token=ops;object=al/ice?module-path=/m":                              "must be written %2F",
		"pkcs11:token=ops;object=al%2?module-path=/m":                                "ends within an escape",
		"pkcs11:token=ops;object=al%zzice?module-path=/m":                            "hexadecimal",
		"pkcs11:token=ops;object=%ff?module-path=/m":                                 "UTF-8",
		"pkcs11:token=ops;object=a%00?module-path=/m":                                "UTF-8",
		"pkcs11:token=ops;object=a?module-path=/m%00":                                "UTF-8",
		"pkcs11:token=ops;object=a?":                                                 "NAME=VALUE",
		"pkcs11:token=ops;object=" + strings.Repeat("a", maxURI) + "?module-path=/m": "longer than",
	} {
		_, err := parseURI(ref)
		if err == nil || !strings.Contains(err.Error(), want) || exit.Code(err) != exit.Misuse {
			t.Errorf("%s: %v (exit %d), want %q", ref, err, exit.Code(err), want)
		}
		if err != nil && strings.Contains(err.Error(), secret) {
			t.Errorf("%s: the error repeats the PIN: %v", ref, err)
		}
	}
}

func TestAURIsTextHidesItsQuery(t *testing.T) {
	u, err := parseURI("pkcs11:token=my%20ops;id=%01;object=a?module-path=/m&pin-source=/run/secret")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := u.String(), "pkcs11:token=my%20ops;object=a;id=%01"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestPointsWithAndWithoutTheirWrapping(t *testing.T) {
	raw := bytes.Repeat([]byte{7}, 32)
	for _, point := range [][]byte{raw, append([]byte{4, 32}, raw...)} {
		public, err := decodeECPublic(paramsEd25519, point)
		if err != nil || !bytes.Equal(public.(ed25519.PublicKey), raw) {
			t.Errorf("%x: %v, %v", point, public, err)
		}
	}
	for name, point := range map[string][]byte{"short": raw[1:], "long": append(raw, 1), "none": nil} {
		if _, err := decodeECPublic(paramsEd25519Name, point); err == nil {
			t.Errorf("%s: accepted as Ed25519", name)
		}
	}
	off := append([]byte{4}, bytes.Repeat([]byte{1}, 64)...)
	if _, err := decodeECPublic(paramsP256, off); err == nil {
		t.Error("a point beside the curve was accepted")
	}
}

func TestSignaturesOfAnotherFormAreRefused(t *testing.T) {
	half := bytes.Repeat([]byte{0xff}, 32)
	for name, raw := range map[string][]byte{
		"empty": nil, "short": half, "long": make([]byte, 96), "zero r": append(make([]byte, 32), half...), "zero s": append(bytes.Clone(half), make([]byte, 32)...),
	} {
		if sig, err := encodeECDSA(raw); err == nil {
			t.Errorf("%s: %x", name, sig)
		}
	}
	small := append(append(make([]byte, 31), 1), append(make([]byte, 31), 0x80)...)
	sig, err := encodeECDSA(small)
	if err != nil || !bytes.Equal(sig, []byte{0x30, 7, 2, 1, 1, 2, 2, 0, 0x80}) {
		t.Errorf("%x, %v", sig, err)
	}
}

// What is read back from a URI's text must be the same key.
func FuzzURI(f *testing.F) {
	f.Add("pkcs11:token=ops;object=alice?module-path=/usr/lib/m.so&pin-source=/run/pin")
	f.Add("pkcs11:serial=%00;id=%ff;type=public?module-path=/m")
	f.Add("pkcs11:token=%c3%a9;id=%2?module-path=/m&pin-value=1")
	f.Fuzz(func(t *testing.T, ref string) {
		if !isURI(ref) {
			return
		}
		u, err := parseURI(ref)
		if err != nil {
			if exit.Code(err) != exit.Misuse {
				t.Errorf("exit code %d", exit.Code(err))
			}
			return
		}
		again, err := parseURI(u.String() + "?module-path=/m")
		if err != nil || again.String() != u.String() {
			t.Errorf("%s came back as %v, %v", u, again, err)
		}
	})
}
