// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// lines is a writer that hands each log line on.
type lines chan string

func (l lines) Write(p []byte) (int, error) {
	l <- string(p)
	return len(p), nil
}

func TestTheWatchChainsAgain(t *testing.T) {
	n := machine(t, ordinary())
	install(t, n)
	const file = "/etc/cni/net.d/10-pods.conflist"
	put(t, n, file, bridgeConf) // before the watch starts

	said := make(lines, 64)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- n.WatchConflist(ctx, slog.New(slog.NewTextHandler(said, nil))) }()
	wait := func(what string) {
		t.Helper()
		for {
			select {
			case line := <-said:
				if strings.Contains(line, what) {
					return
				}
			case err := <-ended:
				t.Fatalf("the watch ended: %v", err)
			}
		}
	}
	wait("chained again")
	for range 3 {
		put(t, n, file, bridgeConf)
		wait("chained again")
		if got := get(t, n, file); !strings.Contains(got, cniProgName) {
			t.Fatalf("it is\n%s", got)
		}
	}
	// Replaced by rename, as careful writers do; and broken for a while.
	put(t, n, file, "{")
	wait("10-pods.conflist")
	put(t, n, "/etc/cni/net.d/aside", bridgeConf)
	if err := os.Rename(filepath.Join(n.Root, "/etc/cni/net.d/aside"), filepath.Join(n.Root, file)); err != nil {
		t.Fatal(err)
	}
	wait("chained again")
	stop()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
}

func TestTheWatchNeedsAnInstallation(t *testing.T) {
	n := machine(t, ordinary())
	if err := n.WatchConflist(t.Context(), slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "c8s node install") {
		t.Errorf("got %v", err)
	}
}
