// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"testing"
)

func TestSealingKeysDifferByPurpose(t *testing.T) {
	root := bytes.Repeat([]byte{1}, 32)
	a, err := SealingKeyFor(root, "a")
	if err != nil {
		t.Fatal(err)
	}
	b, err := SealingKeyFor(root, "b")
	if err != nil || a == b || a == [32]byte(root) {
		t.Errorf("%x, %x, %v", a, b, err)
	}
	if _, err := SealingKeyFor(root, ""); err == nil {
		t.Error("a key for no purpose")
	}
	if _, err := SealingKeyFor(root[:31], "a"); err == nil {
		t.Error("a key of too little")
	}
}
