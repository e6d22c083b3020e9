// SPDX-License-Identifier: Apache-2.0

package secret_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/c8s-dev/c8s/cds/internal/secret"
	"github.com/c8s-dev/c8s/cds/internal/secret/secrettest"
)

type key struct {
	secret.Hidden
	Bytes [16]byte
	text  string
}

func TestHiddenValuesAreNotShown(t *testing.T) {
	k := key{Bytes: [16]byte([]byte("sixteen bytes!!!")), text: "qpxzjw-vbnmlk-hgfds"}
	secrettest.Check(t, k, k.Bytes[:], []byte(k.text))
	secrettest.Check(t, &k, k.Bytes[:], []byte(k.text))
	if s := fmt.Sprintf("%v %+v %#v %x", k, k, k, k); s != "[secret] [secret] [secret] [secret]" {
		t.Error(s)
	}
	if _, err := json.Marshal(k); err == nil {
		t.Error("a secret was encoded")
	}
}
