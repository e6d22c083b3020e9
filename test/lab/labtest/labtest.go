// SPDX-License-Identifier: Apache-2.0

// Package labtest ties a lab's life to a test: whatever way the test ends,
// its lab is gone afterwards, and a lab that cannot be built or removed
// completely fails the test.
package labtest

import (
	"context"
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/c8s-dev/c8s/test/lab"
)

// New builds a lab that is closed when the test and its subtests are done.
// It skips the test when not root and fails it on any other error.
func New(t testing.TB, o lab.Options) *lab.Lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.NewTextHandler(writer{t}, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	// Not t.Context(): it ends before the clean-ups, which may still want to
	// look at the lab.
	l, err := lab.New(context.WithoutCancel(t.Context()), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// Pod adds a pod or fails the test.
func Pod(t testing.TB, n *lab.Node, spec lab.PodSpec) *lab.Pod {
	t.Helper()
	p, err := n.AddPod(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// writer logs lines through the test, indented below it.
type writer struct{ t testing.TB }

func (w writer) Write(p []byte) (int, error) {
	w.t.Helper()
	w.t.Log(strings.TrimRight(string(p), "\n"))
	return len(p), nil
}
