// SPDX-License-Identifier: Apache-2.0

package image

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/c8s-dev/c8s/policy"
)

// recorded is what containerd's CRI plugin keeps of a container.
func recorded(imageID policy.Digest, config map[string]any) map[string]any {
	return map[string]any{"Version": "v1", "Metadata": map[string]any{"ID": "x", "SandboxID": "sb", "ImageRef": imageID, "Config": config}}
}

func TestAContainerIsWhatItsSnapshotSays(t *testing.T) {
	base, top, other := layer("base"), layer("top"), layer("other")
	type world struct {
		*store
		a, b, sameLayers policy.Digest
	}
	for name, tc := range map[string]struct {
		set   func(w world)
		want  func(w world) policy.Digest // "" refuses
		wrong string                      // part of the refusal
	}{
		"by its record's image": {
			set: func(w world) {
				w.image("r/a:1", ociManifest, w.manifest(w.a))
				w.container("c", "r/a:1", chainOf(base, top), nil)
			},
			want: func(w world) policy.Digest { return w.a },
		},
		"by an index with other platforms that are not here": {
			set: func(w world) {
				w.image("r/a:1", ociIndex, w.index(layer("arm"), w.manifest(w.b), w.manifest(w.a)))
				w.container("c", "r/a:1", chainOf(base, top), nil)
			},
			want: func(w world) policy.Digest { return w.a },
		},
		"tag moved after it was made": {
			set: func(w world) {
				w.image("r/a:1", ociManifest, w.manifest(w.b))
				w.image("sha256:old", ociManifest, w.manifest(w.a))
				w.container("c", "r/a:1", chainOf(base, top), nil)
			},
			want: func(w world) policy.Digest { return w.a },
		},
		"tag moved, and only the recorded config is left": {
			set: func(w world) {
				w.image("r/a:1", ociManifest, w.manifest(w.b))
				w.container("c", "r/a:1", chainOf(base, top), recorded(w.a, map[string]any{}))
			},
			want: func(w world) policy.Digest { return w.a },
		},
		"recorded as something that does not run": {
			set: func(w world) {
				w.image("r/a:1", ociManifest, w.manifest(w.a))
				w.image("r/b:1", ociManifest, w.manifest(w.b))
				w.container("c", "r/a:1", chainOf(base, other), recorded(w.a, map[string]any{}))
			},
			want: func(w world) policy.Digest { return w.b },
		},
		"of two configs on the same layers the recorded one": {
			set: func(w world) {
				w.image("r/a:1", ociManifest, w.manifest(w.a))
				w.image("r/same:1", ociManifest, w.manifest(w.sameLayers))
				w.container("c", "r/a:1", chainOf(base, top), recorded(w.sameLayers, map[string]any{}))
			},
			want: func(w world) policy.Digest { return w.sameLayers },
		},
		"an image nobody has": {
			set: func(w world) {
				w.image("r/a:1", ociManifest, w.manifest(w.a))
				w.container("c", "r/a:1", chainOf(base), nil)
			},
			wrong: "none of the node's 1 images has the layers",
		},
		"a copy for a user namespace": {
			set: func(w world) {
				w.image("r/a:1", ociManifest, w.manifest(w.a))
				w.container("c", "r/a:1", "sha256:copy", nil)
				w.snapshots["sha256:copy"] = chainOf(base, top)
			},
			wrong: "slow_chown",
		},
		"no snapshot": {
			set: func(w world) {
				w.container("c", "r/a:1", "x", nil)
				w.containers["c"].SnapshotKey = ""
			},
			wrong: "it has no snapshot",
		},
		"a snapshotter that does not unpack": {
			set: func(w world) {
				w.image("r/a:1", ociManifest, w.manifest(w.a))
				w.container("c", "r/a:1", chainOf(base, top), nil)
				w.containers["c"].Snapshotter = "stargz"
			},
			wrong: `snapshotter "stargz"`,
		},
		"a snapshot of nothing": {
			set: func(w world) {
				w.image("r/empty:1", ociManifest, w.manifest(w.config("x")))
				w.container("c", "r/empty:1", "", nil)
			},
			wrong: "no parent",
		},
		"a manifest that is another blob": {
			set: func(w world) {
				m := w.manifest(w.b)
				w.blobs[m] = w.blobs[w.manifest(w.a)]
				w.image("r/a:1", ociManifest, m)
				w.container("c", "r/a:1", chainOf(base, top), nil)
			},
			wrong: "the content store holds",
		},
		"a record of a newer containerd": {
			set: func(w world) {
				w.container("c", "r/a:1", chainOf(base, top), map[string]any{"Version": "v2", "Metadata": map[string]any{}})
			},
			wrong: "newer than this program",
		},
		"no record": {set: func(world) {}, wrong: "no such container"},
	} {
		t.Run(name, func(t *testing.T) {
			w := world{store: newStore()}
			w.a, w.b, w.sameLayers = w.config("a", base, top), w.config("b", base, other), w.config("evil", base, top)
			tc.set(w)
			got, err := w.serve(t).Container(t.Context(), "c")
			if tc.want == nil {
				if err == nil || !strings.Contains(err.Error(), tc.wrong) {
					t.Errorf("Container = %+v, %v, want a refusal with %q", got, err, tc.wrong)
				}
				return
			}
			if err != nil || got.Image.Digest != tc.want(w) {
				t.Errorf("Container = %s, %v, want %s", got.Image.Digest, err, tc.want(w))
			}
		})
	}
}

