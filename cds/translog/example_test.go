// SPDX-License-Identifier: Apache-2.0

package translog_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/c8s-dev/c8s/cds/translog"
	"golang.org/x/mod/sumdb/note"
)

// witness cosigns the checkpoints of one log. It would keep last on its disk,
// written before a cosignature is handed out.
type witness struct {
	auditor *translog.Auditor
	origin  string
	log     note.Verifier
	key     *translog.Cosigner
	last    translog.Checkpoint
}

func (w *witness) cosign(ctx context.Context, now time.Time) ([]byte, error) {
	latest, signed, err := w.auditor.Latest(ctx)
	if err != nil {
		return nil, err
	}
	if err := w.auditor.Consistent(ctx, w.last, *latest); err != nil {
		return nil, err
	}
	w.last = *latest
	return translog.AddCosignature(signed, w.origin, w.log, w.key, now)
}

// A witness verifies that a log only grows, and says so under its checkpoints.
// Whoever requires its cosignature cannot be shown another history than others.
func Example_witness() {
	ctx := context.Background()
	const origin = "prod.example/c8s/log"
	logKey := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	signer, err := translog.NewSigner(origin, logKey)
	if err != nil {
		log.Fatal(err)
	}
	verifier, err := translog.NewVerifier(translog.VerifierKey(origin, logKey.Public().(ed25519.PublicKey)))
	if err != nil {
		log.Fatal(err)
	}

	// The log, small enough to need no storage.
	tree := translog.NewTree()
	fetch := func(ctx context.Context, path string) ([]byte, error) {
		if path == "checkpoint" {
			return translog.Sign(translog.Checkpoint{Origin: origin, Size: tree.Size(), Root: tree.Root()}, signer)
		}
		return tree.File(ctx, nil, path)
	}
	grow := func(record string) {
		if tree, _, err = tree.Append([][]byte{[]byte(record)}); err != nil {
			log.Fatal(err)
		}
	}

	key, err := translog.NewCosigner("witness.example", ed25519.NewKeyFromSeed([]byte("a seed of exactly 32 bytes......")))
	if err != nil {
		log.Fatal(err)
	}
	known, err := translog.NewCosignerVerifier(key.VerifierKey())
	if err != nil {
		log.Fatal(err)
	}
	w := &witness{
		auditor: translog.NewAuditor(origin, verifier, fetch), origin: origin, log: verifier, key: key,
		last: translog.Checkpoint{Origin: origin, Root: translog.NewTree().Root()},
	}
	for i, record := range []string{"one", "two"} {
		grow(record)
		cosigned, err := w.cosign(ctx, time.Date(2026, 3, 4, 5, i, 0, 0, time.UTC))
		if err != nil {
			log.Fatal(err)
		}
		for _, c := range translog.Cosignatures(cosigned, []*translog.CosignerVerifier{known}) {
			fmt.Printf("%d entries, cosigned by %s at %s\n", tree.Size(), c.Name, c.Time.Format(time.TimeOnly))
		}
	}

	// The log starts again with another history.
	tree = translog.NewTree()
	for _, record := range []string{"one", "2", "three"} {
		grow(record)
	}
	_, err = w.cosign(ctx, time.Date(2026, 3, 4, 5, 2, 0, 0, time.UTC))
	fmt.Println("forked:", errors.Is(err, translog.ErrForked))
	// Output:
	// 1 entries, cosigned by witness.example at 05:00:00
	// 2 entries, cosigned by witness.example at 05:01:00
	// forked: true
}
