// SPDX-License-Identifier: Apache-2.0

package host

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var errFault = errors.New("fault put in by the test")

// faulty fails every change of the disk from the nth on, like a machine that
// was switched off: what was done before stays.
type faulty struct {
	disk
	left int
}

func (f *faulty) step() error {
	if f.left--; f.left < 0 {
		return errFault
	}
	return nil
}

func (f *faulty) write(path string, c *content) error {
	if err := f.step(); err != nil {
		return err
	}
	return f.disk.write(path, c)
}

func (f *faulty) remove(path string) error {
	if err := f.step(); err != nil {
		return err
	}
	return f.disk.remove(path)
}

func (f *faulty) mkdir(dir string) error {
	if err := f.step(); err != nil {
		return err
	}
	return f.disk.mkdir(dir)
}

func (f *faulty) rmdir(dir string) error {
	if err := f.step(); err != nil {
		return err
	}
	return f.disk.rmdir(dir)
}

const mainConfig = `# the operator's own words
version = 3

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc] # keep this
  runtime_type = 'io.containerd.runc.v2'
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
    BinaryName = '/usr/local/sbin/runc'
    SystemdCgroup = true
`

const bridgeConf = `{
    "cniVersion": "1.0.0",  "name": "pods",
    "plugins": [ {"type":"bridge","mtu":1450}, {"type":"portmap"} ]
}`

// machine makes a node with some files; a name that ends in / is a folder.
func machine(t *testing.T, files map[string]string) *Node {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(root, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	l := DefaultLayout()
	l.Root = root
	n, err := Open(l)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func ordinary() map[string]string {
	return map[string]string{
		"/etc/containerd/config.toml":      mainConfig,
		"/etc/cni/net.d/10-pods.conflist":  bridgeConf,
		"/etc/cni/net.d/20-other.conflist": strings.ReplaceAll(bridgeConf, "pods", "other"),
		"/usr/local/sbin/runc":             "\x7fELF\x00 the real runtime",
		"/opt/cni/bin/bridge":              "\x7fELF\x00 bridge",
	}
}

func files() Files {
	return Files{Runtime: []byte("\x7fELF\x00 runtime"), Alone: []byte("\x7fELF\x00 alone"), CNI: []byte("\x7fELF\x00 cni"), Operators: []byte("{}\n"), Manifest: []byte("{\"m\":1}\n")}
}

// tree is every file and folder of a node, with its mode.
func tree(t *testing.T, n *Node) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(n.Root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(path, n.Root)
		switch {
		case e.IsDir():
			all[name+"/"] = info.Mode().String()
		case info.Mode().IsRegular():
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			all[name] = info.Mode().String() + "\n" + string(data)
		default:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			all[name] = "-> " + target
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func install(t *testing.T, n *Node) {
	t.Helper()
	if _, err := n.Install(files()); err != nil {
		t.Fatal(err)
	}
}

func uninstall(t *testing.T, n *Node) *Report {
	t.Helper()
	if _, err := n.RestoreConfig(); err != nil {
		t.Fatal(err)
	}
	rep, err := n.Uninstall(false)
	if err != nil {
		t.Fatal(err)
	}
	return rep
}

func equal(t *testing.T, what string, got, want map[string]string) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

// put changes a file of the node as somebody else would.
func put(t *testing.T, n *Node, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(n.Root, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, n *Node, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(n.Root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
