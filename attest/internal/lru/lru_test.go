// SPDX-License-Identifier: Apache-2.0

package lru_test

import (
	"sync"
	"testing"

	"github.com/c8s-dev/c8s/attest/internal/lru"
)

func TestTheLeastRecentlyUsedIsForgotten(t *testing.T) {
	c := lru.New[int](2)
	c.Put(lru.Key{1}, 1)
	c.Put(lru.Key{2}, 2)
	c.Get(lru.Key{1})
	c.Put(lru.Key{3}, 3)
	for key, want := range map[byte]bool{1: true, 2: false, 3: true} {
		if v, ok := c.Get(lru.Key{key}); ok != want || ok && v != int(key) {
			t.Errorf("%d: %d, %v", key, v, ok)
		}
	}
	c.Put(lru.Key{3}, 33)
	if v, _ := c.Get(lru.Key{3}); v != 33 {
		t.Errorf("replaced value is %d", v)
	}
}

func TestConcurrentUse(t *testing.T) {
	c := lru.New[int](4)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 100 {
				c.Put(lru.Key{byte(i + j)}, j)
				c.Get(lru.Key{byte(j)})
			}
		})
	}
	wg.Wait()
}
