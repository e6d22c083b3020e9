// SPDX-License-Identifier: Apache-2.0

package front

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"github.com/c8s-dev/c8s/nri/facts"
)

// Config is the file /etc/c8s/runtime.json. It belongs to the node's image,
// like runc and containerd: it is measured with them.
type Config struct {
	Runtime    string `json:"runtime"`    // the real one
	Gate       string `json:"gate"`       // socket of the node daemon
	Operators  string `json:"operators"`  // whose manifests count while no daemon runs
	Manifest   string `json:"manifest"`   // the installed one
	StateDir   string `json:"stateDir"`   // where the daemon keeps the one that was in force
	Containerd string `json:"containerd"` // socket

	// Where the kubelet and containerd's CRI plugin keep what they mount into
	// pods; empty: where they do unless somebody moved them.
	Kubelet string   `json:"kubelet,omitempty"`
	CRI     []string `json:"cri,omitempty"`
}

// Limits of what is read, in bytes.
const (
	maxConfig = 64 << 10
	maxSpec   = 4 << 20
	maxState  = 8 << 20
)

func readConfig(path string) (Config, error) {
	cfg, err := loadConfig(path)
	if err != nil {
		return Config{}, fmt.Errorf("reading the settings %s: %w", path, err)
	}
	return cfg, nil
}

func loadConfig(path string) (Config, error) {
	b, err := ReadOwned(path, maxConfig)
	if err != nil {
		return Config{}, err
	}
	var cfg Config
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&cfg); err != nil {
		return Config{}, err
	}
	if d.More() {
		return Config{}, errors.New("something follows the JSON object")
	}
	if cfg.Kubelet == "" {
		cfg.Kubelet = facts.DefaultKubelet
	}
	if len(cfg.CRI) == 0 {
		cfg.CRI = facts.DefaultContainerd()
	}
	paths := map[string]string{
		"runtime": cfg.Runtime, "gate": cfg.Gate, "operators": cfg.Operators, "containerd": cfg.Containerd, "kubelet": cfg.Kubelet,
		"manifest": cfg.Manifest, "stateDir": cfg.StateDir,
	}
	for i, path := range cfg.CRI {
		paths[fmt.Sprintf("cri[%d]", i)] = path
	}
	for name, value := range paths {
		if !filepath.IsAbs(value) {
			return Config{}, fmt.Errorf("%s must be an absolute path, got %.200q", name, value)
		}
	}
	return cfg, nil
}

// ReadOwned reads a file that nobody but this program's own user can
// change, of at most limit bytes.
func ReadOwned(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.Mode().IsRegular() || int(owner.Uid) != os.Geteuid() || info.Mode().Perm()&0o022 != 0 {
		return nil, fmt.Errorf("it must be a file of this user that nobody else may write, and is %s", info.Mode())
	}
	return readLimited(f, limit)
}

func readFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := readLimited(f, limit)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	return b, nil
}

func readLimited(r io.Reader, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("more than %d bytes", limit)
	}
	return b, err
}
