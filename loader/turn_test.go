// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"context"
	"errors"
	"testing"
	"time"
)

func TestOneProcessAtATimeChangesThePins(t *testing.T) {
	dir := t.TempDir()
	var both [2]*turn
	for i := range both {
		opened, err := openTurn(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer opened.close()
		both[i] = opened
	}
	if err := both[0].take(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := both[1].take(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("the second got its turn while the first had it: %v", err)
	}
	taken := make(chan error, 1)
	go func() { taken <- both[1].take(t.Context()) }()
	both[0].give()
	if err := <-taken; err != nil {
		t.Fatal(err)
	}
	both[1].give()
}

func TestTurnEndsWithItsHolder(t *testing.T) {
	dir := t.TempDir()
	first, err := openTurn(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := first.take(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := first.close(); err != nil { // as the kernel does for a killed process
		t.Fatal(err)
	}
	second, err := openTurn(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer second.close()
	if err := second.take(t.Context()); err != nil {
		t.Error(err)
	}
}
