// SPDX-License-Identifier: Apache-2.0

package cds_test

import (
	"testing"

	"github.com/c8s-dev/c8s/cds/ledger"
	"github.com/c8s-dev/c8s/cds/store"
)

// The store in a file writes whole pages: what is beside the head is written
// again with every change.
func TestTheHeadIsAmongSmallValues(t *testing.T) {
	const page = 4096
	w := newWorld(t)
	c := w.client()
	node, err := c.EnrolNode(t.Context(), w.node())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.EnrolPod(t.Context(), node, webPod()); err != nil {
		t.Fatal(err)
	}
	var keys []string
	size := 0
	err = w.store.Scan(t.Context(), "", func(key string, v store.Value) error {
		if keys = append(keys, key); len(keys) <= 3 {
			size += len(key) + len(v.Data)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if keys[0] != ledger.HeadKey || size > page {
		t.Errorf("the first keys are %q, with %d bytes in all", keys[:3], size)
	}
}
