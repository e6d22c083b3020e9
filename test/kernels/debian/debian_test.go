// SPDX-License-Identifier: Apache-2.0

package debian

import (
	"bytes"
	"context"
	"encoding/binary"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// object is a relocatable file with nothing but a section .modinfo, as modules
// have one: ELF-64, headers of sections first.
func object(modinfo string) []byte {
	names := "\x00.modinfo\x00.shstrtab\x00"
	var b bytes.Buffer
	le := binary.LittleEndian
	head := make([]byte, 64)
	copy(head, "\x7fELF\x02\x01\x01")
	le.PutUint16(head[16:], 1)  // ET_REL
	le.PutUint16(head[18:], 62) // EM_X86_64
	le.PutUint32(head[20:], 1)
	le.PutUint64(head[40:], 64) // section headers
	le.PutUint16(head[52:], 64)
	le.PutUint16(head[58:], 64)
	le.PutUint16(head[60:], 3)
	le.PutUint16(head[62:], 2)
	b.Write(head)
	section := func(name, kind uint32, offset, size int) {
		s := make([]byte, 64)
		le.PutUint32(s, name)
		le.PutUint32(s[4:], kind)
		le.PutUint64(s[24:], uint64(offset))
		le.PutUint64(s[32:], uint64(size))
		b.Write(s)
	}
	section(0, 0, 0, 0)
	section(1, 1, 256, len(modinfo))
	section(10, 3, 256+len(modinfo), len(names))
	b.WriteString(modinfo + names)
	return b.Bytes()
}

// tree is an unpacked kernel package.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, data := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

const base = "lib/modules/6.1.0/"

func TestModulesComeAfterWhatTheyDependOn(t *testing.T) {
	root := tree(t, map[string]string{
		base + "kernel/net/br-filter.ko": string(object("license=GPL\x00depends=bridge\x00")),
		base + "kernel/net/bridge.ko":    string(object("depends=stp,l-lc\x00")),
		base + "kernel/net/stp.ko":       string(object("depends=l-lc\x00")),
		base + "kernel/net/l-lc.ko":      string(object("depends=\x00")),
		base + "kernel/net/alone.ko":     string(object("license=GPL\x00")),
		base + "modules.builtin":         "kernel/net/veth.ko\n",
	})
	made := t.TempDir()
	if err := packModules(t.Context(), root, []string{"br_filter", "veth", "bridge", "alone"}, made); err != nil {
		t.Fatal(err)
	}
	found, err := readModules(made)
	if err != nil {
		t.Fatal(err)
	}
	var order []string
	for _, m := range found {
		order = append(order, m.Name)
		if data, err := os.ReadFile(m.File); err != nil || !bytes.HasPrefix(data, []byte("\x7fELF")) {
			t.Errorf("%s: %q, %v", m.Name, data, err)
		}
	}
	if want := []string{"l_lc", "stp", "bridge", "br_filter", "alone"}; !slices.Equal(order, want) {
		t.Errorf("got %q, want %q", order, want)
	}
}

func TestModuleThatCannotBeLoadedIsAnError(t *testing.T) {
	root := tree(t, map[string]string{
		base + "kernel/broken.ko": "not a module",
		base + "kernel/orphan.ko": string(object("depends=gone\x00")),
	})
	for name, says := range map[string]string{"missing": "no module missing", "broken": "reading the module broken", "orphan": "orphan: the kernel has no module gone"} {
		if err := packModules(t.Context(), root, []string{name}, t.TempDir()); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want %q", name, err, says)
		}
	}
}

// fakeApt stands in for apt-get and apt-cache: it answers as a suite with one
// kernel does, or, without a network, not at all.
func fakeApt(t *testing.T, works bool) {
	t.Helper()
	dir := t.TempDir()
	script := "#!/bin/sh\necho 'no network' >&2; exit 100\n"
	if works {
		script = `#!/bin/sh
case "$*" in
*"depends --important linux-image-cloud-amd64") echo "  Depends: linux-image-6.1.0-50-cloud-amd64" ;;
*"depends --important linux-image-6.1.0-50-cloud-amd64") printf '  Depends: kmod\n  Depends: linux-binary-6.1.0-50-cloud-amd64\n' ;;
*"show --no-all-versions "*) printf 'Package: x\nSHA256: 0123abcd\n' ;;
esac
`
	}
	for _, name := range []string{"apt-get", "apt-cache"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

func TestNewestKernelIsAskedForOnceADayAndRemembered(t *testing.T) {
	s := Source{Cache: t.TempDir(), Log: slog.New(slog.DiscardHandler)}
	a, err := s.newApt("bookworm")
	if err != nil {
		t.Fatal(err)
	}
	ask := func() ([]debPackage, error) { return s.selection(context.Background(), a) }
	fakeApt(t, false)
	if _, err := ask(); err == nil || !strings.Contains(err.Error(), "no network") {
		t.Errorf("without a network and a memory: %v", err)
	}
	fakeApt(t, true)
	want := []debPackage{{"linux-image-6.1.0-50-cloud-amd64", "0123abcd"}, {"linux-binary-6.1.0-50-cloud-amd64", "0123abcd"}}
	if got, err := ask(); err != nil || !slices.Equal(got, want) {
		t.Fatalf("got %v, %v", got, err)
	}
	fakeApt(t, false)
	if got, err := ask(); err != nil || !slices.Equal(got, want) {
		t.Errorf("the same day: %v, %v", got, err)
	}
	old := time.Now().Add(-2 * selectionAge)
	if err := os.Chtimes(filepath.Join(a.dir, "selected"), old, old); err != nil {
		t.Fatal(err)
	}
	if got, err := ask(); err != nil || !slices.Equal(got, want) {
		t.Errorf("later, without a network: %v, %v", got, err)
	}
}

func TestSelectionThatIsNoneIsAnError(t *testing.T) {
	for _, text := range []string{"", "linux-image-6.1\n", "linux-binary-6.1 abc\n", "bash abc\n", "linux-image-../../etc abc\n"} {
		file := filepath.Join(t.TempDir(), "selected")
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if got, err := readSelection(file); err == nil {
			t.Errorf("%q: %v", text, got)
		}
	}
}
