// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
)

// A manifest that came while the CDS was starting must not be forgotten.
func TestManifestFileIsPublishedAgainUntilTheCDSCanTakeIt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "manifest.json")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	asked := make(chan string)
	refuse := make(chan bool)
	ended := make(chan error, 1)
	go func() {
		ended <- watchManifestFile(ctx, path, func(b []byte) bool {
			select {
			case asked <- string(b):
				return <-refuse
			case <-ctx.Done():
				return false
			}
		}, slog.New(slog.DiscardHandler))
	}()
	replace := func(text string) {
		t.Helper()
		if err := errors.Join(os.WriteFile(path+".new", []byte(text), 0o600), os.Rename(path+".new", path)); err != nil {
			t.Fatal(err)
		}
	}
	var got string
	for got == "" { // until the watcher is there
		replace("one")
		select {
		case got = <-asked:
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			t.Fatal("it never saw the file")
		}
	}
	for _, notReady := range []bool{true, true, false} {
		if got != "one" {
			t.Fatalf("published %q", got)
		}
		refuse <- notReady
		if notReady {
			select {
			case got = <-asked:
			case <-ctx.Done():
				t.Fatal("it was not published again")
			}
		}
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestStoreFileOfAnotherCDSIsWrongUsage(t *testing.T) {
	f := storeFlags{stateDir: t.TempDir()}
	first, err := f.open(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if _, err := f.open(slog.New(slog.DiscardHandler)); exit.Code(err) != exit.Misuse || !strings.Contains(err.Error(), f.stateDir) {
		t.Errorf("a second one: %v, exit %d", err, exit.Code(err))
	}
}