func TestTheRecordTellsAboutStdin(t *testing.T) {
	s := newStore()
	a := s.config("a", layer("l"))
	s.image("r/a:1", ociManifest, s.manifest(a))
	s.container("open", "r/a:1", chainOf(layer("l")), recorded(a, map[string]any{"stdin": true, "tty": true, "metadata": map[string]any{"name": "c"}}))
	s.container("closed", "r/a:1", chainOf(layer("l")), recorded(a, map[string]any{}))
	s.container("pause", "r/a:1", chainOf(layer("l")), nil)
	s.container("both", "r/a:1", chainOf(layer("l")), recorded(a, map[string]any{}))
	extensions := s.containers["both"].Extensions
	extensions[sandboxExtension] = extensions[containerExtension]
	s.containers["pause"].Extensions = map[string]*anypb.Any{sandboxExtension: extensions[containerExtension]}
	r := s.serve(t)
	for id, want := range map[string]Record{
		"open":   {SandboxID: "sb", ImageID: a, Stdin: true, TTY: true},
		"closed": {SandboxID: "sb", ImageID: a},
		"pause":  {Sandbox: true, SandboxID: "pause"},
	} {
		if got, err := r.Container(t.Context(), id); err != nil || got.Pod != want {
			t.Errorf("%s: %+v, %v, want %+v", id, got.Pod, err, want)
		}
	}
	if got, err := r.Container(t.Context(), "both"); err == nil {
		t.Errorf("a sandbox that is a container: %+v", got)
	}
}

func TestManifestsOfNamesEveryReference(t *testing.T) {
	s := newStore()
	a, b := s.config("a", layer("a")), s.config("b", layer("b"))
	one, two := s.manifest(a), s.addJSON(map[string]any{"mediaType": dockerManifest, "config": described(dockerConfig, a)})
	s.image("r/a:1", ociManifest, one)
	index := s.index(one, s.manifest(b), layer("not here"))
	s.image("r/index:1", ociIndex, index)
	s.image("r/docker:1", dockerManifest, two)
	s.image("r/b:1", ociManifest, s.manifest(b))
	s.image("r/broken:1", ociManifest, s.add([]byte("{")))
	got, err := s.serve(t).ManifestsOf(t.Context(), a)
	want := []Manifest{
		{Reference: "r/a:1", Digest: one, Config: a},
		{Reference: "r/index:1", Digest: one, Config: a, Indexes: []policy.Digest{index}},
		{Reference: "r/docker:1", Digest: two, Config: a},
	}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("ManifestsOf: %v, %s", err, diff)
	}
	if got, ok, err := s.serve(t).Target(t.Context(), "r/index:1"); err != nil || !ok || got != index {
		t.Errorf("Target = %s, %t, %v, want %s", got, ok, err, index)
	}
	if got, ok, err := s.serve(t).Target(t.Context(), "r/absent:1"); err != nil || ok {
		t.Errorf("Target of an absent image = %s, %t, %v", got, ok, err)
	}
}

func TestConfigsAreReadOnceAndComparedWithTheirDigest(t *testing.T) {
	s := newStore()
	a := s.config("a", layer("a"))
	bad, huge := layer("bad"), s.add([]byte(strings.Repeat(" ", MaxBlob+1)))
	s.blobs[bad] = s.blobs[a]
	r := s.serve(t)
	for range 3 {
		if c, err := r.Config(t.Context(), a); err != nil || !slices.Equal(c.Cmd, []string{"a"}) {
			t.Fatalf("Config = %+v, %v", c, err)
		}
	}
	if s.reads != 1 {
		t.Errorf("read %d times", s.reads)
	}
	if _, err := r.Config(t.Context(), bad); err == nil || !strings.Contains(err.Error(), string(a)) {
		t.Errorf("another blob under the name: %v", err)
	}
	if _, err := r.Config(t.Context(), huge); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("a huge blob: %v", err)
	}
	if _, err := r.Config(t.Context(), layer("none")); !errors.Is(err, ErrNotFound) {
		t.Errorf("a blob that is not there: %v", err)
	}
	if _, err := r.Config(t.Context(), "sha512:00"); err == nil {
		t.Error("read by another hash")
	}
}

// TestIndexesThatGrowAreCut: an index may name itself often, and more below.
func TestIndexesThatGrowAreCut(t *testing.T) {
	s := newStore()
	inner := s.index(slices.Repeat([]policy.Digest{s.manifest(s.config("a", layer("a")))}, 200)...)
	outer := s.addJSON(map[string]any{"manifests": slices.Repeat([]any{described(ociIndex, inner)}, 200)})
	s.image("r/bomb:1", ociIndex, outer)
	s.container("c", "r/bomb:1", chainOf(layer("else")), nil)
	if _, err := s.serve(t).Container(t.Context(), "c"); err == nil || !strings.Contains(err.Error(), "more than 256 manifests") {
		t.Errorf("Container: %v", err)
	}
	if s.reads > 10 {
		t.Errorf("read %d blobs", s.reads)
	}
}

func TestTheCacheForgetsTheLeastRecentlyUsed(t *testing.T) {
	c := newCache[int](2)
	c.put("a", 1)
	c.put("b", 2)
	c.get("a")
	c.put("c", 3)
	for key, want := range map[policy.Digest]bool{"a": true, "b": false, "c": true} {
		if _, ok := c.get(key); ok != want {
			t.Errorf("%s kept: %t", key, ok)
		}
	}
}

func BenchmarkContainer(b *testing.B) {
	s := newStore()
	for i := range 100 {
		s.image(fmt.Sprintf("r/a:%d", i), ociManifest, s.manifest(s.config(fmt.Sprint(i), layer(fmt.Sprint(i)))))
	}
	s.container("c", "r/a:50", chainOf(layer("50")), nil)
	r := s.serve(b)
	for b.Loop() {
		if _, err := r.Container(b.Context(), "c"); err != nil {
			b.Fatal(err)
		}
	}
}
