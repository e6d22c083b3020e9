// SPDX-License-Identifier: Apache-2.0

package loader_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"

	"github.com/c8s-dev/c8s/loader"
)

func TestRuleThatTakesCapturedPacketsFirstIsReported(t *testing.T) {
	var log bytes.Buffer
	b := newBench(t, func(c *loader.Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	for _, rule := range []string{"rule add pref 50 fwmark 0x1000/0x1000 lookup main", "rule add pref 51 fwmark 0x40000/0x40000 lookup main", "rule add pref 52 fwmark 0x2000/0x3000 lookup main"} {
		if out, err := b.Command(t.Context(), "ip", strings.Fields(rule)...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.l.Routing(ctx); err != nil {
		t.Fatal(err)
	}
	if got := log.String(); !strings.Contains(got, "0x1000/0x1000") || strings.Contains(got, "0x2000/0x3000") || strings.Contains(got, "0x40000") {
		t.Errorf("logged %s", got)
	}
}
