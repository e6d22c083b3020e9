// SPDX-License-Identifier: Apache-2.0

package client

import (
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"sync"
	"testing"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/client/proof"
	"github.com/c8s-dev/c8s/policy/policytest"
)

func sample(edit func(*seen)) seen {
	s := seen{
		Schema: memorySchema, TrustDomain: "c8s.test", Anchor: "operators:x", Operators: []string{"x"}, Manifest: proof.Followed{Version: 5, Digest: policytest.Digest("five")},
		DenyList: proof.Followed{Version: 2, Digest: policytest.Digest("two")}, CDS: policytest.Digest("cds"), MetAt: 5, Checkpoint: "signed", Size: 7,
	}
	if edit != nil {
		edit(&s)
	}
	return s
}

func TestMemoryNeverGoesBack(t *testing.T) {
	for name, tt := range map[string]struct {
		edit func(*seen)
		code string
	}{
		"the same":             {nil, ""},
		"newer":                {func(s *seen) { s.Manifest = proof.Followed{Version: 6, Digest: policytest.Digest("six")} }, ""},
		"a shorter log":        {func(s *seen) { s.Size = 6 }, ""},
		"older manifest":       {func(s *seen) { s.Manifest.Version = 4 }, CodeOlder},
		"another manifest":     {func(s *seen) { s.Manifest.Digest = policytest.Digest("x") }, CodeForked},
		"older deny list":      {func(s *seen) { s.DenyList.Version = 1 }, CodeOlder},
		"no deny list":         {func(s *seen) { s.DenyList = proof.Followed{} }, CodeOlder},
		"another deny list":    {func(s *seen) { s.DenyList.Digest = policytest.Digest("x") }, CodeForked},
		"another CDS":          {func(s *seen) { s.CDS = policytest.Digest("x") }, CodeReplaced},
		"another CDS, told so": {func(s *seen) { s.CDS, s.Manifest.Version, s.MetAt = policytest.Digest("x"), 6, 6 }, ""},
		"another trust anchor": {func(s *seen) { s.Anchor, s.Operators = "operators:y", []string{"y"} }, ""},
		"another, and older":   {func(s *seen) { s.Anchor, s.Manifest.Version = "operators:y", 4 }, CodeOlder},
	} {
		for _, dir := range []string{"", t.TempDir()} {
			m, err := newMemory(dir, "c8s.test")
			if err != nil {
				t.Fatal(err)
			}
			if err := m.advance(sample(nil)); err != nil {
				t.Fatal(err)
			}
			err = m.advance(sample(tt.edit))
			if got := attest.FailureCode(err); got != tt.code || (err == nil) != (tt.code == "") {
				t.Errorf("%s (%q): code %q, want %q: %v", name, dir, got, tt.code, err)
			}
			now, err := m.recall()
			if err != nil || now.Size != 7 && now.CDS == sample(nil).CDS {
				t.Errorf("%s: %+v, %v", name, now, err)
			}
			if before := sample(nil); tt.code != "" && !reflect.DeepEqual(*now, before) {
				t.Errorf("%s: what was refused is kept: %+v", name, now)
			}
		}
	}
}

func TestMemoryIsSharedByProcesses(t *testing.T) {
	dir := t.TempDir()
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			m, err := newMemory(dir, "c8s.test")
			if err == nil {
				err = m.advance(sample(func(s *seen) { s.Size = int64(i) }))
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	m, err := newMemory(dir, "c8s.test")
	if err != nil {
		t.Fatal(err)
	}
	if s, err := m.recall(); err != nil || s.Size != 15 {
		t.Errorf("%+v, %v, want the largest", s, err)
	}
}

func TestDamagedMemoryIsAnError(t *testing.T) {
	good, err := json.Marshal(sample(nil))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, raw := range map[string][]byte{
		"empty": {}, "half": good[:len(good)/2], "twice": append(good, good...), "unknown": append([]byte(`{"x":1,`), good[1:]...), "too large": make([]byte, maxMemory+1), "nothing": []byte("{}"),
	} {
		if err := os.WriteFile(filepath.Join(dir, "c8s.test.json"), raw, 0o600); err != nil {
			t.Fatal(err)
		}
		m, err := newMemory(dir, "c8s.test")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.recall(); err == nil {
			t.Errorf("%s: recalled", name)
		}
		if err := m.advance(sample(nil)); err == nil {
			t.Errorf("%s: overwritten", name)
		}
	}
}

func TestTrustDomainsNameNoOtherFiles(t *testing.T) {
	for _, name := range []string{"../x", "a/b", "/x"} {
		if _, err := newMemory(t.TempDir(), name); err == nil {
			t.Errorf("%q is accepted", name)
		}
	}
}

func FuzzMemory(f *testing.F) {
	good, err := json.Marshal(sample(nil))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		s, err := parseSeen(raw, "c8s.test")
		if err != nil {
			return
		}
		again, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := parseSeen(again, "c8s.test"); err != nil || !reflect.DeepEqual(back, s) {
			t.Errorf("%s becomes %+v, %v", raw, back, err)
		}
	})
}

func FuzzURL(f *testing.F) {
	for _, text := range []string{"https://bank.example", "bank.example:8443/x", "https://[::1]:1", "http://x", "https://bücher.example", "https://a@b:1", "://", "https://x:99999"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		host, port, err := splitURL(text)
		if err != nil {
			return
		}
		again, p, err := splitURL(newOrigin(nil, host, net.JoinHostPort(host, port)).base)
		if err != nil || again != host || p != port {
			t.Errorf("%q is host %q and port %q, and again %q and %q: %v", text, host, port, again, p, err)
		}
	})
}
