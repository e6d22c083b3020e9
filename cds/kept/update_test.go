// SPDX-License-Identifier: Apache-2.0

package kept

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
)

func TestUpdatesOfManyAllCount(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state", "count")
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 10 {
				err := Update(path, 16, func(old []byte) ([]byte, error) {
					n := 0
					if old != nil {
						var err error
						if n, err = strconv.Atoi(string(old)); err != nil {
							return nil, err
						}
					}
					return []byte(strconv.Itoa(n + 1)), nil
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if got, err := os.ReadFile(path); err != nil || string(got) != "80" {
		t.Errorf("got %q, %v, want 80", got, err)
	}
	wantAlone(t, path)
}

func TestUpdateThatFailsChangesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kept")
	if err := Replace(path, []byte("before")); err != nil {
		t.Fatal(err)
	}
	refused := errors.New("refused")
	for name, tt := range map[string]struct {
		limit  int
		change func([]byte) ([]byte, error)
		want   error
	}{
		"refused":   {16, func([]byte) ([]byte, error) { return []byte("after"), refused }, refused},
		"too large": {3, func([]byte) ([]byte, error) { return []byte("after"), nil }, nil},
	} {
		err := Update(path, tt.limit, tt.change)
		if err == nil || tt.want != nil && !errors.Is(err, tt.want) {
			t.Errorf("%s: %v", name, err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != "before" {
			t.Errorf("%s: the file has %q, %v", name, got, err)
		}
	}
}
