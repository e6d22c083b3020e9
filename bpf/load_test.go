// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"testing"

	"github.com/cilium/ebpf"
)

func load(t testing.TB) *C8sObjects {
	t.Helper()
	var o C8sObjects
	if err := LoadC8sObjects(&o, nil); err != nil {
		var ve *ebpf.VerifierError
		if errors.As(err, &ve) {
			t.Fatalf("%+v", ve)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() { o.Close() })
	return &o
}

func TestVerifierAcceptsThePrograms(t *testing.T) { load(t) }
