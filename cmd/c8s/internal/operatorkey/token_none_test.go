// SPDX-License-Identifier: Apache-2.0

//go:build !cgo

package operatorkey

import (
	"io"
	"strings"
	"testing"
)

func TestTheStaticBinarySaysHowToGetOneWithTokens(t *testing.T) {
	r := &Ring{Warn: io.Discard, LookupEnv: func(string) (string, bool) { return "", false }}
	const uri = "pkcs11:token=ops;object=alice?module-path=/usr/lib/m.so"
	if _, err := r.Signer(uri); err == nil || !strings.Contains(err.Error(), "make build-pkcs11") {
		t.Errorf("Signer: %v", err)
	}
	if _, err := r.Public(uri); err == nil || !strings.Contains(err.Error(), "make build-pkcs11") {
		t.Errorf("Public: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}
