// SPDX-License-Identifier: Apache-2.0

package kept

import (
	"fmt"
	"path/filepath"
	"sync"
	"testing"

	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

// Two daemons share the folder while one takes over from the other. The slower
// one must not take back what the other has written.
func TestSecondWriterTakesNothingBack(t *testing.T) {
	f := policytest.New(t)
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }

	slow, fast := mustOpenNote(t, path("note")), mustOpenNote(t, path("note"))
	for _, step := range []struct {
		n    *Note
		size uint64
	}{{fast, 9}, {slow, 7}} {
		if _, err := step.n.Keep(step.size, fmt.Append(nil, step.size)); err != nil {
			t.Fatal(err)
		}
	}
	if size, _ := mustOpenNote(t, path("note")).Largest(); size != 9 {
		t.Errorf("the note is of size %d, want 9", size)
	}

	first := f.DenyList(t, nil)
	second := f.DenyList(t, first)
	slowList, fastList := mustOpenDenyList(t, path("list"), f.Operators), mustOpenDenyList(t, path("list"), f.Operators)
	for _, step := range []struct {
		d    *DenyList
		next *policy.SignedDenyList
	}{{fastList, second}, {slowList, first}} {
		if changed, err := step.d.Adopt(step.next); !changed || err != nil {
			t.Fatal(changed, err)
		}
	}
	if got := mustOpenDenyList(t, path("list"), f.Operators).InForce(); got.Digest != second.Digest {
		t.Errorf("deny list %d is kept, want %d", got.List.Version, second.List.Version)
	}

	next := f.Next(t, func(m *policy.Manifest) { m.Workloads[1].HostAccess = true })
	for _, signed := range []*policy.Signed{next.Signed, f.Signed} {
		if err := SaveManifest(path("manifest"), signed); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := NewestManifest(path("manifest"), f.Envelope, f.Operators); err != nil || got.Digest != next.Digest {
		t.Errorf("manifest %v is kept (%v), want the later", got, err)
	}
}

func TestWritersWaitForOneAnother(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kept")
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for range 20 {
				if err := Replace(path, fmt.Append(nil, i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	wantAlone(t, path)
}
