// SPDX-License-Identifier: Apache-2.0

package ledger_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/c8s-dev/c8s/cds/ledger"
	"github.com/c8s-dev/c8s/cds/store"
	"github.com/c8s-dev/c8s/cds/translog"
	"github.com/c8s-dev/c8s/policy"
)

// BenchmarkDo logs what a pod's issuance logs, in a sealed file, by so many
// callers at once. An operation is one change.
func BenchmarkDo(b *testing.B) {
	for _, callers := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			l := benchLedger(b)
			d := policy.DigestOf(nil)
			change := func(draft *ledger.Draft) error {
				index, err := draft.Append(translog.Entry{
					Type: translog.TypeIssuance, Time: draft.Now, Certificate: d, Issuer: d, Evidence: d, Manifest: d,
					Role: policy.RoleWorkload, NotAfter: draft.Now.Add(time.Hour),
				})
				certificate := sha256.Sum256(strconv.AppendInt(nil, index, 10))
				draft.Put(store.Item{Key: fmt.Sprintf("issuance/%08x/%x", 1<<20, certificate), Data: make([]byte, 8)})
				return err
			}
			b.ReportAllocs()
			b.ResetTimer()
			var wg sync.WaitGroup
			for caller := range callers {
				wg.Go(func() {
					for i := caller; i < b.N; i += callers {
						if _, err := l.Do(b.Context(), change); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
		})
	}
}

// alsoKept is about what a CDS with one node keeps beside the ledger.
func alsoKept() []store.Item {
	return []store.Item{
		{Key: "certificate/1", Data: make([]byte, 600)},
		{Key: "countersignature/1", Data: make([]byte, 700)},
		{Key: "document/1", Data: make([]byte, 50_000)},
		{Key: "evidence/1", Data: make([]byte, 10_000)},
		{Key: "expiry/1"},
	}
}

// benchLedger is a new ledger that runs until the benchmark ends.
func benchLedger(b *testing.B) *ledger.Ledger {
	b.Helper()
	file, err := store.OpenFile(filepath.Join(b.TempDir(), "cds.db"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { file.Close() })
	sealed, err := store.Sealed(file, [chacha20poly1305.KeySize]byte{1})
	if err != nil {
		b.Fatal(err)
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	signer, err := translog.NewSigner("bench/log", key)
	if err != nil {
		b.Fatal(err)
	}
	cfg := ledger.Config{Store: sealed, Origin: "bench/log", Signer: signer, Now: time.Now, Log: slog.New(slog.DiscardHandler)}
	l, err := ledger.Create(b.Context(), cfg, func(d *ledger.Draft) error {
		_, err := d.Append(translog.Entry{Type: translog.TypeBundle, Time: d.Now, Digest: policy.DigestOf(nil)})
		return err
	}, alsoKept()...)
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = l.Run(ctx) // ends because it is told to
	}()
	b.Cleanup(func() {
		cancel()
		<-done
	})
	return l
}
