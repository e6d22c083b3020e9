// SPDX-License-Identifier: Apache-2.0

package receipt_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/c8s-dev/c8s/client/receipt"
)

func TestNotAskingCostsNothing(t *testing.T) {
	signer, req, h := receipt.NewSigner(keyOf(1), now), httptest.NewRequest(http.MethodGet, "/", nil), http.Header{}
	if n := testing.AllocsPerRun(100, func() { signer.Sign(h, http.StatusOK, req) }); n != 0 {
		t.Errorf("it allocates %v times", n)
	}
}

func BenchmarkSign(b *testing.B) {
	signer := receipt.NewSigner(keyOf(1), now)
	for name, ask := range map[string]bool{"asked": true, "not-asked": false} {
		b.Run(name, func(b *testing.B) {
			req := httptest.NewRequest(http.MethodGet, "/accounts/7?page=2", nil)
			if ask {
				receipt.Ask(req.Header, []byte("sixteen byte one"))
			}
			b.ReportAllocs()
			for b.Loop() {
				h := http.Header{}
				if ask {
					fields().Set(h)
				}
				if signer.Sign(h, http.StatusOK, req) != ask {
					b.Fatal("not as asked")
				}
			}
		})
	}
}

func BenchmarkVerify(b *testing.B) {
	resp := answered(b, nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := receipt.Verify(resp, public(keyOf(1)), now()); err != nil {
			b.Fatal(err)
		}
	}
}
